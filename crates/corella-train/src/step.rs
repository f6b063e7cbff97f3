//! One update, from tokens to new weights.

use std::time::Instant;

use corella_model::{AdamW, TrainModel};
use corella_text::data::Loader;
use serde::Serialize;

use crate::plan::TrainPlan;
use crate::schedule::learning_rate;

/// What an update did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Number of the update, from 1.
    pub step: u64,
    /// Mean loss of its tokens before it, in nats.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// Milliseconds.
    pub ms: f64,
    /// Speed.
    pub tokens_per_second: f64,
    /// Tokens since the start of training.
    pub tokens_seen: u64,
    /// Epoch of the data, from 0.
    pub epoch: u64,
    /// Whether the weights were left alone because loss or norm was not finite.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Validation loss after the update, where measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
}

/// Makes update number `done + 1`: gradients of `accumulation` micro-batches, clipping, AdamW.
pub fn step(
    model: &mut dyn TrainModel,
    loader: &mut Loader,
    plan: &TrainPlan,
    accumulation: usize,
    done: u64,
) -> StepReport {
    let start = Instant::now();
    let shape = model.batch_shape();
    let (mut inputs, mut targets) = (vec![0; shape.b * shape.t], vec![0; shape.b * shape.t]);
    let epoch = loader.epoch();

    model.zero_grad();
    let mut loss = 0.0;
    for _ in 0..accumulation {
        loader.next_batch(shape.b, &mut inputs, &mut targets);
        loss += model.forward_backward(&inputs, &targets, 1.0 / accumulation as f32) / accumulation as f64;
    }
    let norm = model.grad_norm();
    let skipped = !loss.is_finite() || !norm.is_finite();
    let (steps, floor, decay) = (plan.steps, plan.final_lr_fraction, plan.decay_fraction);
    let lr = learning_rate(plan.schedule, done, steps, plan.lr, plan.warmup_steps, floor, decay);
    if !skipped {
        // As PyTorch clips: the factor's denominator carries 1e-6.
        let grad_scale = (plan.clip / (norm + 1e-6)).min(1.0) as f32;
        model.adamw(AdamW {
            lr: lr as f32,
            beta1: plan.beta1 as f32,
            beta2: plan.beta2 as f32,
            eps: plan.eps as f32,
            weight_decay: plan.weight_decay as f32,
            grad_scale,
            step: done + 1,
        });
    }

    let seconds = start.elapsed().as_secs_f64();
    let tokens = (shape.b * shape.t * accumulation) as u64;
    StepReport {
        step: done + 1,
        loss,
        lr,
        norm,
        ms: seconds * 1e3,
        tokens_per_second: tokens as f64 / seconds,
        tokens_seen: (done + 1) * tokens,
        epoch,
        skipped,
        val_loss: None,
    }
}
