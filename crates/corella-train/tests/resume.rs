//! A stopped run goes on as if it had not stopped; a damaged checkpoint is passed over; a second process is refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::exchange::KeptAs;
use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{BatchShape, Dtype, Recompute, SpecialIds, TextModel, Weights};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::data::{Dataset, Order};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use corella_train::report::{Curve, Family, Shape};
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Hooks, ModelPlan, Outcome, OutputPlan, Run, RunPlan, Sample, StepReport,
    TrainError, TrainPlan, checkpoint, train,
};

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
    fn sample(&mut self, step: u64, model: &mut dyn TextModel) -> Vec<Sample> {
        model.feed(&[0]);
        vec![Sample { step, prompt: String::new(), text: "x".to_owned(), seed: 0 }]
    }
    fn on_checkpoint(&mut self, _: &Path) {}
}

/// A place for a folder that goes with the test.
struct Folder(PathBuf);

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let dir = std::env::temp_dir().join(format!("corella-{name}-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("removed");
    }
    Folder(dir)
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
            warmup_steps: 4,
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

/// Steps and losses of log.jsonl.
fn log(dir: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("log");
    let rows = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
    rows.map(|row| (row["step"].as_u64().expect("step"), format!("{} {}", row["loss"], row["val_loss"]))).collect()
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
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("log");
    let rows = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
    rows.filter_map(|row| {
        let verdict = row["standing"]["verdict"].as_str().map(str::to_owned);
        Some((row["step"].as_u64().expect("step"), row["val_loss"].as_f64()?, verdict))
    })
    .collect()
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
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("log");
    let skipped: Vec<&str> = text.lines().filter(|line| line.contains("skipped")).collect();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let row: serde_json::Value = serde_json::from_str(skipped[0]).expect("JSON");
    assert_eq!((row["step"].as_u64(), row["skipped"].as_str()), (Some(101), Some("loss spike")), "{row}");
    let (before, after) = (watch.losses[99].1, watch.losses[101].1);
    assert!(after < before + 0.1, "the rubbish left no trace: {before} before, {after} after");
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
