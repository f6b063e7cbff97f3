//! Causal self-attention, one (sequence, head) per task, by blocks of queries.

use super::array::Array;
use super::gemm::{Right, Size, Store, Workers, gemm};
use super::math::{exp, sum_by};
use super::pack::{Operand, Packed};
use super::path::Path;
use super::pool::Pool;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::AttentionDims;

/// Queries of a block: their scores against all earlier keys stay in the second-level cache.
const BLOCK: usize = 48;

/// Working space of a task.
fn scratch(len: usize) -> Array {
    let mut space = Array::EMPTY;
    space.resize(len);
    space
}

/// q, k and v of one head, each (T, HS), copied side by side out of qkv (B, T, 3C).
fn gather(to: &mut [f32], qkv: &[f32], b: usize, head: usize, d: AttentionDims) {
    let c = d.nh * d.hs;
    for (part, to) in to.chunks_exact_mut(d.t * d.hs).enumerate() {
        for (t, to) in to.chunks_exact_mut(d.hs).enumerate() {
            to.copy_from_slice(&qkv[(b * d.t + t) * 3 * c + part * c + head * d.hs..][..d.hs]);
        }
    }
}

/// See [`crate::OpsTrain::attention`].
pub fn forward(pool: &Pool, path: Path, out: &mut [f32], lse: &mut [f32], qkv: &[f32], d: AttentionDims) {
    let (c, scale) = (d.nh * d.hs, 1.0 / (d.hs as f32).sqrt());
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    pool.run(d.b * d.nh, &|task| {
        let (b, head) = (task / d.nh, task % d.nh);
        let mut heads = scratch(3 * d.t * d.hs);
        gather(&mut heads, qkv, b, head, d);
        let (q, kv) = heads.split_at(d.t * d.hs);
        let (k, v) = kv.split_at(d.t * d.hs);
        let pack = |operand, outer, k| Packed::new(Workers::Caller, path, operand, (outer, k), Array::EMPTY);
        let (keys_packed, values_packed) =
            (pack(Operand::rows(k, d.hs), d.t, d.hs), pack(Operand::columns(v, d.hs), d.hs, d.t));
        let mut scores = scratch(BLOCK * d.t);
        let mut block = scratch(BLOCK * d.hs);
        // SAFETY: the row of lse that belongs to this head.
        let lse = unsafe { lse.part(task * d.t, d.t) };
        for t0 in (0..d.t).step_by(BLOCK) {
            let rows = BLOCK.min(d.t - t0);
            let keys = t0 + rows;
            let size = Size { m: rows, n: keys, k: d.hs, ldc: keys };
            let q = Operand::rows(&q[t0 * d.hs..], d.hs);
            gemm(Workers::Caller, path, size, q, Right::Packed(&keys_packed), &mut scores, Store::Write, None);
            for (i, row) in scores.chunks_exact_mut(keys).enumerate().take(rows) {
                lse[t0 + i] = softmax_row(path, row, t0 + i + 1, scale);
            }
            let size = Size { m: rows, n: d.hs, k: keys, ldc: d.hs };
            let p = Operand::rows(&scores, keys);
            gemm(Workers::Caller, path, size, p, Right::Packed(&values_packed), &mut block, Store::Write, None);
            for (i, row) in block.chunks_exact(d.hs).enumerate().take(rows) {
                // SAFETY: this head's columns of row t0 + i, which no other task writes.
                unsafe { out.part((b * d.t + t0 + i) * c + head * d.hs, d.hs) }.copy_from_slice(row);
            }
        }
    });
}

/// row[..valid] ← softmax(scale · row[..valid]), the rest 0; returns the log of the denominator.
#[inline(always)]
fn softmax(row: &mut [f32], valid: usize, scale: f32) -> f32 {
    let (seen, future) = row.split_at_mut(valid);
    future.fill(0.0);
    let max = max_of(seen) * scale;
    for x in seen.iter_mut() {
        *x = exp(*x * scale - max);
    }
    let sum = sum_by(seen.len(), |i| seen[i]);
    let inverse = 1.0 / sum;
    for x in seen.iter_mut() {
        *x *= inverse;
    }
    max + sum.ln()
}

