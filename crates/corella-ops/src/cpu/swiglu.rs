//! The gated linear unit of Llama's MLP.

use super::bf16::Number;
use super::math::exp;
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::vectorized::vectorized;
use crate::contract::GluDims;

/// See [`crate::OpsTrain::swiglu`].
pub fn forward<O: Number, X: Number>(pool: &Pool, path: Path, out: &mut [O], gate_up: &[X], d: GluDims) {
    by_rows(pool, &mut out[..d.n * d.f], d.n, d.f, |first, _, out| {
        for (i, out) in out.chunks_exact_mut(d.f).enumerate() {
            let (gate, up) = gate_up[(first + i) * 2 * d.f..][..2 * d.f].split_at(d.f);
            row(path, out, gate, up);
        }
    });
}

/// See [`crate::OpsTrain::swiglu_grad`].
pub fn backward<G: Number, D: Number, X: Number>(
    pool: &Pool,
    path: Path,
    dgate_up: &mut [G],
    dout: &[D],
    gate_up: &[X],
    d: GluDims,
) {
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
    fn row<O: Number, X: Number>(out: &mut [O], gate: &[X], up: &[X]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let gate = gate.get();
            *out = O::put(gate / (1.0 + exp(-gate)) * up.get());
        }
    }
}

vectorized! {
    /// dgate = dout·up·silu'(gate), dup = dout·silu(gate).
    fn row_grad<G: Number, D: Number, X: Number>(dgate: &mut [G], dup: &mut [G], dout: &[D], gate: &[X], up: &[X]) {
        for ((((dgate, dup), dout), gate), up) in dgate.iter_mut().zip(dup).zip(dout).zip(gate).zip(up) {
            let (dout, gate) = (dout.get(), gate.get());
            let s = 1.0 / (1.0 + exp(-gate));
            *dgate = G::put(dout * up.get() * s * (1.0 + gate * (1.0 - s)));
            *dup = G::put(dout * gate * s);
        }
    }
}
