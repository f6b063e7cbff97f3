//! A request at the border: what a caller asks for, and the checked form that cannot be wrong any more.

use std::sync::Arc;

use corella_model::StepLimits;

use crate::error::{Field, RequestError};
use crate::pages::CacheScope;
use crate::sampler::{SampleParams, Sampling};
use crate::text::StopStrings;

/// Whose log-probabilities are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogProbStage {
    /// The model's own, before bias, penalties, temperature and filters.
    #[default]
    Raw,
    /// Those that the draw used; −∞ for what was filtered out.
    Filtered,
}

/// Continuations of one prompt, as a caller asks for them.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestParams {
    /// The tokens to continue.
    pub prompt: Vec<u32>,
    /// Continuations to return.
    pub n: usize,
    /// Continuations to draw, of which the `n` likeliest per token are returned; `n` if not given.
    pub best_of: Option<usize>,
    /// Most tokens to add; cut to the room that the context leaves.
    pub max_tokens: usize,
    /// The first so many tokens never end a continuation: none of them is a stop token, and a stop string that ends in one
    /// of them is text. One that ends behind them ends the continuation, wherever it begins.
    pub min_tokens: usize,
    /// How to draw.
    pub sample: SampleParams,
    /// Number of the first sample: sample i draws with the random numbers of `first_sample + i`.
    pub first_sample: u64,
    /// Strings that end a continuation.
    pub stop: Vec<String>,
    /// Whether the stop string stays in the text.
    pub keep_stop: bool,
    /// Tokens that end a continuation, besides the model's own.
    pub stop_ids: Vec<u32>,
    /// Whether to go on after the model's own end-of-text tokens.
    pub ignore_eos: bool,
    /// Report the log-probability of each drawn token, and so many alternatives.
    pub logprobs: Option<usize>,
    /// Which ones.
    pub logprob_stage: LogProbStage,
    /// Report the raw log-probability of each token of the prompt, and so many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// Who else may use the pages of this request.
    pub scope: CacheScope,
    /// Bytes that every continuation spells first and that are no part of its text: the end of a prompt whose last tokens
    /// were taken back, so that the border of tokens falls where the model puts it (token healing). Some sequence of
    /// tokens must spell them.
    pub owed: Vec<u8>,
    /// Tokens that add nothing to the text where they are drawn.
    pub hidden: Vec<u32>,
    /// Most tokens to propose at once by looking up the last ones earlier in the text; 0 for none. The output is the
    /// same either way.
    pub lookup: usize,
}

impl Default for RequestParams {
    fn default() -> Self {
        RequestParams {
            prompt: Vec::new(),
            n: 1,
            best_of: None,
            max_tokens: 16,
            min_tokens: 0,
            sample: SampleParams::default(),
            first_sample: 0,
            stop: Vec::new(),
            keep_stop: false,
            stop_ids: Vec::new(),
            ignore_eos: false,
            logprobs: None,
            logprob_stage: LogProbStage::Raw,
            prompt_logprobs: None,
            scope: CacheScope::default(),
            owed: Vec::new(),
            hidden: Vec::new(),
            lookup: 0,
        }
    }
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Continuations drawn of one prompt.
    pub samples: usize,
    /// Tokens of prompt and output, times the number of samples.
    pub total_tokens: u64,
    /// Stop strings.
    pub stops: usize,
    /// Bytes of all stop strings together.
    pub stop_bytes: usize,
    /// Stop tokens.
    pub stop_ids: usize,
    /// Entries of the logit bias.
    pub biases: usize,
    /// Alternatives reported for a token.
    pub logprobs: usize,
    /// Tokens proposed at once.
    pub lookup: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            samples: 128,
            total_tokens: 1 << 22,
            stops: 64,
            stop_bytes: 1 << 14,
            stop_ids: 64,
            biases: 1024,
            logprobs: 100,
            lookup: 16,
        }
    }
}

/// A request within all limits of a model and an engine: ranges, vocabulary, context, memory and cost.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) prompt: Arc<[u32]>,
    pub(crate) n: usize,
    pub(crate) best_of: usize,
    pub(crate) max_tokens: usize,
    pub(crate) clipped: bool,
    pub(crate) min_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) first_sample: u64,
    pub(crate) stops: StopStrings,
    pub(crate) keep_stop: bool,
    /// Sorted.
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) logprobs: Option<usize>,
    pub(crate) logprob_stage: LogProbStage,
    pub(crate) prompt_logprobs: Option<usize>,
    pub(crate) scope: CacheScope,
    pub(crate) owed: Arc<[u8]>,
    /// Sorted.
    pub(crate) hidden: Vec<u32>,
    pub(crate) lookup: usize,
}

