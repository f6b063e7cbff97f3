//! From logits to a token.
//!
//! The order of the steps, each on what the one before left (that of the `transformers` library):
//!
//! 1. logit bias, repetition penalty, frequency and presence penalty, forbidden tokens ([`History::adjust`]);
//! 2. temperature: logits divided by it; 0 leaves the likeliest token alone (the lowest id among equals);
//! 3. top-k, then top-p, then min-p, then typical-p, each with the probabilities renormalised over what is left;
//! 4. the draw: 64 random bits, a hash of (seed, sample, position), pick a place in the weights in order of id.
//!
//! Weights are whole numbers ([`weights`]), so every cut and every draw is exact and independent of how it was found.

mod history;
mod params;
mod random;
mod select;
mod weights;

pub use history::History;
pub use params::{SampleParams, Sampling};

use select::{likelier, top_n, weighted_cut};
use weights::{ONE, fill, max_logit};

/// Tokens whose weights are added up together before a draw looks inside.
const BLOCK: usize = 256;

/// Working memory of draws; it keeps nothing from one to the next.
#[derive(Debug, Default)]
pub struct Sampler {
    weights: Vec<u64>,
    order: Vec<(f32, u32)>,
    deviations: Vec<(f64, u32)>,
}

/// The probabilities at one position.
#[derive(Debug)]
pub struct Distribution<'a> {
    logits: &'a [f32],
    /// Weight of each token; 0 where a filter took it out.
    weights: &'a [u64],
    order: &'a mut Vec<(f32, u32)>,
    total: u64,
    max: f32,
    temperature: f32,
    filtered: bool,
}

impl Sampler {
    /// The distribution of `logits` (V, already adjusted) after temperature and filters.
    pub fn distribution<'a>(&'a mut self, logits: &'a [f32], sampling: &Sampling) -> Distribution<'a> {
        let p = sampling.params();
        let max = max_logit(logits);
        let greedy = p.temperature == 0.0;
        let temperature = if greedy { 1.0 } else { p.temperature };
        let mut total = if greedy {
            let likeliest = logits.iter().position(|l| *l == max).unwrap_or(0);
            self.weights.clear();
            self.weights.extend((0..logits.len()).map(|id| if id == likeliest { ONE } else { 0 }));
            ONE
        } else {
            fill(&mut self.weights, logits, max, temperature)
        };
        if !greedy && total > 0 {
            if let Some(k) = p.top_k {
                total = self.top_k(logits, k).unwrap_or(total);
            }
            if let Some(p) = p.top_p.filter(|p| *p < 1.0) {
                total = self.top_p(logits, f64::from(p), total);
            }
            if let Some(p) = p.min_p {
                total = self.min_p(f64::from(p));
            }
            if let Some(p) = p.typical_p.filter(|p| *p < 1.0) {
                total = self.typical(logits, max, temperature, f64::from(p), total);
            }
        }
        let filtered = greedy || p.top_k.is_some() || p.top_p.is_some() || p.min_p.is_some() || p.typical_p.is_some();
        Distribution { logits, weights: &self.weights, order: &mut self.order, total, max, temperature, filtered }
    }

    /// Weight 0 for all behind `cut` in order of likelihood. Returns the new total.
    fn cut(&mut self, logits: &[f32], cut: (f32, u32)) -> u64 {
        let mut total = 0;
        for (id, (weight, logit)) in self.weights.iter_mut().zip(logits).enumerate() {
            let kept = *logit > cut.0 || (*logit == cut.0 && id as u32 <= cut.1);
            *weight = if kept { *weight } else { 0 };
            total += *weight;
        }
        total
    }

    fn top_k(&mut self, logits: &[f32], k: usize) -> Option<u64> {
        if k >= logits.len() {
            return None;
        }
        top_n(logits, k, |_| true, &mut self.order);
        let last = *self.order.last()?;
        Some(self.cut(logits, last))
    }

