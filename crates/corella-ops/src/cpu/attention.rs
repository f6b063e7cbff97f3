//! Causal self-attention, one head of queries (forward) or of keys (backward) per task, by blocks of queries.

use super::gemm::{Right, Size, Store, Workers, gemm};
use super::math::{exp, sum_by};
use super::pack::{Operand, Packed};
use super::path::Path;
use super::pool::Pool;
use super::scratch::{self, Scratch};
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::AttentionDims;

/// Queries of a block: their scores against all earlier keys stay in the second-level cache.
const BLOCK: usize = 48;

/// Where head `head` of part 0 (q), 1 (k) or 2 (v) begins in qkv (B, T, (NH+2·NKV)·HS), seen from position `t` of a
/// sequence.
fn at(d: AttentionDims, part: usize, b: usize, t: usize, head: usize) -> usize {
    let first = [0, d.nh, d.nh + d.nkv][part];
    (b * d.t + t) * d.qkv() + (first + head) * d.hs
}

/// See [`crate::OpsTrain::attention`].
pub fn forward(pool: &Pool, path: Path, out: &mut [f32], lse: &mut [f32], qkv: &[f32], d: AttentionDims) {
    let (c, width, scale) = (d.c(), d.qkv(), 1.0 / (d.hs as f32).sqrt());
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    pool.run(d.b * d.nh, &|task| {
        let (b, head) = (task / d.nh, task % d.nh);
        let k = Operand::rows(&qkv[at(d, 1, b, 0, head / d.group())..], width);
        let v = Operand::columns(&qkv[at(d, 2, b, 0, head / d.group())..], width);
        let pack = |operand, outer, k| {
            Packed::new(Workers::Caller, path, operand, (outer, k), scratch::take((d.t + 64) * d.hs))
        };
        let (k, v) = (pack(k, d.t, d.hs), pack(v, d.hs, d.t));
        let (mut scores, mut block) = (Scratch::new(BLOCK * d.t), Scratch::new(BLOCK * d.hs));
        // SAFETY: the row of lse that belongs to this head.
        let lse = unsafe { lse.part(task * d.t, d.t) };
        for t0 in (0..d.t).step_by(BLOCK) {
            let rows = BLOCK.min(d.t - t0);
            let keys = t0 + rows;
            let q = Operand::rows(&qkv[at(d, 0, b, t0, head)..], width);
            let size = Size { m: rows, n: keys, k: d.hs, ldc: keys };
            gemm(Workers::Caller, path, size, q, Right::Packed(&k), &mut scores, Store::Write, None);
            let mut inverse = [0.0; BLOCK];
            for (i, row) in scores.chunks_exact_mut(keys).enumerate().take(rows) {
                (lse[t0 + i], inverse[i]) = exponentials(path, row, t0 + i + 1, scale);
            }
            let size = Size { m: rows, n: d.hs, k: keys, ldc: d.hs };
            let p = Operand::rows(&scores, keys);
            gemm(Workers::Caller, path, size, p, Right::Packed(&v), &mut block, Store::Write, None);
            for (i, row) in block.chunks_exact(d.hs).enumerate().take(rows) {
                // SAFETY: this head's columns of row t0 + i, which no other task writes.
                let out = unsafe { out.part((b * d.t + t0 + i) * c + head * d.hs, d.hs) };
                for (out, x) in out.iter_mut().zip(row) {
                    *out = x * inverse[i];
                }
            }
        }
        [k, v].into_iter().for_each(|packed| scratch::give(packed.into_space()));
    });
}

