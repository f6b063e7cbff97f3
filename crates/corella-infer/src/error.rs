//! What can be wrong with a request.

use std::fmt;

use crate::text::StopError;

/// A parameter of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The tokens to continue.
    Prompt,
    /// Continuations to return.
    N,
    /// Continuations to draw.
    BestOf,
    /// Most tokens to add.
    MaxTokens,
    /// Tokens that do not end a continuation.
    MinTokens,
    /// Strings that end a continuation.
    Stop,
    /// Tokens that end a continuation.
    StopTokenIds,
    /// Alternatives for each drawn token.
    Logprobs,
    /// Alternatives for each token of the prompt.
    PromptLogprobs,
    /// Tokens proposed at once.
    Lookup,
    /// What divides the logits.
    Temperature,
    /// How many of the likeliest tokens.
    TopK,
    /// The share of the likeliest tokens.
    TopP,
    /// The least share of the likeliest token's probability.
    MinP,
    /// The share of the tokens closest to the expected surprise.
    TypicalP,
    /// Penalty of tokens in prompt and output.
    RepetitionPenalty,
    /// Penalty of each time in the output.
    FrequencyPenalty,
    /// Penalty of being in the output.
    PresencePenalty,
    /// What is added to logits.
    LogitBias,
}

impl Field {
    /// Its name, as OpenAI's interface and those that extend it have it.
    pub fn name(self) -> &'static str {
        match self {
            Field::Prompt => "prompt",
            Field::N => "n",
            Field::BestOf => "best_of",
            Field::MaxTokens => "max_tokens",
            Field::MinTokens => "min_tokens",
            Field::Stop => "stop",
            Field::StopTokenIds => "stop_token_ids",
            Field::Logprobs => "logprobs",
            Field::PromptLogprobs => "prompt_logprobs",
            Field::Lookup => "lookup",
            Field::Temperature => "temperature",
            Field::TopK => "top_k",
            Field::TopP => "top_p",
            Field::MinP => "min_p",
            Field::TypicalP => "typical_p",
            Field::RepetitionPenalty => "repetition_penalty",
            Field::FrequencyPenalty => "frequency_penalty",
            Field::PresencePenalty => "presence_penalty",
            Field::LogitBias => "logit_bias",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request that is refused before any work is done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// A parameter is out of its range.
    #[error("{field} = {value}: {rule}")]
    OutOfRange {
        /// Which.
        field: Field,
        /// What was asked for.
        value: f64,
        /// What is allowed.
        rule: &'static str,
    },
    /// A token that the model does not know.
    #[error("{field}: token {id} is outside the vocabulary of {vocab_size}")]
    BadToken {
        /// Where it was found.
        field: Field,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// More of something than is allowed.
    #[error("{asked} {what}: at most {limit} are allowed")]
    TooMany {
        /// The parameter that asks for it.
        field: Field,
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
    #[error("{field} is {} {other}", if *above { "above" } else { "below" })]
    Contradiction {
        /// The one.
        field: Field,
        /// Whether it is above the other, or below.
        above: bool,
        /// The other.
        other: Field,
    },
}

impl RequestError {
    /// The parameter that is wrong.
    pub fn field(&self) -> Field {
        match self {
            RequestError::OutOfRange { field, .. }
            | RequestError::BadToken { field, .. }
            | RequestError::TooMany { field, .. }
            | RequestError::Contradiction { field, .. } => *field,
            RequestError::PromptTooLong { .. } | RequestError::EmptyPrompt => Field::Prompt,
            RequestError::NeverFits { .. } => Field::MaxTokens,
            RequestError::Stop(_) => Field::Stop,
        }
    }
}