vectorized! {
    fn softmax_row(row: &mut [f32], valid: usize, scale: f32) -> f32 {
        softmax(row, valid, scale)
    }
}

vectorized! {
    /// p: scores → probabilities; dp: their gradient → that of the scores; both 0 from `seen` on.
    fn row_grad(p: &mut [f32], dp: &mut [f32], seen: usize, rows: (&[f32], &[f32]), lse: f32, scale: f32) {
        let (dout, out) = rows;
        let mean = sum_by(dout.len(), |j| dout[j] * out[j]);
        for (p, dp) in p[..seen].iter_mut().zip(&mut dp[..seen]) {
            *p = exp(*p * scale - lse);
            *dp = *p * (*dp - mean) * scale;
        }
        p[seen..].fill(0.0);
        dp[seen..].fill(0.0);
    }
}

/// The largest element.
#[inline(always)]
pub fn max_of(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = values.chunks_exact(16);
    for x in chunks.remainder() {
        lanes[0] = if *x > lanes[0] { *x } else { lanes[0] };
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// See [`crate::OpsTrain::attention_grad`].
pub fn backward(
    pool: &Pool,
    path: Path,
    dqkv: &mut [f32],
    dout: &[f32],
    out: &[f32],
    qkv: &[f32],
    lse: &[f32],
    d: AttentionDims,
) {
    let (c, scale, span) = (d.nh * d.hs, 1.0 / (d.hs as f32).sqrt(), d.t * d.hs);
    let dqkv = SharedMut::new(dqkv);
    pool.run(d.b * d.nh, &|task| {
        let (b, head) = (task / d.nh, task % d.nh);
        let mut heads = scratch(3 * span);
        gather(&mut heads, qkv, b, head, d);
        let (q, kv) = heads.split_at(span);
        let (k, v) = kv.split_at(span);
        let pack = |operand, outer, k| Packed::new(Workers::Caller, path, operand, (outer, k), Array::EMPTY);
        let (keys_packed, values_packed) =
            (pack(Operand::rows(k, d.hs), d.t, d.hs), pack(Operand::rows(v, d.hs), d.t, d.hs));
        let keys_by_column = pack(Operand::columns(k, d.hs), d.hs, d.t);
        let mut grads = scratch(3 * span);
        let (dq, dkv) = grads.split_at_mut(span);
        let (dk, dv) = dkv.split_at_mut(span);
        let mut p = scratch(BLOCK * d.t);
        let mut dp = scratch(BLOCK * d.t);
        let mut dout_block = scratch(BLOCK * d.hs);
        for t0 in (0..d.t).step_by(BLOCK) {
            let rows = BLOCK.min(d.t - t0);
            let keys = t0 + rows;
            let inner = Size { m: rows, n: keys, k: d.hs, ldc: keys };
            let q_block = &q[t0 * d.hs..keys * d.hs];
            let row_of = |i: usize| (b * d.t + t0 + i) * c + head * d.hs;
            for (i, row) in dout_block.chunks_exact_mut(d.hs).enumerate().take(rows) {
                row.copy_from_slice(&dout[row_of(i)..][..d.hs]);
            }
            let q_rows = Operand::rows(q_block, d.hs);
            gemm(Workers::Caller, path, inner, q_rows, Right::Packed(&keys_packed), &mut p, Store::Write, None);
            let do_rows = Operand::rows(&dout_block, d.hs);
            gemm(Workers::Caller, path, inner, do_rows, Right::Packed(&values_packed), &mut dp, Store::Write, None);
            for i in 0..rows {
                let (p, dp) = (&mut p[i * keys..][..keys], &mut dp[i * keys..][..keys]);
                let (seen, lse) = (t0 + i + 1, lse[task * d.t + t0 + i]);
                let (dout, out) = (&dout_block[i * d.hs..][..d.hs], &out[row_of(i)..][..d.hs]);
                // Σ_s p·dp is the same as dout·out.
                row_grad(path, p, dp, seen, (dout, out), lse, scale);
            }
            let to_queries = Size { m: rows, n: d.hs, k: keys, ldc: d.hs };
            let to_keys = Size { m: keys, n: d.hs, k: rows, ldc: d.hs };
            let ds = Operand::rows(&dp, keys);
            gemm(
                Workers::Caller,
                path,
                to_queries,
                ds,
                Right::Packed(&keys_by_column),
                &mut dq[t0 * d.hs..],
                Store::Write,
                None,
            );
            let (ds, ps) = (Operand::columns(&dp, keys), Operand::columns(&p, keys));
            let (q_block, dout_block) = (Operand::columns(q_block, d.hs), Operand::columns(&dout_block, d.hs));
            gemm(Workers::Caller, path, to_keys, ds, Right::Fresh(q_block), dk, Store::Add, None);
            gemm(Workers::Caller, path, to_keys, ps, Right::Fresh(dout_block), dv, Store::Add, None);
        }
        for (part, grads) in grads.chunks_exact(span).enumerate() {
            for (t, row) in grads.chunks_exact(d.hs).enumerate() {
                // SAFETY: this head's columns of the three parts, which no other task writes.
                let to = unsafe { dqkv.part((b * d.t + t) * 3 * c + part * c + head * d.hs, d.hs) };
                to.copy_from_slice(row);
            }
        }
    });
}

/// Keys and values of one layer of one sequence, position after position.
#[derive(Debug)]
pub struct Kv {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Kv {
    /// Room for `capacity` positions of width `c`.
    pub fn new(capacity: usize, c: usize) -> Self {
        Kv { k: vec![0.0; capacity * c], v: vec![0.0; capacity * c] }
    }
}

/// See [`crate::OpsInfer::attention_cached`]. Each query is computed by itself, so that chunks do not matter.
pub fn cached(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    kv: &mut Kv,
    qkv: &[f32],
    pos0: usize,
    n: usize,
    nh: usize,
    hs: usize,
) {
    let (c, scale) = (nh * hs, 1.0 / (hs as f32).sqrt());
    for i in 0..n {
        let row = &qkv[i * 3 * c..][..3 * c];
        kv.k[(pos0 + i) * c..][..c].copy_from_slice(&row[c..2 * c]);
        kv.v[(pos0 + i) * c..][..c].copy_from_slice(&row[2 * c..]);
    }
    let (kv, out) = (&*kv, SharedMut::new(out));
    pool.run(n * nh, &|task| {
        let (i, head) = (task / nh, task % nh);
        let seen = pos0 + i + 1;
        let q = &qkv[i * 3 * c + head * hs..][..hs];
        // SAFETY: head `head` of row `i` belongs to this task.
        let out = unsafe { out.part(i * c + head * hs, hs) };
        query(path, out, q, &kv.k[head * hs..], &kv.v[head * hs..], (seen, c), scale);
    });
}

vectorized! {
    /// One query of one head against `seen` keys, which lie `c` apart.
    fn query(out: &mut [f32], q: &[f32], k: &[f32], v: &[f32], extent: (usize, usize), scale: f32) {
        let ((seen, c), hs) = (extent, q.len());
        let mut p = vec![0.0; seen];
        for (s, p) in p.iter_mut().enumerate() {
            let k = &k[s * c..][..hs];
            *p = sum_by(hs, |j| q[j] * k[j]);
        }
        softmax(&mut p, seen, scale);
        out.fill(0.0);
        for (s, p) in p.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&v[s * c..][..hs]) {
                *out += p * v;
            }
        }
    }
}