    /// Keeps the likeliest tokens up to the one with which they reach the share `p`.
    fn top_p(&mut self, logits: &[f32], p: f64, total: u64) -> u64 {
        let goal = ((p * total as f64).ceil() as u64).clamp(1, total);
        // All tokens this light weigh together no more than what may go, so none of them is the last to stay.
        let light = (total - goal) / logits.len() as u64;
        self.order.clear();
        let heavy = self.weights.iter().zip(logits).enumerate().filter(|(_, (weight, _))| **weight > light);
        self.order.extend(heavy.map(|(id, (_, logit))| (*logit, id as u32)));
        let weights = &self.weights;
        let last = weighted_cut(&mut self.order, likelier, |(_, id)| weights[*id as usize], goal);
        last.map_or(total, |last| self.cut(logits, last))
    }

    fn min_p(&mut self, p: f64) -> u64 {
        let least = (p * ONE as f64).ceil() as u64;
        let mut total = 0;
        for weight in &mut self.weights {
            *weight = if *weight >= least { *weight } else { 0 };
            total += *weight;
        }
        total
    }

    /// Keeps the tokens whose surprise −ln p is closest to its mean, the entropy, until they reach the share `p`; all
    /// that are as close as the last one stay.
    fn typical(&mut self, logits: &[f32], max: f32, temperature: f32, p: f64, total: u64) -> u64 {
        let log_total = (total as f64 / ONE as f64).ln();
        let surprise = |id: usize| log_total - (f64::from(logits[id]) - f64::from(max)) / f64::from(temperature);
        let mut entropy = 0.0;
        for (id, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            entropy += *weight as f64 / total as f64 * surprise(id);
        }
        self.deviations.clear();
        let left = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        self.deviations.extend(left.map(|(id, _)| ((surprise(id) - entropy).abs(), id as u32)));
        let goal = ((p * total as f64).ceil() as u64).clamp(1, total);
        let weights = &self.weights;
        let closer = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let last = weighted_cut(&mut self.deviations, closer, |(_, id)| weights[*id as usize], goal);
        let Some((last, _)) = last else { return total };
        let mut total = 0;
        for (deviation, id) in &self.deviations {
            let weight = &mut self.weights[*id as usize];
            *weight = if *deviation <= last { *weight } else { 0 };
            total += *weight;
        }
        total
    }
}

impl Distribution<'_> {
    /// The token that `seed` picks for position `position` of sample `sample`.
    pub fn draw(&self, seed: u64, sample: u64, position: u64) -> u32 {
        let mut place = random::scale(random::bits(seed, sample, position), self.total.max(1));
        for (block, weights) in self.weights.chunks(BLOCK).enumerate() {
            let sum: u64 = weights.iter().sum();
            if place < sum {
                for (i, weight) in weights.iter().enumerate() {
                    if place < *weight {
                        return (block * BLOCK + i) as u32;
                    }
                    place -= weight;
                }
            }
            place -= sum.min(place);
        }
        // Nothing has any weight: every logit is −∞ or not a number.
        0
    }

    /// ln of a token's probability; −∞ for one that a filter took out.
    pub fn log_prob(&self, id: u32) -> f32 {
        if self.filtered && self.weights[id as usize] == 0 {
            return f32::NEG_INFINITY;
        }
        let scaled = (f64::from(self.logits[id as usize]) - f64::from(self.max)) / f64::from(self.temperature);
        (scaled - (self.total as f64 / ONE as f64).ln()) as f32
    }

    /// Entropy in nats: ln Z − Σ p (logit − max) / temperature, over the tokens that the filters left.
    pub fn entropy(&self) -> f32 {
        let total = self.total.max(1) as f64;
        let mean = self.weights.iter().zip(self.logits).fold(0.0, |mean, (weight, logit)| {
            // A token without weight may have a logit of −∞.
            let scaled = (f64::from(*logit) - f64::from(self.max)) / f64::from(self.temperature);
            if *weight == 0 { mean } else { mean + *weight as f64 * scaled }
        });
        ((total / ONE as f64).ln() - mean / total).max(0.0) as f32
    }

    /// The `n` likeliest tokens with the logs of their probabilities, in order.
    pub fn top(&mut self, n: usize) -> Vec<(u32, f32)> {
        let (weights, filtered) = (self.weights, self.filtered);
        top_n(self.logits, n, |id| !filtered || weights[id] > 0, self.order);
        self.order.iter().map(|(_, id)| (*id, self.log_prob(*id))).collect()
    }
}
