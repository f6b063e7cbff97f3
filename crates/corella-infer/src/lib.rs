//! The engine: many requests on one model, token by token.

mod error;
mod generate;
mod sampler;

pub use error::RequestError;
pub use generate::{FinishReason, GenerateOptions, Generation, TokenOut, generate, log_probabilities};
pub use sampler::{Distribution, History, SampleParams, Sampler, Sampling};
