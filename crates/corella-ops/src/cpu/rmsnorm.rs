//! Root-mean-square norm, forward and backward.

use super::bf16::Number;
use super::math::sum_by;
use super::path::Path;
use super::pool::Pool;
use super::rows::{by_columns, by_rows};
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::NormDims;

/// See [`crate::OpsTrain::rmsnorm`].
pub fn forward<O: Number, X: Number>(
    pool: &Pool,
    path: Path,
    out: &mut [O],
    rstd: &mut [f32],
    x: &[X],
    w: &[f32],
    d: NormDims,
) {
    let rstd = SharedMut::new(rstd);
    by_rows(pool, &mut out[..d.n * d.c], d.n, d.c, |first, rows, out| {
        // SAFETY: the rows of this block, which no other block touches.
        let rstd = unsafe { rstd.part(first, rows) };
        for (i, out) in out.chunks_exact_mut(d.c).enumerate() {
            rstd[i] = row(path, out, &x[(first + i) * d.c..][..d.c], w, d.eps);
        }
    });
}

vectorized! {
    /// One row; returns 1 / root mean square.
    fn row<O: Number, X: Number>(out: &mut [O], x: &[X], w: &[f32], eps: f32) -> f32 {
        let c = x.len();
        let r = 1.0 / (sum_by(c, |j| x[j].get() * x[j].get()) / c as f32 + eps).sqrt();
        for ((out, x), w) in out.iter_mut().zip(x).zip(w) {
            *out = O::put(x.get() * r * w);
        }
        r
    }
}

/// See [`crate::OpsTrain::rmsnorm_grad`].
pub fn backward<D: Number, X: Number>(
    pool: &Pool,
    path: Path,
    dx: &mut [f32],
    dw: &mut [f32],
    dout: &[D],
    x: &[X],
    w: &[f32],
    rstd: &[f32],
    d: NormDims,
) {
    by_rows(pool, &mut dx[..d.n * d.c], d.n, d.c, |first, _, dx| {
        for (i, dx) in dx.chunks_exact_mut(d.c).enumerate() {
            let at = (first + i) * d.c;
            row_grad(path, dx, &dout[at..at + d.c], &x[at..at + d.c], w, rstd[first + i]);
        }
    });
    let dw = SharedMut::new(dw);
    by_columns(pool, d.c, |first, columns| {
        // SAFETY: the columns of this block, which no other block touches.
        let dw = unsafe { dw.part(first, columns) };
        for (row, rstd) in rstd.iter().enumerate().take(d.n) {
            let at = row * d.c + first;
            column_grad(path, dw, &dout[at..at + columns], &x[at..at + columns], *rstd);
        }
    });
}

vectorized! {
    /// With n = x·r and g = dout·w:  dx += r·(g − n·mean(g·n)).
    fn row_grad<D: Number, X: Number>(dx: &mut [f32], dout: &[D], x: &[X], w: &[f32], r: f32) {
        let c = x.len();
        let mean_gn = sum_by(c, |j| dout[j].get() * w[j] * x[j].get() * r) / c as f32;
        for (((dx, x), dout), w) in dx.iter_mut().zip(x).zip(dout).zip(w) {
            *dx += r * (dout.get() * w - x.get() * r * mean_gn);
        }
    }
}

vectorized! {
    /// dw += dout·n for some columns of a row.
    fn column_grad<D: Number, X: Number>(dw: &mut [f32], dout: &[D], x: &[X], r: f32) {
        for ((dw, x), dout) in dw.iter_mut().zip(x).zip(dout) {
            *dw += dout.get() * x.get() * r;
        }
    }
}
