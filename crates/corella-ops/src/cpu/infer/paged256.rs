//! The loops of [`super::paged_direct`] on 256-bit vectors: a group of keys, or 16 columns of values, is two of them.

// Queries and vectors index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead::{self, Level};
use super::paged::STRETCH;
use super::paged_direct::{BRAIN, BYTE, HALF, Keys, SINGLE, Values, size, with_shape};
use super::pages::GROUP;
use crate::contract_infer::KvKind;

/// Columns that a tile of queries adds up together.
pub const COLUMNS: usize = GROUP;
/// Numbers of a vector.
const LANES: usize = 8;
/// Bytes of a line of memory.
const LINE: usize = 64;
/// Where lines are asked into.
const LEVEL: Level = Level::Second;

/// 8 numbers of a kind as f32, without their scales.
///
/// # Safety
/// The numbers can be read; AVX2 and F16C.
#[inline(always)]
unsafe fn load<const KIND: u8>(at: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        match KIND {
            SINGLE => _mm256_loadu_ps(at.cast()),
            HALF => _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
            BRAIN => {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            }
            _ => _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))),
        }
    }
}

/// [`super::paged_direct::dot`] for up to four queries and one run.
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
pub unsafe fn dot(queries: *const f32, n: usize, keys: Keys, scores: *mut f32) {
    // SAFETY: handed on.
    unsafe { with_shape!(keys.kind, n, 2, dot_tile(queries, keys, scores)) };
}

/// `N` queries, and `V` vectors a group.
///
/// # Safety
/// As of [`dot`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_tile<const KIND: u8, const N: usize, const V: usize>(queries: *const f32, keys: Keys, scores: *mut f32) {
    const { assert!(V * LANES == GROUP) };
    let row = const { GROUP * size(KIND) };
    // SAFETY: the caller's promises.
    unsafe {
        for group in 0..keys.run {
            let keys = keys.part(group, 1, keys.hs * row);
            let mut sums = [[_mm256_setzero_ps(); V]; N];
            for i in 0..keys.hs {
                let at = i * row;
                if at.is_multiple_of(LINE) {
                    ahead::into(LEVEL, keys.soon[0].wrapping_add(at));
                }
                for v in 0..V {
                    let key = load::<KIND>(keys.groups[0].add(at + v * LANES * const { size(KIND) }));
                    for q in 0..N {
                        sums[q][v] = _mm256_fmadd_ps(_mm256_set1_ps(*queries.add(q * keys.hs + i)), key, sums[q][v]);
                    }
                }
            }
            for q in 0..N {
                for v in 0..V {
                    _mm256_storeu_ps(scores.add(q * STRETCH + keys.places[0] + v * LANES), sums[q][v]);
                }
            }
        }
    }
}

/// The next [`COLUMNS`] of [`super::paged_direct::add_weighted`] for up to four queries; returns how many.
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
pub unsafe fn add(p: *const f32, n: usize, values: Values, column: usize, width: usize, sums: *mut f32) -> usize {
    // SAFETY: handed on.
    unsafe { with_shape!(values.kind, n, 2, add_tile(p, values, column, width, sums)) };
    COLUMNS
}

/// `N` queries and `V` vectors of columns.
///
/// # Safety
/// As of [`add`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_tile<const KIND: u8, const N: usize, const V: usize>(
    p: *const f32,
    values: Values,
    column: usize,
    width: usize,
    sums: *mut f32,
) {
    // The first columns of a line ask for it.
    let asks = (column * const { size(KIND) }).is_multiple_of(LINE);
    // SAFETY: the caller's promises.
    unsafe {
        let mut tile = [[_mm256_setzero_ps(); V]; N];
        for q in 0..N {
            tile[q] = std::array::from_fn(|v| _mm256_loadu_ps(sums.add(q * width + v * LANES)));
        }
        for s in 0..values.count {
            let at = (s * values.hs + column) * const { size(KIND) };
            if asks {
                ahead::into(LEVEL, values.soon.wrapping_add(at));
            }
            for v in 0..V {
                let value = load::<KIND>(values.at.add(at + v * LANES * const { size(KIND) }));
                for q in 0..N {
                    tile[q][v] = _mm256_fmadd_ps(_mm256_set1_ps(*p.add(q * STRETCH + s)), value, tile[q][v]);
                }
            }
        }
        for q in 0..N {
            for v in 0..V {
                _mm256_storeu_ps(sums.add(q * width + v * LANES), tile[q][v]);
            }
        }
    }
}
