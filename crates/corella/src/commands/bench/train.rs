//! Whole updates of models with random weights.

use std::time::Instant;

use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{AdamW, BatchShape, Dtype, Recompute, TrainModel, Weights};

use super::{Bench, Bound, formats};
use crate::cli::{BenchArgs, Common};
use crate::error::{Failure, Result};
use crate::inputs::backend;

/// A model to measure, with its micro-batch.
pub struct Shape {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its shape.
    pub config: Gpt2Config,
    /// Its micro-batch where no other is asked for.
    pub batch: BatchShape,
}

impl Shape {
    /// Operations of an update per token: those of PaLM's appendix B, 6·N + 6·L·C·T, with the causal half of attention only
    /// and without the position table.
    pub fn operations(&self, t: usize) -> f64 {
        let config = &self.config;
        let products = config.parameter_count() - config.seq_len() * config.n_embd();
        6.0 * products as f64 + 6.0 * (config.n_layer() * config.n_embd() * t) as f64
    }

    /// Inputs of a micro-batch of n tokens and, one further, its targets.
    pub fn ids(&self, n: usize) -> Vec<u32> {
        (0..=n).map(|i| (i * 7919 % self.config.vocab_size()) as u32).collect()
    }
}

/// One update with AdamW on one micro-batch; seconds until the weights are new.
pub fn update(model: &mut dyn TrainModel, ids: &[u32], step: u64) -> f64 {
    let start = Instant::now();
    let n = ids.len() - 1;
    model.zero_grad();
    model.forward_backward(&ids[..n], &ids[1..], 1.0);
    let grad_scale = (1.0 / model.grad_norm()).min(1.0) as f32;
    model.adamw(AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale, step });
    start.elapsed().as_secs_f64()
}

pub fn shapes(only: Option<&str>) -> Result<Vec<Shape>> {
    let shape = |name, v, layers, heads, c, t, b| -> Result<Shape> {
        Ok(Shape { name, config: Gpt2Config::new(v, layers, heads, c, t)?, batch: BatchShape { b, t } })
    };
    let all = vec![
        shape("tour", 2048, 4, 4, 256, 256, 8)?,
        shape("small", 4096, 6, 6, 192, 256, 32)?,
        shape("mid", 50257, 6, 6, 384, 256, 16)?,
        shape("gpt2-124m", 50257, 12, 12, 768, 1024, 4)?,
    ];
    match only {
        None => Ok(all.into_iter().take(3).collect()),
        Some(name) => {
            let found: Vec<Shape> = all.into_iter().filter(|s| s.name == name).collect();
            if found.is_empty() {
                return Err(
                    Failure::usage(format!("no bench model is called {name}")).hint("tour, small, mid or gpt2-124m")
                );
            }
            Ok(found)
        }
    }
}

/// `bench train`: updates with AdamW.
pub fn run(bench: &mut Bench, args: &BenchArgs, common: &Common) -> Result<()> {
    for shape in shapes(args.model.as_deref())? {
        formats(args, |dtype| updates(bench, &shape, args, dtype, common))?;
    }
    Ok(())
}

/// The rows of one model and format.
fn updates(bench: &mut Bench, shape: &Shape, args: &BenchArgs, dtype: Dtype, common: &Common) -> Result<()> {
    let (config, mut batch) = (&shape.config, shape.batch);
    batch.b = args.micro_batch.unwrap_or(batch.b);
    let weights = Weights::random(config, 1);
    let mut model = Gpt2Train::new(backend(common)?, &weights, batch, Recompute::None, dtype)?;
    drop(weights);
    let n = batch.b * batch.t;
    let bound = Bound::Products(dtype, shape.operations(batch.t) * n as f64);
    let ids = shape.ids(n);
    let mut runs = Vec::new();
    for step in 1..=args.repeat as u64 + 1 {
        let before = bench.peak_now(bound);
        let seconds = update(&mut model, &ids, step);
        runs.push((seconds, seconds * before.max(bench.peak_now(bound))));
    }
    // The first update touches its memory for the first time.
    runs.remove(0);
    runs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let peak = runs[runs.len() / 2].1;
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = runs[runs.len() / 2].0;
    let text = format!("B {} T {}", batch.b, batch.t);
    bench.row(
        &format!("train {} {}", shape.name, dtype.name()),
        text,
        bound,
        "6·N + 6·L·C·T per token",
        median,
        Some(peak),
    );
    if !common.json {
        println!("{:18} {:.0} tokens/s", "", n as f64 / median);
    }
    Ok(())
}
