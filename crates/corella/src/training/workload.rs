//! A run as what it computes, for estimates.

use corella_train::RunPlan;
use corella_train::estimate::{Formula, Workload};

use crate::shape::ModelShape;

/// The plan as a workload.
pub fn workload(plan: &RunPlan, config: &ModelShape) -> Workload {
    let (layers, _, channels) = config.sizes();
    let layers = layers as u64;
    Workload {
        params: config.parameter_count() as u64,
        matmul_params: config.product_parameters() as u64,
        layers,
        channels: channels as u64,
        span: layers * plan.model.seq_len as u64,
        vocab_size: config.vocab_size() as u64,
        tokens: plan.train.steps * plan.train.batch_tokens as u64,
        tokens_per_step: plan.train.batch_tokens as u64,
        sequences_per_step: (plan.train.batch_tokens / plan.model.seq_len.max(1)) as u64,
        dtype: plan.train.dtype,
        fp8: false,
        recompute: plan.train.recompute,
        formula: Formula::Causal,
    }
}
