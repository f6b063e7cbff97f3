//! Drawing a token from logits.

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleParams {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the K likeliest tokens.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability (Holtzman et al., arXiv 1904.09751).
    pub top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest.
    pub min_p: Option<f32>,
    /// Seed of all draws.
    pub seed: u64,
}

/// A parameter out of its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name} = {value}: {rule}")]
pub struct SampleError {
    name: &'static str,
    value: f64,
    rule: &'static str,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Its id.
    pub id: u32,
    /// Log of its probability under the model, before temperature and filters.
    pub logprob: f32,
}

/// Draws tokens. It has no hidden state: a draw follows from (seed, sample, position) and the logits.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    params: SampleParams,
}

impl Sampler {
    /// Checks the parameters.
    pub fn new(params: SampleParams) -> Result<Self, SampleError> {
        let check = |ok: bool, name, value: f64, rule| if ok { Ok(()) } else { Err(SampleError { name, value, rule }) };
        let t = params.temperature;
        check(t.is_finite() && t >= 0.0, "temperature", t.into(), "must be 0 or more")?;
        if let Some(k) = params.top_k {
            check(k > 0, "top_k", k as f64, "must be 1 or more")?;
        }
        for (name, p) in [("top_p", params.top_p), ("min_p", params.min_p)] {
            if let Some(p) = p {
                check(p > 0.0 && p <= 1.0, name, p.into(), "must be above 0 and at most 1")?;
            }
        }
        Ok(Sampler { params })
    }

    /// Draws for position `position` of sample `sample`.
    pub fn draw(&self, logits: &[f32], sample: u64, position: u64) -> Draw {
        let likeliest = argmax(logits);
        let log_sum = log_sum_exp(logits);
        let draw = |id: u32| Draw { id, logprob: (f64::from(logits[id as usize]) - log_sum) as f32 };
        if self.params.temperature == 0.0 {
            return draw(likeliest);
        }
        let candidates = self.candidates(logits, logits[likeliest as usize]);
        let total: f64 = candidates.iter().map(|(_, w)| w).sum();
        let mut rest = uniform(self.params.seed, sample, position) * total;
        for (id, weight) in &candidates {
            rest -= weight;
            if rest < 0.0 {
                return draw(*id);
            }
        }
        draw(candidates.last().map_or(likeliest, |c| c.0))
    }

    /// Tokens that pass the filters, with weights in proportion to their probability, the likeliest first if filtered.
    fn candidates(&self, logits: &[f32], max: f32) -> Vec<(u32, f64)> {
        let SampleParams { temperature, top_k, top_p, min_p, .. } = self.params;
        let weight = |logit: f32| (f64::from(logit - max) / f64::from(temperature)).exp();
        let mut all: Vec<(u32, f64)> = logits.iter().enumerate().map(|(i, l)| (i as u32, weight(*l))).collect();
        if top_k.is_none() && top_p.is_none() && min_p.is_none() {
            return all;
        }
        // A stable sort: equal weights stay in the order of their ids.
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(top_k.unwrap_or(usize::MAX));
        if let Some(p) = top_p {
            let goal = all.iter().map(|(_, w)| w).sum::<f64>() * f64::from(p);
            let mut reached = 0.0;
            let keep = all.iter().take_while(|(_, w)| {
                let more = reached < goal;
                reached += w;
                more
            });
            let keep = keep.count();
            all.truncate(keep.max(1));
        }
        if let Some(p) = min_p {
            // The likeliest has weight 1.
            all.retain(|(_, w)| *w >= f64::from(p));
        }
        all
    }
}

/// The likeliest id, the lowest among equals.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// ln Σ e^logit, in f64.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|l| (f64::from(*l) - max).exp()).sum::<f64>().ln()
}

/// A number in 0 .. 1 that follows from its arguments (SplitMix64's finaliser over their mixture).
fn uniform(seed: u64, sample: u64, position: u64) -> f64 {
    let mut z = seed;
    for part in [sample, position, 0] {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: SampleParams = SampleParams { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: 5 };

    fn ids(params: SampleParams, logits: &[f32]) -> Vec<usize> {
        let sampler = Sampler::new(params).expect("valid");
        let mut counts = vec![0; logits.len()];
        for position in 0..20_000 {
            counts[sampler.draw(logits, 0, position).id as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let probabilities = [0.5f32, 0.25, 0.15, 0.1];
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        // Χ² with 3 degrees of freedom exceeds 16.3 once in a thousand.
        let chi2: f64 = ids(PLAIN, &logits)
            .iter()
            .zip(probabilities)
            .map(|(n, p)| (*n as f64 - 20_000.0 * f64::from(p)).powi(2) / (20_000.0 * f64::from(p)))
            .sum();
        assert!(chi2 < 16.3, "{chi2}");
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits: Vec<f32> = [0.5f32, 0.25, 0.15, 0.1].iter().map(|p| p.ln()).collect();
        let kept = |params| ids(params, &logits).iter().filter(|n| **n > 0).count();
        assert_eq!(kept(SampleParams { top_k: Some(2), ..PLAIN }), 2);
        assert_eq!(kept(SampleParams { top_p: Some(0.6), ..PLAIN }), 2);
        assert_eq!(kept(SampleParams { min_p: Some(0.28), ..PLAIN }), 3);
        assert_eq!(kept(SampleParams { temperature: 0.0, ..PLAIN }), 1);
    }

    #[test]
    fn a_draw_repeats_and_its_logprob_is_the_models() {
        let logits = [1.0, 2.0, 0.5];
        let sampler = Sampler::new(SampleParams { temperature: 2.0, ..PLAIN }).expect("valid");
        let draw = sampler.draw(&logits, 3, 4);
        assert_eq!(draw, sampler.draw(&logits, 3, 4));
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        assert!((f64::from(draw.logprob) - (f64::from(logits[draw.id as usize]) - sum.ln())).abs() < 1e-6);
        assert!(Sampler::new(SampleParams { temperature: f32::NAN, ..PLAIN }).is_err());
        assert!(Sampler::new(SampleParams { top_p: Some(0.0), ..PLAIN }).is_err());
    }
}