vectorized! {
    /// row[..valid] ← exp(scale·row − max), the rest 0; returns log and inverse of the softmax's denominator.
    fn exponentials(row: &mut [f32], valid: usize, scale: f32) -> (f32, f32) {
        let (seen, future) = row.split_at_mut(valid);
        future.fill(0.0);
        let max = max_of(seen) * scale;
        let mut lanes = [0.0f32; 16];
        let mut chunks = seen.chunks_exact_mut(16);
        for chunk in &mut chunks {
            for (x, lane) in chunk.iter_mut().zip(&mut lanes) {
                *x = exp(*x * scale - max);
                *lane += *x;
            }
        }
        for (x, lane) in chunks.into_remainder().iter_mut().zip(&mut lanes) {
            *x = exp(*x * scale - max);
            *lane += *x;
        }
        let sum = sum_by(16, |i| lanes[i]);
        (max + sum.ln(), 1.0 / sum)
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

/// row ← softmax(scale · row).
#[inline(always)]
pub fn softmax(row: &mut [f32], scale: f32) {
    let max = max_of(row) * scale;
    for x in row.iter_mut() {
        *x = exp(*x * scale - max);
    }
    let inverse = 1.0 / sum_by(row.len(), |i| row[i]);
    for x in row.iter_mut() {
        *x *= inverse;
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
    let (c, width, scale, span) = (d.c(), d.qkv(), 1.0 / (d.hs as f32).sqrt(), d.t * d.hs);
    let dqkv = SharedMut::new(dqkv);
    pool.run(d.b * d.nkv, &|task| {
        let (b, kv_head) = (task / d.nkv, task % d.nkv);
        let [k, v] = [1, 2].map(|part| &qkv[at(d, part, b, 0, kv_head)..]);
        let pack = |operand, outer, k| {
            Packed::new(Workers::Caller, path, operand, (outer, k), scratch::take((d.t + 64) * d.hs))
        };
        let (k_rows, v_rows) = (pack(Operand::rows(k, width), d.t, d.hs), pack(Operand::rows(v, width), d.t, d.hs));
        let k_columns = pack(Operand::columns(k, width), d.hs, d.t);
        let copy = |from: &[f32], part, head| {
            for (t, row) in from.chunks_exact(d.hs).enumerate() {
                // SAFETY: this head's columns, which no other task writes.
                unsafe { dqkv.part(at(d, part, b, t, head), d.hs) }.copy_from_slice(row);
            }
        };
        let mut grads = Scratch::new(3 * span);
        grads.fill(0.0);
        let (dq, dkv) = grads.split_at_mut(span);
        let (dk, dv) = dkv.split_at_mut(span);
        let (mut p, mut dp) = (Scratch::new(BLOCK * d.t), Scratch::new(BLOCK * d.t));
        for head in kv_head * d.group()..(kv_head + 1) * d.group() {
            for t0 in (0..d.t).step_by(BLOCK) {
                let rows = BLOCK.min(d.t - t0);
                let keys = t0 + rows;
                let row_of = |i: usize| (b * d.t + t0 + i) * c + head * d.hs;
                let (q, dout_block) = (&qkv[at(d, 0, b, t0, head)..], &dout[row_of(0)..]);
                let product =
                    |size, a, b, c: &mut [f32], store| gemm(Workers::Caller, path, size, a, b, c, store, None);
                let inner = Size { m: rows, n: keys, k: d.hs, ldc: keys };
                product(inner, Operand::rows(q, width), Right::Packed(&k_rows), &mut p, Store::Write);
                product(inner, Operand::rows(dout_block, c), Right::Packed(&v_rows), &mut dp, Store::Write);
                for i in 0..rows {
                    let (p, dp) = (&mut p[i * keys..][..keys], &mut dp[i * keys..][..keys]);
                    let (dout, out) = (&dout[row_of(i)..][..d.hs], &out[row_of(i)..][..d.hs]);
                    // Σ_s p·dp is the same as dout·out.
                    let lse = lse[(b * d.nh + head) * d.t + t0 + i];
                    row_grad(path, p, dp, t0 + i + 1, (dout, out), lse, scale);
                }
                let to_queries = Size { m: rows, n: d.hs, k: keys, ldc: d.hs };
                let ds = Operand::rows(&dp, keys);
                product(to_queries, ds, Right::Packed(&k_columns), &mut dq[t0 * d.hs..], Store::Write);
                let to_keys = Size { m: keys, n: d.hs, k: rows, ldc: d.hs };
                let (ds, ps) = (Operand::columns(&dp, keys), Operand::columns(&p, keys));
                product(to_keys, ds, Right::Fresh(Operand::columns(q, width)), dk, Store::Add);
                product(to_keys, ps, Right::Fresh(Operand::columns(dout_block, c)), dv, Store::Add);
            }
            copy(dq, 0, head);
        }
        copy(dk, 1, kv_head);
        copy(dv, 2, kv_head);
        [k_rows, v_rows, k_columns].into_iter().for_each(|packed| scratch::give(packed.into_space()));
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
        softmax(&mut p, scale);
        out.fill(0.0);
        for (s, p) in p.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&v[s * c..][..hs]) {
                *out += p * v;
            }
        }
    }
}
