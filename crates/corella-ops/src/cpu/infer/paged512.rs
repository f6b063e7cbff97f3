//! The loops of [`super::paged_direct`] on 512-bit vectors, and one that reads keys beside values.

// Queries and groups index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead::{self, Level};
use super::paged::STRETCH;
use super::paged_direct::{BRAIN, BYTE, HALF, Keys, SINGLE, TILE, Values, size, with_shape};
use super::paged_read::GROUPS;
use super::pages::GROUP;
use crate::contract_infer::KvKind;

/// Columns that a tile of queries adds up together, at most.
pub const COLUMNS: usize = 4 * GROUP;

/// 16 numbers of a kind as f32, without their scales, those outside of `mask` 0.
///
/// # Safety
/// The numbers of the mask can be read; AVX-512 F, BW, VL.
#[inline(always)]
unsafe fn load<const KIND: u8>(at: *const u8, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's promise; what the mask leaves out is not read.
    unsafe {
        match KIND {
            SINGLE => _mm512_maskz_loadu_ps(mask, at.cast()),
            HALF => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, at.cast())),
            BRAIN => {
                let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
            }
            _ => _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, at.cast()))),
        }
    }
}

/// [`super::paged_direct::dot`] for up to four queries.
///
/// # Safety
/// As there; the processor has AVX-512 F, BW, DQ and VL.
pub unsafe fn dot(queries: *const f32, n: usize, keys: Keys, count: usize, scores: *mut f32) {
    // SAFETY: handed on.
    unsafe {
        match count {
            1 => with_shape!(keys.kind, n, 1, dot_tile(queries, keys, scores)),
            _ => with_shape!(keys.kind, n, 2, dot_tile(queries, keys, scores)),
        }
    }
}

/// `N` queries and `G` runs.
///
/// # Safety
/// As of [`dot`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn dot_tile<const KIND: u8, const N: usize, const G: usize>(queries: *const f32, keys: Keys, scores: *mut f32) {
    let group_bytes = keys.hs * GROUP * const { size(KIND) };
    // Dimensions of a line, and of whole lines.
    let line = const { if GROUP * size(KIND) < 64 { 64 / (GROUP * size(KIND)) } else { 1 } };
    let whole = keys.hs / line * line;
    let level = Level::here();
    // SAFETY: the caller's promises.
    unsafe {
        for group in 0..keys.run {
            let keys = keys.part(group, 1, group_bytes);
            let mut sums = [[_mm512_setzero_ps(); G]; N];
            let mut dimension = |i: usize| {
                let at = i * GROUP * const { size(KIND) };
                for g in 0..G {
                    let key = load::<KIND>(keys.groups[g].add(at), !0);
                    for q in 0..N {
                        sums[q][g] = _mm512_fmadd_ps(_mm512_set1_ps(*queries.add(q * keys.hs + i)), key, sums[q][g]);
                    }
                }
            };
            for first in (0..whole).step_by(line) {
                for g in 0..G {
                    ahead::into(level, keys.soon[g].wrapping_add(first * GROUP * const { size(KIND) }));
                }
                for i in 0..line {
                    dimension(first + i);
                }
            }
            for i in whole..keys.hs {
                dimension(i);
            }
            for q in 0..N {
                for g in 0..G {
                    _mm512_storeu_ps(scores.add(q * STRETCH + keys.places[g]), sums[q][g]);
                }
            }
        }
    }
}

/// Values of two groups of positions, (16,HS) each, that meet weights while the keys of two others meet queries.
#[derive(Clone, Copy)]
pub struct Beside {
    /// The values.
    pub at: [*const u8; GROUPS],
    /// Values that are read soon.
    pub soon: [*const u8; GROUPS],
}

/// Whether there is a [`dot_and_add`] for `n` queries where keys and values are not read in turn, and it pays. 8-bit numbers are bound by arithmetic, and lost a tenth by it.
pub fn reads_beside(kind: KvKind, hs: usize, n: usize) -> bool {
    n <= TILE && matches!(kind, KvKind::F16 | KvKind::Bf16) && matches!(hs, 64 | 128)
}

