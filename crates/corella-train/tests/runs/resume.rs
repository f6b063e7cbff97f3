//! A stopped run goes on as if it had not stopped; a damaged checkpoint is passed over; a second process is refused.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::small_run::{Watch, go, go_in, heartbeat, log, run, state};
use crate::common::{folder, rows};
use corella_model::{Dtype, TextModel};
use corella_text::data::{Dataset, Order};
use corella_train::{Hooks, Outcome, Run, Sample, StepReport, TrainError, checkpoint, train};

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    for dtype in Dtype::ALL {
        let (whole, parts) = (folder(&format!("whole-{}", dtype.name())), folder(&format!("parts-{}", dtype.name())));
        let (expected, end) = go_in(dtype, &whole, false, u64::MAX);
        assert!(end.finished && expected[19].1 < expected[0].1 - 0.5, "it learns: {expected:?}");
        let (mut got, stopped) = go_in(dtype, &parts, false, 9);
        assert!(!stopped.finished && stopped.step == 9);
        got.extend(go_in(dtype, &parts, true, u64::MAX).0);
        assert_eq!(got, expected);
        assert_eq!(log(&parts), log(&whole), "every step once, with the same numbers");
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read =
                |dir: &Path| std::fs::read(dir.join("checkpoints/step-00000020").join(file)).expect("checkpoint");
            assert!(read(&parts) == read(&whole), "{file}");
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_leftovers_are_removed() {
    let dir = folder("damaged");
    go(&dir, false, 15);
    let newest = dir.join("checkpoints/step-00000015/model.safetensors");
    let mut bytes = std::fs::read(&newest).expect("checkpoint");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&newest, bytes).expect("written");
    std::fs::create_dir(dir.join("checkpoints/partial-00000016")).expect("made");
    let (losses, outcome) = go(&dir, true, u64::MAX);
    assert_eq!(losses[0].0, 13, "goes on from step 12");
    assert!(outcome.finished && !dir.join("checkpoints/partial-00000016").exists());
}

#[test]
fn a_finished_folder_is_not_overwritten_and_a_used_one_is_locked() {
    let dir = folder("used");
    go(&dir, false, 2);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: 0, stop: &stop };
    let again = train(&mut run(&dir, false), &mut watch, &stop);
    assert!(matches!(again, Err(TrainError::NotEmpty { .. })), "{again:?}");
    let held = std::fs::File::create(dir.join("lock")).expect("made");
    held.lock().expect("locked");
    let second = train(&mut run(&dir, true), &mut watch, &stop);
    assert!(matches!(second, Err(TrainError::Locked { .. })), "{second:?}");
}

#[test]
fn a_finished_run_that_is_resumed_keeps_its_loss_in_the_heartbeat() {
    let dir = folder("again");
    let (losses, _) = go(&dir, false, u64::MAX);
    let (none, outcome) = go(&dir, true, u64::MAX);
    assert!(none.is_empty() && outcome.finished);
    let beat = heartbeat(&dir);
    assert_eq!((beat["loss"].as_f64(), beat["eta_seconds"].as_f64()), (Some(losses[19].1), Some(0.0)), "{beat}");
}

/// Is told to stop while it writes the sample of the first update that has one.
struct Interrupted<'a>(&'a AtomicBool);

impl Hooks for Interrupted<'_> {
    fn on_step(&mut self, _: &StepReport) {}
    fn sample(&mut self, step: u64, _: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        self.0.store(step > 0, Ordering::SeqCst);
        Vec::new()
    }
    fn on_checkpoint(&mut self, _: &Path) {}
}

#[test]
fn a_sample_that_a_stop_cut_short_is_written_when_the_run_goes_on() {
    let dir = folder("sampled");
    let stop = AtomicBool::new(false);
    let outcome = train(&mut run(&dir, false), &mut Interrupted(&stop), &stop).expect("trains");
    assert_eq!((outcome.step, outcome.finished), (5, false));
    go(&dir, true, u64::MAX);
    let text = std::fs::read_to_string(dir.join("samples.jsonl")).expect("samples");
    let rows = text.lines().map(|line| serde_json::from_str::<Sample>(line).expect("a sample").step);
    assert_eq!(rows.collect::<Vec<_>>(), [5, 10, 15, 20]);
}

