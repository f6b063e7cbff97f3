//! The forward pass: for each block of queries, blocks of keys with an online softmax.

#[cfg(target_arch = "x86_64")]
use super::dot;
use super::product::{Block, Rows, Single, Start, product};
use super::{Part, QUERIES, SharedBuf, at, gather, hide_future, padded, spans, turn};
use crate::contract::AttentionDims;
use crate::cpu::buf::Buf;
use crate::cpu::pack::{Operand, pack};
use crate::cpu::path::Path;
use crate::cpu::pool::Pool;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;
use crate::cpu::simd::with_simd;

/// Keys of a block: their scores and values stay in the first-level cache.
const KEYS: usize = 96;

/// Queries of a task at least, where heads are cut; whole blocks of every kernel.
const RUN: usize = 192;

/// See [`crate::OpsTrain::attention`].
pub fn forward(pool: &Pool, path: Path, out: &mut Buf, lse: &mut [f32], qkv: &Buf, d: AttentionDims) {
    if d.t == 0 {
        return;
    }
    // Where heads are too few for the threads, each is cut into runs of query blocks, which are independent of each other.
    let runs = d.t.div_ceil(RUN);
    let parts = (4 * pool.threads()).div_ceil((d.b * d.nh).max(1)).min(runs).max(1);
    let run = runs.div_ceil(parts) * RUN;
    let output = Output { path, d, out: SharedBuf::new(out), lse: SharedMut::new(lse) };
    pool.run(d.b * d.nh * parts, &|task| {
        // The longest runs, the last ones, come first.
        let (part, head) = (parts - 1 - task / (d.b * d.nh), task % (d.b * d.nh));
        let (begin, end) = ((part * run).min(d.t), ((part + 1) * run).min(d.t));
        let place = Place { b: head / d.nh, head: head % d.nh };
        #[cfg(target_arch = "x86_64")]
        if dot::forward(path, &output, qkv, place, begin..end) {
            return;
        }
        run_of_queries(path, &output, qkv, place, begin..end);
    });
}

/// A head of a sequence.
#[derive(Clone, Copy)]
pub struct Place {
    /// Sequence.
    pub b: usize,
    /// Head of queries.
    pub head: usize,
}

/// The results, which tasks write in parts.
pub struct Output<'a> {
    path: Path,
    pub(super) d: AttentionDims,
    out: SharedBuf<'a>,
    lse: SharedMut<'a>,
}

impl Output<'_> {
    /// Results of the `rows` queries from `t0` on. sums: (hs, width), one column per query; `max`, `total`: of their softmax,
    /// in base 2.
    ///
    /// # Safety
    /// No other task writes the results of these queries of this head.
    pub unsafe fn put(&self, place: Place, t0: usize, rows: usize, sums: &[f32], max: &[f32], total: &[f32]) {
        let (d, hs, row, width) = (self.d, self.d.hs, padded(self.d), max.len());
        let mut turned = Scratch::new(width * row);
        pack(self.path, row, &mut turned, Operand::rows(sums, width), 0, hs, 0, rows);
        // SAFETY: handed on.
        let lse = unsafe { self.lse.part((place.b * d.nh + place.head) * d.t + t0, rows) };
        for (i, from) in turned.chunks_exact(row).enumerate().take(rows) {
            let at = (place.b * d.t + t0 + i) * d.c() + place.head * hs;
            // SAFETY: handed on.
            unsafe { self.out.put(self.path, at, &from[..hs], 1.0 / total[i]) };
            lse[i] = (max[i] + total[i].log2()) * std::f32::consts::LN_2;
        }
    }
}

/// Some blocks of queries of a head, in f32.
fn run_of_queries(path: Path, output: &Output<'_>, qkv: &Buf, place: Place, queries: std::ops::Range<usize>) {
    let (d, hs, row, end) = (output.d, output.d.hs, padded(output.d), queries.end);
    let Place { b, head } = place;
    let mut space = Scratch::new((2 * end + 3 * QUERIES) * row);
    let (k, rest) = space.split_at_mut(end * row);
    let (v, rest) = rest.split_at_mut(end * row);
    let (q, rest) = rest.split_at_mut(row * QUERIES);
    let (q_turned, sums) = rest.split_at_mut(row * QUERIES);
    gather(path, k, row, (qkv, at(d, Part::K, b, 0, head / d.group())), d.qkv(), end, hs);
    gather(path, v, row, (qkv, at(d, Part::V, b, 0, head / d.group())), d.qkv(), end, hs);
    for t0 in queries.step_by(QUERIES) {
        let rows = QUERIES.min(d.t - t0);
        // Copied first: the rows of the next block are asked for meanwhile.
        gather(path, q, row, (qkv, at(d, Part::Q, b, t0, head)), d.qkv(), rows, hs);
        turn(path, q_turned, q, row, rows, hs);
        let (max, total) = block(path, sums, q_turned, &k[..(t0 + rows) * row], v, (hs, row), t0);
        // SAFETY: these queries of this head belong to this task.
        unsafe { output.put(place, t0, rows, sums, &max, &total) };
    }
}