impl Request {
    /// Checks `params` against a model whose end-of-text tokens are `eos`.
    pub fn new(
        params: RequestParams,
        model: &StepLimits,
        eos: &[u32],
        limits: &RequestLimits,
    ) -> Result<Request, RequestError> {
        let p = params;
        let most = |field, what, asked: usize, limit: usize| {
            let (asked, limit) = (asked as u64, limit as u64);
            if asked > limit { Err(RequestError::TooMany { field, what, asked, limit }) } else { Ok(()) }
        };
        let best_of = p.best_of.unwrap_or(p.n);
        if p.n == 0 {
            return Err(RequestError::OutOfRange { field: Field::N, value: 0.0, rule: "must be 1 or more" });
        }
        if best_of < p.n {
            return Err(RequestError::Contradiction { field: Field::BestOf, above: false, other: Field::N });
        }
        let samples = if p.best_of.is_some() { Field::BestOf } else { Field::N };
        most(samples, "continuations of one prompt", best_of, limits.samples)?;
        most(Field::Stop, "stop strings", p.stop.len(), limits.stops)?;
        most(Field::Stop, "bytes of stop strings", p.stop.iter().map(String::len).sum(), limits.stop_bytes)?;
        most(Field::StopTokenIds, "stop tokens", p.stop_ids.len(), limits.stop_ids)?;
        most(Field::LogitBias, "logit biases", p.sample.logit_bias.len(), limits.biases)?;
        let alternatives = limits.logprobs.min(model.vocab_size);
        most(Field::Logprobs, "alternatives for a token", p.logprobs.unwrap_or(0), alternatives)?;
        most(
            Field::PromptLogprobs,
            "alternatives for a token of the prompt",
            p.prompt_logprobs.unwrap_or(0),
            alternatives,
        )?;
        most(Field::Lookup, "tokens proposed at once", p.lookup, limits.lookup)?;
        check_prompt(&p.prompt, model)?;
        check_ids(Field::StopTokenIds, &p.stop_ids, model.vocab_size)?;

        let room = model.context_len - p.prompt.len();
        let max_tokens = p.max_tokens.min(room);
        let tokens = p.prompt.len() + max_tokens;
        let cost = (tokens as u64).saturating_mul(best_of as u64);
        if cost > limits.total_tokens {
            let what = "tokens of prompt and output in all continuations";
            return Err(RequestError::TooMany {
                field: Field::MaxTokens,
                what,
                asked: cost,
                limit: limits.total_tokens,
            });
        }
        let needed = model.pages_for(tokens);
        if needed > model.pages {
            return Err(RequestError::NeverFits { tokens, needed, pages: model.pages });
        }
        if p.min_tokens > p.max_tokens {
            return Err(RequestError::Contradiction { field: Field::MinTokens, above: true, other: Field::MaxTokens });
        }
        let mut stop_ids = p.stop_ids;
        if !p.ignore_eos {
            stop_ids.extend(eos);
        }
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let mut hidden = p.hidden;
        hidden.sort_unstable();
        Ok(Request {
            prompt: p.prompt.into(),
            n: p.n,
            best_of,
            max_tokens,
            clipped: max_tokens < p.max_tokens,
            min_tokens: p.min_tokens,
            sampling: Sampling::new(p.sample, model.vocab_size)?,
            first_sample: p.first_sample,
            stops: StopStrings::new(&p.stop)?,
            keep_stop: p.keep_stop,
            stop_ids,
            logprobs: p.logprobs,
            logprob_stage: p.logprob_stage,
            prompt_logprobs: p.prompt_logprobs,
            scope: p.scope,
            owed: p.owed.into(),
            hidden,
            lookup: p.lookup,
        })
    }

    /// The tokens to continue.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Most tokens that a continuation will have.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Continuations that are drawn, of which some may not be returned.
    pub fn samples(&self) -> usize {
        self.best_of
    }

    /// Whether the context leaves less room than was asked for.
    pub fn clipped(&self) -> bool {
        self.clipped
    }

    /// Tokens of prompt and output in all continuations, at most.
    pub fn cost(&self) -> u64 {
        (self.prompt.len() + self.max_tokens) as u64 * self.best_of as u64
    }

    /// Tokens of the prompt that must be computed. Without output the last one is not needed, and without
    /// log-probabilities none.
    pub(crate) fn prompt_rows(&self) -> usize {
        match (self.max_tokens, self.prompt_logprobs) {
            (0, None) => 0,
            (0, Some(_)) => self.prompt.len() - 1,
            _ => self.prompt.len(),
        }
    }
}

fn check_prompt(prompt: &[u32], model: &StepLimits) -> Result<(), RequestError> {
    if prompt.is_empty() {
        return Err(RequestError::EmptyPrompt);
    }
    if prompt.len() > model.context_len {
        return Err(RequestError::PromptTooLong { prompt: prompt.len(), context: model.context_len });
    }
    check_ids(Field::Prompt, prompt, model.vocab_size)
}

fn check_ids(field: Field, ids: &[u32], vocab_size: usize) -> Result<(), RequestError> {
    match ids.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(RequestError::BadToken { field, id: *id, vocab_size }),
        None => Ok(()),
    }
}
