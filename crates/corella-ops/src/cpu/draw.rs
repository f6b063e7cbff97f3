//! Softmax in whole numbers, for drawing a token: every token's weight as a 64-bit integer.
//!
//! Integer sums do not depend on their order, so that a cut found by partial selection is the cut that a full sort
//! finds, and a draw is the same however the work is split. A weight is the same on every path: each step is rounded as
//! f64 says, and nothing is contracted.

use std::sync::OnceLock;

use super::path::Path;
use super::vectorized::vectorized;

/// Weight of the likeliest token. 2⁴⁴ leaves room for a vocabulary of 2¹⁹ tokens in a `u64`, and resolves
/// probabilities down to 6·10⁻¹⁴ of the likeliest one; below half of that a token cannot be drawn.
pub const ONE: u64 = 1 << 44;

/// e^x with a relative error below 10⁻¹²; 0 below −708, and capped at e^0 = 1.
///
/// x = n·ln 2 + r with |r| ≤ ½ ln 2, the Taylor polynomial of degree 10 in r, then the exponent bits. There is no
/// branch and no table, so that a loop over it vectorises.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // ln 2 in two parts, so that n·LN2_HIGH is exact.
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // Adding and subtracting 1.5·2^52 rounds to an integer without a call; its bits then hold n.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let clamped = x.clamp(-708.0, 0.0);
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 3_628_800.0;
    for divisor in [362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        p = p * r + 1.0 / divisor;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(1023) << 52);
    // Not a number is not likely either.
    if x >= -708.0 { p * power } else { 0.0 }
}

/// round(2⁴⁴ · e^((logit − max) / temperature)).
#[inline(always)]
pub fn weight(logit: f32, max: f32, temperature: f32) -> u64 {
    scaled_weight(logit, f64::from(max), 1.0 / f64::from(temperature))
}

#[inline(always)]
fn scaled_weight(logit: f32, max: f64, inverse: f64) -> u64 {
    // Adding 2^52 puts the rounded integer into the mantissa: a conversion without a call.
    const INTO_MANTISSA: f64 = (1u64 << 52) as f64;
    let scaled = exp((f64::from(logit) - max) * inverse) * ONE as f64 + INTO_MANTISSA;
    scaled.to_bits().wrapping_sub(INTO_MANTISSA.to_bits())
}

/// Logits of which the largest is found before any of them is looked at alone.
const PIECE: usize = 1024;

/// The largest logit, −∞ if there is none, and the first token that has it.
pub fn likeliest(logits: &[f32]) -> (f32, usize) {
    let path = path();
    let (mut max, mut start) = (f32::NEG_INFINITY, 0);
    for (i, piece) in logits.chunks(PIECE).enumerate() {
        let largest = max_logit(path, piece);
        if largest > max {
            (max, start) = (largest, i * PIECE);
        }
    }
    let id = logits[start.min(logits.len())..].iter().position(|logit| *logit == max);
    (max, id.map_or(0, |id| start + id))
}

vectorized! {
    fn max_logit(logits: &[f32]) -> f32 {
        // Running maxima side by side: one would wait for itself.
        let mut lanes = [f32::NEG_INFINITY; 32];
        let chunks = logits.chunks_exact(32);
        for (lane, logit) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = lane.max(*logit);
        }
        for chunk in chunks {
            for (lane, logit) in lanes.iter_mut().zip(chunk) {
                *lane = if *logit > *lane { *logit } else { *lane };
            }
        }
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// The fastest path of this processor: they all give the same.
fn path() -> Path {
    static PATH: OnceLock<Path> = OnceLock::new();
    *PATH.get_or_init(|| Path::detect().unwrap_or(Path::Portable))
}

/// Fills `weights` (V) for `logits` (V), and returns their sum. −∞ has weight 0.
pub fn weights(weights: &mut Vec<u64>, logits: &[f32], max: f32, temperature: f32) -> u64 {
    weights.resize(logits.len(), 0);
    fill(path(), weights, logits, f64::from(max), 1.0 / f64::from(temperature))
}

vectorized! {
    fn fill(weights: &mut [u64], logits: &[f32], max: f64, inverse: f64) -> u64 {
        let mut total = 0;
        for (weight, logit) in weights.iter_mut().zip(logits) {
            *weight = scaled_weight(*logit, max, inverse);
            total += *weight;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_twelve_digits() {
        for i in 0..70_000 {
            let x = -f64::from(i) / 100.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn weights_are_fractions_of_the_likeliest() {
        let logits = [0.0, -1.0, f32::NEG_INFINITY, -80.0];
        let mut found = Vec::new();
        let total = weights(&mut found, &logits, likeliest(&logits).0, 1.0);
        assert_eq!(found[0], ONE);
        assert!((found[1] as f64 / ONE as f64 - (-1.0f64).exp()).abs() < 1e-12);
        assert_eq!(&found[2..], [0, 0]);
        assert_eq!(total, found[0] + found[1]);
        // A temperature next to 0 leaves the likeliest alone, and one without end makes all alike.
        assert_eq!(weights(&mut found, &logits[..2], 0.0, f32::MIN_POSITIVE), ONE);
        assert_eq!(weights(&mut found, &logits[..2], 0.0, f32::MAX), 2 * ONE);
    }

    #[test]
    fn the_likeliest_token_is_the_first_of_the_largest() {
        let mut logits: Vec<f32> = (0..5003).map(|i| ((i * 7919) % 4999) as f32 / -31.0).collect();
        let plainly = |logits: &[f32]| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            (max, logits.iter().position(|logit| *logit == max).unwrap_or(0))
        };
        for (place, value) in [(4700, 0.0), (4999, 1.0), (5002, 2.0), (5001, 2.0), (1023, 2.0), (7, f32::NAN), (0, 3.0)]
        {
            logits[place] = value;
            assert_eq!(likeliest(&logits), plainly(&logits), "{place}");
        }
        assert_eq!(likeliest(&[]), (f32::NEG_INFINITY, 0));
        assert_eq!(likeliest(&[f32::NAN, f32::NEG_INFINITY]), (f32::NEG_INFINITY, 1));
        for path in Path::available() {
            assert_eq!(max_logit(path, &logits[4000..]), 2.0, "{path:?}");
        }
    }

    #[test]
    fn every_path_gives_the_same_weights() {
        let logits: Vec<f32> = (0..1003).map(|i| ((i * 7919) % 1009) as f32 / -31.0).collect();
        for temperature in [0.3f32, 0.8, 1.0, 1.7] {
            let expected: Vec<u64> = logits.iter().map(|logit| weight(*logit, 0.0, temperature)).collect();
            for path in Path::available() {
                let mut found = vec![0; logits.len()];
                let total = fill(path, &mut found, &logits, 0.0, 1.0 / f64::from(temperature));
                assert_eq!(found, expected, "{path:?}");
                assert_eq!(total, expected.iter().sum::<u64>(), "{path:?}");
            }
        }
    }
}
