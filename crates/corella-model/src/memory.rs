//! The memory of a training run, counted before it is allocated.

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
    /// All parts together.
    pub fn total(&self) -> u64 {
        self.params + self.grads + self.optimizer + self.activations
    }
}
