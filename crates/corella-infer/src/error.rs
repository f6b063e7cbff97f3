//! What can be wrong with a request.

use crate::text::StopError;

/// A request that is refused before any work is done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// A parameter is out of its range.
    #[error("{name} = {value}: {rule}")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What was asked for.
        value: f64,
        /// What is allowed.
        rule: &'static str,
    },
    /// A token that the model does not know.
    #[error("{what}: token {id} is outside the vocabulary of {vocab_size}")]
    BadToken {
        /// Where it was found.
        what: &'static str,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// More of something than is allowed.
    #[error("{asked} {what}: at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How much was asked for.
        asked: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// The prompt leaves no room in the context.
    #[error("the prompt has {prompt} tokens, but the model's context holds {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// There is no token to start from.
    #[error("an empty prompt: there is no token to continue from")]
    EmptyPrompt,
    /// Keys and values of one continuation need more memory than there is for all.
    #[error("{tokens} tokens of prompt and output need {needed} pages of keys and values, but there are {pages}")]
    NeverFits {
        /// Tokens of prompt and output.
        tokens: usize,
        /// Pages that they need.
        needed: usize,
        /// Pages that there are.
        pages: usize,
    },
    /// A stop string that cannot be one.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Two parameters contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}
