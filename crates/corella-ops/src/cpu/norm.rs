//! Layer norm, forward and backward.

use super::bf16::Number;
use super::math::{sum, sum2, sum3};
use super::path::Path;
use super::pool::Pool;
use super::rows::{by_chunks, by_rows};
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
        let m = sum(x, X::get) / c as f32;
        let variance = sum(x, |x| (x.get() - m) * (x.get() - m)) / c as f32;
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
    let dx = SharedMut::new(dx);
    by_chunks(pool, path, [dw, db], d.n, |rows, sums| {
        let (dw, db) = sums.split_at_mut(d.c);
        for row in rows {
            let at = row * d.c;
            // SAFETY: a row of this chunk, which no other chunk touches.
            let dx = unsafe { dx.part(at, d.c) };
            row_grad(path, dx, dw, db, &dout[at..at + d.c], &x[at..at + d.c], w, (mean[row], rstd[row]));
        }
    });
}

vectorized! {
    /// With n = (x − m)·r and g = dout·w:  dx += r·(g − mean(g) − n·mean(g·n)),  dw += dout·n,  db += dout.
    fn row_grad<D: Number, X: Number>(
        dx: &mut [f32],
        dw: &mut [f32],
        db: &mut [f32],
        dout: &[D],
        x: &[X],
        w: &[f32],
        statistics: (f32, f32),
    ) {
        let ((m, r), c) = (statistics, x.len());
        let mean_g = sum2(dout, w, |dout, w| dout.get() * w) / c as f32;
        let mean_gn = sum3(dout, w, x, |dout, w, x| dout.get() * w * (x.get() - m) * r) / c as f32;
        for (((((dx, dw), db), x), dout), w) in dx.iter_mut().zip(dw).zip(db).zip(x).zip(dout).zip(w) {
            let (dout, n) = (dout.get(), (x.get() - m) * r);
            *dx += r * (dout * w - mean_g - n * mean_gn);
            *dw += dout * n;
            *db += dout;
        }
    }
}
