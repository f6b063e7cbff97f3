//! Llama 3, 3.1, 3.2 and 3.3 (Grattafiori et al., arXiv 2407.21783) and smaller models of the same architecture:
//! pre-norm transformer with RMS norms, rotary positions, grouped queries, SwiGLU, and no biases.

mod checkpoint;
mod config;
mod gguf;
mod hugging_face;
mod infer;
mod llama2c;
mod names;
mod params;
mod rope;

pub use checkpoint::{LlamaCheckpoint, SpecialIds};
pub use config::{LlamaConfig, LlamaShape};
pub use infer::LlamaInfer;
pub use params::{ParamSpec, Part, Tensor, param_specs};
pub use rope::{Rope, RopeScaling};
