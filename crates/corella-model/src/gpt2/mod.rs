//! GPT-2 (Radford et al. 2019): pre-norm transformer, learned positions, tied output head, tanh GELU.

mod activations;
mod backward;
mod config;
mod decode;
mod exchange;
mod forward;
mod infer;
mod llmc;
mod network;
mod params;

/// The source text of the forward pass, for those who want to see how short it is.
pub const FORWARD_SOURCE: &str = include_str!("infer.rs");

pub use activations::memory_plan;
pub use config::Gpt2Config;
pub use decode::Gpt2Exact;
pub use infer::Gpt2Infer;
pub use llmc::save as save_llmc;
pub use params::Tensor;

/// A GPT-2's weights in memory.
pub type Gpt2Weights = crate::Weights<Gpt2Config>;
/// A GPT-2's files.
pub type Gpt2Checkpoint = crate::Checkpoint<Gpt2Config>;
/// A GPT-2 under training.
pub type Gpt2Train<B> = crate::Training<B, Gpt2Config>;
