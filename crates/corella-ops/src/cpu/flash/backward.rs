//! The backward pass: for each block of queries, the probabilities of each block of keys once more, and from them what q, k
//! and v contribute.

#[cfg(target_arch = "x86_64")]
use super::dot;
use super::product::{Block, Rows, Single, Start, product};
use super::{Part, QUERIES, SharedBuf, at, gather, hide_future, padded, spans, turn};
use crate::contract::AttentionDims;
use crate::cpu::buf::Buf;
use crate::cpu::math::sum2;
use crate::cpu::path::Path;
use crate::cpu::pool::Pool;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;
use crate::cpu::simd::with_simd;
use crate::cpu::vectorized::vectorized;

/// Keys of a block.
const KEYS: usize = 96;
/// Keys of a part are a multiple of this: whole blocks of every kernel.
const UNIT: usize = 192;
/// Heads of keys below which a head's keys are cut into parts, so that there is work for several threads. The number of
/// parts follows from the shape alone, because the parts' dq are added up.
const FEW_HEADS: usize = 8;

/// See [`crate::OpsTrain::attention_grad`].
pub fn backward(
    pool: &Pool,
    path: Path,
    dqkv: &mut Buf,
    dout: &Buf,
    out: &Buf,
    qkv: &Buf,
    lse: &[f32],
    d: AttentionDims,
) {
    if d.t == 0 {
        return;
    }
    let heads = d.b * d.nkv;
    let blocks = d.t.div_ceil(UNIT);
    let parts = FEW_HEADS.div_ceil(heads.max(1)).min(blocks).max(1);
    let run = blocks.div_ceil(parts) * UNIT;
    let dq_len = d.b * d.t * d.c();
    let mut dq = Scratch::new(if parts > 1 { parts * dq_len } else { 0 });
    let dqkv = SharedBuf::new(dqkv);
    let sums = SharedMut::new(&mut dq);
    pool.run(heads * parts, &|task| {
        let (part, head) = (task / heads, task % heads);
        let inputs = Inputs { dout, out, qkv, lse, d, b: head / d.nkv, kv_head: head % d.nkv };
        let keys = (part * run).min(d.t)..((part + 1) * run).min(d.t);
        let put = |t: usize, head: usize, row: &[f32]| {
            // SAFETY: these columns of q belong to this task; in `sums` each part has its own array.
            unsafe {
                if parts == 1 {
                    dqkv.put(path, at(d, Part::Q, inputs.b, t, head), row, 1.0);
                } else {
                    let at = part * dq_len + (inputs.b * d.t + t) * d.c() + head * d.hs;
                    sums.part(at, d.hs).copy_from_slice(row);
                }
            }
        };
        #[cfg(target_arch = "x86_64")]
        if dot::backward(path, &inputs, keys.clone(), &dqkv, &put) {
            return;
        }
        keys_grad(path, &inputs, keys, &dqkv, &put);
    });
    if parts > 1 {
        pool.run(d.b * d.t, &|row| {
            // SAFETY: one row, of this task alone; the region that wrote it is over.
            let first = unsafe { sums.part(row * d.c(), d.c()) };
            // A part's first key is seen from there on.
            for part in (1..parts).take_while(|part| part * run <= row % d.t) {
                // SAFETY: as above.
                let from = unsafe { sums.part(part * dq_len + row * d.c(), d.c()) };
                add_to(path, first, from);
            }
            // SAFETY: q's columns of one row.
            unsafe { dqkv.put(path, row * d.qkv(), first, 1.0) };
        });
    }
}

/// What a task reads, and which head of keys it works on.
pub struct Inputs<'a> {
    pub(super) dout: &'a Buf,
    pub(super) out: &'a Buf,
    pub(super) qkv: &'a Buf,
    pub(super) lse: &'a [f32],
    pub(super) d: AttentionDims,
    pub(super) b: usize,
    pub(super) kv_head: usize,
}

