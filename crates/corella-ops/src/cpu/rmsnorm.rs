//! Root-mean-square norm, forward and backward.

use super::bf16::Number;
use super::math::{sum, sum3};
use super::path::Path;
use super::pool::Pool;
use super::rows::{by_chunks, by_rows};
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
        let r = 1.0 / (sum(x, |x| x.get() * x.get()) / c as f32 + eps).sqrt();
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
    let dx = SharedMut::new(dx);
    by_chunks(pool, path, [dw], d.n, |rows, dw| {
        for row in rows {
            let at = row * d.c;
            // SAFETY: a row of this chunk, which no other chunk touches.
            let dx = unsafe { dx.part(at, d.c) };
            row_grad(path, dx, dw, &dout[at..at + d.c], &x[at..at + d.c], w, rstd[row]);
        }
    });
}

vectorized! {
    /// With n = x·r and g = dout·w:  dx += r·(g − n·mean(g·n)),  dw += dout·n.
    fn row_grad<D: Number, X: Number>(dx: &mut [f32], dw: &mut [f32], dout: &[D], x: &[X], w: &[f32], r: f32) {
        let c = x.len();
        let mean_gn = sum3(dout, w, x, |dout, w, x| dout.get() * w * x.get() * r) / c as f32;
        for ((((dx, dw), x), dout), w) in dx.iter_mut().zip(dw).zip(x).zip(dout).zip(w) {
            let (dout, n) = (dout.get(), x.get() * r);
            *dx += r * (dout * w - n * mean_gn);
            *dw += dout * n;
        }
    }
}