/// [`dot`](super::paged_direct::dot) of two groups and [`add_weighted`](super::paged_direct::add_weighted) of two others in one loop: memory is read all the time, and neither waits for the
/// other's lines.
///
/// # Safety
/// As of both, with [`reads_beside`] and two groups of each; p are the weights of the first of the positions. sums (n,HS).
pub unsafe fn dot_and_add(
    queries: *const f32,
    n: usize,
    keys: Keys,
    scores: *mut f32,
    p: *const f32,
    values: Beside,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match (keys.kind, keys.hs) {
            (KvKind::Bf16, 64) => with_shape!(@queries BRAIN, n, 64, both_tile(queries, keys, scores, p, values, sums)),
            (KvKind::Bf16, _) => with_shape!(@queries BRAIN, n, 128, both_tile(queries, keys, scores, p, values, sums)),
            (_, 64) => with_shape!(@queries HALF, n, 64, both_tile(queries, keys, scores, p, values, sums)),
            _ => with_shape!(@queries HALF, n, 128, both_tile(queries, keys, scores, p, values, sums)),
        }
    }
}

/// `N` queries of `HS` dimensions of [`dot_and_add`], numbers of two bytes: a step takes two dimensions of the keys, which are a line of
/// each group, and four vectors of a position's values.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn both_tile<const KIND: u8, const N: usize, const HS: usize>(
    queries: *const f32,
    keys: Keys,
    scores: *mut f32,
    p: *const f32,
    values: Beside,
    sums: *mut f32,
) {
    const LINE: usize = 64;
    const VECTORS: usize = 4;
    const { assert!(size(KIND) == 2 && HS.is_multiple_of(VECTORS * GROUP)) };
    // SAFETY: the caller's promises.
    unsafe {
        let level = Level::here();
        let mut dots = [[_mm512_setzero_ps(); GROUPS]; N];
        let mut step = 0;
        for column in (0..HS).step_by(VECTORS * GROUP) {
            let mut tile = [[_mm512_setzero_ps(); VECTORS]; N];
            for q in 0..N {
                tile[q] = std::array::from_fn(|c| _mm512_loadu_ps(sums.add(q * HS + column + c * GROUP)));
            }
            for g in 0..GROUPS {
                let (at, soon) = (values.at[g].add(2 * column), values.soon[g].wrapping_add(2 * column));
                for s in 0..GROUP {
                    ahead::into(level, soon.wrapping_add(s * 2 * HS));
                    ahead::into(level, soon.wrapping_add(s * 2 * HS + LINE));
                    for k in 0..GROUPS {
                        ahead::into(level, keys.soon[k].wrapping_add(step * LINE));
                    }
                    for c in 0..VECTORS {
                        let value = load::<KIND>(at.add(s * 2 * HS + c * 2 * GROUP), !0);
                        for q in 0..N {
                            let weight = _mm512_set1_ps(*p.add(q * STRETCH + g * GROUP + s));
                            tile[q][c] = _mm512_fmadd_ps(weight, value, tile[q][c]);
                        }
                    }
                    for i in 0..2 {
                        for k in 0..GROUPS {
                            let key = load::<KIND>(keys.groups[k].add(step * LINE + i * LINE / 2), !0);
                            for q in 0..N {
                                let query = _mm512_set1_ps(*queries.add(q * HS + 2 * step + i));
                                dots[q][k] = _mm512_fmadd_ps(query, key, dots[q][k]);
                            }
                        }
                    }
                    step += 1;
                }
            }
            for q in 0..N {
                for c in 0..VECTORS {
                    _mm512_storeu_ps(sums.add(q * HS + column + c * GROUP), tile[q][c]);
                }
            }
        }
        for q in 0..N {
            for k in 0..GROUPS {
                _mm512_storeu_ps(scores.add(q * STRETCH + keys.places[k]), dots[q][k]);
            }
        }
    }
}

/// The next columns of [`super::paged_direct::add_weighted`] for up to four queries; returns how many.
///
/// # Safety
/// As there; the processor has AVX-512 F, BW, DQ and VL.
pub unsafe fn add(p: *const f32, n: usize, values: Values, column: usize, width: usize, sums: *mut f32) -> usize {
    // SAFETY: handed on, with as many vectors of columns as there are left.
    unsafe {
        match (width - column) / GROUP {
            4.. => {
                with_shape!(values.kind, n, 4, add_tile(p, values, column, width, sums));
                4 * GROUP
            }
            2.. => {
                with_shape!(values.kind, n, 2, add_tile(p, values, column, width, sums));
                2 * GROUP
            }
            _ => {
                with_shape!(values.kind, n, 1, add_tile(p, values, column, width, sums));
                GROUP
            }
        }
    }
}

