//! The gradient's norm and the AdamW update.

use super::bf16::{Bf16, convert};
use super::path::Path;
use super::pool::Pool;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::AdamW;

/// Elements of a task; fixed, so that partial sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// Σ x², each chunk in f64, the chunks added in order.
pub fn square_sum(pool: &Pool, path: Path, x: &[f32]) -> f64 {
    let chunks = x.len().div_ceil(CHUNK);
    let partial: Vec<std::sync::OnceLock<f64>> = (0..chunks).map(|_| std::sync::OnceLock::new()).collect();
    pool.run(chunks, &|i| {
        let chunk = &x[i * CHUNK..((i + 1) * CHUNK).min(x.len())];
        let sum = sum_of_squares(path, chunk);
        // Each task has its own cell, so it is never full.
        let _ = partial[i].set(sum);
    });
    partial.iter().filter_map(std::sync::OnceLock::get).sum()
}

/// See [`crate::OpsTrain::adamw`]: one pass over value, gradient and both moments, and the values in bf16 (`low`, which may
/// be empty).
pub fn adamw(
    pool: &Pool,
    path: Path,
    p: &mut [f32],
    low: &mut [Bf16],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    h: AdamW,
) {
    let steps = i32::try_from(h.step).unwrap_or(i32::MAX);
    let correct1 = (1.0 / (1.0 - f64::from(h.beta1).powi(steps))) as f32;
    let correct2 = (1.0 / (1.0 - f64::from(h.beta2).powi(steps))) as f32;
    let (len, rounds) = (p.len(), !low.is_empty());
    let (p, m, v, low) = (SharedMut::new(p), SharedMut::new(m), SharedMut::new(v), SharedMut::new(low));
    pool.run(len.div_ceil(CHUNK), &|i| {
        let (start, n) = (i * CHUNK, CHUNK.min(len - i * CHUNK));
        // SAFETY: chunks do not overlap.
        let (p, m, v) = unsafe { (p.part(start, n), m.part(start, n), v.part(start, n)) };
        update(path, p, &g[start..start + n], m, v, h, (correct1, correct2));
        if rounds {
            // SAFETY: chunks do not overlap.
            convert(path, unsafe { low.part(start, n) }, p);
        }
    });
}

vectorized! {
    fn sum_of_squares(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 8];
        let whole = x.chunks_exact(8);
        for (lane, x) in lanes.iter_mut().zip(whole.remainder()) {
            *lane += f64::from(*x) * f64::from(*x);
        }
        for part in whole {
            for (lane, x) in lanes.iter_mut().zip(part) {
                *lane += f64::from(*x) * f64::from(*x);
            }
        }
        lanes.iter().sum::<f64>()
    }
}

vectorized! {
    /// `correct`: what the moments are multiplied by for having begun at zero.
    fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], h: AdamW, correct: (f32, f32)) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * h.grad_scale;
            *m = h.beta1 * *m + (1.0 - h.beta1) * g;
            *v = h.beta2 * *v + (1.0 - h.beta2) * g * g;
            let update = *m * correct.0 / ((*v * correct.1).sqrt() + h.eps);
            *p -= h.lr * (update + h.weight_decay * *p);
        }
    }
}
