//! How fast a run will be on a processor: a multiple of the rate at which updates in f32 run on multiply-adds, a share of their
//! peak, which is measured when the plan is made.

use corella_model::Dtype;

/// Part of the f32 peak that updates in f32 reach on multiply-adds: 0.38, 0.36 and 0.41 for 3.7, 10 and 50 million parameters, 0.42
/// in the tour (2 cores Intel Xeon, before products in f32 ran on tiles; docs/log.md).
const F32_SHARE: f64 = 0.42;
/// By what factor updates in bf16 are faster on dot products of pairs: 2.6 bounds it, a share of the peak as in f32 where that is
/// less. Not measured.
const PAIRS_BF16: f64 = 2.6;
/// Products of bf16 that one in f32 takes, in three parts. Where the peak of bf16 is so much higher and more, products run on
/// tiles (AMX).
const PRODUCTS: f64 = 6.0;
/// What updates on tiles gain over multiply-adds in f32 (docs/plan.md has the rates).
const TILES_F32: Gain = Gain { narrow: 1.6, wide: 2.2 };
/// The same in bf16.
const TILES_BF16: Gain = Gain { narrow: 3.8, wide: 7.2 };

/// Most of an update of a narrow model is no product any more, so what it gains depends on C.
struct Gain {
    /// With 192 channels and fewer.
    narrow: f64,
    /// With 384 and more.
    wide: f64,
}

impl Gain {
    fn at(&self, channels: u64) -> f64 {
        let octaves = (channels.max(1) as f64 / 192.0).log2().clamp(0.0, 1.0);
        self.narrow + (self.wide - self.narrow) * octaves
    }
}

/// Peaks of a processor in 10⁹ operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessorPeaks {
    /// Multiply-adds in f32.
    pub f32_gflops: f64,
    /// Products of bf16; as many as f32 where numbers are converted.
    pub bf16_gflops: f64,
}

impl ProcessorPeaks {
    /// The peak that products in a format have, in 10⁹ operations per second, and the part of it that updates of a model with so
    /// many `channels` reach.
    pub fn of(&self, dtype: Dtype, channels: u64) -> (f64, f64) {
        let in_parts = self.bf16_gflops / PRODUCTS;
        let tiles = in_parts >= self.f32_gflops;
        let (peak, gain) = match (dtype, tiles) {
            (Dtype::F32, false) => (self.f32_gflops, 1.0),
            (Dtype::F32, true) => (in_parts, TILES_F32.at(channels)),
            (Dtype::Bf16, false) => (self.bf16_gflops, PAIRS_BF16),
            (Dtype::Bf16, true) => (self.bf16_gflops, TILES_BF16.at(channels)),
        };
        (peak, F32_SHARE * (gain * self.f32_gflops / peak).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_on_tiles_are_within_a_quarter_of_what_was_measured() {
        let amx = ProcessorPeaks { f32_gflops: 486.0, bf16_gflops: 7500.0 };
        // Channels, and 10⁹ operations per second of updates in f32 and bf16 (docs/plan.md).
        for (channels, f32, bf16) in [(192, 301.0, 694.0), (384, 448.0, 1416.0), (768, 439.0, 1541.0)] {
            for (dtype, measured) in [(Dtype::F32, f32), (Dtype::Bf16, bf16)] {
                let (peak, share) = amx.of(dtype, channels);
                assert!((peak * share / measured - 1.0f64).abs() < 0.25, "{channels} {dtype:?}: {}", peak * share);
            }
        }
    }

    #[test]
    fn bf16_without_tiles_is_planned_by_its_gain_and_never_above_the_share_of_f32() {
        let converted = ProcessorPeaks { f32_gflops: 200.0, bf16_gflops: 200.0 };
        assert_eq!(converted.of(Dtype::Bf16, 768), converted.of(Dtype::F32, 768));
        let pairs = ProcessorPeaks { f32_gflops: 200.0, bf16_gflops: 400.0 };
        assert_eq!(pairs.of(Dtype::Bf16, 768), (400.0, F32_SHARE));
        let many = ProcessorPeaks { f32_gflops: 200.0, bf16_gflops: 1000.0 };
        assert_eq!(many.of(Dtype::Bf16, 768), (1000.0, F32_SHARE * PAIRS_BF16 / 5.0));
    }
}
