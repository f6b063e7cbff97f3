//! From logits to a token.
//!
//! The order of the steps, each on what the one before left (that of the `transformers` library):
//!
//! 1. logit bias, repetition penalty, frequency and presence penalty, forbidden tokens ([`History::adjust`]);
//! 2. temperature: logits divided by it; 0 leaves the likeliest token alone (the lowest id among equals);
//! 3. top-k, then top-p, then min-p, then typical-p, each with the probabilities renormalised over what is left; where the
//!    temperature is to come last (the order of llama.cpp) it does behind these;
//! 4. the draw: 64 random bits, a hash of (seed, sample, position), pick a place in the weights in order of id.
//!
//! Weights are whole numbers ([`corella_ops::cpu::draw`]), so every cut and every draw is exact and independent of how it
//! was found. One thread draws while the others wait, so a cut looks at what is left only: once a filter has made a list of
//! it, the vocabulary is not gone through again.

mod history;
mod params;
pub(crate) mod random;
mod select;

pub use history::History;
pub use params::{SampleParams, Sampling};
pub use random::bits as random_bits;

use corella_ops::cpu::draw::{ONE, likeliest, weight, weights};

use select::{FEW, binned_cut, likelier, top_n};

/// Tokens whose weights are added up together before a draw looks inside.
const BLOCK: usize = 256;
/// Below this many times the temperature under the largest logit a token has no weight: 2⁻⁴⁵ = e^−31.2.
const DEEPEST: f32 = 32.0;

/// Working memory of draws; it keeps nothing from one to the next.
#[derive(Debug, Default)]
pub struct Sampler {
    weights: Vec<u64>,
    order: Vec<(f32, u32)>,
    spare: Vec<(f32, u32)>,
    deviations: Vec<(f64, u32)>,
    kept: Vec<(u32, u64)>,
}

/// The probabilities at one position.
#[derive(Debug)]
pub struct Distribution<'a> {
    logits: &'a [f32],
    /// Weight of each token; 0 where a filter took it out. Empty where there is only one.
    weights: &'a [u64],
    /// The only token that may be drawn.
    only: Option<u32>,
    order: &'a mut Vec<(f32, u32)>,
    total: u64,
    max: f32,
    temperature: f32,
    filtered: bool,
}

/// A row of logits (V) under a temperature, and what filters have left of it so far.
#[derive(Clone, Copy)]
struct Row<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
    /// Sum of the weights that are left.
    total: u64,
    /// Whether [`Sampler::order`] lists the tokens that are left; else all may be.
    listed: bool,
}

impl Sampler {
    /// The distribution of `logits` (V, already adjusted) after temperature and filters.
    pub fn distribution<'a>(&'a mut self, logits: &'a [f32], sampling: &Sampling) -> Distribution<'a> {
        let p = sampling.params();
        let (max, first) = likeliest(logits);
        if p.temperature == 0.0 {
            let (only, order) = (Some(first as u32), &mut self.order);
            return Distribution {
                logits,
                weights: &[],
                only,
                order,
                total: ONE,
                max,
                temperature: 1.0,
                filtered: true,
            };
        }
        let temperature = if p.temperature_last { 1.0 } else { p.temperature };
        let mut row = Row { logits, max, temperature, total: 0, listed: true };
        if let Some(k) = p.top_k.filter(|k| *k < logits.len()) {
            row.total = self.list(row, |order| top_n(logits, k, |_| true, order));
        } else {
            row.total = weights(&mut self.weights, logits, max, temperature);
            row.listed = false;
        }
        if row.total > 0 {
            if let Some(p) = p.top_p.filter(|p| *p < 1.0) {
                row = self.top_p(row, f64::from(p));
            }
            if let Some(p) = p.min_p {
                row = self.min_p(row, f64::from(p));
            }
            if let Some(p) = p.typical_p.filter(|p| *p < 1.0) {
                row = self.typical(row, f64::from(p));
            }
        }
        if p.temperature_last {
            row = self.weigh_again(row, p.temperature);
        }
        let filtered = p.top_k.is_some() || p.top_p.is_some() || p.min_p.is_some() || p.typical_p.is_some();
        let Row { total, temperature, .. } = row;
        let (weights, order) = (&self.weights, &mut self.order);
        Distribution { logits, weights, only: None, order, total, max, temperature, filtered }
    }

