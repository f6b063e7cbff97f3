//! GPT-2 (Radford et al. 2019): pre-norm transformer, learned positions, tied output head, tanh GELU.

mod activations;
mod backward;
mod config;
mod decode;
mod forward;
mod hugging_face;
mod init;
mod llmc;
mod params;
mod step;
mod train;
mod weights;

pub use crate::memory::{MemoryPlan, Recompute};
/// The source text of the forward pass, for those who want to see how short it is.
pub const FORWARD_SOURCE: &str = include_str!("step.rs");

pub use activations::memory_plan;
pub use config::Gpt2Config;
pub use decode::Gpt2Infer;
pub use hugging_face::{Gpt2Files, save as save_hugging_face};
pub use init::{Mersenne, random_weights};
pub use llmc::save as save_llmc;
pub use params::{Init, ParamSpec, param_specs};
pub use step::Gpt2Step;
pub use train::Gpt2Train;
pub use weights::{Gpt2Weights, load as load_gpt2};
