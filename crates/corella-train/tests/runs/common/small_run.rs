//! A run of a few updates of a tiny GPT-2, and what it leaves behind.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::exchange::KeptAs;
use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{BatchShape, Dtype, Recompute, SpecialIds, TextModel, TrainModel, Weights};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::data::{Dataset, Order};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Device, Hooks, ModelPlan, Outcome, OutputPlan, Run, RunPlan, Sample, StepReport,
    TrainPlan, train,
};
use serde_json::Value;

use super::rows;

/// Collects losses, and raises the stop flag after some updates.
pub struct Watch<'a> {
    pub losses: Vec<(u64, f64)>,
    pub stop_after: u64,
    pub stop: &'a AtomicBool,
}

impl Hooks for Watch<'_> {
    fn on_step(&mut self, report: &StepReport) {
        self.losses.push((report.update.step, report.update.loss));
        if report.update.step == self.stop_after {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
    fn sample(&mut self, step: u64, model: &mut dyn TextModel, _: &AtomicBool) -> Vec<Sample> {
        model.feed(&[0]);
        vec![Sample { step, prompt: String::new(), text: "x".to_owned(), seed: 0 }]
    }
    fn on_checkpoint(&mut self, _: &Path) {}
}

pub fn run(dir: &Path, resume: bool) -> Run {
    run_in(Dtype::F32, dir, resume)
}

pub fn run_in(dtype: Dtype, dir: &Path, resume: bool) -> Run {
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
            tied: None,
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
        product_parameters: model.params().iter().map(|p| p.shape.iter().product::<usize>()).sum(),
        model: Box::new(model),
        files: Box::new(KeptAs { config, special: SpecialIds::default() }),
        data: Dataset::from_parts(tokenizer, ids.clone(), ids),
        resume,
        device: Device::default(),
        environment: [("test".to_owned(), "yes".to_owned())].into(),
        reference: None,
    }
}

pub fn go(dir: &Path, resume: bool, stop_after: u64) -> (Vec<(u64, f64)>, Outcome) {
    go_in(Dtype::F32, dir, resume, stop_after)
}

pub fn go_in(dtype: Dtype, dir: &Path, resume: bool, stop_after: u64) -> (Vec<(u64, f64)>, Outcome) {
    let stop = AtomicBool::new(false);
    let mut watch = Watch { losses: Vec::new(), stop_after, stop: &stop };
    let outcome = train(&mut run_in(dtype, dir, resume), &mut watch, &stop).expect("trains");
    (watch.losses, outcome)
}

/// Steps, losses and their scores as spikes, of log.jsonl.
pub fn log(dir: &Path) -> Vec<(u64, String)> {
    let numbers = ["loss", "val_loss", "z_loss", "z_norm"];
    let line = |row: &Value| numbers.map(|name| row[name].to_string()).join(" ");
    rows(&dir.join("log.jsonl")).iter().map(|row| (row["step"].as_u64().expect("step"), line(row))).collect()
}

/// state.json of a checkpoint.
pub fn state(dir: &Path, step: u64) -> Value {
    let path = dir.join(format!("checkpoints/step-{step:08}/state.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("a checkpoint")).expect("JSON")
}

/// The heartbeat of a run as a watcher reads it.
pub fn heartbeat(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("heartbeat.json")).expect("a heartbeat")).expect("JSON")
}