    /// Weights of the tokens that `find` lists, and 0 for all others. Returns the total.
    fn list(&mut self, row: Row<'_>, find: impl FnOnce(&mut Vec<(f32, u32)>)) -> u64 {
        self.order.clear();
        find(&mut self.order);
        self.weights.clear();
        self.weights.resize(row.logits.len(), 0);
        let mut total = 0;
        for (logit, id) in &self.order {
            let weight = weight(*logit, row.max, row.temperature);
            if let Some(place) = self.weights.get_mut(*id as usize) {
                *place = weight;
                total += weight;
            }
        }
        total
    }

    /// Weighs the tokens that are left under another temperature.
    fn weigh_again<'a>(&mut self, row: Row<'a>, temperature: f32) -> Row<'a> {
        let mut total = 0;
        if row.listed {
            for (logit, id) in &self.order {
                let weight = weight(*logit, row.max, temperature);
                self.weights[*id as usize] = weight;
                total += weight;
            }
        } else {
            for (place, logit) in self.weights.iter_mut().zip(row.logits).filter(|(place, _)| **place > 0) {
                *place = weight(*logit, row.max, temperature);
                total += *place;
            }
        }
        Row { total, temperature, ..row }
    }

    /// Takes the weight of all tokens but those of `order`.
    fn keep_listed<'a>(&mut self, row: Row<'a>) -> Row<'a> {
        self.kept.clear();
        self.kept.extend(self.order.iter().map(|(_, id)| (*id, self.weights[*id as usize])));
        self.weights.fill(0);
        for (id, weight) in &self.kept {
            self.weights[*id as usize] = *weight;
        }
        Row { total: self.kept.iter().map(|(_, weight)| weight).sum(), listed: true, ..row }
    }

    /// Takes the weight of all tokens that `left` does not keep, in a row that no filter has listed.
    fn keep<'a>(&mut self, row: Row<'a>, left: impl Fn(usize) -> bool) -> Row<'a> {
        let mut total = 0;
        for (id, weight) in self.weights.iter_mut().enumerate() {
            *weight = if left(id) { *weight } else { 0 };
            total += *weight;
        }
        Row { total, ..row }
    }

    /// Keeps the likeliest tokens up to the one with which they reach the share `p`.
    fn top_p<'a>(&mut self, row: Row<'a>, p: f64) -> Row<'a> {
        let goal = ((p * row.total as f64).ceil() as u64).clamp(1, row.total);
        let mut listed = row.listed;
        if !listed {
            // All tokens this light weigh together no more than what may go, so none of them is the last to stay.
            let light = (row.total - goal) / row.logits.len() as u64;
            self.order.clear();
            let heavy = self.weights.iter().zip(row.logits).enumerate().filter(|(_, (weight, _))| **weight > light);
            self.order.extend(heavy.map(|(id, (_, logit))| (*logit, id as u32)).take(FEW));
            listed = self.order.len() < FEW;
        }
        let (weights, per_bin) = (&self.weights, 1.0 / (DEEPEST * row.temperature));
        let depth = |item: &(f32, u32)| (row.max - item.0) * per_bin;
        let weight = |item: &(f32, u32)| weights[item.1 as usize];
        let (n, order) = if listed { (self.order.len(), &self.order[..]) } else { (row.logits.len(), &[][..]) };
        let item = |i: usize| order.get(i).copied().unwrap_or_else(|| (row.logits[i], i as u32));
        let Some(last) = binned_cut(n, item, &mut self.spare, depth, likelier, weight, goal) else { return row };
        if listed {
            self.order.retain(|item| likelier(item, &last).is_le());
            return self.keep_listed(row);
        }
        self.keep(row, |id| row.logits[id] > last.0 || (row.logits[id] == last.0 && id as u32 <= last.1))
    }

    /// Keeps the tokens that weigh at least the share `p` of the likeliest.
    fn min_p<'a>(&mut self, row: Row<'a>, p: f64) -> Row<'a> {
        let least = (p * ONE as f64).ceil() as u64;
        if row.listed {
            let weights = &self.weights;
            self.order.retain(|(_, id)| weights[*id as usize] >= least);
            return self.keep_listed(row);
        }
        let mut total = 0;
        for weight in &mut self.weights {
            *weight = if *weight >= least { *weight } else { 0 };
            total += *weight;
        }
        Row { total, ..row }
    }

    /// Keeps the tokens whose surprise −ln p is closest to its mean, the entropy, until they reach the share `p`; all
    /// that are as close as the last one stay.
    fn typical<'a>(&mut self, row: Row<'a>, p: f64) -> Row<'a> {
        let (total, inverse, max) = (row.total as f64, 1.0 / f64::from(row.temperature), f64::from(row.max));
        let log_total = (total / ONE as f64).ln();
        let surprise = |logit: f32| log_total - (f64::from(logit) - max) * inverse;
        let weights = &self.weights;
        // What has no weight may have no surprise that is a number.
        let share = |logit: f32, weight: u64| if weight > 0 { weight as f64 * surprise(logit) } else { 0.0 };
        let entropy = if row.listed {
            // In the order of ids, however they were listed, so that the sum is one number.
            self.order.sort_unstable_by_key(|(_, id)| *id);
            self.order.iter().map(|(logit, id)| share(*logit, weights[*id as usize])).sum::<f64>()
        } else {
            // Four sums side by side: one would wait for itself.
            let mut lanes = [0.0; 4];
            for (logits, weights) in row.logits.chunks(4).zip(weights.chunks(4)) {
                for (lane, (logit, weight)) in lanes.iter_mut().zip(logits.iter().zip(weights)) {
                    *lane += share(*logit, *weight);
                }
            }
            lanes.iter().sum()
        } / total;
        let deviation = |logit: f32| (surprise(logit) - entropy).abs();
        let goal = ((p * total).ceil() as u64).clamp(1, row.total);
        let closer = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let depth = |item: &(f64, u32)| item.0 as f32 / DEEPEST;
        let weight = |item: &(f64, u32)| weights[item.1 as usize];
        let (n, order) = if row.listed { (self.order.len(), &self.order[..]) } else { (row.logits.len(), &[][..]) };
        let item = |i: usize| {
            let (logit, id) = order.get(i).copied().unwrap_or_else(|| (row.logits[i], i as u32));
            (deviation(logit), id)
        };
        let last = binned_cut(n, item, &mut self.deviations, depth, closer, weight, goal);
        let Some((last, _)) = last else { return row };
        if row.listed {
            self.order.retain(|(logit, _)| deviation(*logit) <= last);
            return self.keep_listed(row);
        }
        self.keep(row, |id| deviation(row.logits[id]) <= last)
    }
}