#[test]
fn time_and_events_go_on_where_they_stopped() {
    let dir = folder("time");
    go(&dir, false, 9);
    // As if the first session had taken a million seconds.
    let mut before = state(&dir, 9);
    assert!(before["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{before}");
    before["seconds"] = 1e6.into();
    std::fs::write(dir.join("checkpoints/step-00000009/state.json"), before.to_string()).expect("written");
    let (_, outcome) = go(&dir, true, u64::MAX);
    assert!(outcome.seconds > 1e6, "{outcome:?}");
    assert!(state(&dir, 20)["seconds"].as_f64().is_some_and(|seconds| seconds > 1e6));
    let log = rows(&dir.join("log.jsonl"));
    let later = log.iter().filter(|row| row["step"].as_u64() > Some(9));
    assert_eq!(later.filter(|row| row["elapsed"].as_f64() > Some(1e6)).count(), 11, "every update since: {log:?}");
    let events = rows(&dir.join("events.jsonl"));
    let at = |event: &str| events.iter().filter(|row| row["event"] == event).map(|row| row["step"].as_u64()).collect();
    let found: [Vec<Option<u64>>; 4] = ["started", "stopped", "resumed", "finished"].map(at);
    assert_eq!(found, [0, 9, 9, 20].map(|step| vec![Some(step)]), "{events:?}");
}

/// What somebody puts into a checkpoint takes nothing from it, and stays theirs.
#[test]
fn other_files_in_a_checkpoint_do_not_damage_it() {
    let dir = folder("notes");
    go(&dir, false, 15);
    let newest = dir.join("checkpoints/step-00000015");
    std::fs::create_dir(newest.join("notes")).expect("made");
    std::fs::write(newest.join("notes/why.txt"), "the good one").expect("written");
    let (losses, outcome) = go(&dir, true, 16);
    assert_eq!((losses[0].0, outcome.step), (16, 16), "goes on from step 15");
    assert_eq!(std::fs::read_to_string(newest.join("notes/why.txt")).expect("there"), "the good one");
}

#[test]
fn a_damaged_checkpoint_with_other_files_makes_way_and_is_kept() {
    let dir = folder("kept");
    go(&dir, false, 18);
    let (newest, checkpoints) = (dir.join("checkpoints/step-00000018"), dir.join("checkpoints"));
    std::fs::create_dir(newest.join("notes")).expect("made");
    std::fs::remove_file(newest.join("model.safetensors")).expect("removed");
    let (losses, outcome) = go(&dir, true, 18);
    assert_eq!((losses[0].0, outcome.checkpoint), (13, newest.clone()), "goes on from step 12");
    assert!(newest.join("model.safetensors").is_file() && !newest.join("notes").exists());
    assert!(checkpoints.join("kept-step-00000018/notes").is_dir());
    // Without them a damaged one is only replaced.
    std::fs::remove_file(newest.join("model.safetensors")).expect("removed");
    go(&dir, true, 18);
    let names = std::fs::read_dir(&checkpoints).expect("listed").map(|entry| entry.expect("listed").file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("kept")).count(), 1);
}

#[test]
fn a_state_that_names_files_elsewhere_is_damaged() {
    let dir = folder("elsewhere");
    go(&dir, false, 15);
    let mut written = state(&dir, 15);
    written["files"]["../../run.toml"] = 7.into();
    std::fs::write(dir.join("checkpoints/step-00000015/state.json"), written.to_string()).expect("written");
    assert_eq!(go(&dir, true, u64::MAX).0[0].0, 13, "goes on from step 12");
}

#[test]
fn a_checkpoint_that_lacks_a_file_is_passed_over() {
    for file in ["optimizer.safetensors", "model.safetensors", "config.json"] {
        let dir = folder("missing");
        go(&dir, false, 15);
        std::fs::remove_file(dir.join("checkpoints/step-00000015").join(file)).expect("removed");
        assert_eq!(go(&dir, true, 14).0[0].0, 13, "goes on from step 12 without {file}");
    }
}

#[test]
fn a_changed_batch_counts_the_tokens_that_were_read() {
    let dir = folder("batch");
    go(&dir, false, 9);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
    let mut run = run(&dir, true);
    run.plan.train.batch_tokens = 128;
    let outcome = train(&mut run, &mut watch, &stop).expect("trains");
    assert_eq!(outcome.tokens, 9 * 64 + 11 * 128);
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("log");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("an update")).expect("JSON");
    assert_eq!((last["step"].as_u64(), last["tokens_seen"].as_u64()), (Some(20), Some(outcome.tokens)));
}

#[test]
fn a_state_with_numbers_that_cannot_be_is_damaged() {
    let dir = folder("impossible");
    go(&dir, false, 8);
    let checkpoints = dir.join("checkpoints");
    let newest = || checkpoint::latest(&checkpoints).expect("one is whole").expect("there").state.step;
    assert_eq!(newest(), 8);
    let path = checkpoints.join("step-00000008/state.json");
    let text = std::fs::read_to_string(&path).expect("read");
    let state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let changes: [(&[&str], u64); 4] =
        [(&["step"], 1 << 40), (&["step"], 7), (&["loader", "next"], 7), (&["loader", "next"], u64::MAX)];
    for (keys, value) in changes {
        let mut changed = state.clone();
        *keys.iter().fold(&mut changed, |at, key| &mut at[*key]) = value.into();
        std::fs::write(&path, changed.to_string()).expect("written");
        assert_eq!(newest(), 6, "{keys:?} is {value}");
    }
}

