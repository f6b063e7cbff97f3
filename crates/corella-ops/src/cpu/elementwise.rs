//! Operations on each element by itself, and sums of columns.

use super::math;
use super::vectorized::vectorized;

vectorized! {
    /// out = gelu(x).
    pub fn gelu<O: Number, X: Number>(out: &mut [O], x: &[X]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = O::put(math::gelu(x.get()));
        }
    }
}

vectorized! {
    /// dx ← gelu'(x) · dx.
    pub fn gelu_grad<D: Number, X: Number>(dx: &mut [D], x: &[X]) {
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = D::put(dx.get() * math::gelu_slope(x.get()));
        }
    }
}

vectorized! {
    /// out = a + b.
    pub fn add<O: Number, A: Number, B: Number>(out: &mut [O], a: &[A], b: &[B]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = O::put(a.get() + b.get());
        }
    }
}

vectorized! {
    /// out += x.
    pub fn accumulate<O: Number, X: Number>(out: &mut [O], x: &[X]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = O::put(out.get() + x.get());
        }
    }
}

vectorized! {
    /// sums[i] += Σ over rows of x[row, first + i], the rows in their order. x: (·, width).
    pub fn add_rows<X: Number>(sums: &mut [f32], x: &[X], width: usize, first: usize) {
        for row in x.chunks_exact(width) {
            for (sum, x) in sums.iter_mut().zip(&row[first..]) {
                *sum += x.get();
            }
        }
    }
}
