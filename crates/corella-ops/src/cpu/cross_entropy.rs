//! Softmax, loss and gradient of rows of logits, row by row in the second-level cache.

use super::bf16::{Number, convert};
use super::math::across;
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::scratch::Scratch;
use super::shared::SharedMut;
use super::simd::with_simd;
use super::vectorized::vectorized;

/// Numbers of a row that are worked on together, each with a maximum and a sum of its own: enough to hide the latency of
/// additions on every path.
const WIDTH: usize = 64;

/// Losses −log softmax(row)[target] of the rows of `logits`; with `scale`, logits ← scale · (softmax − onehot).
/// logits: (n, row), of which the first `v` count; with `scale`, those behind become 0.
pub fn cross_entropy<T: Number>(
    pool: &Pool,
    path: Path,
    losses: &mut [f32],
    logits: &mut [T],
    row: usize,
    targets: &[u32],
    scale: Option<f32>,
    v: usize,
) {
    let losses = SharedMut::new(losses);
    by_rows(pool, logits, targets.len(), row, |first, rows, logits| {
        // SAFETY: the rows of this block, which no other block touches.
        let losses = unsafe { losses.part(first, rows) };
        let mut powers = Scratch::new(v.next_multiple_of(WIDTH));
        for ((loss, row), target) in losses.iter_mut().zip(logits.chunks_exact_mut(row)).zip(&targets[first..]) {
            let (logits, behind) = row.split_at_mut(v);
            *loss = row_loss(path, logits, *target as usize, scale, &mut powers);
            if scale.is_some() {
                behind.fill(T::put(0.0));
            }
        }
    });
}

/// The loss of a row of logits; with `scale`, logits ← scale · (softmax − onehot). `powers`: whole widths of working memory.
fn row_loss<T: Number>(path: Path, row: &mut [T], target: usize, scale: Option<f32>, powers: &mut [f32]) -> f32 {
    let correct = row[target].get();
    convert(path, &mut powers[..row.len()], row);
    powers[row.len()..].fill(f32::NEG_INFINITY);
    let mut softmax = Softmax { max: 0.0, sum: 0.0 };
    // SAFETY: the path exists only after its features were detected.
    unsafe { exponentials(path, powers, &mut softmax) };
    let Softmax { max, sum } = softmax;
    if let Some(scale) = scale {
        let factor = scale / sum;
        scaled(path, row, powers, factor);
        row[target] = T::put(powers[target] * factor - scale);
    }
    sum.ln() + max - correct
}

/// Of a row.
struct Softmax {
    max: f32,
    /// Σ e^(x − max).
    sum: f32,
}

with_simd! {
    /// x ← e^(x − max); x is whole widths long.
    unsafe fn exponentials<S>(x: &mut [f32], softmax: &mut Softmax) {
        // SAFETY: registers inside whole widths of x; the caller's features.
        unsafe {
            let registers = WIDTH / S::LANES;
            let mut max = [S::splat(f32::NEG_INFINITY); WIDTH / 4];
            for x in x.chunks_exact(WIDTH) {
                for (r, max) in max.iter_mut().enumerate().take(registers) {
                    *max = S::max(S::load(x.as_ptr().add(r * S::LANES)), *max);
                }
            }
            let mut lanes = [0.0f32; WIDTH];
            for (r, max) in max.iter().enumerate().take(registers) {
                S::store(lanes.as_mut_ptr().add(r * S::LANES), *max);
            }
            softmax.max = lanes.iter().fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
            let (max, base) = (S::splat(softmax.max), S::splat(std::f32::consts::LOG2_E));
            let mut sums = [S::splat(0.0); WIDTH / 4];
            for x in x.chunks_exact_mut(WIDTH) {
                for (r, sum) in sums.iter_mut().enumerate().take(registers) {
                    let at = x.as_mut_ptr().add(r * S::LANES);
                    let power = S::exp2(S::mul(S::sub(S::load(at), max), base));
                    *sum = S::add(*sum, power);
                    S::store(at, power);
                }
            }
            for (r, sum) in sums.iter().enumerate().take(registers) {
                S::store(lanes.as_mut_ptr().add(r * S::LANES), *sum);
            }
            softmax.sum = across(lanes);
        }
    }
}

vectorized! {
    /// to = from · factor.
    fn scaled<T: Number>(to: &mut [T], from: &[f32], factor: f32) {
        for (to, x) in to.iter_mut().zip(from) {
            *to = T::put(x * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::bf16::Bf16;

    fn losses<T: Number>(
        path: Path,
        logits: &mut [T],
        row: usize,
        targets: &[u32],
        scale: Option<f32>,
        v: usize,
    ) -> Vec<f32> {
        let mut losses = vec![f32::NAN; targets.len()];
        cross_entropy(&Pool::new(2), path, &mut losses, logits, row, targets, scale, v);
        losses
    }

    #[test]
    fn what_lies_behind_the_vocabulary_never_counts_and_becomes_zero() {
        for path in Path::available() {
            for v in [1, 15, 16, 63, 64, 65, 200] {
                let row = v + 7;
                let fill = |behind: f32| -> Vec<Bf16> {
                    (0..3 * row)
                        .map(|i| Bf16::put(if i % row < v { (i * 37 % 101) as f32 * 0.1 } else { behind }))
                        .collect()
                };
                let (mut one, mut other) = (fill(f32::NAN), fill(1e9));
                let targets = [0, (v - 1) as u32, (v / 2) as u32];
                let found = losses(path, &mut one, row, &targets, Some(0.5), v);
                assert_eq!(found, losses(path, &mut other, row, &targets, Some(0.5), v), "{path:?} {v}");
                assert_eq!(one, other);
                assert!(one.iter().enumerate().all(|(i, x)| i % row < v || *x == Bf16(0)));
            }
        }
    }

    #[test]
    fn a_logit_far_above_the_others_takes_all_and_one_far_below_costs_its_distance() {
        for path in Path::available() {
            let mut logits = vec![-3e4f32; 70];
            logits[33] = 3e4;
            let found = losses(path, &mut logits, 70, &[33], Some(1.0), 70);
            assert_eq!((found[0], logits[33], logits[0]), (0.0, 0.0, 0.0), "{path:?}");
            let mut logits = vec![-3e4f32; 70];
            logits[33] = 3e4;
            let found = losses(path, &mut logits, 70, &[5], Some(1.0), 70);
            assert_eq!((found[0], logits[33], logits[5]), (6e4, 1.0, -1.0), "{path:?}");
        }
    }

    #[test]
    fn a_logit_that_is_not_a_number_shows_in_its_own_row() {
        for path in Path::available() {
            let mut logits = vec![0.25f32; 2 * 90];
            logits[90 + 71] = f32::NAN;
            let found = losses(path, &mut logits, 90, &[4, 4], Some(1.0), 90);
            assert!(found[0].is_finite() && found[1].is_nan(), "{path:?}: {found:?}");
            assert!(logits[..90].iter().all(|x| x.is_finite()) && logits[90..].iter().any(|x| x.is_nan()));
        }
    }
}