#[test]
fn what_lies_beside_the_checkpoints_is_neither_gone_on_from_nor_removed() {
    let dir = folder("beside");
    go(&dir, false, 13);
    let checkpoints = dir.join("checkpoints");
    let whole = checkpoint::latest(&checkpoints).expect("read").expect("a checkpoint");
    assert_eq!(whole.state.step, 13);
    // A copy by another name, notes, and a file: all sort behind the newest.
    let copy = checkpoints.join("step-first");
    std::fs::create_dir(&copy).expect("made");
    for entry in std::fs::read_dir(checkpoints.join("step-00000012")).expect("listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
    }
    let notes = checkpoints.join("step-00000001-notes");
    std::fs::create_dir(&notes).expect("made");
    std::fs::write(checkpoints.join("step-00000002.tar"), "x").expect("written");
    let (losses, outcome) = go(&dir, true, u64::MAX);
    assert_eq!(losses[0].0, 14, "goes on from step 13, not from the copy of 12");
    assert!(outcome.checkpoint.ends_with("step-00000020"));
    assert!(copy.join("state.json").is_file() && notes.is_dir() && checkpoints.join("step-00000002.tar").is_file());
}

#[test]
fn a_folder_of_other_files_is_no_run_folder() {
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: 0, stop: &stop };
    for name in ["samples.jsonl", "tokenizer.json", "config.json", "run.toml"] {
        let dir = folder("others");
        std::fs::create_dir_all(&*dir).expect("made");
        std::fs::write(dir.join(name), "mine\n").expect("written");
        let refused = train(&mut run(&dir, false), &mut watch, &stop);
        assert!(matches!(&refused, Err(TrainError::OtherFiles { name: found, .. }) if found == name), "{refused:?}");
        assert_eq!(std::fs::read_to_string(dir.join(name)).expect("read"), "mine\n");
        std::fs::remove_dir_all(&*dir).expect("removed");
    }
    // Files of other names may lie there, and what a run left that was killed as it began.
    let dir = folder("others");
    std::fs::create_dir_all(dir.join("checkpoints")).expect("made");
    std::fs::write(dir.join("notes.md"), "mine").expect("written");
    std::fs::write(dir.join("log.jsonl"), "").expect("written");
    assert!(train(&mut run(&dir, false), &mut watch, &stop).is_ok());
}

#[test]
fn a_run_does_not_go_on_to_fewer_steps_than_it_has_made() {
    let dir = folder("fewer");
    go(&dir, false, 9);
    let before = std::fs::read_to_string(dir.join("run.toml")).expect("written");
    let mut fewer = run(&dir, true);
    fewer.plan.train.steps = 7;
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: 0, stop: &stop };
    let refused = train(&mut fewer, &mut watch, &stop);
    assert!(matches!(&refused, Err(TrainError::Plan { field: "steps", .. })), "{refused:?}");
    assert_eq!(std::fs::read_to_string(dir.join("run.toml")).expect("kept"), before);
}

/// Collects what is told.
struct Told<'a> {
    stop: &'a AtomicBool,
    stop_after: u64,
    said: Vec<String>,
}

