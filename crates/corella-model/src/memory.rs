//! The memory of a training run, counted before it is allocated.

use corella_ops::Dtype;

/// What the backward pass finds in memory and what it computes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Every activation is kept.
    #[default]
    None,
    /// Only each block's input is kept; the rest of a block is computed again before its backward pass.
    Block,
}

/// Bytes of a training run, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// f32 values of the parameters, and their image in the format of the products where that is another.
    pub params: u64,
    /// Their gradients.
    pub grads: u64,
    /// AdamW's two moments.
    pub optimizer: u64,
    /// Activations and their gradients.
    pub activations: u64,
}

impl MemoryPlan {
    /// For so many parameters with f32 masters, and so many bytes of activations. Weights in another format stand beside their
    /// masters twice: packed for the way forward and for the way back.
    pub fn new(parameters: usize, dtype: Dtype, activations: u64) -> Self {
        let count = parameters as u64;
        let images = if dtype == Dtype::F32 { 0 } else { 2 * dtype.bytes() as u64 * count };
        MemoryPlan { params: 4 * count + images, grads: 4 * count, optimizer: 8 * count, activations }
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        self.params + self.grads + self.optimizer + self.activations
    }
}
