//! What an update does to the weights, against PyTorch (fixtures/gpt2/make_run.py), and that one left out does nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::{folder, rows};
use corella_model::exchange::{Exchange, KeptAs};
use corella_model::formats::safetensors::SafeTensors;
use corella_model::gpt2::Gpt2Config;
use corella_model::llama::{LlamaConfig, LlamaShape, Rope, RopeScaling};
use corella_model::{
    BatchShape, Checkpoint, Dtype, Network, ParamPart, Recompute, SpecialIds, TextModel, TrainModel, Training, Weights,
};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::data::{Dataset, Order};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Device, Hooks, ModelPlan, OutputPlan, Run, RunPlan, Sample, Schedule, StepReport,
    TrainError, TrainPlan, train,
};
use serde::Deserialize;
use serde_json::Value;

/// B and T of all runs here.
const SHAPE: BatchShape = BatchShape { b: 2, t: 13 };
/// Tokens of an update: two micro-batches.
const TOKENS: usize = 2 * SHAPE.b * SHAPE.t;

#[derive(Deserialize)]
struct Golden {
    train: Vec<u32>,
    val: Vec<u32>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<f64>,
    /// Before the first update, and after each.
    val_losses: Vec<f64>,
    /// Before the first update.
    val_of_one_window: f64,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gpt2").join(name)
}

fn golden() -> Golden {
    serde_json::from_str(&std::fs::read_to_string(fixture("run.json")).expect("the fixture")).expect("JSON")
}

/// Notes the checkpoints that are there when an update is done, before it has any other effect on the folder.
#[derive(Default)]
struct Watch {
    checkpoints: PathBuf,
    there: Vec<(u64, Vec<u64>)>,
    troubles: Vec<String>,
}

impl Hooks for Watch {
    fn on_step(&mut self, report: &StepReport) {
        self.there.push((report.update.step, steps_in(&self.checkpoints)));
    }
    fn sample(&mut self, _: u64, _: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        Vec::new()
    }
    fn on_checkpoint(&mut self, _: &Path) {}
    fn on_trouble(&mut self, what: &str) {
        self.troubles.push(what.to_owned());
    }
}

