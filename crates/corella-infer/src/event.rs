//! What the engine tells a caller while it works.

use serde::Serialize;

/// The log-probability of a token at its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TokenLogProb {
    /// The token.
    pub id: u32,
    /// ln of its probability given the tokens before it; none for the first token of a prompt, and where it was not
    /// asked for.
    pub logprob: Option<f32>,
    /// Entropy, in nats, of the distribution that the log-probability belongs to: how open the choice was. None where
    /// there is no log-probability.
    pub entropy: Option<f32>,
    /// 1 and the number of tokens that are likelier there: of the tokens of a prompt whose log-probabilities were asked for.
    pub rank: Option<usize>,
    /// The likeliest tokens there, in order, as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why a continuation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was drawn; it is not part of the text.
    StopToken(u32),
    /// A stop string came up.
    StopString(String),
    /// `max_tokens`, or the end of the context.
    Length,
}

impl FinishReason {
    /// `stop` or `length`, as OpenAI's interface calls it.
    pub fn name(&self) -> &'static str {
        match self {
            FinishReason::StopToken(_) | FinishReason::StopString(_) => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// What a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, how many were not computed because their pages were known.
    pub cached_tokens: usize,
    /// Tokens drawn, for all samples.
    pub completion_tokens: usize,
    /// Tokens proposed by prompt lookup, and how many of them were drawn.
    pub drafted_tokens: usize,
    /// Proposed tokens that were drawn.
    pub accepted_tokens: usize,
    /// Seconds until the first of its tokens was computed.
    pub queue_seconds: f64,
    /// Seconds from then to the end of the prompt.
    pub prefill_seconds: f64,
    /// Seconds from then to the end.
    pub decode_seconds: f64,
}

/// One message to the caller of a request. For each choice pieces come in order, then its end; `Done` or `Failed` is the
/// last message of all.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// So many tokens of the prompt have been read.
    Progress {
        /// Tokens read.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// Log-probabilities of all tokens of the prompt, if asked for.
    Prompt(Vec<TokenLogProb>),
    /// More of a continuation. The text is exactly that of the tokens, up to a stop string.
    Piece {
        /// Which continuation.
        choice: usize,
        /// Whole characters.
        text: String,
        /// The tokens that they come from.
        tokens: Vec<TokenLogProb>,
    },
    /// A continuation has ended.
    Finished {
        /// Which continuation.
        choice: usize,
        /// Why.
        reason: FinishReason,
        /// Tokens drawn for it, with those of a stop string or stop token.
        drawn: usize,
    },
    /// All continuations have ended.
    Done(Usage),
    /// The engine could not go on with this request.
    Failed(String),
}
