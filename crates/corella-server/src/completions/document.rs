//! Answers as they are written. Types of their own, no trees of JSON values: lists of log-probabilities are long, and in a
//! tree each number of them takes many times the memory of its text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::ApiError;

/// What all chunks and documents of one answer begin with.
#[derive(Clone, Debug, Serialize)]
pub struct Frame {
    /// Id of the answer.
    pub id: String,
    /// Kind of document.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model.
    pub model: String,
    /// Device, kernel path and formats: same text here, same bytes in the answer.
    #[serde(rename = "system_fingerprint")]
    pub fingerprint: String,
}

/// A document, or a chunk of a stream.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// Its beginning.
    #[serde(flatten)]
    pub frame: &'a Frame,
    /// The choices, or none where a chunk is about the whole.
    pub choices: Vec<Entry<'a>>,
    /// What is said of the whole.
    #[serde(flatten)]
    pub extra: Extra<'a>,
}

impl Document<'_> {
    /// As JSON.
    pub fn text(&self) -> Result<String, ApiError> {
        serde_json::to_string(self).map_err(|error| ApiError::internal(format!("the answer has no text: {error}")))
    }
}

/// Fields of a document beside its choices; only what is there is written.
#[derive(Debug, Default, Serialize)]
pub struct Extra<'a> {
    /// OpenAI's `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
    /// llama.cpp's `timings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Value>,
    /// What the request came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corella: Option<Value>,
    /// How far a prompt has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_progress: Option<Value>,
    /// The prompt that `prompt_logprobs` are of, in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<usize>,
    /// vLLM's log-probabilities of a prompt, in a stream; null for its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<PromptToken<'a>>>>,
}

/// An entry of `choices`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Entry<'a> {
    /// Of a completion.
    Completion(Box<CompletionEntry<'a>>),
    /// Of a chat.
    Chat(Value),
}

/// A choice of a completion, or a stretch of it.
#[derive(Debug, Default, Serialize)]
pub struct CompletionEntry<'a> {
    /// Its number in the answer.
    pub index: usize,
    /// Text.
    pub text: String,
    /// OpenAI's lists.
    pub logprobs: Option<Lists>,
    /// Why it ends, where it does.
    pub finish_reason: Option<&'static str>,
    /// What it ends with; null for the length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Value>,
    /// vLLM's ids of what was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// llama.cpp's probabilities of what was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_probabilities: Option<Vec<Probabilities<'a>>>,
    /// vLLM's ids of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Cow<'a, [u32]>>,
    /// vLLM's log-probabilities of the prompt, in a whole answer; null for its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<PromptToken<'a>>>>,
}

impl CompletionEntry<'_> {
    /// Puts what follows the echoed prompt of the same choice behind it; the prompt alone has text and lists only.
    pub fn join(self, rest: Self) -> Self {
        let logprobs = match (self.logprobs, rest.logprobs) {
            (Some(first), Some(rest)) => Some(first.join(rest)),
            (_, rest) => rest,
        };
        Self { text: self.text + &rest.text, logprobs, ..rest }
    }
}

/// OpenAI's parallel lists of tokens; one entry of each is a token's.
#[derive(Debug, Default, Serialize)]
pub struct Lists {
    /// Texts.
    pub tokens: Vec<String>,
    /// Log-probabilities.
    pub token_logprobs: Vec<Option<f64>>,
    /// The likeliest texts there, with the token's own.
    pub top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
    /// Characters of the answer in front.
    pub text_offset: Vec<usize>,
}

impl Lists {
    fn join(mut self, rest: Lists) -> Lists {
        self.tokens.extend(rest.tokens);
        self.token_logprobs.extend(rest.token_logprobs);
        self.top_logprobs.extend(rest.top_logprobs);
        self.text_offset.extend(rest.text_offset);
        self
    }
}

/// A token with its alternatives.
#[derive(Debug, Serialize)]
pub struct Probabilities<'a> {
    /// The token.
    #[serde(flatten)]
    pub token: Probability<'a>,
    /// Entropy of the distribution, in nats.
    pub entropy: Option<f64>,
    /// The likeliest tokens there.
    pub top_logprobs: Vec<Probability<'a>>,
}

/// A token and its log-probability.
#[derive(Debug, Serialize)]
pub struct Probability<'a> {
    /// Its id.
    pub id: u32,
    /// Its text, with a mark for what is no whole character.
    pub token: Cow<'a, str>,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// ln of its probability.
    pub logprob: Option<f64>,
}

/// A token of a prompt with its alternatives, as vLLM has them: a map from ids, the token's own first.
#[derive(Debug)]
pub struct PromptToken<'a>(pub Vec<(u32, Ranked<'a>)>);

impl Serialize for PromptToken<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(id, ranked)| (id, ranked)))
    }
}

/// What a map from ids says of one.
#[derive(Debug, Serialize)]
pub struct Ranked<'a> {
    /// ln of its probability.
    pub logprob: f64,
    /// 1 and the number of likelier tokens.
    pub rank: usize,
    /// Its text, with a mark for what is no whole character.
    pub decoded_token: Cow<'a, str>,
}
