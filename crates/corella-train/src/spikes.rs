//! Spikes: an update whose loss or gradient stands far above those before it is better left out.
//!
//! As in llm.c (`outlier_detector.h`): z = (x − mean) / deviation over a window of past values, nothing until the window
//! is full. Different from there: x is not part of its own window, so that it does not shrink its own score; a spike enters
//! the window cut down to the threshold, so that the window neither forgets how calm it was nor stays blind to a new level;
//! values that are not finite count as spikes at any time and never enter; a norm counts only where the loss is above its mean
//! too, because the norms of healthy updates scatter far more than their losses; and the window is part of the checkpoint.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A window of past values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpikeWindow {
    size: usize,
    /// The bits of f64 values, the oldest first: decimal text would not bring every one back to the bit.
    values: VecDeque<u64>,
}

impl SpikeWindow {
    /// An empty window of `size` values; a size of 0 never fills.
    pub fn new(size: usize) -> Self {
        SpikeWindow { size, values: VecDeque::new() }
    }

    /// Whether the window was made for this size.
    pub fn is_of_size(&self, size: usize) -> bool {
        self.size == size && self.values.len() <= size
    }

    /// Standard deviations by which `x` lies above the mean of the window; `None` until the window is full.
    pub fn z(&self, x: f64) -> Option<f64> {
        let (mean, deviation) = self.moments()?;
        Some((x - mean) / deviation)
    }

    /// Takes `x` in, cut down to `threshold` deviations above the mean; what is not finite stays out.
    pub fn push(&mut self, x: f64, threshold: f64) {
        if !x.is_finite() || self.size == 0 {
            return;
        }
        let x = match self.moments() {
            Some((mean, deviation)) if threshold > 0.0 => x.min(mean + threshold * deviation),
            _ => x,
        };
        if self.values.len() == self.size {
            self.values.pop_front();
        }
        self.values.push_back(x.to_bits());
    }

    /// Mean and standard deviation (never 0) of a full window.
    fn moments(&self) -> Option<(f64, f64)> {
        if self.size == 0 || self.values.len() < self.size {
            return None;
        }
        let n = self.size as f64;
        let values = || self.values.iter().map(|bits| f64::from_bits(*bits));
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        Some((mean, variance.sqrt().max(f64::MIN_POSITIVE)))
    }
}

/// The windows of loss and gradient norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpikeDetector {
    loss: SpikeWindow,
    norm: SpikeWindow,
}

/// When an update is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SpikeLimits {
    /// Values of the window.
    pub window: usize,
    /// Largest z of the loss; 0 for any.
    pub z_loss: f64,
    /// Largest z of the gradient norm of a loss above its mean; 0 for any.
    pub z_norm: f64,
}

/// What the detector says about an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// z of the loss, once the window is full.
    pub z_loss: Option<f64>,
    /// z of the norm, once the window is full.
    pub z_norm: Option<f64>,
    /// Why the update is to be left out, if it is.
    pub skip: Option<Skip>,
}

/// Why an update was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skip {
    /// NaN or infinite.
    #[serde(rename = "loss is not finite")]
    LossNotFinite,
    /// NaN or infinite.
    #[serde(rename = "norm is not finite")]
    NormNotFinite,
    /// z above the limit.
    #[serde(rename = "loss spike")]
    LossSpike,
    /// z above the limit.
    #[serde(rename = "norm spike")]
    NormSpike,
}

impl Skip {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Skip::LossNotFinite => "loss is not finite",
            Skip::NormNotFinite => "norm is not finite",
            Skip::LossSpike => "loss spike",
            Skip::NormSpike => "norm spike",
        }
    }

    /// Whether loss or norm was NaN or infinite.
    pub fn is_not_finite(self) -> bool {
        matches!(self, Skip::LossNotFinite | Skip::NormNotFinite)
    }
}

impl SpikeDetector {
    /// Empty windows.
    pub fn new(window: usize) -> Self {
        SpikeDetector { loss: SpikeWindow::new(window), norm: SpikeWindow::new(window) }
    }

    /// Whether the windows were made for this size: those of a checkpoint may be of another plan.
    pub fn is_of_size(&self, window: usize) -> bool {
        self.loss.is_of_size(window) && self.norm.is_of_size(window)
    }