impl Hooks for Told<'_> {
    fn on_step(&mut self, report: &StepReport) {
        if report.update.step == self.stop_after {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
    fn sample(&mut self, _: u64, _: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        Vec::new()
    }
    fn on_checkpoint(&mut self, _: &Path) {}
    fn on_trouble(&mut self, what: &str) {
        self.said.push(what.to_owned());
    }
}

/// Trains until `stop_after`: how it ended, and what was told.
fn told(mut run: Run, stop_after: u64) -> (Result<Outcome, TrainError>, String) {
    let stop = AtomicBool::new(false);
    let mut hooks = Told { stop: &stop, stop_after, said: Vec::new() };
    let outcome = train(&mut run, &mut hooks, &stop);
    (outcome, hooks.said.join("\n"))
}

#[test]
fn time_that_a_kill_took_back_is_paid_all_the_same() {
    let dir = folder("paid");
    go(&dir, false, 9);
    // As if the heart had gone on beating for a million seconds after the last checkpoint.
    let mut beat = heartbeat(&dir);
    beat["elapsed_seconds"] = 1e6.into();
    std::fs::write(dir.join("heartbeat.json"), beat.to_string()).expect("written");
    let (_, outcome) = go(&dir, true, 12);
    assert!(outcome.seconds > 1e6 && heartbeat(&dir)["elapsed_seconds"].as_f64() > Some(1e6), "{outcome:?}");
    // A heartbeat that cannot be read takes nothing from what the checkpoint says.
    std::fs::write(dir.join("heartbeat.json"), "{").expect("written");
    assert!(go(&dir, true, u64::MAX).1.seconds > 1e6);
}

#[test]
fn a_resume_without_a_checkpoint_says_so_and_keeps_the_lines_that_there_are() {
    let dir = folder("no-checkpoint");
    go(&dir, false, 4);
    let log = std::fs::read_to_string(dir.join("log.jsonl")).expect("a log");
    // As if it had been killed before the first checkpoint.
    let begin_again = || std::fs::remove_dir_all(dir.join("checkpoints")).expect("removed");
    begin_again();
    let (outcome, said) = told(run(&dir, true), 2);
    assert_eq!(outcome.expect("trains").step, 2);
    assert!(said.contains("no checkpoint in") && said.contains("beginning at update 1"), "{said}");
    assert!(said.contains("log.jsonl of the session before is kept as log-1.jsonl"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("log-1.jsonl")).expect("kept"), log);
    assert_eq!(rows(&dir.join("log.jsonl")).last().map(|row| row["step"].as_u64()), Some(Some(2)));
    begin_again();
    let (_, said) = told(run(&dir, false), 1);
    assert!(!said.contains("no checkpoint") && said.contains("log-2.jsonl"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("log-1.jsonl")).expect("kept"), log);
    // Where nothing was written, nothing is kept.
    let (_, said) = told(run(&folder("empty"), false), 1);
    assert!(said.is_empty(), "{said}");
}

#[test]
fn ratings_on_other_tokens_are_not_compared() {
    for changed in [false, true] {
        let dir = folder("rated");
        go(&dir, false, 6);
        // A rating that no checkpoint reaches.
        let mut rated = state(&dir, 6);
        assert!(rated["validation"]["tokens"] == 96 && rated["val_loss"].is_f64(), "{rated}");
        rated["val_loss"] = 0.001.into();
        let path = dir.join("checkpoints/step-00000006/state.json");
        std::fs::write(&path, rated.to_string()).expect("written");
        let mut on = run(&dir, true);
        on.plan.output.val_tokens = if changed { 200 } else { 111 };
        let (outcome, said) = told(on, u64::MAX);
        let (best, loss) = outcome.expect("trains").best.expect("a rated one");
        assert_eq!(said.contains("goes on on other tokens"), changed, "{said}");
        assert_eq!(loss == 0.001, !changed, "{}", best.display());
        assert_eq!(path.exists(), !changed, "the best is kept");
    }
}

#[test]
fn a_state_of_an_earlier_version_says_nothing_of_its_validation() {
    let dir = folder("unsaid");
    go(&dir, false, 6);
    let path = dir.join("checkpoints/step-00000006/state.json");
    let mut old = state(&dir, 6);
    old.as_object_mut().expect("an object").remove("validation");
    std::fs::write(path, old.to_string()).expect("written");
    let (outcome, said) = told(run(&dir, true), u64::MAX);
    assert!(outcome.is_ok_and(|outcome| outcome.finished) && said.is_empty(), "{said}");
}

#[test]
fn in_llm_cs_order_a_run_goes_on_in_its_own_micro_batch() {
    let dir = folder("llm-c");
    let with = |micro_batch, resume| {
        let mut run = run(&dir, resume);
        (run.plan.data.order, run.plan.train.micro_batch) = (Order::LlmC, micro_batch);
        run
    };
    told(with(2, false), 6).0.expect("trains");
    let refused = told(with(4, true), 9).0;
    assert!(matches!(refused, Err(TrainError::OtherBatch { was: 2, is: 4 })), "{refused:?}");
    // A state of an earlier version has it in its plan alone.
    let mut old = state(&dir, 6);
    old["loader"].as_object_mut().expect("an object").remove("batch").expect("there");
    std::fs::write(dir.join("checkpoints/step-00000006/state.json"), old.to_string()).expect("written");
    assert!(matches!(told(with(1, true), 9).0, Err(TrainError::OtherBatch { was: 2, is: 1 })));
    assert_eq!(told(with(2, true), 9).0.expect("trains").step, 9);
}

#[test]
fn a_run_without_validation_says_so() {
    let dir = folder("unvalidated");
    let with = |tokens: &[u32], val_every| {
        let mut run = run(&dir, false);
        let (tokenizer, train) = (run.data.tokenizer.clone(), run.data.train.to_vec().expect("in memory"));
        run.data = Dataset::from_parts(tokenizer, train, tokens.to_vec());
        run.plan.output.val_every = val_every;
        let said = told(run, 1).1;
        std::fs::remove_dir_all(&*dir).expect("removed");
        said
    };
    let said = with(&[1; 16], 5);
    assert!(said.contains("16 tokens for validation") && said.contains("T = 16 takes 17"), "{said}");
    assert_eq!((with(&[1; 17], 5), with(&[], 0)), (String::new(), String::new()));
}
