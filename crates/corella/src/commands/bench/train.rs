//! Whole updates of models with random weights.

use std::time::Instant;

use corella_model::gpt2::{Gpt2Config, Gpt2Train};
use corella_model::{AdamW, BatchShape, Dtype, Recompute, TrainModel, Weights};
use corella_ops::{OpsTrain, WeightFormat};
use corella_train::estimate::Formula;

use super::processor::Beside;
use super::random_rows::RandomRows;
use super::{Bench, Bound, card, formats, median};
use crate::cli::{BenchArgs, Common};
use crate::error::{Failure, Result};
use crate::inputs::processor;
use crate::shape::{GPT2_PRESETS, ModelShape};

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
    /// Operations of an update per token, counted as `plan` and `train` count them.
    pub fn operations(&self, t: usize) -> f64 {
        let config = &self.config;
        let n = ModelShape::Gpt2(config.clone()).product_parameters() as u64;
        Formula::Causal.per_token(n, config.n_embd() as u64, (config.n_layer() * t) as u64) as f64
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

/// The models that are measured where none is named, or the one of a name: also each published GPT-2. `others` are names that
/// the caller knows.
pub fn shapes(only: Option<&str>, others: &[&str]) -> Result<Vec<Shape>> {
    let shape = |name, v, layers, heads, c, t, b| -> Result<Shape> {
        Ok(Shape { name, config: Gpt2Config::new(v, layers, heads, c, t)?, batch: BatchShape { b, t } })
    };
    let small = vec![
        shape("tour", 2048, 4, 4, 256, 256, 8)?,
        shape("small", 4096, 6, 6, 192, 256, 32)?,
        shape("mid", 50257, 6, 6, 384, 256, 16)?,
    ];
    let Some(wanted) = only else { return Ok(small) };
    if let Some(found) = small.into_iter().find(|shape| shape.name == wanted) {
        return Ok(vec![found]);
    }
    let published = GPT2_PRESETS.into_iter().find(|name| *name == wanted);
    let Some((name, config)) = published.and_then(|name| Some((name, Gpt2Config::preset(name)?))) else {
        return Err(Failure::usage(format!("no bench model is called {wanted}"))
            .hint(format!("tour, small, mid, {}", [&GPT2_PRESETS, others].concat().join(", "))));
    };
    let t = config.seq_len();
    Ok(vec![Shape { name, config, batch: BatchShape { b: 4, t } }])
}

/// `bench train`: updates with AdamW.
pub fn run(bench: &mut Bench, shapes: Vec<Shape>, args: &BenchArgs, common: &Common) -> Result<()> {
    for shape in shapes {
        formats(args, |dtype| match card::cuda(common)? {
            Some(cuda) => updates(bench, &shape, args, dtype, CARD_WARM_UP, cuda),
            None => updates(bench, &shape, args, dtype, WARM_UP, processor(common)?),
        })?;
    }
    Ok(())
}

/// Updates before the first that counts: memory is touched for the first time.
const WARM_UP: usize = 1;
/// On a card plans are made as well, and it must warm up.
const CARD_WARM_UP: usize = 3;

/// The rows of one model and format.
fn updates<B: OpsTrain>(
    bench: &mut Bench,
    shape: &Shape,
    args: &BenchArgs,
    dtype: Dtype,
    warm_up: usize,
    ops: B,
) -> Result<()> {
    let mut batch = shape.batch;
    batch.b = args.micro_batch.unwrap_or(batch.b);
    let weights = Weights::read(&RandomRows::new(shape.config.clone(), WeightFormat::F32))?;
    let mut model = Gpt2Train::new(ops, &weights, batch, Recompute::None, dtype)?;
    drop(weights);
    let n = batch.b * batch.t;
    let bound = Bound::Products(dtype, shape.operations(batch.t) * n as f64);
    let ids = shape.ids(n);
    let (mut runs, mut beside) = (Vec::new(), Beside::default());
    // An update waits for its norm, and so for the AdamW before it.
    for step in 1..=(bench.repeat + warm_up) as u64 {
        bench.look(&mut beside, bound);
        runs.push(update(&mut model, &ids, step));
        bench.look(&mut beside, bound);
    }
    let median = median(&mut runs[warm_up..]);
    let text = format!("B {} T {}", batch.b, batch.t);
    let name = format!("train {} {}", shape.name, dtype.name());
    bench.row(&name, text, bound, "6·N + 6·L·C·T per token", median, &beside);
    bench.tokens(n as f64 / median);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_plan() {
        // 6 · 124,439,808 parameters + 6 · 12 · 768 · 1,024, and the same for 1558M.
        for (name, operations) in [("gpt2-124m", 803_261_952.0), ("gpt2-1558m", 9_817_526_400.0)] {
            let shape = shapes(Some(name), &[]).expect("known").remove(0);
            assert_eq!(shape.operations(1024), operations, "{name}");
        }
    }
}