/// sums (hs, QUERIES) = Σ over keys of v · 2^(scaled score − max); returns, for each query, max in base 2 and Σ 2^(…).
/// q: (hs, QUERIES)  k, v: (keys, row).
fn block(
    path: Path,
    sums: &mut [f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    (hs, row): (usize, usize),
    t0: usize,
) -> ([f32; QUERIES], [f32; QUERIES]) {
    let keys = k.len() / row;
    let scale = std::f32::consts::LOG2_E / (hs as f32).sqrt();
    let mut state = State { max: [f32::NEG_INFINITY; QUERIES], total: [0.0; QUERIES], factor: [0.0; QUERIES] };
    let mut scores = Scratch::new(KEYS * QUERIES);
    assert!(q.len() >= hs * QUERIES && sums.len() >= hs * QUERIES && v.len() >= keys * row);
    for k0 in (0..keys).step_by(KEYS) {
        let n = KEYS.min(keys - k0);
        let scores = &mut scores[..n * QUERIES];
        for (first, n, skip) in spans(k0, n, t0) {
            let at = scores[(first - k0) * QUERIES + skip..].as_mut_ptr();
            let c = Block { at, row: QUERIES, rows: n, columns: QUERIES - skip };
            let a = Single { at: k[first * row..].as_ptr(), row, step: 1 };
            let b = Rows { at: q[skip..].as_ptr(), row: QUERIES };
            // SAFETY: n keys of k and of the scores, hs rows of q (assertion above).
            unsafe { product(path, c, a, b, hs, Start::ZERO) };
        }
        hide_future(scores, k0, t0, f32::NEG_INFINITY);
        // SAFETY: features as the path says; slices of whole registers.
        unsafe { exponentials(path, scores, &mut state, scale) };
        for (i, (first, n, skip)) in spans(k0, n, t0).enumerate() {
            let c = Block { at: sums[skip..].as_mut_ptr(), row: QUERIES, rows: hs, columns: QUERIES - skip };
            let a = Single { at: v[first * row..].as_ptr(), row: 1, step: row };
            let b = Rows { at: scores[(first - k0) * QUERIES + skip..].as_ptr(), row: QUERIES };
            let start = match (k0, i) {
                (0, 0) => Start::ZERO,
                (_, 0) => Start::scaled(state.factor[skip..].as_ptr()),
                _ => Start::SUMS,
            };
            // SAFETY: n keys of v and of the scores, hs rows of sums (assertion above).
            unsafe { product(path, c, a, b, n, start) };
        }
    }
    (state.max, state.total)
}

/// The online softmax of a block of queries, in base 2.
struct State {
    max: [f32; QUERIES],
    total: [f32; QUERIES],
    /// What earlier sums are multiplied by.
    factor: [f32; QUERIES],
}

with_simd! {
    /// scores (keys, QUERIES) ← 2^(scale·score − max), with max, total and factor brought up to date.
    unsafe fn exponentials<S>(scores: &mut [f32], state: &mut State, scale: f32) {
        let keys = scores.len() / QUERIES;
        for j in (0..QUERIES).step_by(S::LANES) {
            // SAFETY: lanes j .. j + LANES of arrays of QUERIES and of rows of scores; the caller's features.
            unsafe {
                let column = scores.as_mut_ptr().add(j);
                let factor = S::splat(scale);
                let mut max = S::splat(f32::NEG_INFINITY);
                for s in 0..keys {
                    max = S::max(max, S::load(column.add(s * QUERIES)));
                }
                let old = S::load(state.max.as_ptr().add(j));
                let max = S::max(old, S::mul(max, factor));
                let keep = S::exp2(S::sub(old, max));
                let below = S::sub(S::splat(0.0), max);
                let mut total = S::mul(S::load(state.total.as_ptr().add(j)), keep);
                for s in 0..keys {
                    let at = column.add(s * QUERIES);
                    let p = S::exp2(S::fma(S::load(at), factor, below));
                    total = S::add(total, p);
                    S::store(at, p);
                }
                S::store(state.max.as_mut_ptr().add(j), max);
                S::store(state.total.as_mut_ptr().add(j), total);
                S::store(state.factor.as_mut_ptr().add(j), keep);
            }
        }
    }
}
