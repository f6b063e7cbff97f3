//! The generation loop: draw, feed back, until something ends it.

use std::ops::ControlFlow;

use corella_model::TextModel;
use serde::Serialize;

use crate::error::RequestError;
use crate::sampler::{History, SampleParams, Sampler, Sampling};

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
pub enum Ended {
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
    pub finish_reason: Ended,
}

fn check_prompt(model: &dyn TextModel, prompt: &[u32]) -> Result<(), RequestError> {
    let (context, vocab_size) = (model.context_len(), model.vocab_size());
    if prompt.is_empty() {
        return Err(RequestError::EmptyPrompt);
    }
    if prompt.len() > context {
        return Err(RequestError::PromptTooLong { prompt: prompt.len(), context });
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(RequestError::BadToken { what: "prompt", id: *id, vocab_size }),
        None => Ok(()),
    }
}

/// Continues `prompt`; `on_token` sees every token as it comes and may end the text.
pub fn generate(
    model: &mut dyn TextModel,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(&TokenOut) -> ControlFlow<()>,
) -> Result<Generation, RequestError> {
    let sampling = Sampling::new(options.sample.clone(), model.vocab_size())?;
    let mut sampler = Sampler::default();
    let mut history = History::new(&sampling, prompt);
    check_prompt(model, prompt)?;
    model.reset();
    let context = model.context_len();
    let mut tokens = Vec::new();
    let mut feed = prompt.to_vec();
    while tokens.len() < options.max_tokens && prompt.len() + tokens.len() < context {
        let logits = model.feed(&feed);
        let position = (prompt.len() + tokens.len()) as u64;
        let mut adjusted = logits.to_vec();
        history.adjust(&mut adjusted, &sampling, &[]);
        let id = sampler.distribution(&adjusted, &sampling).draw(options.sample.seed, options.sample_index, position);
        if options.stop_ids.contains(&id) {
            return Ok(Generation { tokens, finish_reason: Ended::Stop });
        }
        history.push(id);
        let mut plain = sampler.distribution(logits, &Sampling::plain());
        let token = TokenOut { id, logprob: plain.log_prob(id), top: plain.top(options.log_probs) };
        let flow = on_token(&token);
        tokens.push(token);
        if flow.is_break() {
            return Ok(Generation { tokens, finish_reason: Ended::Stop });
        }
        feed = vec![id];
    }
    Ok(Generation { tokens, finish_reason: Ended::Length })
}

/// Log-probability of every token after the first, each given those before it.
pub fn log_probabilities(model: &mut dyn TextModel, tokens: &[u32]) -> Result<Vec<f32>, RequestError> {
    check_prompt(model, tokens)?;
    model.reset();
    let (mut sampler, plain) = (Sampler::default(), Sampling::plain());
    Ok(tokens.windows(2).map(|pair| sampler.distribution(model.feed(&pair[..1]), &plain).log_prob(pair[1])).collect())
}
