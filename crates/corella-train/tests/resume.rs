//! A stopped run goes on as if it had not stopped; a damaged checkpoint is passed over; a second process is refused.

mod common;

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
    CommandPlan, CostPlan, DataPlan, Hooks, ModelPlan, Outcome, OutputPlan, Run, RunPlan, Sample, StepReport,
    TrainError, TrainPlan, train,
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
    fn sample(&mut self, step: u64, model: &mut dyn TextModel) -> Vec<Sample> {
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
