//! The engine: many requests on one model, token by token.
//!
//! [`Engine`] owns a model on one thread. A caller describes what it wants in [`RequestParams`], has it checked
//! ([`EngineHandle::check`]), hands the [`Request`] in and listens to its [`Event`]s. The engine knows tokens, bytes and
//! text; it knows neither the tokenizer nor the network.

mod completion;
mod engine;
mod error;
mod event;
mod free_pages;
mod generate;
mod lookup;
mod metrics;
mod pages;
mod request;
mod sampler;
mod scheduler;
mod sequence;
mod text;

pub use completion::{Choice, Completion, complete};
pub use engine::{Engine, EngineHandle, EngineOptions, SubmitError, Ticket};
pub use error::{Field, RequestError};
pub use event::{Event, FinishReason, TokenLogProb, Usage};
pub use generate::continue_tokens;
pub use metrics::MetricsSnapshot;
pub use pages::CacheScope;
pub use request::{LogProbStage, Request, RequestLimits, RequestParams};
pub use sampler::{Distribution, History, SampleParams, Sampler, Sampling, random_bits};
pub use scheduler::Sink;
pub use sequence::TokenBytes;
pub use text::{Released, StopError, StopStrings, TextStream};
