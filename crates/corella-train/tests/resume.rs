//! A stopped run goes on as if it had not stopped; a damaged checkpoint is passed over; a second process is refused.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{folder, rows};
use corella_model::exchange::KeptAs;
use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{BatchShape, Dtype, Recompute, SpecialIds, TextModel, Weights};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::data::{Dataset, Order};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use corella_train::report::{Curve, Family, Shape};
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Device, Hooks, ModelPlan, Outcome, OutputPlan, Run, RunPlan, Sample, StepReport,
    TrainError, TrainPlan, checkpoint, train,
};
use serde_json::Value;

/// Collects losses, and raises the stop flag after some updates.
struct Watch<'a> {
    losses: Vec<(u64, f64)>,
    stop_after: u64,
    stop: &'a AtomicBool,
}

impl Hooks for Watch<'_> {
    fn on_step(&mut self, report: &StepReport) {
        self.losses.push((report.step, report.loss));
        if report.step == self.stop_after {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
    fn sample(&mut self, step: u64, model: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        model.feed(&[0]);
        vec![Sample { step, prompt: String::new(), text: "x".to_owned(), seed: 0 }]
    }
    fn on_checkpoint(&mut self, _: &Path) {}
}

fn run(dir: &Path, resume: bool) -> Run {
    run_in(Dtype::F32, dir, resume)
}

fn run_in(dtype: Dtype, dir: &Path, resume: bool) -> Run {
    let config = Gpt2Config::new(300, 2, 2, 16, 16).expect("valid");
    let text = "The river Orn flows through Brael, and Brael is known for its glass bells. ".repeat(60);
    let tokenizer = Tokenizer::train([&text[..]], 300, TrainOptions::default()).expect("large enough");
    let ids = tokenizer.encode(&text);
    let batch = BatchShape { b: 2, t: 16 };
    let ops = Cpu::new(CpuOptions { threads: Some(2), ..CpuOptions::default() }).expect("available");
    let model = Gpt2Train::new(ops, &Weights::random(&config, 1), batch, Recompute::None, dtype).expect("fits");
    let plan = RunPlan {
        model: ModelPlan {
            name: "gpt2-custom".into(),
            n_layer: 2,
            n_head: 2,
            n_embd: 16,
            n_kv_head: None,
            n_ff: None,
            seq_len: 16,
            vocab_size: 300,
        },
        data: DataPlan { path: "text".into(), tokenizer: "own".into(), order: Order::default() },
        train: TrainPlan {
            steps: 20,
            batch_tokens: 64,
            micro_batch: 2,
            lr: 1e-2,
            warmup_steps: Some(4),
            dtype,
            ..TrainPlan::default()
        },
        output: OutputPlan {
            checkpoint_every: 6,
            sample_every: 5,
            val_every: 5,
            val_tokens: 100,
            ..OutputPlan::default()
        },
        commands: CommandPlan::default(),
        cost: CostPlan::default(),
    };
    Run {
        plan,
        dir: dir.to_path_buf(),
        model: Box::new(model),
        files: Box::new(KeptAs { config, special: SpecialIds::default() }),
        data: Dataset::from_parts(tokenizer, ids.clone(), ids),
        resume,
        device: Device::default(),
        environment: [("test".to_owned(), "yes".to_owned())].into(),
        reference: None,
    }
}

fn go(dir: &Path, resume: bool, stop_after: u64) -> (Vec<(u64, f64)>, Outcome) {
    go_in(Dtype::F32, dir, resume, stop_after)
}

fn go_in(dtype: Dtype, dir: &Path, resume: bool, stop_after: u64) -> (Vec<(u64, f64)>, Outcome) {
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after, stop: &stop };
    let outcome = train(&mut run_in(dtype, dir, resume), &mut watch, &stop).expect("trains");
    (watch.losses, outcome)
}

/// Steps, losses and their scores as spikes, of log.jsonl.
fn log(dir: &Path) -> Vec<(u64, String)> {
    let numbers = ["loss", "val_loss", "z_loss", "z_norm"];
    let line = |row: &Value| numbers.map(|name| row[name].to_string()).join(" ");
    rows(&dir.join("log.jsonl")).iter().map(|row| (row["step"].as_u64().expect("step"), line(row))).collect()
}

/// state.json of a checkpoint.
fn state(dir: &Path, step: u64) -> Value {
    let path = dir.join(format!("checkpoints/step-{step:08}/state.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a checkpoint")).expect("JSON")
}

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

