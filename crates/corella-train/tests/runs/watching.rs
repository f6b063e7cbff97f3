//! What a run tells while it goes on: verdicts, heartbeat, log, ratings of its checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::small_run::{Watch, go, heartbeat, run, state};
use crate::common::{folder, rows};
use corella_model::TextModel;
use corella_train::report::{Curve, Shape};
use corella_train::{Device, Hooks, Run, Sample, StepReport, train};
use serde_json::Value;

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
        shape: Shape { family: corella_train::Family::Gpt2, n_layer: 2, n_embd: 16, seq_len: 16 },
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
        [("piqa/acc".to_owned(), 0.5)].into()
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
    run.device.peak_flops = Some(1e12);
    let mut reader = Reader { dir: &dir, seen: Vec::new() };
    train(&mut run, &mut reader, &AtomicBool::new(false)).expect("trains");
    for (call, state) in
        [("on_step", "training"), ("sample", "sampling"), ("evaluate", "evaluating"), ("on_checkpoint", "saving")]
    {
        let states: Vec<&String> = reader.seen.iter().filter(|(c, _)| *c == call).map(|(_, state)| state).collect();
        assert!(states.len() >= 4 && states.iter().all(|found| *found == state), "{call}: {states:?}");
    }
    let board =
        std::fs::read_dir(dir.join("tensorboard")).expect("a folder").next().expect("a file").expect("readable");
    let bytes = String::from_utf8_lossy(&std::fs::read(board.path()).expect("readable")).into_owned();
    for tag in ["train/loss", "val/loss", "val/bits_per_byte", "eval/piqa/acc", "speed/mfu"] {
        assert!(bytes.contains(tag), "TensorBoard gets no {tag}");
    }
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
