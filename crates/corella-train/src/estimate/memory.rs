//! Memory of a training run, part by part.

use corella_model::Dtype;
use corella_model::memory::MemoryPlan;
use serde::Serialize;

/// Bytes by part, per card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBytes {
    /// Parameters in the format of the products.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// AdamW's moments, and f32 copies of weights kept in a narrower format.
    pub optimizer: u64,
    /// Activations and their gradients of one micro-batch.
    pub activations: u64,
    /// What stands beside all that between updates, at most: the weights packed anew while text is sampled or tasks are
    /// scored, one tensor while a checkpoint is written.
    pub between_updates: u64,
    /// All of it.
    pub total: u64,
}

impl MemoryBytes {
    /// With so many bytes beside the rest between updates.
    pub fn with_between_updates(self, bytes: u64) -> Self {
        MemoryBytes { between_updates: bytes, total: self.total - self.between_updates + bytes, ..self }
    }
}

impl From<MemoryPlan> for MemoryBytes {
    fn from(plan: MemoryPlan) -> Self {
        MemoryBytes {
            weights: plan.params,
            gradients: plan.grads,
            optimizer: plan.optimizer,
            activations: plan.activations,
            between_updates: 0,
            total: plan.total(),
        }
    }
}

/// The plan for a GPU: weights and activations in the run's format, f32 gradients; moments, and the f32 copies of bf16 weights,
/// shared among the cards (ZeRO-1).
///
/// `activations` is their memory in that format.
pub fn gpu_memory(parameters: u64, activations: u64, dtype: Dtype, cards: u32) -> MemoryBytes {
    let n = parameters;
    let copies = if dtype == Dtype::Bf16 { 4 * n } else { 0 };
    let (weights, gradients) = (dtype.bytes() as u64 * n, 4 * n);
    let optimizer = (copies + 8 * n) / u64::from(cards.max(1));
    let total = weights + gradients + optimizer + activations;
    MemoryBytes { weights, gradients, optimizer, activations, between_updates: 0, total }
}

/// The most sequences of `t` tokens per pass that fit into `budget` bytes and divide `sequences`; `None` if not even one
/// fits. `bytes` is the memory for a number of sequences, and grows with it.
pub fn largest_micro_batch(sequences: usize, budget: u64, bytes: impl Fn(usize) -> u64) -> Option<usize> {
    (1..=sequences).rev().filter(|b| sequences.is_multiple_of(*b)).find(|b| bytes(*b) <= budget)
}

#[cfg(test)]
mod tests {
    use corella_model::BatchShape;
    use corella_model::Recompute;
    use corella_model::gpt2::{Gpt2Config, memory_plan};

    use super::*;

    #[test]
    fn the_micro_batch_is_the_largest_divisor_that_fits() {
        assert_eq!(largest_micro_batch(512, 100, |b| 10 + 3 * b as u64), Some(16), "32 would need 106");
        assert_eq!(largest_micro_batch(6, 100, |b| 30 * b as u64), Some(3));
        assert_eq!(largest_micro_batch(6, 20, |b| 30 * b as u64), None);
    }

    #[test]
    fn the_124m_recipe_fits_the_card_that_it_was_run_on() {
        let config = Gpt2Config::preset("gpt2-124m").expect("a preset");
        let batch = BatchShape { b: 64, t: 1024 };
        let activations = memory_plan(&config, batch, Recompute::None, Dtype::Bf16).activations;
        let plan = gpu_memory(config.parameter_count() as u64, activations, Dtype::Bf16, 8);
        assert!(plan.total < 80_000_000_000, "{plan:?}");
        assert_eq!(plan.weights, 2 * 124_439_808);
        let one = |dtype| gpu_memory(1000, 0, dtype, 1).total;
        assert_eq!((one(Dtype::F32), one(Dtype::Bf16)), (16_000, 18_000));
    }
}
