//! Llama 3, 3.1, 3.2 and 3.3 (Grattafiori et al., arXiv 2407.21783) and smaller models of the same architecture:
//! pre-norm transformer with RMS norms, rotary positions, grouped queries, SwiGLU, and no biases.

mod activations;
mod backward;
mod config;
mod config_json;
mod exchange;
mod forward;
mod infer;
mod llama2c;
mod network;
mod params;
mod regimes;
mod rope;

/// The source text of the forward pass, for those who want to see how short it is.
pub const FORWARD_SOURCE: &str = include_str!("infer.rs");

pub use activations::memory_plan;
pub use config::{LlamaConfig, LlamaShape};
pub use infer::LlamaInfer;
pub use params::Tensor;
pub use rope::{Rope, RopeScaling};

/// A Llama's weights in memory.
pub type LlamaWeights = crate::Weights<LlamaConfig>;
/// A Llama's files.
pub type LlamaCheckpoint = crate::Checkpoint<LlamaConfig>;
