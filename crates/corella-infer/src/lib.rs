//! The engine: many requests on one model, token by token.

mod error;
mod generate;
mod sampler;
mod text;

pub use error::RequestError;
pub use generate::{FinishReason, GenerateOptions, Generation, TokenOut, generate, log_probabilities};
pub use sampler::{Distribution, History, SampleParams, Sampler, Sampling};
pub use text::{Released, StopError, StopStrings, TextStream};
