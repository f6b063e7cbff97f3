//! How fast a run will be on a processor: a share of its peak, which is measured when the plan is made.

use corella_model::Dtype;

/// Part of the f32 peak that updates in f32 reach: 0.38, 0.36 and 0.41 for 3.7, 10 and 50 million parameters, 0.42 in the
/// tour (2 cores Intel Xeon with AMX; docs/log.md).
const F32_SHARE: f64 = 0.42;
/// By what factor updates in bf16 are faster where the processor multiplies bf16: 2.8, 2.5 and 2.7 on the same machine. Most
/// of an update in bf16 is no product any more, so what it gains over f32 holds better across processors than its share of a
/// peak that is 2 or 15 times that of f32.
const BF16_GAIN: f64 = 2.6;

/// Peaks of a processor in 10⁹ operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessorPeaks {
    /// Multiply-adds in f32.
    pub f32_gflops: f64,
    /// Products of bf16; as many as f32 where numbers are converted.
    pub bf16_gflops: f64,
}

impl ProcessorPeaks {
    /// The peak that products in a format have, in 10⁹ operations per second, and the part of it that updates reach.
    pub fn of(&self, dtype: Dtype) -> (f64, f64) {
        match dtype {
            Dtype::F32 => (self.f32_gflops, F32_SHARE),
            Dtype::Bf16 => {
                let gained = F32_SHARE * BF16_GAIN * self.f32_gflops / self.bf16_gflops;
                (self.bf16_gflops, gained.min(F32_SHARE))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_planned_by_what_it_gains_over_f32_and_never_above_the_share_of_f32() {
        let amx = ProcessorPeaks { f32_gflops: 450.0, bf16_gflops: 6900.0 };
        let rate = |dtype| {
            let (peak, share) = amx.of(dtype);
            peak * share
        };
        // Measured: 184 and 503 GFLOP/s with 50 million parameters.
        assert!((rate(Dtype::F32) / 184.0 - 1.0).abs() < 0.1 && (rate(Dtype::Bf16) / 503.0 - 1.0).abs() < 0.1);
        let converted = ProcessorPeaks { f32_gflops: 200.0, bf16_gflops: 200.0 };
        assert_eq!(converted.of(Dtype::Bf16), converted.of(Dtype::F32));
        let pairs = ProcessorPeaks { f32_gflops: 200.0, bf16_gflops: 400.0 };
        assert_eq!(pairs.of(Dtype::Bf16), (400.0, F32_SHARE));
    }
}
