//! The arithmetic of attention over stretches of the cache: tiles of sums in registers over keys and values in f32, and softmax
//! weights.

use super::super::math::across;
use super::super::path::{Path, Vectors};
use super::super::simd::{Simd, with_simd};
use super::paged::STRETCH;
use super::pages::GROUP;

/// Most queries of a tile.
pub const MOST: usize = whole(GROUP);

/// Queries of a whole tile where vectors have `lanes` numbers: as many as leave registers for keys or values.
const fn whole(lanes: usize) -> usize {
    if lanes == GROUP { 12 } else { 6 }
}

/// Queries of a whole tile of a path.
pub fn tile_rows(path: Path) -> usize {
    whole(if path.vectors() == Vectors::Avx512 { GROUP } else { GROUP / 2 })
}

/// First query and number of queries of each tile: whole ones, then fours, then single ones.
pub fn tiles(n: usize, whole: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let first = next;
        let rows = match n - first {
            0 => return None,
            left if left >= whole => whole,
            4.. => 4,
            _ => 1,
        };
        next += rows;
        Some((first, rows))
    })
}

with_simd! {
    /// scores\[q\]\[g·16 + j\] = Σ_i queries\[q\]\[i\] · keys\[g\]\[i\]\[j\], i ascending, for one or two groups of 16 keys and the tiles
    /// that hold query `from` or later ones; rows of scores are a stretch apart.
    ///
    /// # Safety
    /// queries by [`tiles`], (HS, rows) each; keys (groups,HS,16); n rows of scores with room for the groups.
    pub unsafe fn scores<S>(
        queries: *const f32,
        from: usize,
        n: usize,
        hs: usize,
        keys: *const f32,
        groups: usize,
        scores: *mut f32,
    ) {
        for (first, rows) in tiles(n, const { whole(S::LANES) }).filter(|(first, rows)| first + rows > from) {
            // SAFETY: a tile of the queries; the rest is handed on.
            unsafe {
                let (queries, scores) = (queries.add(first * hs), scores.add(first * STRETCH));
                match rows {
                    12 => score_rows::<S, 12>(queries, hs, keys, groups, scores),
                    6 => score_rows::<S, 6>(queries, hs, keys, groups, scores),
                    4 => score_rows::<S, 4>(queries, hs, keys, groups, scores),
                    _ => score_rows::<S, 1>(queries, hs, keys, groups, scores),
                }
            }
        }
    }
}

/// A tile of `N` queries of [`scores`].
///
/// # Safety
/// As there, and the features of `S`.
#[inline(always)]
unsafe fn score_rows<S: Simd, const N: usize>(
    queries: *const f32,
    hs: usize,
    keys: *const f32,
    groups: usize,
    scores: *mut f32,
) {
    if N > whole(S::LANES) {
        return;
    }
    let mut key = 0;
    while key < groups * GROUP {
        // SAFETY: keys that are there.
        unsafe {
            let (keys, scores) = (keys.add(key * hs), scores.add(key));
            key += match (S::LANES, groups * GROUP - key) {
                (16, 32..) => score_tile::<S, N, 2>(queries, hs, keys, scores),
                (16, _) => score_tile::<S, N, 1>(queries, hs, keys, scores),
                (8, _) => score_tile::<S, N, 2>(queries, hs, keys, scores),
                _ => score_tile::<S, N, 4>(queries, hs, keys, scores),
            };
        }
    }
}

