//! The gradient's norm and the AdamW update.

use super::bf16::convert;
use super::param::Low;
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

/// See [`crate::OpsTrain::adamw`]: one pass over value, gradient and both moments, and the values in bf16.
pub fn adamw(
    pool: &Pool,
    path: Path,
    p: &mut [f32],
    low: Option<&mut Low>,
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    h: AdamW,
) {
    let steps = i32::try_from(h.step).unwrap_or(i32::MAX);
    let correct1 = (1.0 / (1.0 - f64::from(h.beta1).powi(steps))) as f32;
    let correct2 = (1.0 / (1.0 - f64::from(h.beta2).powi(steps))) as f32;
    let len = p.len();
    let (p, m, v) = (SharedMut::new(p), SharedMut::new(m), SharedMut::new(v));
    // The new values of a part. Every element is updated by itself: how they are cut changes no bit.
    //
    // # Safety
    // No two parts that overlap at the same time.
    let part = |start: usize, n: usize| {
        // SAFETY: the caller's promise.
        let (p, m, v) = unsafe { (p.part(start, n), m.part(start, n), v.part(start, n)) };
        update(path, p, &g[start..start + n], m, v, h, (correct1, correct2));
        &*p
    };
    let chunk = |i: usize| (i * CHUNK, CHUNK.min(len - i * CHUNK));
    match low {
        None => pool.run(len.div_ceil(CHUNK), &|i| {
            let (start, n) = chunk(i);
            part(start, n);
        }),
        Some(Low::Rows(low)) => {
            let low = SharedMut::new(low);
            pool.run(len.div_ceil(CHUNK), &|i| {
                let (start, n) = chunk(i);
                // SAFETY: chunks do not overlap.
                convert(path, unsafe { low.part(start, n) }, part(start, n));
            });
        }
        #[cfg(target_arch = "x86_64")]
        Some(Low::Panels(images)) => {
            let blocks = images.blocks();
            pool.run(blocks.count(), &|i| {
                let (start, n) = blocks.elements(i);
                // SAFETY: blocks do not overlap; images exist on paths with dot products only.
                unsafe { blocks.write(path, i, part(start, n)) };
            });
        }
    }
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
