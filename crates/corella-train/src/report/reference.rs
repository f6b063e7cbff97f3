//! Curves of runs that went well, so that a user sees whether a new one is on track.

use serde::Deserialize;

use crate::TrainError;
use crate::plan::RunPlan;

/// A curve of the validation loss.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// What was trained, in a few words.
    pub name: String,
    /// End of the path of its data.
    pub data: String,
    /// Vocabulary: losses per token of another are not comparable.
    pub vocab_size: usize,
    /// Model that the band holds for; with another shape the curve is only shown.
    pub shape: Shape,
    /// How far another seed may lie off, in nats.
    pub band: f64,
    /// How it was measured.
    pub source: String,
    /// (tokens seen, validation loss), tokens ascending.
    pub points: Vec<(f64, f64)>,
}

/// Shape of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Blocks.
    pub n_layer: usize,
    /// Width.
    pub n_embd: usize,
    /// Context.
    pub seq_len: usize,
}

/// How a run stands beside a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Loss above the curve, in nats.
    pub above: f64,
    /// The curve's loss there.
    pub expected: f64,
    /// The band.
    pub band: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    curve: Vec<Curve>,
}

/// All curves.
pub fn curves() -> Result<Vec<Curve>, TrainError> {
    let table: Table = toml::from_str(include_str!("../../data/curves.toml"))
        .map_err(|e| TrainError::Plan { field: "curves.toml", what: e.to_string() })?;
    Ok(table.curve)
}

impl Curve {
    /// Whether the curve is of the data and vocabulary of a plan.
    pub fn is_of(&self, plan: &RunPlan) -> bool {
        plan.data.path.trim_end_matches('/').ends_with(&self.data) && plan.model.vocab_size == self.vocab_size
    }

    /// Whether its band holds for a plan.
    pub fn judges(&self, plan: &RunPlan) -> bool {
        let m = &plan.model;
        self.is_of(plan) && self.shape == Shape { n_layer: m.n_layer, n_embd: m.n_embd, seq_len: m.seq_len }
    }

    /// The loss after `tokens`, between the points; `None` outside of them.
    pub fn at(&self, tokens: f64) -> Option<f64> {
        let after = self.points.iter().position(|(t, _)| *t >= tokens)?;
        let (t1, y1) = self.points[after];
        if after == 0 {
            return (t1 == tokens).then_some(y1);
        }
        let (t0, y0) = self.points[after - 1];
        // Losses fall by the logarithm of the tokens; from 0 tokens on only a straight line is left.
        let part = if t0 > 0.0 { (tokens / t0).ln() / (t1 / t0).ln() } else { tokens / t1 };
        Some(y0 + part * (y1 - y0))
    }

    /// How a loss after `tokens` stands beside the curve.
    pub fn standing(&self, tokens: f64, loss: f64) -> Option<Standing> {
        let expected = self.at(tokens)?;
        Some(Standing { above: loss - expected, expected, band: self.band })
    }
}

impl Standing {
    /// `on track`, `ahead` or `behind`.
    pub fn word(&self) -> &'static str {
        match self.above {
            above if above > self.band => "behind",
            above if above < -self.band => "ahead",
            _ => "on track",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curves_fall_and_are_ordered() {
        for curve in curves().expect("readable") {
            assert!(curve.points.windows(2).all(|w| w[0].0 < w[1].0), "{}", curve.name);
            let (first, last) = (curve.points[0].1, curve.points[curve.points.len() - 1].1);
            assert!(last < first && curve.band > 0.0, "{}", curve.name);
        }
    }

    #[test]
    fn a_loss_is_judged_by_the_curve_at_its_tokens() {
        let curve = Curve {
            name: String::new(),
            data: "x".into(),
            vocab_size: 1,
            shape: Shape { n_layer: 1, n_embd: 1, seq_len: 1 },
            band: 0.1,
            source: String::new(),
            points: vec![(0.0, 8.0), (100.0, 4.0), (10_000.0, 2.0)],
        };
        assert_eq!(curve.at(50.0), Some(6.0));
        assert_eq!(curve.at(1000.0), Some(3.0), "half of the way in the logarithm");
        assert_eq!(curve.at(20_000.0), None);
        let word = |loss| curve.standing(1000.0, loss).expect("inside").word();
        assert_eq!([word(3.05), word(3.2), word(2.8)], ["on track", "behind", "ahead"]);
    }
}
