//! The floating-point kernel on 256-bit vectors (AVX2): a few rows × a pair of panels. Products of 32 steps of k are added up in
//! ascending order, and each such sum is then added to the result: an order that does not depend on the number of rows.

// Rows and vectors index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead;
use super::float::{BRAIN, HALF, Pair, RUN, SINGLE};
use super::layout::{COLUMNS, PANEL, VECTOR};
use crate::quant::WeightFormat;

/// Rows at most: with a panel they make twelve sums.
pub const ROWS: usize = 6;
/// Columns of a vector.
const LANES: usize = 8;
/// Vectors of a panel.
const OF_PANEL: usize = PANEL / LANES;
/// Vectors of a pair.
const OF_PAIR: usize = COLUMNS / LANES;
/// Bytes ahead that the pair is asked for, where few rows meet it.
const AHEAD: usize = 4096;

/// c\[r\] += x\[r\] · panels for 1 to 6 rows. With `BESIDE`, x is (cols, R): rows side by side.
///
/// # Safety
/// Rows, panels in the layout of the format, and sums as [`Pair`] says; the processor has AVX2, FMA and F16C.
pub unsafe fn pair<const BESIDE: bool>(format: WeightFormat, rows: usize, pair: Pair) {
    // SAFETY: handed on.
    unsafe {
        match format {
            WeightFormat::F32 => in_rows::<SINGLE, BESIDE>(rows, pair),
            WeightFormat::F16 => in_rows::<HALF, BESIDE>(rows, pair),
            _ => in_rows::<BRAIN, BESIDE>(rows, pair),
        }
    }
}

/// # Safety
/// As of [`pair`].
unsafe fn in_rows<const F: u8, const BESIDE: bool>(rows: usize, pair: Pair) {
    // SAFETY: handed on.
    unsafe {
        match rows {
            1 => kernel::<F, 1, OF_PAIR, BESIDE>(pair),
            2 => kernel::<F, 2, OF_PAIR, BESIDE>(pair),
            3 => kernel::<F, 3, OF_PANEL, BESIDE>(pair),
            4 => kernel::<F, 4, OF_PANEL, BESIDE>(pair),
            5 => kernel::<F, 5, OF_PANEL, BESIDE>(pair),
            _ => kernel::<F, 6, OF_PANEL, BESIDE>(pair),
        }
    }
}

/// Weights of 8 columns at step k: of vector `v` of the pair.
///
/// # Safety
/// As of [`pair`]; k < cols.
#[inline(always)]
unsafe fn weights<const F: u8>(pair: &Pair, k: usize, v: usize) -> __m256 {
    // SAFETY: numbers of the panel (the caller's promise).
    unsafe {
        let (panel, column) = (pair.w[v / OF_PANEL], v % OF_PANEL * LANES);
        match F {
            SINGLE => _mm256_loadu_ps(panel.cast::<f32>().add(k * COLUMNS + column)),
            HALF => _mm256_cvtph_ps(_mm_loadu_si128(panel.cast::<u16>().add(k * COLUMNS + column).cast())),
            // Two k of a column are one number of 32 bits.
            _ => {
                let bits = _mm256_loadu_si256(panel.cast::<u32>().add(k / 2 * COLUMNS + column).cast());
                _mm256_castsi256_ps(match k % 2 {
                    0 => _mm256_slli_epi32::<16>(bits),
                    _ => _mm256_and_si256(bits, _mm256_set1_epi32(-65536)),
                })
            }
        }
    }
}

/// # Safety
/// As of [`pair`], for R rows, V vectors at once.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel<const F: u8, const R: usize, const V: usize, const BESIDE: bool>(pair: Pair) {
    // Bytes from one k to the next.
    let step = COLUMNS * if F == SINGLE { 4 } else { 2 };
    // SAFETY: the caller's promises; prefetches read nothing.
    unsafe {
        for base in (0..OF_PAIR).step_by(V) {
            for first in (0..pair.cols).step_by(RUN) {
                let end = (first + RUN).min(pair.cols);
                let mut sums = [[_mm256_setzero_ps(); V]; R];
                for k in (first..end).step_by(2) {
                    if R <= 2 && !BESIDE {
                        for line in 0..2 * step / VECTOR {
                            ahead::line(pair.w[0].wrapping_add(k * step + line * VECTOR + AHEAD));
                        }
                    }
                    for k in k..(k + 2).min(end) {
                        let w: [__m256; V] = std::array::from_fn(|v| weights::<F>(&pair, k, base + v));
                        for r in 0..R {
                            let at = if BESIDE { k * R + r } else { r * pair.x_row + k };
                            let x = _mm256_broadcast_ss(&*pair.x.add(at));
                            for v in 0..V {
                                sums[r][v] = _mm256_fmadd_ps(x, w[v], sums[r][v]);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        let c = pair.c.add(r * COLUMNS + (base + v) * LANES);
                        _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), sums[r][v]));
                    }
                }
            }
        }
    }
}
