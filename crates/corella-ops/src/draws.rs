//! Draws of tokens that a device can make by itself: what is left of a sampler's settings once a row of logits is there.

use crate::cpu::draw::ONE;

/// How the next token follows from a row of logits: edits, temperature, top-k, top-p, min-p, then the place in the weights that
/// `bits` choose, step by step as in `corella-infer`'s sampler, whose token it is to the bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// Tokens that may be drawn: the first so many of the row, at least one.
    pub tokens: usize,
    /// Changes of single logits, at most one for each token.
    pub edits: Vec<Edit>,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the K likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability.
    pub top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest.
    pub min_p: Option<f32>,
    /// 64 random bits.
    pub bits: u64,
}

impl Draw {
    /// The smallest weight (of [`ONE`] for the likeliest token) that min-p leaves.
    pub fn least_weight(&self) -> u64 {
        self.min_p.map_or(1, |p| ((f64::from(p) * ONE as f64).ceil() as u64).max(1))
    }
}

/// What happens to one logit before anything else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edit {
    /// The token.
    pub id: u32,
    /// Added first.
    pub bias: Option<f32>,
    /// Then taken for what was said before.
    pub penalty: Option<Penalty>,
    /// Whether the token cannot be drawn at all.
    pub forbidden: bool,
}

/// What a token that was seen pays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Penalty {
    /// Divides a positive logit and multiplies any other.
    pub repetition: f32,
    /// Taken off then.
    pub taken: f32,
}

impl Edit {
    /// The logit that takes the place of `logit`.
    pub fn apply(&self, mut logit: f32) -> f32 {
        if let Some(bias) = self.bias {
            logit += bias;
        }
        if let Some(Penalty { repetition, taken }) = self.penalty {
            logit = if logit > 0.0 { logit / repetition } else { logit * repetition } - taken;
        }
        if self.forbidden { f32::NEG_INFINITY } else { logit }
    }
}
