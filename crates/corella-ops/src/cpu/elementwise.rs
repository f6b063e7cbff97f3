//! Operations on each element by itself, and sums of columns.

use super::math;
use super::vectorized::vectorized;

vectorized! {
    /// out = gelu(x).
    pub fn gelu(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = math::gelu(*x);
        }
    }
}

vectorized! {
    /// dx ← gelu'(x) · dx.
    pub fn gelu_grad(dx: &mut [f32], x: &[f32]) {
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx *= math::gelu_slope(*x);
        }
    }
}

vectorized! {
    /// out = a + b.
    pub fn add(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a + b;
        }
    }
}

vectorized! {
    /// sums[i] += Σ over rows of x[row, first + i], the rows in their order. x: (·, width).
    pub fn add_rows(sums: &mut [f32], x: &[f32], width: usize, first: usize) {
        for row in x.chunks_exact(width) {
            for (sum, x) in sums.iter_mut().zip(&row[first..]) {
                *sum += x;
            }
        }
    }
}