/// Gradients of some keys and values of a head, written to dqkv; dq of every query that sees them, as far as they go, is
/// handed to `put(t, query head, row)`.
fn keys_grad(
    path: Path,
    inputs: &Inputs<'_>,
    keys: std::ops::Range<usize>,
    dqkv: &SharedBuf<'_>,
    put: &impl Fn(usize, usize, &[f32]),
) {
    let Inputs { qkv, d, b, kv_head, .. } = *inputs;
    let (n, hs, row) = (keys.len(), d.hs, padded(d));
    let mut space = Scratch::new(4 * n * row);
    let (k, rest) = space.split_at_mut(n * row);
    let (v, grads) = rest.split_at_mut(n * row);
    gather(path, k, row, (qkv, at(d, Part::K, b, keys.start, kv_head)), d.qkv(), n, hs);
    gather(path, v, row, (qkv, at(d, Part::V, b, keys.start, kv_head)), d.qkv(), n, hs);
    grads.fill(0.0);
    let (dk, dv) = grads.split_at_mut(n * row);
    let mut block = QueryBlock::new(row);
    for head in kv_head * d.group()..(kv_head + 1) * d.group() {
        let first = keys.start / QUERIES * QUERIES;
        for t0 in (first..d.t).step_by(QUERIES) {
            block.load(path, inputs, t0, head);
            let seen = keys.end.min(t0 + block.rows) - keys.start;
            block.add_grads(path, [k, v], [&mut *dk, &mut *dv], (hs, row), keys.start..keys.start + seen);
            for (i, dq) in block.dq.chunks_exact(row).enumerate().take(block.rows) {
                put(t0 + i, head, &dq[..hs]);
            }
        }
    }
    for (part, grads) in [(Part::K, dk), (Part::V, dv)] {
        for (s, grad) in grads.chunks_exact(row).enumerate() {
            // SAFETY: this head's columns of these keys, which no other task writes.
            unsafe { dqkv.put(path, at(d, part, b, keys.start + s, kv_head), &grad[..hs], 1.0) };
        }
    }
}

/// A block of queries of one head, both ways round, with the scores against a block of keys.
struct QueryBlock {
    t0: usize,
    rows: usize,
    /// q and dout: (queries, row).
    q: Scratch,
    dout: Scratch,
    /// q and dout turned: (hs, QUERIES).
    q_turned: Scratch,
    dout_turned: Scratch,
    /// (queries, row), written.
    dq: Scratch,
    /// (keys, QUERIES): scores, then probabilities; their gradients.
    p: Scratch,
    dp: Scratch,
    softmax: Softmax,
}

/// What the softmax of each query needs in the backward pass.
struct Softmax {
    /// Log of the denominator, in base 2.
    lse: [f32; QUERIES],
    /// Σ_s p·dp, which is dout·out.
    mean: [f32; QUERIES],
    /// Scale of the scores.
    scale: f32,
}

impl QueryBlock {
    fn new(row: usize) -> QueryBlock {
        let [q, dout, q_turned, dout_turned, dq] = std::array::from_fn(|_| Scratch::new(QUERIES * row));
        let [p, dp] = std::array::from_fn(|_| Scratch::new(QUERIES * KEYS));
        let softmax = Softmax { lse: [0.0; QUERIES], mean: [0.0; QUERIES], scale: 0.0 };
        QueryBlock { t0: 0, rows: 0, q, dout, q_turned, dout_turned, dq, p, dp, softmax }
    }

    /// Takes up the queries from `t0` on.
    fn load(&mut self, path: Path, from: &Inputs<'_>, t0: usize, head: usize) {
        let (d, hs) = (from.d, from.d.hs);
        let (rows, row) = (QUERIES.min(d.t - t0), padded(d));
        (self.t0, self.rows) = (t0, rows);
        let at_out = (from.b * d.t + t0) * d.c() + head * hs;
        gather(path, &mut self.q, row, (from.qkv, at(d, Part::Q, from.b, t0, head)), d.qkv(), rows, hs);
        gather(path, &mut self.dout, row, (from.dout, at_out), d.c(), rows, hs);
        // The place of dq is free until its products.
        let out = &mut self.dq;
        gather(path, out, row, (from.out, at_out), d.c(), rows, hs);
        turn(path, &mut self.q_turned, &self.q, row, rows, hs);
        turn(path, &mut self.dout_turned, &self.dout, row, rows, hs);
        let softmax = &mut self.softmax;
        softmax.scale = 1.0 / (hs as f32).sqrt();
        let lse = &from.lse[(from.b * d.nh + head) * d.t + t0..][..rows];
        // Queries that do not exist have scores of 0 and no gradient.
        softmax.lse = [0.0; QUERIES];
        softmax.mean = [0.0; QUERIES];
        for (i, lse) in lse.iter().enumerate() {
            softmax.lse[i] = lse * std::f32::consts::LOG2_E;
            softmax.mean[i] = dot(path, &self.dout[i * row..][..hs], &out[i * row..][..hs]);
        }
    }

