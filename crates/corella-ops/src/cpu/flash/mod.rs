//! Causal self-attention of training, without a T × T matrix (Dao et al., arXiv 2205.14135).
//!
//! Everything is computed transposed: scores lie as (keys, queries) with a block of queries side by side in registers. So
//! the softmax's maximum and sum run over rows, lane by lane, and the probabilities already are the operand that the
//! products with V, Q and dO want; only the block of queries is turned around, once.
//!
//! The order of addition depends on the shape alone: keys in blocks from position 0, queries in blocks from position 0,
//! query heads of a group in their order.

mod backward;
#[cfg(target_arch = "x86_64")]
mod dot;
mod forward;
mod product;

pub use backward::backward;
pub use forward::forward;

use super::bf16::{Bf16, convert};
use super::buf::{Buf, numbers};
use super::kernel::prefetch;
use super::pack::{Operand, pack};
use super::path::Path;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::AttentionDims;

/// Queries of a block: a multiple of three registers on every path.
const QUERIES: usize = 48;

/// The parts of qkv.
#[derive(Clone, Copy)]
enum Part {
    Q,
    K,
    V,
}

/// Where head `head` of a part begins in qkv (B, T, (NH+2·NKV)·HS) at position `t` of sequence `b`.
fn at(d: AttentionDims, part: Part, b: usize, t: usize, head: usize) -> usize {
    let first = match part {
        Part::Q => 0,
        Part::K => d.nh,
        Part::V => d.nh + d.nkv,
    };
    (b * d.t + t) * d.qkv() + (first + head) * d.hs
}

/// Width of a head's copy: whole registers.
fn padded(d: AttentionDims) -> usize {
    d.hs.next_multiple_of(16)
}

/// Copies `n` rows of `hs` numbers that lie `from_row` apart in `from` from `start` on, next to each other and in f32,
/// padded with zeros to `row`.
fn gather(path: Path, to: &mut [f32], row: usize, (from, start): (&Buf, usize), from_row: usize, n: usize, hs: usize) {
    numbers!([from = from] {
        let from = &from[start.min(from.len())..];
        for (t, to) in to.chunks_exact_mut(row).enumerate().take(n) {
            ahead(from, (t + QUERIES) * from_row, hs);
            convert(path, &mut to[..hs], &from[t * from_row..][..hs]);
            to[hs..].fill(0.0);
        }
    });
}

/// Asks for the row of `hs` numbers at `at`, if there is one: rows lie pages apart, where no hardware looks ahead.
#[inline(always)]
fn ahead<T>(from: &[T], at: usize, hs: usize) {
    if let Some(row) = from.get(at..at + hs) {
        prefetch(row);
    }
}

/// An array of either format of which tasks write disjoint parts.
enum SharedBuf<'a> {
    F32(SharedMut<'a, f32>),
    Bf16(SharedMut<'a, Bf16>),
}

impl<'a> SharedBuf<'a> {
    fn new(buf: &'a mut Buf) -> Self {
        match buf {
            Buf::F32(array) => SharedBuf::F32(SharedMut::new(array)),
            Buf::Bf16(array) => SharedBuf::Bf16(SharedMut::new(array)),
        }
    }

    /// The numbers from `at` on = from · factor.
    ///
    /// # Safety
    /// No other task uses them meanwhile.
    unsafe fn put(&self, path: Path, at: usize, from: &[f32], factor: f32) {
        // SAFETY: handed on.
        unsafe {
            match self {
                SharedBuf::F32(to) => scaled(path, to.part(at, from.len()), from, factor),
                SharedBuf::Bf16(to) => scaled(path, to.part(at, from.len()), from, factor),
            }
        }
    }
}

vectorized! {
    /// to = from · factor.
    fn scaled<T: Number>(to: &mut [T], from: &[f32], factor: f32) {
        for (to, x) in to.iter_mut().zip(from) {
            *to = T::put(x * factor);
        }
    }
}

/// to[i·QUERIES + j] = from[j·from_row + i] for i < hs and j < `n` ≤ QUERIES; 0 for the other j.
fn turn(path: Path, to: &mut [f32], from: &[f32], from_row: usize, n: usize, hs: usize) {
    pack(path, QUERIES, to, Operand::rows(from, from_row), 0, n, 0, hs);
}

/// Lets no query see a later key: rows (keys from `k0` on) of a block of scores for queries from `t0` on get `value` where
/// the key comes after the query.
fn hide_future(rows: &mut [f32], k0: usize, t0: usize, value: f32) {
    for (s, row) in rows.chunks_exact_mut(QUERIES).enumerate().skip((t0 + 1).saturating_sub(k0)) {
        row[..(k0 + s - t0).min(QUERIES)].fill(value);
    }
}

/// Queries that later keys may leave out: a register of the widest path.
const SKIP: usize = 16;

/// Cuts keys k0 .. k0 + n of a block into spans (first key, keys, queries at the block's begin that see none of them).
fn spans(k0: usize, n: usize, t0: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = k0 + n;
    let mut first = k0;
    std::iter::from_fn(move || {
        if first >= end {
            return None;
        }
        // Keys up to the first query's are seen by all; from there on, SKIP keys at a time.
        let skip = first.saturating_sub(t0) / SKIP * SKIP;
        let last = if first < t0 { t0.min(end) } else { (t0 + skip + SKIP).min(end) };
        let span = (first, last - first, skip);
        first = last;
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_is_hidden_and_nothing_else() {
        for (k0, t0) in [(0, 0), (0, 48), (96, 96), (96, 48), (48, 96), (0, 5)] {
            let mut rows = vec![1.0; 96 * QUERIES];
            hide_future(&mut rows, k0, t0, 0.0);
            for (i, x) in rows.iter().enumerate() {
                let (key, query) = (k0 + i / QUERIES, t0 + i % QUERIES);
                assert_eq!(*x, if key > query { 0.0 } else { 1.0 }, "key {key}, query {query}");
            }
        }
    }

    #[test]
    fn spans_cover_the_keys_once_and_leave_out_unseen_queries_only() {
        for (k0, n, t0) in [(0, 96, 96), (0, 48, 0), (96, 40, 96), (0, 7, 0), (0, 96, 48), (0, 61, 48)] {
            let mut next = k0;
            for (first, keys, skip) in spans(k0, n, t0) {
                assert_eq!(first, next);
                assert!(skip == 0 || t0 + skip <= first, "a query that sees the key is left out");
                assert!(skip < QUERIES && skip % SKIP == 0);
                next = first + keys;
            }
            assert_eq!(next, k0 + n);
        }
    }
}
