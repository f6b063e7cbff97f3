//! Cases of attention.

use super::{Arrays, Case, On, Outputs};
use crate::contract::{AttentionDims, MatmulDims, OpsError, OpsInfer, OpsTrain, ParamPart};

pub fn cases<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (b, t, nh, nkv, hs) in [
        (0, 3, 1, 1, 4),
        (2, 0, 2, 1, 8),
        (1, 1, 1, 1, 4),
        (2, 7, 3, 3, 8),
        (1, 50, 2, 1, 17),
        (2, 97, 2, 2, 64),
        (1, 200, 1, 1, 32),
        (2, 33, 6, 2, 16),
        (1, 389, 4, 2, 24),
        (1, 70, 4, 2, 128),
        (2, 130, 2, 1, 64),
    ] {
        let d = AttentionDims { b, t, nh, nkv, hs };
        cases.push(Case::new(format!("attention {b}×{t}, {nh} to {nkv} heads of {hs}"), move |ops: &On<B>| {
            attention(ops, d)
        }));
    }
    cases
}

/// Attention to what a cache holds.
pub fn cached_cases<B: OpsInfer>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (chunks, nh, hs) in [([1, 1, 1], 1, 4), ([5, 1, 3], 3, 8), ([64, 1, 33], 2, 16), ([1, 90, 20], 2, 65)] {
        let name = format!("attention_cached {chunks:?}, {nh} heads of {hs}");
        cases.push(Case::new(name, move |ops: &On<B>| cached(ops, chunks, nh, hs)));
    }
    cases
}

/// Attention there and back, and back into the projection to queries, keys and values, from rows of width 4.
fn attention<B: OpsTrain>(ops: &On<B>, d: AttentionDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.t);
    let (rows, c, width) = (d.b * d.t, d.c(), d.qkv());
    let (qkv, dout) = (a.numbers(rows * width)?, a.numbers(rows * c)?);
    let (mut out, mut lse, mut dqkv) = (a.unset(rows * c)?, a.unset_f32(rows * d.nh)?, a.unset(rows * width)?);
    ops.attention(&mut out, &mut lse, &qkv, d);
    let projection = MatmulDims { n: rows, c: 4, oc: width };
    let (mut w, mut b) = (a.param(width, projection.c)?, a.param(1, width)?);
    let (x, mut dx) = (a.numbers(rows * projection.c)?, a.unset(rows * projection.c)?);
    ops.attention_grad(&mut dqkv, &dout, &out, &qkv, &lse, d);
    ops.matmul_grad(&mut dx, &mut w, Some(&mut b), &dqkv, &x, projection);
    Ok(vec![
        ("out", a.read(&out, rows * c)),
        ("lse", a.read(&lse, rows * d.nh)),
        ("dqkv", a.read(&dqkv, rows * width)),
        ("dw of qkv", a.part(&w, ParamPart::Grad, width * projection.c)),
        ("db of qkv", a.part(&b, ParamPart::Grad, width)),
    ])
}

/// Three pieces, one after the other.
fn cached<B: OpsInfer>(ops: &On<B>, chunks: [usize; 3], nh: usize, hs: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, nh + hs);
    let c = nh * hs;
    let mut kv = ops.kv(chunks.iter().sum::<usize>() + 1, c)?;
    let (mut outputs, mut pos0) = (Outputs::new(), 0);
    for (n, name) in chunks.into_iter().zip(["first", "second", "third"]) {
        let (qkv, mut out) = (a.numbers_f32(n * 3 * c)?, a.unset_f32(n * c)?);
        ops.attention_cached(&mut out, &mut kv, &qkv, pos0, n, nh, hs);
        outputs.push((name, a.read(&out, n * c)));
        pos0 += n;
    }
    Ok(outputs)
}
