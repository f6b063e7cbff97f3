//! From a row of logits to tokens and their log-probabilities, as a request wants them.

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use corella_model::{Draw, Threads};

use crate::event::TokenLogProb;
use crate::request::{LogProbStage, Request};
use crate::sampler::{Sampler, Sampling, random};
use crate::sequence::{Sequence, TokenBytes};

/// Working memory of draws.
#[derive(Debug)]
pub(super) struct Drawer {
    filtered: Sampler,
    raw: Sampler,
    plain: Sampling,
    adjusted: Vec<f32>,
}

/// A drawn token, and its raw log-probability where samples are ranked (0 elsewhere).
pub(super) type Drawn = (TokenLogProb, f64);

/// The draws of a continuation that the model's device can make: of its next token and, behind each of its `drafts` proposals, of
/// the one that follows. None where something needs the logits here: log-probabilities, ranks, typical-p, a temperature behind
/// the filters, owed bytes, several samples of one row, or penalties that depend on whether a proposal was right.
pub(super) fn on_device(
    request: &Request,
    seq: &Sequence,
    one_sample: bool,
    drafts: usize,
    known_tokens: usize,
) -> Option<Vec<Draw>> {
    let (sampling, p) = (&request.sampling, request.sampling.params());
    let reports = request.logprobs.is_some() || request.best_of > request.n;
    let guesses = drafts > 0 && sampling.has_penalties();
    let ordered = p.typical_p.is_some() || p.temperature_last;
    if !one_sample || reports || guesses || ordered || !seq.owes(request).is_empty() {
        return None;
    }
    let sample = request.first_sample.wrapping_add(seq.sample as u64);
    let draw = |i: usize| {
        let forbidden = if seq.drawn + i < request.min_tokens { &request.stop_ids[..] } else { &[] };
        Some(Draw {
            tokens: known_tokens,
            edits: seq.history.edits(sampling, forbidden)?,
            temperature: p.temperature,
            top_k: p.top_k,
            top_p: p.top_p,
            min_p: p.min_p,
            bits: random::bits(p.seed, sample, (seq.tokens.len() + i) as u64),
        })
    };
    (0..=drafts).map(draw).collect()
}

/// A draw to make: the logits where a continuation stands, and the samples that are there.
pub(super) struct Wanted<'a> {
    pub logits: &'a [f32],
    pub request: &'a Request,
    pub seq: &'a Sequence,
    pub samples: Range<usize>,
}

/// What several threads draw with.
#[derive(Debug, Default)]
pub(super) struct Drawers(Mutex<Vec<Drawer>>);

impl Drawers {
    /// Something to draw with, for this thread.
    pub fn with<T>(&self, f: impl FnOnce(&mut Drawer) -> T) -> T {
        let idle = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let drawer = idle().pop();
        let mut drawer = drawer.unwrap_or_else(Drawer::new);
        let out = f(&mut drawer);
        idle().push(drawer);
        out
    }

    /// Makes all draws, each on one of the threads.
    pub fn draw_all(&self, threads: Threads<'_>, wanted: &[Wanted<'_>], bytes: &TokenBytes) -> Vec<Vec<Drawn>> {
        let drawn: Vec<OnceLock<Vec<Drawn>>> = wanted.iter().map(|_| OnceLock::new()).collect();
        threads.run(wanted.len(), &|i| {
            let Wanted { logits, request, seq, samples } = &wanted[i];
            drawn[i].get_or_init(|| self.with(|drawer| drawer.draw(logits, request, seq, samples.clone(), bytes)));
        });
        drawn.into_iter().map(|drawn| drawn.into_inner().unwrap_or_default()).collect()
    }
}

/// A token that the device drew.
pub(super) fn bare(id: u32) -> Drawn {
    (TokenLogProb { id, ..TokenLogProb::default() }, 0.0)
}

impl Drawer {
    fn new() -> Drawer {
        Drawer { filtered: Sampler::default(), raw: Sampler::default(), plain: Sampling::plain(), adjusted: Vec::new() }
    }

    /// Draws the next token of `seq` for each of `samples`, which are all where it is.
    pub fn draw(
        &mut self,
        logits: &[f32],
        request: &Request,
        seq: &Sequence,
        samples: Range<usize>,
        bytes: &TokenBytes,
    ) -> Vec<Drawn> {
        let (sampling, history, position) = (&request.sampling, &seq.history, seq.tokens.len());
        let owed = seq.owes(request);
        let forbidden = if seq.drawn < request.min_tokens && owed.is_empty() { &request.stop_ids[..] } else { &[] };
        let changed = history.changes(sampling) || !forbidden.is_empty() || !owed.is_empty();
        let row = if changed {
            self.adjusted.clear();
            self.adjusted.extend_from_slice(logits);
            history.adjust(&mut self.adjusted, sampling, forbidden);
            if !owed.is_empty() {
                only_spelling(&mut self.adjusted, owed, &request.stop_ids, |id| bytes(&seq.tokens, id));
            }
            &self.adjusted
        } else {
            logits
        };
        let mut filtered = self.filtered.distribution(row, sampling);
        let seed = sampling.params().seed;
        let ids: Vec<u32> = samples
            .map(|sample| filtered.draw(seed, request.first_sample.wrapping_add(sample as u64), position as u64))
            .collect();
        let ranks = request.best_of > request.n;
        let reports_raw = request.logprobs.is_some() && request.logprob_stage == LogProbStage::Raw;
        let same = !changed && sampling.leaves_all();
        let mut raw =
            if (ranks || reports_raw) && !same { Some(self.raw.distribution(logits, &self.plain)) } else { None };
        let reported = match &mut raw {
            Some(raw) if reports_raw => raw,
            _ => &mut filtered,
        };
        let top = request.logprobs.map(|n| reported.top(n)).unwrap_or_default();
        let log_probs: Vec<Option<f32>> =
            ids.iter().map(|id| request.logprobs.map(|_| reported.log_prob(*id))).collect();
        let entropy = request.logprobs.map(|_| reported.entropy());
        let ranking = raw.as_ref().unwrap_or(&filtered);
        let rank = |id: u32| if ranks { f64::from(ranking.log_prob(id)) } else { 0.0 };
        ids.into_iter()
            .zip(log_probs)
            .map(|(id, logprob)| (TokenLogProb { id, logprob, entropy, rank: None, top: top.clone() }, rank(id)))
            .collect()
    }

    /// The raw log-probability and the rank of `id` in a row of logits, with `n` alternatives.
    pub fn score(&mut self, logits: &[f32], id: u32, n: usize) -> TokenLogProb {
        let mut raw = self.raw.distribution(logits, &self.plain);
        let (logprob, entropy, rank) = (Some(raw.log_prob(id)), Some(raw.entropy()), Some(raw.rank(id)));
        TokenLogProb { id, logprob, entropy, rank, top: raw.top(n) }
    }
}

/// Makes all tokens impossible but those that spell `owed` bytes: the beginning of them, or all of them and more. What is owed
/// belongs to the prompt, so one of the `stops` may be in it, but not begin in it.
fn only_spelling(logits: &mut [f32], owed: &[u8], stops: &[u32], bytes: impl Fn(u32) -> Vec<u8>) {
    for (id, logit) in logits.iter_mut().enumerate() {
        let id = id as u32;
        let token = bytes(id);
        let inside = !token.is_empty() && owed.starts_with(&token);
        let spells = inside || (token.starts_with(owed) && stops.binary_search(&id).is_err());
        if !spells {
            *logit = f32::NEG_INFINITY;
        }
    }
}
