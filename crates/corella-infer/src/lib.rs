//! One token after another: the sampler and the generation loop.

mod generate;
mod sampler;

pub use generate::{FinishReason, GenerateError, GenerateOptions, Generation, TokenOut, generate, log_probabilities};
pub use sampler::{Draw, SampleError, SampleParams, Sampler};
