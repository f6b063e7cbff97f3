//! Layer norm, forward and backward.

use super::math::sum_by;
use super::path::Path;
use super::pool::Pool;
use super::rows::{by_columns, by_rows};
use super::shared::SharedMut;
use crate::contract::NormDims;

/// See [`crate::OpsTrain::layernorm`].
pub fn forward(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: &[f32],
    d: NormDims,
) {
    let (mean, rstd) = (SharedMut::new(mean), SharedMut::new(rstd));
    by_rows(pool, out, d.n, d.c, |first, rows, out| {
        // SAFETY: the rows of this block, which no other block touches.
        let (mean, rstd) = unsafe { (mean.part(first, rows), rstd.part(first, rows)) };
        path.vectorize(|| {
            for (i, out) in out.chunks_exact_mut(d.c).enumerate() {
                let x = &x[(first + i) * d.c..][..d.c];
                let m = sum_by(d.c, |j| x[j]) / d.c as f32;
                let variance = sum_by(d.c, |j| (x[j] - m) * (x[j] - m)) / d.c as f32;
                let r = 1.0 / (variance + d.eps).sqrt();
                for (((out, x), w), b) in out.iter_mut().zip(x).zip(w).zip(b) {
                    *out = (x - m) * r * w + b;
                }
                (mean[i], rstd[i]) = (m, r);
            }
        });
    });
}

/// See [`crate::OpsTrain::layernorm_grad`].
pub fn backward(
    pool: &Pool,
    path: Path,
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: &[f32],
    x: &[f32],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
    d: NormDims,
) {
    by_rows(pool, dx, d.n, d.c, |first, _, dx| {
        path.vectorize(|| {
            for (i, dx) in dx.chunks_exact_mut(d.c).enumerate() {
                let row = first + i;
                let (x, dout) = (&x[row * d.c..][..d.c], &dout[row * d.c..][..d.c]);
                let (m, r) = (mean[row], rstd[row]);
                // With n = (x − m)·r and g = dout·w:  dx = r·(g − mean(g) − n·mean(g·n)).
                let mean_g = sum_by(d.c, |j| dout[j] * w[j]) / d.c as f32;
                let mean_gn = sum_by(d.c, |j| dout[j] * w[j] * (x[j] - m) * r) / d.c as f32;
                for (((dx, x), dout), w) in dx.iter_mut().zip(x).zip(dout).zip(w) {
                    *dx += r * (dout * w - mean_g - (x - m) * r * mean_gn);
                }
            }
        });
    });
    let (dw, db) = (SharedMut::new(dw), SharedMut::new(db));
    by_columns(pool, d.c, |first, columns| {
        // SAFETY: the columns of this block, which no other block touches.
        let (dw, db) = unsafe { (dw.part(first, columns), db.part(first, columns)) };
        path.vectorize(|| {
            for row in 0..d.n {
                let (m, r) = (mean[row], rstd[row]);
                let (x, dout) = (&x[row * d.c + first..][..columns], &dout[row * d.c + first..][..columns]);
                for (((dw, db), x), dout) in dw.iter_mut().zip(db.iter_mut()).zip(x).zip(dout) {
                    *dw += dout * (x - m) * r;
                    *db += dout;
                }
            }
        });
    });
}