/// `N` queries and `C` vectors of keys. Returns the number of keys.
///
/// # Safety
/// As of [`scores`], and the features of `S`.
#[inline(always)]
unsafe fn score_tile<S: Simd, const N: usize, const C: usize>(
    queries: *const f32,
    hs: usize,
    keys: *const f32,
    scores: *mut f32,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe {
        let mut tile = [[S::splat(0.0); C]; N];
        for i in 0..hs {
            let mut key = [S::splat(0.0); C];
            for (c, key) in key.iter_mut().enumerate() {
                let at = c * S::LANES;
                *key = S::load(keys.add((at / GROUP * hs + i) * GROUP + at % GROUP));
            }
            for (q, sums) in tile.iter_mut().enumerate() {
                let x = S::splat(*queries.add(i * N + q));
                for (sum, key) in sums.iter_mut().zip(key) {
                    *sum = S::fma(x, key, *sum);
                }
            }
        }
        for (q, sums) in tile.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                S::store(scores.add(q * STRETCH + c * S::LANES), *sum);
            }
        }
    }
    C * S::LANES
}

with_simd! {
    /// sums\[q\] += Σ_s p\[q\]\[s\] · values\[s\], s ascending, for the queries of a tile and `count` positions; rows of p are a
    /// stretch apart.
    ///
    /// # Safety
    /// `rows` rows of p with `count` weights, values (count,width), sums (rows,width); width is a multiple of 16.
    pub unsafe fn add_weighted<S>(
        p: *const f32,
        rows: usize,
        count: usize,
        values: *const f32,
        width: usize,
        sums: *mut f32,
    ) {
        // SAFETY: handed on.
        unsafe {
            match rows {
                12 => value_rows::<S, 12>(p, count, values, width, sums),
                6 => value_rows::<S, 6>(p, count, values, width, sums),
                4 => value_rows::<S, 4>(p, count, values, width, sums),
                _ => value_rows::<S, 1>(p, count, values, width, sums),
            }
        }
    }
}

/// A tile of `N` queries of [`add_weighted`].
///
/// # Safety
/// As there, and the features of `S`.
#[inline(always)]
unsafe fn value_rows<S: Simd, const N: usize>(
    p: *const f32,
    count: usize,
    values: *const f32,
    width: usize,
    sums: *mut f32,
) {
    if N > whole(S::LANES) {
        return;
    }
    let mut column = 0;
    while column < width {
        // SAFETY: columns that are there.
        unsafe {
            let (values, sums) = (values.add(column), sums.add(column));
            column += match (S::LANES, width - column) {
                (16, 32..) => value_tile::<S, N, 2>(p, count, values, width, sums),
                (16, _) => value_tile::<S, N, 1>(p, count, values, width, sums),
                (8, _) => value_tile::<S, N, 2>(p, count, values, width, sums),
                _ => value_tile::<S, N, 4>(p, count, values, width, sums),
            };
        }
    }
}

/// `N` queries and `C` vectors of columns. Returns the number of columns.
///
/// # Safety
/// As of [`add_weighted`], and the features of `S`.
#[inline(always)]
unsafe fn value_tile<S: Simd, const N: usize, const C: usize>(
    p: *const f32,
    count: usize,
    values: *const f32,
    width: usize,
    sums: *mut f32,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe {
        let mut tile = [[S::splat(0.0); C]; N];
        for (q, tile) in tile.iter_mut().enumerate() {
            for (c, sum) in tile.iter_mut().enumerate() {
                *sum = S::load(sums.add(q * width + c * S::LANES));
            }
        }
        for s in 0..count {
            let mut value = [S::splat(0.0); C];
            for (c, value) in value.iter_mut().enumerate() {
                *value = S::load(values.add(s * width + c * S::LANES));
            }
            for (q, tile) in tile.iter_mut().enumerate() {
                let x = S::splat(*p.add(q * STRETCH + s));
                for (sum, value) in tile.iter_mut().zip(value) {
                    *sum = S::fma(x, value, *sum);
                }
            }
        }
        for (q, tile) in tile.iter().enumerate() {
            for (c, sum) in tile.iter().enumerate() {
                S::store(sums.add(q * width + c * S::LANES), *sum);
            }
        }
    }
    C * S::LANES
}

/// Scales of the keys and of the values of a stretch, of 8-bit numbers.
pub type Scales = [[f32; STRETCH]; 2];

/// The largest score of a query in a stretch, in powers of two, and the sum of its weights relative to that.
pub type Statistics = (f32, f32);