/// Validation losses of log.jsonl, with the verdict where there is one.
fn verdicts(dir: &Path) -> Vec<(u64, f64, Option<String>)> {
    let of = |row: &Value| {
        let verdict = row["standing"]["verdict"].as_str().map(str::to_owned);
        Some((row["step"].as_u64().expect("step"), row["val_loss"].as_f64()?, verdict))
    };
    rows(&dir.join("log.jsonl")).iter().filter_map(of).collect()
}

#[test]
fn validation_losses_are_judged_while_a_run_goes_on_and_at_its_end() {
    let (plain, judged) = (folder("plain"), folder("judged"));
    go(&plain, false, u64::MAX);
    let losses = verdicts(&plain);
    assert!(losses.iter().all(|(_, _, verdict)| verdict.is_none()), "no curve, no verdict");
    let of = |step: u64| losses.iter().find(|(s, _, _)| *s == step).expect("validated").1;
    // The run is on the curve after 10 updates of 64 tokens, and a nat above it at the end.
    let curve = Curve {
        name: "a run that goes better".into(),
        data: Vec::new(),
        vocab_size: 300,
        shape: Shape { family: Family::Gpt2, n_layer: 2, n_embd: 16, seq_len: 16 },
        band: 0.5,
        source: String::new(),
        points: vec![(0.0, 5.7), (640.0, of(10)), (1280.0, of(20) - 1.0)],
    };
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
    let mut run = run(&judged, false);
    run.reference = Some(curve);
    let outcome = train(&mut run, &mut watch, &stop).expect("trains");
    let found = verdicts(&judged);
    let verdict = |step: u64| found.iter().find(|(s, _, _)| *s == step).and_then(|(_, _, v)| v.as_deref());
    assert_eq!((verdict(5), verdict(10), verdict(20)), (None, Some("on track"), Some("behind")), "{found:?}");
    let standing = outcome.standing.expect("a verdict");
    assert!((standing.above - 1.0).abs() < 1e-9 && standing.to_string().starts_with("behind: +1.000"), "{standing}");
    let read = |name: &str| std::fs::read_to_string(judged.join(name)).expect(name);
    assert!(read("heartbeat.json").contains(r#""standing":"behind""#));
    assert_eq!(read("events.jsonl").matches(r#""event":"track""#).count(), 2, "only what changes is an event");
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
fn a_batch_that_does_not_divide_is_refused_with_its_neighbours() {
    let mut plan = run(&folder("plan"), false).plan;
    plan.train.batch_tokens = 70;
    let error = plan.check().expect_err("70 is no multiple of 32").to_string();
    assert!(error.contains("64") && error.contains("96"), "{error}");
    let text = plan.to_toml().expect("written");
    assert_eq!(RunPlan::from_toml(&text).expect("read"), plan);
    assert!(RunPlan::from_toml(&text.replace("clip", "klip")).is_err(), "unknown keys are errors");
}

#[test]
fn a_stretch_of_rubbish_in_the_data_is_left_out_and_training_goes_on() {
    let dir = folder("spike");
    let mut run = run(&dir, false);
    // The same sentence again and again, in the order of the file, with one batch of bytes that never occurred before.
    let usual = run.data.tokenizer.encode("Brael is known for its glass bells. ");
    let mut tokens: Vec<u32> = usual.iter().copied().cycle().take(64 * 120).collect();
    let rubbish: Vec<u32> = (0..63).map(|i| 200 + i % 50).collect();
    // One further than the batch begins: its first token is the last target of the batch before.
    let (at, before) = (64 * 100 + 1, tokens.len());
    tokens.splice(at..at + 63, rubbish);
    assert_eq!(tokens.len(), before);
    run.data = Dataset::from_parts(run.data.tokenizer.clone(), tokens, Vec::new());
    run.plan.data.order = Order::File;
    run.plan.train.steps = 118;
    run.plan.train.spike_window = 32;
    run.plan.output = OutputPlan { checkpoint_every: 0, sample_every: 0, val_every: 0, ..OutputPlan::default() };
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
    train(&mut run, &mut watch, &stop).expect("trains");
    let mut skipped = rows(&dir.join("log.jsonl"));
    skipped.retain(|row| !row["skipped"].is_null());
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let row = &skipped[0];
    assert_eq!((row["step"].as_u64(), row["skipped"].as_str()), (Some(101), Some("loss spike")), "{row}");
    let (before, after) = (watch.losses[99].1, watch.losses[101].1);
    assert!(after < before + 0.1, "the rubbish left no trace: {before} before, {after} after");
}

/// The heartbeat of a run as a watcher reads it.
fn heartbeat(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("heartbeat.json")).expect("a heartbeat")).expect("JSON")
}

/// Notes what the heartbeat says whenever the run calls.
struct Reader<'a> {
    dir: &'a Path,
    seen: Vec<(&'static str, String)>,
}

impl Reader<'_> {
    fn note(&mut self, call: &'static str) {
        self.seen.push((call, heartbeat(self.dir)["state"].as_str().expect("a state").to_owned()));
    }
}

impl Hooks for Reader<'_> {
    fn on_step(&mut self, _: &StepReport) {
        self.note("on_step");
    }
    fn sample(&mut self, _: u64, _: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        self.note("sample");
        Vec::new()
    }
    fn evaluate(&mut self, _: u64, _: &mut dyn TextModel, _: &AtomicBool) -> BTreeMap<String, f64> {
        self.note("evaluate");
        BTreeMap::new()
    }
    fn on_checkpoint(&mut self, _: &Path) {
        self.note("on_checkpoint");
    }
}

#[test]
fn the_heartbeat_says_what_the_run_is_doing_from_its_beginning_on() {
    let dir = folder("states");
    let mut run = run(&dir, false);
    run.plan.output.eval_every = 4;
    let mut reader = Reader { dir: &dir, seen: Vec::new() };
    train(&mut run, &mut reader, &AtomicBool::new(false)).expect("trains");
    for (call, state) in
        [("on_step", "training"), ("sample", "sampling"), ("evaluate", "evaluating"), ("on_checkpoint", "saving")]
    {
        let states: Vec<&String> = reader.seen.iter().filter(|(c, _)| *c == call).map(|(_, state)| state).collect();
        assert!(states.len() >= 4 && states.iter().all(|found| *found == state), "{call}: {states:?}");
    }
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
fn log_and_heartbeat_have_utilisation_share_of_the_data_and_what_was_used() {
    let dir = folder("used-up");
    let mut run = run(&dir, false);
    run.device = Device { cards: 2, peak_flops: Some(1e12), watts: Some(500.0) };
    let tokens = run.data.train.len() as f64;
    let parameters = 300 * 16 + 16 * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16;
    let operations = f64::from(6 * parameters + 6 * 2 * 16 * 16);
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after: 10, stop: &stop };
    let outcome = train(&mut run, &mut watch, &stop).expect("trains");
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("log");
    let row: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    let close = |found: &serde_json::Value, expected: f64| {
        let found = found.as_f64().unwrap_or_else(|| panic!("a number instead of {found}"));
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} instead of {expected}");
    };
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    close(&row["mfu"], operations * number(&row["tokens_per_second"]) / 1e12);
    close(&row["epochs"], 640.0 / tokens);
    assert!(number(&row["eta"]) > 0.0, "{row}");
    let beat = heartbeat(&dir);
    let hours = number(&beat["elapsed_seconds"]) / 3600.0;
    close(&beat["gpu_hours"], 2.0 * hours);
    close(&beat["energy_kwh"], 0.5 * hours);
    close(&beat["epochs"], 640.0 / tokens);
    assert_eq!((beat["tokens_seen"].as_u64(), &beat["mfu"]), (Some(640), &row["mfu"]), "{beat}");
    let spread = &beat["update_ms"];
    assert!(
        number(&spread["low"]) <= number(&spread["median"]) && number(&spread["median"]) <= number(&spread["high"])
    );
    assert!(beat["dollars"].is_null(), "the plan has no price");
    assert!((outcome.usage.gpu_hours.expect("cards") - 2.0 * outcome.seconds / 3600.0).abs() < 1e-12);
    let page = std::fs::read_to_string(dir.join("report.html")).expect("a page");
    for part in
        ["GPU-hours", "energy, at most", "of the device", "time of an update", "nine in ten take", "of the data"]
    {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn the_windows_of_spikes_go_on_where_they_stopped() {
    let (whole, parts) = (folder("spikes-whole"), folder("spikes-parts"));
    let go = |dir: &Path, resume: bool, stop_after: u64| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { losses: Vec::new(), stop_after, stop: &stop };
        let mut run = run(dir, resume);
        run.plan.train.spike_window = 4;
        train(&mut run, &mut watch, &stop).expect("trains");
    };
    go(&whole, false, u64::MAX);
    go(&parts, false, 9);
    go(&parts, true, u64::MAX);
    let expected = log(&whole);
    // The validation before the first update is a line too; the window is full behind the fourth.
    let scored = rows(&whole.join("log.jsonl")).iter().filter(|row| row["z_loss"].is_f64()).count();
    assert_eq!((expected.len(), scored), (21, 16), "{expected:?}");
    assert_eq!(log(&parts), expected);
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
fn a_checkpoint_is_rated_by_the_validation_loss_of_its_own_weights() {
    let dir = folder("rated");
    go(&dir, false, 9);
    let Run { mut model, files, data, .. } = run(&dir, true);
    let val = data.val.to_vec().expect("in memory");
    // 100 tokens are 6 windows of 16.
    let mut loss_of = |step: u64| {
        files.load(&mut *model, &dir.join(format!("checkpoints/step-{step:08}"))).expect("a checkpoint");
        let windows = (0..6).map(|w| model.loss_sum(&val[w * 16..][..16], &val[w * 16 + 1..][..16]));
        windows.sum::<f64>() / 96.0
    };
    let (at_6, at_9) = (loss_of(6), loss_of(9));
    let rated = state(&dir, 6)["val_loss"].as_f64().expect("rated");
    assert!((rated - at_6).abs() < 1e-5 && (rated - at_9).abs() > 1e-2, "{rated}, should be {at_6}, not {at_9}");
    assert!(state(&dir, 9)["val_loss"].is_null(), "no validation is due after 9 updates, and older weights' is not it");
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
fn a_run_does_not_go_on_with_other_tokens_or_another_vocabulary_of_the_same_size() {
    let dir = folder("other-data");
    go(&dir, false, 4);
    let resume = |tokenizer: Tokenizer, tokens: Vec<u32>| {
        let stop = AtomicBool::new(false);
        let mut watch = Watch { losses: Vec::new(), stop_after: u64::MAX, stop: &stop };
        let mut run = run(&dir, true);
        run.data = Dataset::from_parts(tokenizer, tokens, Vec::new());
        run.plan.output.val_every = 0;
        train(&mut run, &mut watch, &stop).map(|outcome| outcome.step).map_err(|e| e.to_string())
    };
    let data = run(&dir, true).data;
    let tokens = data.train.to_vec().expect("readable");
    let mut others = tokens.clone();
    others.swap(3, 4);
    let kept = std::fs::read(dir.join("tokenizer.json")).expect("written");
    let expected = "the saved position belongs to other data: there are as many tokens, but not the same";
    assert_eq!(resume(data.tokenizer.clone(), others), Err(expected.to_owned()));
    // The same ids, and two pieces that changed places.
    let mut file: serde_json::Value = serde_json::from_str(&data.tokenizer.to_json()).expect("JSON");
    let id = |file: &serde_json::Value, piece: &str| file["model"]["vocab"][piece].clone();
    let (x, y) = (id(&file, "X"), id(&file, "Y"));
    (file["model"]["vocab"]["X"], file["model"]["vocab"]["Y"]) = (y, x);
    let other = Tokenizer::from_bytes(file.to_string().as_bytes()).expect("read");
    assert_eq!(other.vocab_size(), data.tokenizer.vocab_size());
    let refused = resume(other, tokens.clone()).expect_err("another vocabulary");
    assert!(refused.contains("tokenizer is not the one that the run began with"), "{refused}");
    assert!(std::fs::read(dir.join("tokenizer.json")).expect("there") == kept, "nothing was overwritten");

    // A state of before there were such marks.
    let state = dir.join("checkpoints/step-00000004/state.json");
    let text = std::fs::read_to_string(&state).expect("read");
    let mut older: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(older.as_object_mut().expect("an object").remove("data").is_some());
    std::fs::write(&state, older.to_string()).expect("written");
    assert_eq!(resume(data.tokenizer, tokens), Ok(20));
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
fn a_run_file_says_what_a_micro_batch_can_be() {
    let text = run(&folder("micro"), false).plan.to_toml().expect("written");
    let with = |value: &str| {
        let plan = RunPlan::from_toml(&text.replace("micro_batch = 2", &format!("micro_batch = {value}")));
        plan.map(|plan| plan.train.micro_batch).map_err(|e| e.to_string())
    };
    assert_eq!((with("3"), with("\"auto\""), with("\"4\"")), (Ok(3), Ok(0), Ok(4)));
    for wrong in ["-4", "1.5", "\"many\"", "true"] {
        let error = with(wrong).expect_err("no number");
        assert!(error.contains("expected a number above 0, or \"auto\""), "{error}");
    }
}
