//! The gated linear unit of Llama's MLP.

use super::math::exp;
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::vectorized::vectorized;
use crate::contract::GluDims;

/// See [`crate::OpsTrain::swiglu`].
pub fn forward(pool: &Pool, path: Path, out: &mut [f32], gate_up: &[f32], d: GluDims) {
    by_rows(pool, &mut out[..d.n * d.f], d.n, d.f, |first, _, out| {
        for (i, out) in out.chunks_exact_mut(d.f).enumerate() {
            let (gate, up) = gate_up[(first + i) * 2 * d.f..][..2 * d.f].split_at(d.f);
            row(path, out, gate, up);
        }
    });
}

/// See [`crate::OpsTrain::swiglu_grad`].
pub fn backward(pool: &Pool, path: Path, dgate_up: &mut [f32], dout: &[f32], gate_up: &[f32], d: GluDims) {
    by_rows(pool, &mut dgate_up[..d.n * 2 * d.f], d.n, 2 * d.f, |first, _, dgate_up| {
        for (i, grads) in dgate_up.chunks_exact_mut(2 * d.f).enumerate() {
            let (gate, up) = gate_up[(first + i) * 2 * d.f..][..2 * d.f].split_at(d.f);
            let (dgate, dup) = grads.split_at_mut(d.f);
            row_grad(path, dgate, dup, &dout[(first + i) * d.f..][..d.f], gate, up);
        }
    });
}

vectorized! {
    /// out = silu(gate)·up.
    fn row(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

vectorized! {
    /// dgate = dout·up·silu'(gate), dup = dout·silu(gate).
    fn row_grad(dgate: &mut [f32], dup: &mut [f32], dout: &[f32], gate: &[f32], up: &[f32]) {
        for ((((dgate, dup), dout), gate), up) in dgate.iter_mut().zip(dup).zip(dout).zip(gate).zip(up) {
            let s = 1.0 / (1.0 + exp(-gate));
            *dgate = dout * up * s * (1.0 + gate * (1.0 - s));
            *dup = dout * gate * s;
        }
    }
}
