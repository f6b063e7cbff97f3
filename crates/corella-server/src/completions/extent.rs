//! How much an answer may report of tokens: each alternative takes memory in the engine and in the answer, so the product
//! of tokens, alternatives, samples and prompts has a limit, and is known before anything is computed. What a stream sends as it
//! is drawn does not count.

use corella_infer::Request;

use super::request::Show;
use crate::error::ApiError;

/// Most tokens and alternatives in one answer: some 40 MB of JSON.
const MOST: u64 = 1 << 19;

/// What the requests of one call report so far, by the parameter that asks for it.
#[derive(Clone, Debug, Default)]
pub struct Extent([(&'static str, u64); 3]);

impl Extent {
    /// Adds what `show` has of one more request. Of what is `sent` as it is drawn little is held at a time; where more is drawn
    /// than is returned, all of it is held until it is known what is best.
    pub fn add(&mut self, show: &Show, request: &Request, sent: bool) -> Result<(), ApiError> {
        let (prompt, samples) = (request.prompt().len() as u64, request.samples() as u64);
        let drawn = if sent { 0 } else { samples.saturating_mul(request.max_tokens() as u64) };
        let echoed = if show.echo { samples.saturating_mul(prompt) } else { 0 };
        let of = |tokens: u64, each: Option<usize>| each.map_or(0, |n| tokens.saturating_mul(1 + n as u64));
        let more = [
            ("logprobs", of(drawn.saturating_add(echoed), show.logprobs)),
            ("n_probs", of(drawn, show.n_probs)),
            ("prompt_logprobs", of(prompt, show.prompt_logprobs)),
        ];
        for (sum, (name, count)) in self.0.iter_mut().zip(more) {
            *sum = (name, sum.1.saturating_add(count));
        }
        self.check()
    }

    /// Tokens and alternatives in all.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |total, (_, count)| total.saturating_add(*count))
    }

    fn check(&self) -> Result<(), ApiError> {
        let total = self.total();
        if total <= MOST {
            return Ok(());
        }
        let largest = self.0.iter().max_by_key(|(_, count)| *count).map_or("logprobs", |(name, _)| name);
        let message = format!(
            "the answer would have {total} tokens and alternatives; at most {MOST}: ask for fewer alternatives, tokens, \
             samples or prompts at once"
        );
        Err(ApiError::bad(largest, message))
    }
}