/// `N` queries and `C` vectors of columns.
///
/// # Safety
/// As of [`add`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add_tile<const KIND: u8, const N: usize, const C: usize>(
    p: *const f32,
    values: Values,
    column: usize,
    width: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        let mask: [__mmask16; C] = std::array::from_fn(|c| {
            let columns = values.hs.saturating_sub(column + c * GROUP).min(GROUP);
            ((1u32 << columns) - 1) as u16
        });
        let level = Level::here();
        let mut tile = [[_mm512_setzero_ps(); C]; N];
        for q in 0..N {
            tile[q] = std::array::from_fn(|c| _mm512_loadu_ps(sums.add(q * width + c * GROUP)));
        }
        for s in 0..values.count {
            let at = (s * values.hs + column) * const { size(KIND) };
            for line in (0..C * GROUP * const { size(KIND) }).step_by(64) {
                ahead::into(level, values.soon.wrapping_add(at + line));
            }
            for c in 0..C {
                let value = load::<KIND>(values.at.add(at + c * GROUP * const { size(KIND) }), mask[c]);
                for q in 0..N {
                    tile[q][c] = _mm512_fmadd_ps(_mm512_set1_ps(*p.add(q * STRETCH + s)), value, tile[q][c]);
                }
            }
        }
        for q in 0..N {
            for c in 0..C {
                _mm512_storeu_ps(sums.add(q * width + c * GROUP), tile[q][c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::path::Path;
    use super::super::paged_direct::{add_weighted, dot};
    use super::*;
    use crate::cases::Random;

    /// Which way a processor reads depends on whose it is ([`super::super::paged_direct::reads_in_turn`]), so no other test sees both.
    #[test]
    fn keys_beside_values_give_what_keys_and_values_in_turn_do() {
        if !(is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl"))
        {
            return println!("skipped: no AVX-512");
        }
        let (kinds, sizes) = ([KvKind::F16, KvKind::Bf16], [64, 128]);
        for (kind, hs, n) in kinds
            .into_iter()
            .flat_map(|kind| sizes.map(|hs| (kind, hs)))
            .flat_map(|(kind, hs)| (1..=TILE).map(move |n| (kind, hs, n)))
        {
            judge(kind, hs, n);
        }
    }

    fn judge(kind: KvKind, hs: usize, n: usize) {
        let mut random = Random::new(3);
        let mut numbers = |len: usize| random.normals(len);
        // From 1 on and below 2 in both kinds: the exponent is set, the lowest bits are drawn.
        let one: u16 = if kind == KvKind::F16 { 0x3c00 } else { 0x3f80 };
        let stored =
            |numbers: Vec<f32>| -> Vec<u16> { numbers.iter().map(|x| one ^ (x.to_bits() as u16 & 0x7f)).collect() };
        let (keys, values) = (stored(numbers(2 * GROUP * hs)), stored(numbers(2 * GROUP * hs)));
        let (queries, p, before) = (numbers(n * hs), numbers(n * STRETCH), numbers(n * hs));
        let group = |all: &[u16], i: usize| all[i * GROUP * hs..].as_ptr().cast::<u8>();
        let groups = [group(&keys, 0), group(&keys, 1)];
        let two = Keys { kind, hs, run: 1, groups, soon: groups, places: [0, GROUP] };
        let at = [group(&values, 0), group(&values, 1)];
        let (mut scores, mut sums) = (vec![0.0; n * STRETCH], before.clone());
        let (mut scores_in_turn, mut sums_in_turn) = (scores.clone(), before.clone());
        // SAFETY: two groups of keys and of values, n rows of queries, weights, scores and sums; the features were detected.
        unsafe {
            let beside = Beside { at, soon: at };
            dot_and_add(queries.as_ptr(), n, two, scores.as_mut_ptr(), p.as_ptr(), beside, sums.as_mut_ptr());
            for i in 0..GROUPS {
                let one = Keys { groups: [groups[i]; GROUPS], places: [i * GROUP; GROUPS], ..two };
                dot(Path::Avx512, queries.as_ptr(), n, one, 1, scores_in_turn.as_mut_ptr());
                let values = Values { kind, hs, count: GROUP, at: at[i], soon: at[i] };
                add_weighted(Path::Avx512, p[i * GROUP..].as_ptr(), n, values, hs, sums_in_turn.as_mut_ptr());
            }
        }
        assert!(scores.iter().any(|x| *x != 0.0) && sums != before, "{kind:?}, {hs}, {n}");
        assert_eq!((scores, sums), (scores_in_turn, sums_in_turn), "{kind:?}, {hs}, {n}");
    }
}