    /// Judges an update by its loss and gradient norm, and takes both into the windows.
    pub(crate) fn judge(&mut self, loss: f64, norm: f64, limits: SpikeLimits) -> Verdict {
        let (z_loss, z_norm) = (self.loss.z(loss), self.norm.z(norm));
        let above = |z: Option<f64>, limit: f64| limit > 0.0 && z.is_some_and(|z| z > limit);
        let skip = if !loss.is_finite() {
            Some(Skip::LossNotFinite)
        } else if !norm.is_finite() {
            Some(Skip::NormNotFinite)
        } else if above(z_loss, limits.z_loss) {
            Some(Skip::LossSpike)
        } else if above(z_norm, limits.z_norm) && z_loss.is_none_or(|z| z > 0.0) {
            Some(Skip::NormSpike)
        } else {
            None
        };
        self.loss.push(loss, limits.z_loss);
        self.norm.push(norm, limits.z_norm);
        let finite = |z: Option<f64>| z.filter(|z| z.is_finite());
        Verdict { z_loss: finite(z_loss), z_norm: finite(z_norm), skip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SpikeLimits = SpikeLimits { window: 128, z_loss: 7.0, z_norm: 7.0 };

    /// Noise between 0 and 1 (a linear congruence), so that the test needs no generator.
    fn noise(i: u64) -> f64 {
        (i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 11) as f64
            / (1u64 << 53) as f64
    }

    fn trained() -> SpikeDetector {
        let mut detector = SpikeDetector::new(128);
        for i in 0..128 {
            let verdict = detector.judge(3.0 + noise(i), 1.0 + noise(i + 1000), LIMITS);
            assert_eq!((verdict.z_loss, verdict.skip), (None, None), "no score before the window is full");
        }
        detector
    }

    #[test]
    fn noise_passes_and_a_spike_of_either_does_not() {
        let mut detector = trained();
        for i in 128..2000 {
            let verdict = detector.judge(3.0 + noise(i), 1.0 + noise(i + 5000), LIMITS);
            assert!(verdict.z_loss.is_some_and(|z| z.abs() < 3.0) && verdict.skip.is_none(), "{verdict:?}");
        }
        assert_eq!(detector.clone().judge(10.0, 1.5, LIMITS).skip, Some(Skip::LossSpike));
        assert_eq!(detector.clone().judge(3.9, 90.0, LIMITS).skip, Some(Skip::NormSpike));
        let ordinary = detector.clone().judge(3.1, 90.0, LIMITS);
        assert!(ordinary.skip.is_none() && ordinary.z_norm > Some(7.0), "text that is foretold well: {ordinary:?}");
        let off = SpikeLimits { z_loss: 0.0, z_norm: 0.0, ..LIMITS };
        assert_eq!(detector.judge(10.0, 90.0, off).skip, None, "a limit of 0 lets everything finite pass");
    }

    #[test]
    fn what_is_not_finite_is_caught_from_the_first_update_and_leaves_no_trace() {
        let mut detector = SpikeDetector::new(128);
        assert_eq!(detector.judge(f64::NAN, 1.0, LIMITS).skip, Some(Skip::LossNotFinite));
        assert_eq!(detector.judge(3.0, f64::INFINITY, LIMITS).skip, Some(Skip::NormNotFinite));
        let mut detector = trained();
        let before = detector.clone();
        assert_eq!(detector.judge(f64::NEG_INFINITY, f64::NAN, LIMITS).skip, Some(Skip::LossNotFinite));
        assert_eq!(detector, before);
    }

    #[test]
    fn the_window_stays_sharp_after_a_spike_and_follows_a_new_level() {
        let mut detector = trained();
        detector.judge(1e6, 1.5, LIMITS);
        assert_eq!(detector.judge(10.0, 1.5, LIMITS).skip, Some(Skip::LossSpike), "one spike does not hide the next");
        let mut skipped = 0;
        for i in 0..256 {
            skipped += usize::from(detector.judge(9.0 + noise(i), 1.5, LIMITS).skip.is_some());
        }
        assert!((1..64).contains(&skipped), "a level that stays is accepted after some updates: {skipped} skipped");
    }

    #[test]
    fn the_window_comes_back_from_text_to_the_bit() {
        let detector = trained();
        let text = serde_json::to_string(&detector).expect("written");
        assert_eq!(serde_json::from_str::<SpikeDetector>(&text).expect("read"), detector);
    }
}
