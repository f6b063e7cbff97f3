//! Curves of runs that went well, so that a user sees whether a new one is on track.

use std::fmt::{self, Display};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::plan::{Family, RunPlan};

/// A curve of the validation loss.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// What was trained, in a few words.
    pub name: String,
    /// How paths of its data end, in whole names.
    pub data: Vec<String>,
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
    /// How the model's name begins.
    pub family: Family,
    /// Blocks.
    pub n_layer: usize,
    /// Width.
    pub n_embd: usize,
    /// Context.
    pub seq_len: usize,
}

/// How a run stands beside a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// In a word.
    pub verdict: Verdict,
    /// Name of the curve.
    pub curve: String,
    /// Loss above the curve, in nats.
    pub above: f64,
    /// The curve's loss there.
    pub expected: f64,
    /// The band.
    pub band: f64,
}

/// Whether a validation loss lies in the band around a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Within the band.
    #[serde(rename = "on track")]
    OnTrack,
    /// Below the band.
    #[serde(rename = "ahead")]
    Ahead,
    /// Above the band.
    #[serde(rename = "behind")]
    Behind,
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

/// The curve that judges a plan, where there is one.
pub fn judge(plan: &RunPlan) -> Result<Option<Curve>, TrainError> {
    Ok(curves()?.into_iter().find(|curve| curve.judges(plan)))
}

/// Whether the path of a plan's data ends in one of some whole names, and its vocabulary has this size.
pub fn trains_on(plan: &RunPlan, ends: &[String], vocab_size: usize) -> bool {
    let path = Path::new(&plan.data.path);
    ends.iter().any(|end| path.ends_with(end)) && plan.model.vocab_size == vocab_size
}

impl Curve {
    /// Whether the curve is of the data and vocabulary of a plan.
    pub fn is_of(&self, plan: &RunPlan) -> bool {
        trains_on(plan, &self.data, self.vocab_size)
    }

    /// Whether its band holds for a plan.
    pub fn judges(&self, plan: &RunPlan) -> bool {
        let m = &plan.model;
        self.is_of(plan)
            && self.shape == Shape { family: m.family(), n_layer: m.n_layer, n_embd: m.n_embd, seq_len: m.seq_len }
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

    /// Tokens from which on it judges: losses fall too fast before its first measurement of a trained model.
    pub fn begins(&self) -> f64 {
        self.points.iter().map(|(tokens, _)| *tokens).find(|tokens| *tokens > 0.0).unwrap_or(f64::INFINITY)
    }

    /// How a loss after `tokens` stands beside the curve, where it judges.
    pub fn standing(&self, tokens: f64, loss: f64) -> Option<Standing> {
        if tokens < self.begins() {
            return None;
        }
        let expected = self.at(tokens)?;
        let above = loss - expected;
        let verdict = match above {
            above if above > self.band => Verdict::Behind,
            above if above < -self.band => Verdict::Ahead,
            _ => Verdict::OnTrack,
        };
        Some(Standing { verdict, curve: self.name.clone(), above, expected, band: self.band })
    }
}

impl Verdict {
    /// As printed.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::OnTrack => "on track",
            Verdict::Ahead => "ahead",
            Verdict::Behind => "behind",
        }
    }
}

impl Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { verdict, curve, above, expected, band } = self;
        let word = verdict.word();
        write!(
            f,
            "{word}: {above:+.3} from the reference curve's {expected:.3} ({curve}; other seeds lie within {band})"
        )
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
            data: vec!["x".into()],
            vocab_size: 1,
            shape: Shape { family: Family::Gpt2, n_layer: 1, n_embd: 1, seq_len: 1 },
            band: 0.1,
            source: String::new(),
            points: vec![(0.0, 8.0), (100.0, 4.0), (10_000.0, 2.0)],
        };
        assert_eq!(curve.at(50.0), Some(6.0));
        assert_eq!(curve.at(1000.0), Some(3.0), "half of the way in the logarithm");
        assert_eq!(curve.at(20_000.0), None);
        let word = |loss| curve.standing(1000.0, loss).expect("inside").verdict.word();
        assert_eq!([word(3.05), word(3.2), word(2.8)], ["on track", "behind", "ahead"]);
        assert_eq!(curve.standing(99.0, 4.0), None, "nothing was measured between no training and 100 tokens");
    }

    /// Every run file here trains what one of the curves is of, so that its user is told how the run stands.
    #[test]
    fn the_run_files_have_the_curves_that_were_measured_with_them() {
        let of = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runs").join(name);
            let plan = RunPlan::from_toml(&std::fs::read_to_string(path).expect("read")).expect("a plan");
            judge(&plan).expect("curves").map(|curve| curve.name)
        };
        for (file, start) in [
            ("tour.toml", "the tour"),
            ("shakespeare-laptop.toml", "Tiny Shakespeare"),
            ("novels-beside-pytorch.toml", "novels in the order"),
            ("llama-novels.toml", "novels, a Llama"),
            ("gpt2-124m.toml", "GPT-2 124M"),
        ] {
            assert!(of(file).is_some_and(|name| name.starts_with(start)), "{file}: {:?}", of(file));
        }
        assert_eq!(of("gpt2-1558m.toml"), None, "another shape is not judged");
    }
}