impl Distribution<'_> {
    /// The token that `seed` picks for position `position` of sample `sample`.
    pub fn draw(&self, seed: u64, sample: u64, position: u64) -> u32 {
        self.pick(random::bits(seed, sample, position))
    }

    /// The token that 64 random bits pick.
    pub fn pick(&self, bits: u64) -> u32 {
        if let Some(only) = self.only {
            return only;
        }
        let mut place = random::scale(bits, self.total.max(1));
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
        let out = match self.only {
            Some(only) => id != only,
            None => self.filtered && self.weights[id as usize] == 0,
        };
        if out {
            return f32::NEG_INFINITY;
        }
        let scaled = (f64::from(self.logits[id as usize]) - f64::from(self.max)) / f64::from(self.temperature);
        (scaled - (self.total as f64 / ONE as f64).ln()) as f32
    }

    /// 1 and the number of tokens with a higher logit, filters aside.
    pub fn rank(&self, id: u32) -> usize {
        let own = self.logits[id as usize];
        1 + self.logits.iter().filter(|logit| **logit > own).count()
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
        if let Some(only) = self.only {
            return [(only, self.log_prob(only))].into_iter().take(n).collect();
        }
        let (weights, filtered) = (self.weights, self.filtered);
        top_n(self.logits, n, |id| !filtered || weights[id] > 0, self.order);
        self.order.iter().map(|(_, id)| (*id, self.log_prob(*id))).collect()
    }
}
