//! Layer norm, forward and backward.

use super::bf16::Number;
use super::math::sum_by;
use super::path::Path;
use super::pool::Pool;
use super::rows::{by_columns, by_rows};
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::NormDims;

/// See [`crate::OpsTrain::layernorm`].
pub fn forward<O: Number, X: Number>(
    pool: &Pool,
    path: Path,
    out: &mut [O],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[X],
    w: &[f32],
    b: &[f32],
    d: NormDims,
) {
    let (mean, rstd) = (SharedMut::new(mean), SharedMut::new(rstd));
    by_rows(pool, &mut out[..d.n * d.c], d.n, d.c, |first, rows, out| {
        // SAFETY: the rows of this block, which no other block touches.
        let (mean, rstd) = unsafe { (mean.part(first, rows), rstd.part(first, rows)) };
        for (i, out) in out.chunks_exact_mut(d.c).enumerate() {
            (mean[i], rstd[i]) = row(path, out, &x[(first + i) * d.c..][..d.c], w, b, d.eps);
        }
    });
}

vectorized! {
    /// One row; returns its mean and 1 / standard deviation.
    fn row<O: Number, X: Number>(out: &mut [O], x: &[X], w: &[f32], b: &[f32], eps: f32) -> (f32, f32) {
        let c = x.len();
        let m = sum_by(c, |j| x[j].get()) / c as f32;
        let variance = sum_by(c, |j| (x[j].get() - m) * (x[j].get() - m)) / c as f32;
        let r = 1.0 / (variance + eps).sqrt();
        for (((out, x), w), b) in out.iter_mut().zip(x).zip(w).zip(b) {
            *out = O::put((x.get() - m) * r * w + b);
        }
        (m, r)
    }
}

/// See [`crate::OpsTrain::layernorm_grad`].
pub fn backward<D: Number, X: Number>(
    pool: &Pool,
    path: Path,
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
    dout: &[D],
    x: &[X],
    w: &[f32],
    mean: &[f32],
    rstd: &[f32],
    d: NormDims,
) {
    by_rows(pool, &mut dx[..d.n * d.c], d.n, d.c, |first, _, dx| {
        for (i, dx) in dx.chunks_exact_mut(d.c).enumerate() {
            let at = (first + i) * d.c;
            row_grad(path, dx, &dout[at..at + d.c], &x[at..at + d.c], w, mean[first + i], rstd[first + i]);
        }
    });
    let (dw, db) = (SharedMut::new(dw), SharedMut::new(db));
    by_columns(pool, d.c, |first, columns| {
        // SAFETY: the columns of this block, which no other block touches.
        let (dw, db) = unsafe { (dw.part(first, columns), db.part(first, columns)) };
        for row in 0..d.n {
            let at = row * d.c + first;
            column_grad(path, dw, db, &dout[at..at + columns], &x[at..at + columns], mean[row], rstd[row]);
        }
    });
}

vectorized! {
    /// With n = (x − m)·r and g = dout·w:  dx += r·(g − mean(g) − n·mean(g·n)).
    fn row_grad<D: Number, X: Number>(dx: &mut [f32], dout: &[D], x: &[X], w: &[f32], m: f32, r: f32) {
        let c = x.len();
        let mean_g = sum_by(c, |j| dout[j].get() * w[j]) / c as f32;
        let mean_gn = sum_by(c, |j| dout[j].get() * w[j] * (x[j].get() - m) * r) / c as f32;
        for (((dx, x), dout), w) in dx.iter_mut().zip(x).zip(dout).zip(w) {
            *dx += r * (dout.get() * w - mean_g - (x.get() - m) * r * mean_gn);
        }
    }
}

vectorized! {
    /// dw += dout·n, db += dout for some columns of a row.
    fn column_grad<D: Number, X: Number>(dw: &mut [f32], db: &mut [f32], dout: &[D], x: &[X], m: f32, r: f32) {
        for (((dw, db), x), dout) in dw.iter_mut().zip(db).zip(x).zip(dout) {
            let dout = dout.get();
            *dw += dout * (x.get() - m) * r;
            *db += dout;
        }
    }
}