with_simd! {
    /// Scores that queries see become their weights, 2^(score − the largest score), a row for each of `seen`, a stretch apart.
    /// Where numbers have scales, those of keys are multiplied into the scores, and those of values into the weights that are
    /// left, not into their sum. The largest scores of all queries come first: what waits for one has the others' to do.
    ///
    /// # Safety
    /// `scores` has a stretch for each query, of which as many as it sees are scores.
    pub unsafe fn weights<S>(scores: *mut f32, seen: &[usize], scales: Option<&Scales>, out: &mut [Statistics]) {
        // SAFETY: handed on.
        unsafe {
            for (q, (seen, out)) in seen.iter().zip(out.iter_mut()).enumerate() {
                *out = (largest_score::<S>(scores.add(q * STRETCH), *seen, scales.map(|scales| &scales[0])), 0.0);
            }
            for (q, (seen, (max, sum))) in seen.iter().zip(out).enumerate() {
                *sum = powers::<S>(scores.add(q * STRETCH), *seen, *max, scales.map(|scales| &scales[1]));
            }
        }
    }
}

/// The largest score of a query, and −∞ behind what it sees, up to a whole group.
///
/// # Safety
/// As of [`weights`], and the features of `S`.
#[inline(always)]
unsafe fn largest_score<S: Simd>(scores: *mut f32, seen: usize, keys: Option<&[f32; STRETCH]>) -> f32 {
    let (end, padded) = (seen.next_multiple_of(GROUP), seen.next_multiple_of(4 * GROUP));
    // SAFETY: places of the stretch, which is whole groups, and four of them.
    unsafe {
        if let Some(keys) = keys {
            for at in (0..end).step_by(S::LANES) {
                S::store(scores.add(at), S::mul(S::load(scores.add(at)), S::load(keys.as_ptr().add(at))));
            }
        }
        for at in seen..end {
            *scores.add(at) = f32::NEG_INFINITY;
        }
        for at in (end..padded).step_by(S::LANES) {
            S::store(scores.add(at), S::splat(f32::NEG_INFINITY));
        }
        let mut max = [S::splat(f32::NEG_INFINITY); 4];
        for at in (0..padded).step_by(4 * S::LANES) {
            for (i, max) in max.iter_mut().enumerate() {
                *max = S::max(*max, S::load(scores.add(at + i * S::LANES)));
            }
        }
        let mut lanes = [f32::NEG_INFINITY; GROUP];
        S::store(lanes.as_mut_ptr(), S::max(S::max(max[0], max[1]), S::max(max[2], max[3])));
        largest(lanes)
    }
}

/// Scores become weights; returns their sum, in the order of 16 side by side, whatever the vectors.
///
/// # Safety
/// As of [`weights`], and the features of `S`.
#[inline(always)]
unsafe fn powers<S: Simd>(scores: *mut f32, seen: usize, max: f32, values: Option<&[f32; STRETCH]>) -> f32 {
    let mut sums = [0.0; GROUP];
    // SAFETY: places of the stretch, which is whole groups.
    unsafe {
        for lane in (0..GROUP).step_by(S::LANES) {
            let mut sum = S::splat(0.0);
            for at in (lane..seen.next_multiple_of(GROUP)).step_by(GROUP) {
                let mut p = S::exp2(S::sub(S::load(scores.add(at)), S::splat(max)));
                sum = S::add(sum, p);
                if let Some(values) = values {
                    p = S::mul(p, S::load(values.as_ptr().add(at)));
                }
                S::store(scores.add(at), p);
            }
            S::store(sums.as_mut_ptr().add(lane), sum);
        }
    }
    across(sums)
}

/// The largest number, halves onto halves.
#[inline(always)]
fn largest(mut lanes: [f32; GROUP]) -> f32 {
    let mut width = GROUP / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = if lanes[i + width] > lanes[i] { lanes[i + width] } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}