/// Steps of the checkpoints in a folder.
fn steps_in(checkpoints: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

fn run_of<C: Network + Exchange>(weights: &Weights<C>, dir: &Path, tokens: Vec<u32>, val: Vec<u32>) -> Run {
    let config = weights.config.clone();
    let ops = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("available");
    let model = Training::new(ops, weights, SHAPE, Recompute::None, Dtype::F32).expect("fits");
    let plan = RunPlan {
        model: ModelPlan {
            name: "custom".into(),
            n_layer: 1,
            n_head: 1,
            n_embd: 1,
            n_kv_head: None,
            n_ff: None,
            tied: None,
            seq_len: SHAPE.t,
            vocab_size: 97,
        },
        data: DataPlan { path: "tokens".into(), tokenizer: "none".into(), order: Order::File },
        train: TrainPlan {
            steps: 5,
            batch_tokens: TOKENS,
            micro_batch: SHAPE.b,
            lr: 3e-3,
            warmup_steps: Some(2),
            schedule: Schedule::Cosine,
            final_lr_fraction: 0.1,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-3,
            clip: 1.45,
            ..TrainPlan::default()
        },
        output: OutputPlan { checkpoint_every: 0, sample_every: 0, val_every: 0, ..OutputPlan::default() },
        commands: CommandPlan::default(),
        cost: CostPlan::default(),
    };
    // The trainer sees ids alone; the tokenizer is only kept with the run.
    let text = "the bell of the river, the river of the bell. ".repeat(20);
    let tokenizer = Tokenizer::train([&text[..]], 260, TrainOptions::default()).expect("large enough");
    Run {
        plan,
        dir: dir.to_path_buf(),
        product_parameters: model.params().iter().map(|p| p.shape.iter().product::<usize>()).sum(),
        model: Box::new(model),
        files: Box::new(KeptAs { config, special: SpecialIds::default() }),
        data: Dataset::from_parts(tokenizer, tokens, val),
        resume: false,
        device: Device::default(),
        environment: [].into(),
        reference: None,
    }
}

/// The run of make_run.py.
fn gpt2(golden: &Golden, dir: &Path) -> Run {
    let source = Checkpoint::<Gpt2Config>::open(&fixture("model")).expect("the fixture");
    let weights = Weights::read(&source).expect("the fixture");
    run_of(&weights, dir, golden.train.clone(), golden.val.clone())
}

fn near(row: &Value, name: &str, expected: f64, within: f64) {
    let found = row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
    assert!((found - expected).abs() <= within, "{name} {found}, PyTorch has {expected}: {row}");
}

#[test]
fn five_updates_equal_pytorchs() {
    let (dir, g) = (folder("golden"), golden());
    let mut run = gpt2(&g, &dir);
    run.plan.output.val_every = 1;
    // Rounded down to 3 windows: a whole micro-batch and half of one.
    run.plan.output.val_tokens = 4 * SHAPE.t - 1;
    let outcome = train(&mut run, &mut Watch::default(), &AtomicBool::new(false)).expect("trains");
    let log = rows(&dir.join("log.jsonl"));
    assert_eq!(log.len(), 6, "a validation, and five updates: {log:?}");
    for (step, (row, val_loss)) in log.iter().zip(&g.val_losses).enumerate() {
        assert_eq!(row["step"], step);
        near(row, "val_loss", *val_loss, 1e-5);
    }
    for (i, row) in log[1..].iter().enumerate() {
        near(row, "loss", g.losses[i], 1e-5);
        near(row, "norm", g.norms[i], 1e-5);
        near(row, "lr", g.rates[i], 1e-15);
        assert_eq!(row["tokens_seen"], (i + 1) * TOKENS);
    }
    let expected = SafeTensors::open(&fixture("run.safetensors")).expect("the fixture");
    let found = SafeTensors::open(&outcome.checkpoint.join("model.safetensors")).expect("a checkpoint");
    assert_eq!(expected.tensors.len(), 28);
    for (name, tensor) in &expected.tensors {
        let shape: Vec<usize> = tensor.shape.iter().map(|n| *n as usize).collect();
        let ours = if found.tensors.contains_key(name) { &name[..] } else { &name["transformer.".len()..] };
        let (ours, theirs) = (found.read_f32(ours, &shape).expect(name), expected.read_f32(name, &shape).expect(name));
        let gap = ours.iter().zip(&theirs).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(gap < 1e-6, "{name} is off by {gap}");
    }
}

#[test]
fn a_validation_takes_whole_windows_and_one_at_least() {
    // Two windows' tokens are one window: its last target is one token further. Fewer tokens than that are none.
    let cases = [(2 * SHAPE.t, 1000, true), (SHAPE.t + 1, 1000, true), (5 * SHAPE.t, 1, true), (SHAPE.t, 1000, false)];
    for (there, asked, measured) in cases {
        let (dir, mut g) = (folder("validation"), golden());
        g.val.truncate(there);
        let mut run = gpt2(&g, &dir);
        (run.plan.train.steps, run.plan.output.val_every, run.plan.output.val_tokens) = (2, 2, asked);
        let mut watch = Watch::default();
        train(&mut run, &mut watch, &AtomicBool::new(false)).expect("trains");
        let log = rows(&dir.join("log.jsonl"));
        assert_eq!(watch.troubles.is_empty(), measured, "{there} tokens: {:?}", watch.troubles);
        if measured {
            near(&log[0], "val_loss", g.val_of_one_window, 1e-5);
        }
        assert!(log.iter().all(|row| row["val_loss"].is_f64() == (measured && row["step"] != 1)), "{there}: {log:?}");
    }
}

#[test]
fn who_is_asked_to_stop_measures_no_validation_loss() {
    let (dir, g) = (folder("validation-stopped"), golden());
    let mut run = gpt2(&g, &dir);
    run.plan.output.val_every = 1;
    let outcome = train(&mut run, &mut Watch::default(), &AtomicBool::new(true)).expect("stops");
    assert_eq!((outcome.step, outcome.val_loss, outcome.best), (0, None, None));
    assert!(rows(&dir.join("log.jsonl")).is_empty());
}

#[test]
fn an_update_that_is_left_out_changes_no_bit() {
    let (dir, g) = (folder("left-out"), golden());
    let mut run = gpt2(&g, &dir);
    run.plan.train.steps = 12;
    // Whatever lies above the mean of the two before is a spike.
    (run.plan.train.spike_window, run.plan.train.spike_z_loss, run.plan.train.spike_z_norm) = (2, 1e-9, 0.0);
    (run.plan.output.checkpoint_every, run.plan.output.keep) = (1, 20);
    train(&mut run, &mut Watch::default(), &AtomicBool::new(false)).expect("trains");
    let log = rows(&dir.join("log.jsonl"));
    let mut left_out = 0;
    for row in &log[1..] {
        let step = row["step"].as_u64().expect("a step");
        let read = |step: u64, file: &str| {
            std::fs::read(dir.join(format!("checkpoints/step-{step:08}")).join(file)).expect("a checkpoint")
        };
        let skipped = row["skipped"] == "loss spike";
        left_out += usize::from(skipped);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert_eq!(read(step, file) == read(step - 1, file), skipped, "{file}: {row}");
        }
    }
    assert!((1..11).contains(&left_out), "{left_out} of 11");
}

