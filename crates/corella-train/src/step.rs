//! One update, from tokens to new weights.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use corella_model::{AdamW, TrainModel};
use corella_text::data::Loader;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::plan::RunPlan;
use crate::spikes::{Skip, SpikeDetector};

/// What an update did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Update {
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
    /// Where they went.
    pub parts: StepParts,
    /// Speed.
    pub tokens_per_second: f64,
    /// Tokens since the start of training.
    pub tokens_seen: u64,
    /// Epoch of the data, from 0.
    pub epoch: u64,
    /// Standard deviations of the loss above the recent mean, once there are enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z_loss: Option<f64>,
    /// The same of the norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z_norm: Option<f64>,
    /// Why the weights were left alone, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skip>,
}

/// Where the milliseconds of an update went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepParts {
    /// Waiting for tokens.
    pub data_ms: f64,
    /// Forward passes, up to the last hidden states.
    pub forward_ms: f64,
    /// Backward passes, and the output head with its loss, which is one operation with its gradient.
    pub backward_ms: f64,
    /// Gradient norm and AdamW.
    pub optimizer_ms: f64,
}

/// Makes update number `done + 1`: gradients of the micro-batches, clipping, AdamW.
///
/// `None` where `stop` was raised before the last micro-batch: weights and detector are untouched then, and the loader
/// stands where it stood before.
pub fn step(
    model: &mut dyn TrainModel,
    loader: &mut Loader,
    spikes: &mut SpikeDetector,
    plan: &RunPlan,
    done: u64,
    stop: &AtomicBool,
) -> Result<Option<Update>, TrainError> {
    let start = Instant::now();
    let (train, accumulation) = (&plan.train, plan.accumulation()?);
    let shape = model.batch_shape();
    let (mut inputs, mut targets) = (vec![0; shape.b * shape.t], vec![0; shape.b * shape.t]);
    let (epoch, position) = (loader.epoch(), loader.state());
    let mut parts = StepParts::default();

    model.zero_grad();
    let mut loss = 0.0;
    for micro_step in 0..accumulation {
        // A large update takes minutes on a small machine; who is told to leave in 30 seconds cannot wait for it.
        if micro_step > 0 && stop.load(Ordering::SeqCst) {
            loader.restore(&position)?;
            return Ok(None);
        }
        let begin = Instant::now();
        loader.next_batch(shape.b, &mut inputs, &mut targets)?;
        parts.data_ms += ms_since(begin);
        let begin = Instant::now();
        loss += model.forward_backward(&inputs, &targets, 1.0 / accumulation as f32) / accumulation as f64;
        let (both, forward) = (ms_since(begin), model.forward_time().as_secs_f64() * 1e3);
        parts.forward_ms += forward;
        parts.backward_ms += both - forward;
    }
    let begin = Instant::now();
    let norm = model.grad_norm();
    let verdict = spikes.judge(loss, norm, plan.spike_limits());
    let lr = train.learning_rate(done);
    if verdict.skip.is_none() {
        // As PyTorch clips: the factor's denominator carries 1e-6.
        let grad_scale = (train.clip / (norm + 1e-6)).min(1.0) as f32;
        model.adamw(AdamW {
            lr: lr as f32,
            beta1: train.beta1 as f32,
            beta2: train.beta2 as f32,
            eps: train.eps as f32,
            weight_decay: train.weight_decay as f32,
            grad_scale,
            step: done + 1,
        });
    }
    parts.optimizer_ms = ms_since(begin);

    let seconds = start.elapsed().as_secs_f64();
    let tokens = (shape.b * shape.t * accumulation) as u64;
    Ok(Some(Update {
        step: done + 1,
        loss,
        lr,
        norm,
        ms: seconds * 1e3,
        parts,
        tokens_per_second: tokens as f64 / seconds,
        tokens_seen: loader.tokens(),
        epoch,
        z_loss: verdict.z_loss,
        z_norm: verdict.z_norm,
        skipped: verdict.skip,
    }))
}

fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}
