//! The generation loop: draw, feed back, until something ends it.

use std::ops::ControlFlow;

use corella_model::TextModel;
use serde::Serialize;

use crate::sampler::{SampleError, SampleParams, Sampler, log_sum_exp};

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens to add.
    pub max_tokens: usize,
    /// How to draw.
    pub sample: SampleParams,
    /// Tokens that end the text; they are not part of it.
    pub stop_ids: Vec<u32>,
    /// Number of the sample, so that samples of one prompt differ.
    pub sample_index: u64,
    /// Alternatives to report at each position.
    pub log_probs: usize,
}

/// A generated token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenOut {
    /// Its id.
    pub id: u32,
    /// Log of its probability under the model.
    pub logprob: f32,
    /// The likeliest tokens there, with their logs, if asked for.
    pub top: Vec<(u32, f32)>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// A stop token was drawn, or the caller stopped.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

/// A finished continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The tokens added.
    pub tokens: Vec<TokenOut>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// What cannot be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The prompt is longer than the context.
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
    /// A token that the model does not know.
    #[error("token {id} is outside the vocabulary of {vocab_size}")]
    BadToken {
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sampling parameter out of its range.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

fn check_prompt(model: &dyn TextModel, prompt: &[u32]) -> Result<(), GenerateError> {
    let (context, vocab_size) = (model.context_len(), model.vocab_size());
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt.len() > context {
        return Err(GenerateError::PromptTooLong { prompt: prompt.len(), context });
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(GenerateError::BadToken { id: *id, vocab_size }),
        None => Ok(()),
    }
}

/// Continues `prompt`; `on_token` sees every token as it comes and may end the text.
pub fn generate(
    model: &mut dyn TextModel,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(&TokenOut) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    let sampler = Sampler::new(options.sample)?;
    check_prompt(model, prompt)?;
    model.reset();
    let context = model.context_len();
    let mut tokens = Vec::new();
    let mut feed = prompt.to_vec();
    while tokens.len() < options.max_tokens && prompt.len() + tokens.len() < context {
        let logits = model.feed(&feed);
        let position = (prompt.len() + tokens.len()) as u64;
        let draw = sampler.draw(logits, options.sample_index, position);
        if options.stop_ids.contains(&draw.id) {
            return Ok(Generation { tokens, finish_reason: FinishReason::Stop });
        }
        let token = TokenOut { id: draw.id, logprob: draw.logprob, top: top(logits, options.log_probs) };
        let flow = on_token(&token);
        tokens.push(token);
        if flow.is_break() {
            return Ok(Generation { tokens, finish_reason: FinishReason::Stop });
        }
        feed = vec![draw.id];
    }
    Ok(Generation { tokens, finish_reason: FinishReason::Length })
}

/// The `n` likeliest ids with the logs of their probabilities.
fn top(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    if n == 0 {
        return Vec::new();
    }
    let log_sum = log_sum_exp(logits);
    let mut all: Vec<(u32, f32)> =
        logits.iter().enumerate().map(|(i, l)| (i as u32, (f64::from(*l) - log_sum) as f32)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(n);
    all
}

/// Log-probability of every token after the first, each given those before it.
pub fn log_probabilities(model: &mut dyn TextModel, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
    check_prompt(model, tokens)?;
    model.reset();
    Ok(tokens
        .windows(2)
        .map(|pair| {
            let logits = model.feed(&pair[..1]);
            (f64::from(logits[pair[1] as usize]) - log_sum_exp(logits)) as f32
        })
        .collect())
}
