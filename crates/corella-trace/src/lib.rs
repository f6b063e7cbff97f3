//! Where a text comes from. An index over the training tokens finds, for every place of a text, the longest stretch that
//! stands there word for word, how often, and in which documents; scores of memorisation need log-probabilities only.

mod error;
mod file;
mod index;
mod memory;
mod spans;

pub use error::TraceError;
pub use index::{Index, Occurrences};
pub use memory::{WINDOW, Window, extraction, starts, window};
pub use spans::{SpanRules, TokenSpan, spans};