    /// dq = what keys `keys` contribute, and dk, dv += what this block contributes to them. The arrays of keys begin at
    /// `keys.start`: (keys, row).
    fn add_grads(
        &mut self,
        path: Path,
        [k, v]: [&[f32]; 2],
        [dk, dv]: [&mut [f32]; 2],
        (hs, row): (usize, usize),
        keys: std::ops::Range<usize>,
    ) {
        let (t0, queries) = (self.t0, self.rows);
        let (q, dout, q_turned, dout_turned) = (&*self.q, &*self.dout, &*self.q_turned, &*self.dout_turned);
        let wide = keys.len() * row;
        assert!(k.len() >= wide && v.len() >= wide && dk.len() >= wide && dv.len() >= wide);
        for k0 in keys.clone().step_by(KEYS) {
            let n = KEYS.min(keys.end - k0);
            let (p, dp) = (&mut self.p[..n * QUERIES], &mut self.dp[..n * QUERIES]);
            for (first, n, skip) in spans(k0, n, t0) {
                let (key, score) = ((first - keys.start) * row, (first - k0) * QUERIES + skip);
                for (c, a, b) in [(&mut *p, k, q_turned), (&mut *dp, v, dout_turned)] {
                    let c = Block { at: c[score..].as_mut_ptr(), row: QUERIES, rows: n, columns: QUERIES - skip };
                    let a = Single { at: a[key..].as_ptr(), row, step: 1 };
                    let b = Rows { at: b[skip..].as_ptr(), row: QUERIES };
                    // SAFETY: n keys (assertion above, size of p and dp) and hs rows of the turned arrays.
                    unsafe { product(path, c, a, b, hs, Start::ZERO) };
                }
            }
            hide_future(p, k0, t0, f32::NEG_INFINITY);
            hide_future(dp, k0, t0, 0.0);
            // SAFETY: features as the path says; slices of whole registers.
            unsafe { score_grads(path, p, dp, &self.softmax) };
            for (i, (first, n, skip)) in spans(k0, n, t0).enumerate() {
                let (key, score) = ((first - keys.start) * row, (first - k0) * QUERIES + skip);
                for (c, a, b) in [(&mut *dv, &*p, dout), (&mut *dk, &*dp, q)] {
                    let c = Block { at: c[key..].as_mut_ptr(), row, rows: n, columns: row };
                    let a = Single { at: a[score..].as_ptr(), row: QUERIES, step: 1 };
                    let b = Rows { at: b[skip * row..].as_ptr(), row };
                    // SAFETY: n keys (assertion above, size of p and dp); queries from `skip` on exist.
                    unsafe { product(path, c, a, b, queries - skip, Start::SUMS) };
                }
                let c = Block { at: self.dq[skip * row..].as_mut_ptr(), row, rows: queries - skip, columns: row };
                let a = Single { at: dp[score..].as_ptr(), row: 1, step: QUERIES };
                let b = Rows { at: k[key..].as_ptr(), row };
                let start = if k0 == keys.start && i == 0 { Start::ZERO } else { Start::SUMS };
                // SAFETY: as above.
                unsafe { product(path, c, a, b, n, start) };
            }
        }
    }
}

vectorized! {
    fn add_to(to: &mut [f32], from: &[f32]) {
        for (to, x) in to.iter_mut().zip(from) {
            *to += x;
        }
    }
}

vectorized! {
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum2(a, b, |a, b| a * b)
    }
}

with_simd! {
    /// p: scores → probabilities; dp: their gradient → that of the scores. Both (keys, QUERIES).
    unsafe fn score_grads<S>(p: &mut [f32], dp: &mut [f32], softmax: &Softmax) {
        for j in (0..QUERIES).step_by(S::LANES) {
            // SAFETY: lanes j .. j + LANES of arrays of QUERIES and of rows of p and dp; the caller's features.
            unsafe {
                let below = S::sub(S::splat(0.0), S::load(softmax.lse.as_ptr().add(j)));
                let mean = S::load(softmax.mean.as_ptr().add(j));
                let (scale, to_base_2) = (S::splat(softmax.scale), S::splat(softmax.scale * std::f32::consts::LOG2_E));
                for s in 0..p.len().min(dp.len()) / QUERIES {
                    let (p, dp) = (p.as_mut_ptr().add(s * QUERIES + j), dp.as_mut_ptr().add(s * QUERIES + j));
                    let probability = S::exp2(S::fma(S::load(p), to_base_2, below));
                    S::store(p, probability);
                    S::store(dp, S::mul(S::mul(probability, scale), S::sub(S::load(dp), mean)));
                }
            }
        }
    }
}