#[test]
fn a_loss_that_is_no_number_changes_no_bit() {
    let (dir, g) = (folder("no-number"), golden());
    let mut run = gpt2(&g, &dir);
    run.plan.train.steps = 20;
    let (mut first, last) = (run.model.read(0, ParamPart::Value), run.model.params().len());
    first[5] = f32::NAN;
    run.model.write(0, ParamPart::Value, &first);
    let bits = |model: &dyn TrainModel| -> Vec<u32> {
        let parts = [ParamPart::Value, ParamPart::M, ParamPart::V];
        let each = (0..last).flat_map(|i| parts.map(|part| model.read(i, part)));
        each.flatten().map(f32::to_bits).collect()
    };
    let before = bits(&*run.model);
    let error = train(&mut run, &mut Watch::default(), &AtomicBool::new(false)).expect_err("no loss is finite");
    assert!(matches!(error, TrainError::Diverged { updates: 8, last: None }), "{error:?}");
    assert!(bits(&*run.model) == before, "eight updates were left out");
    assert!(!dir.join("checkpoints").exists(), "and nothing was kept");
}

/// A token whose embedding is no number, in the inputs of two updates alone: the head has its own weights.
#[test]
fn while_losses_are_no_numbers_nothing_is_kept_and_nothing_removed() {
    let dir = folder("in-between");
    let config = LlamaConfig::new(LlamaShape {
        vocab_size: 97,
        n_layer: 1,
        n_head: 2,
        n_kv_head: 1,
        head_size: 8,
        n_embd: 16,
        n_ff: 24,
        context_len: SHAPE.t,
        norm_eps: 1e-5,
        tied: false,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None },
    });
    let weights = Weights::random(&config.expect("valid"), 3);
    let mut tokens: Vec<u32> = (0..9 * TOKENS as u32).map(|i| i * i % 61).collect();
    (tokens[4 * TOKENS + 7], tokens[5 * TOKENS + 7]) = (96, 96);
    let mut run = run_of(&weights, &dir, tokens, Vec::new());
    let of_embeddings = run.model.params().iter().position(|p| p.name.contains("embed_tokens")).expect("a row");
    let mut embeddings = run.model.read(of_embeddings, ParamPart::Value);
    embeddings[96 * 16] = f32::NAN;
    run.model.write(of_embeddings, ParamPart::Value, &embeddings);
    run.plan.train.steps = 9;
    (run.plan.output.checkpoint_every, run.plan.output.keep) = (2, 1);
    let mut watch = Watch { checkpoints: dir.join("checkpoints"), ..Watch::default() };
    train(&mut run, &mut watch, &AtomicBool::new(false)).expect("trains");
    let log = rows(&dir.join("log.jsonl"));
    let skipped: Vec<u64> =
        log.iter().filter(|row| !row["skipped"].is_null()).map(|row| row["step"].as_u64().expect("a step")).collect();
    assert_eq!(skipped, [5, 6], "{log:?}");
    let there: Vec<&[u64]> = watch.there.iter().map(|(_, steps)| &steps[..]).collect();
    let expected: [&[u64]; 9] = [&[], &[], &[2], &[2], &[2, 4], &[2, 4], &[2, 4], &[4], &[4, 8]];
    assert_eq!(there, expected, "6 is not written, and 2 stays until an update from 4 is good");
    assert_eq!(steps_in(&dir.join("checkpoints")), [9]);
    assert!(watch.troubles.iter().any(|what| what.contains("no checkpoint is written")), "{:?}", watch.troubles);
}
