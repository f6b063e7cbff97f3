//! Llama 3, 3.1, 3.2 and 3.3 (Grattafiori et al., arXiv 2407.21783) and smaller models of the same architecture:
//! pre-norm transformer with RMS norms, rotary positions, grouped queries, SwiGLU, and no biases.

mod activations;
mod backward;
mod checkpoint;
mod config;
mod forward;
mod gguf;
mod hugging_face;
mod infer;
mod init;
mod llama2c;
mod names;
mod params;
mod rope;
mod save;
mod source;
mod train;

/// The source text of the forward pass, for those who want to see how short it is.
pub const FORWARD_SOURCE: &str = include_str!("infer.rs");

pub use activations::memory_plan;
pub use checkpoint::LlamaCheckpoint;
pub use config::{LlamaConfig, LlamaShape};
pub use infer::LlamaInfer;
pub use params::{ParamSpec, Part, Tensor, param_specs};
pub use rope::{Rope, RopeScaling};
pub use save::{LlamaFiles, save_gguf, save_hugging_face};
pub use source::{LlamaSource, LlamaWeights};
pub use train::LlamaTrain;
