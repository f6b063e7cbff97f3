//! The answer of `/v1/completions`: OpenAI's legacy shape, with the extensions that were asked for.

use std::collections::BTreeMap;

use corella_infer::{FinishReason, TokenLogProb, Usage};
use corella_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::document::{CompletionEntry, Lists, Probabilities, Probability, PromptToken, Ranked};
use super::offsets::Offsets;
use super::request::Show;

/// The growing record of one choice: enough to write a chunk of it, or all of it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its number in the answer.
    pub index: usize,
    /// Where its tokens stand, if that is shown.
    offsets: Option<Offsets>,
}

/// A stretch of a choice to be written.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// Text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenLogProb>,
    /// Whether this is the echoed prompt.
    pub echo: bool,
    /// Why the choice ends here, if it does.
    pub finish: Option<FinishReason>,
}

impl Choice {
    /// A choice of which nothing has been written.
    pub fn new(index: usize, offsets: Option<Offsets>) -> Choice {
        Choice { index, offsets }
    }

    /// A stretch as a `choices` entry.
    pub fn write<'t>(&mut self, stretch: &Stretch, show: &Show, tokenizer: &'t Tokenizer) -> CompletionEntry<'t> {
        let drawn = (!stretch.echo).then_some(&stretch.tokens);
        CompletionEntry {
            index: self.index,
            text: stretch.text.clone(),
            logprobs: show.logprobs.map(|n| self.logprobs(stretch, n, tokenizer)),
            finish_reason: stretch.finish.as_ref().map(FinishReason::name),
            stop_reason: stretch.finish.as_ref().map(|finish| match finish {
                FinishReason::StopString(found) => json!(found),
                FinishReason::StopToken(id) => json!(id),
                FinishReason::Length => Value::Null,
            }),
            token_ids: drawn.filter(|_| show.token_ids).map(|tokens| tokens.iter().map(|t| t.id).collect()),
            completion_probabilities: drawn
                .zip(show.n_probs)
                .map(|(tokens, n)| tokens.iter().map(|t| probabilities(t, n, tokenizer)).collect()),
            ..CompletionEntry::default()
        }
    }

    /// OpenAI's parallel lists. Alternatives with the same text (parts of characters) share an entry, the likeliest counts.
    fn logprobs(&mut self, stretch: &Stretch, n: usize, tokenizer: &Tokenizer) -> Lists {
        let (mut tokens, mut own, mut top) = (vec![], vec![], vec![]);
        let ids = stretch.tokens.iter().map(|t| t.id);
        let offsets = self
            .offsets
            .as_mut()
            .map(|place| if stretch.echo { place.echo(ids, tokenizer) } else { place.next(ids, tokenizer) });
        for t in &stretch.tokens {
            let text = token_text(t.id, tokenizer);
            own.push(t.logprob.map(finite));
            top.push(t.logprob.map(|own| {
                let mut entries = BTreeMap::new();
                for (id, logprob) in t.top.iter().take(n) {
                    entries.entry(token_text(*id, tokenizer)).or_insert_with(|| finite(*logprob));
                }
                entries.entry(text.clone()).or_insert_with(|| finite(own));
                entries
            }));
            tokens.push(text);
        }
        Lists { tokens, token_logprobs: own, top_logprobs: top, text_offset: offsets.unwrap_or_default() }
    }
}

/// The tokens of a prompt as vLLM's `prompt_logprobs` shows them, each with the `n` likeliest; none for the first.
pub fn prompt_logprobs<'t>(
    tokens: &[TokenLogProb],
    n: usize,
    tokenizer: &'t Tokenizer,
) -> Vec<Option<PromptToken<'t>>> {
    let ranked = |id: u32, logprob: f32, rank: usize| {
        let decoded_token = String::from_utf8_lossy(tokenizer.token_bytes(id));
        (id, Ranked { logprob: finite(logprob), rank, decoded_token })
    };
    let entries = |t: &TokenLogProb| {
        let own = ranked(t.id, t.logprob?, t.rank?);
        // Equally likely tokens have one rank.
        let rank = |logprob: f32| 1 + t.top.iter().take_while(|(_, other)| *other > logprob).count();
        let others = t.top.iter().take(n).filter(|(id, _)| *id != t.id);
        let others = others.map(|(id, logprob)| ranked(*id, *logprob, rank(*logprob)));
        Some(PromptToken(std::iter::once(own).chain(others).collect()))
    };
    tokens.iter().map(entries).collect()
}

/// A token as llama.cpp's `completion_probabilities` shows it.
fn probabilities<'t>(t: &TokenLogProb, n: usize, tokenizer: &'t Tokenizer) -> Probabilities<'t> {
    let one = |id: u32, logprob: Option<f32>| {
        let bytes = tokenizer.token_bytes(id);
        Probability { id, token: String::from_utf8_lossy(bytes), bytes, logprob: logprob.map(finite) }
    };
    Probabilities {
        token: one(t.id, t.logprob),
        entropy: t.entropy.map(f64::from),
        top_logprobs: t.top.iter().take(n).map(|(id, logprob)| one(*id, Some(*logprob))).collect(),
    }
}

/// JSON has no −∞; what a filter removed has a logarithm far below any real one, as in OpenAI's answers. What is no number has
/// ended the request before.
fn finite(logprob: f32) -> f64 {
    if logprob == f32::NEG_INFINITY { -9999.0 } else { f64::from(logprob) }
}

/// A token's text; bytes that are only part of a character are shown as OpenAI shows them.
pub fn token_text(id: u32, tokenizer: &Tokenizer) -> String {
    let bytes = tokenizer.token_bytes(id);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => "bytes:".to_owned() + &bytes.iter().map(|b| format!("\\x{b:02x}")).collect::<String>(),
    }
}

/// OpenAI's `usage`, with what the prefix cache saved.
pub fn usage(all: &[Usage]) -> Value {
    let sum = |of: fn(&Usage) -> usize| all.iter().map(of).sum::<usize>();
    let (prompt, drawn) = (sum(|u| u.prompt_tokens), sum(|u| u.completion_tokens));
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": drawn,
        "total_tokens": prompt + drawn,
        "prompt_tokens_details": {"cached_tokens": sum(|u| u.cached_tokens)},
    })
}

/// llama.cpp's `timings`, for one prompt.
pub fn timings(u: &Usage) -> Value {
    let rate = |n: usize, seconds: f64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    let computed = u.prompt_tokens - u.cached_tokens.min(u.prompt_tokens);
    json!({
        "queue_ms": u.queue_seconds * 1e3,
        "prompt_n": computed,
        "cache_n": u.cached_tokens,
        "prompt_ms": u.prefill_seconds * 1e3,
        "prompt_per_second": rate(computed, u.prefill_seconds),
        "predicted_n": u.completion_tokens,
        "predicted_ms": u.decode_seconds * 1e3,
        "predicted_per_second": rate(u.completion_tokens, u.decode_seconds),
    })
}
