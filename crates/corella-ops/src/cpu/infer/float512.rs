//! The floating-point kernel on 512-bit vectors: a few rows × a pair of panels, side by side. It adds in the order of
//! [`super::float`].

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead::{self, Level};
use super::float::{BRAIN, HALF, Pair, RUN, SINGLE};
use super::layout::{COLUMNS, PAIR, PANEL, VECTOR};
use crate::quant::WeightFormat;

/// Bytes ahead that the pair is asked for.
const AHEAD: usize = 4096;

/// c\[r\] += x\[r\] · panels for 1 to 4 rows.
///
/// # Safety
/// Rows, panels in the layout of the format, and sums as [`Pair`] says; the processor has AVX-512 F, BW, DQ and VL.
pub unsafe fn pair(format: WeightFormat, rows: usize, pair: Pair) {
    // SAFETY: handed on.
    unsafe {
        match format {
            WeightFormat::F32 => in_rows::<SINGLE>(rows, pair),
            WeightFormat::F16 => in_rows::<HALF>(rows, pair),
            _ => in_rows::<BRAIN>(rows, pair),
        }
    }
}

/// # Safety
/// As of [`pair`].
unsafe fn in_rows<const F: u8>(rows: usize, pair: Pair) {
    // SAFETY: handed on.
    unsafe {
        match rows {
            1 => kernel::<F, 1>(pair),
            2 => kernel::<F, 2>(pair),
            3 => kernel::<F, 3>(pair),
            _ => kernel::<F, 4>(pair),
        }
    }
}

/// Weights k and k + 1 of a panel; an odd row's last has no second.
///
/// # Safety
/// As of [`pair`]; k is even, and k + 1 < cols if `both`.
#[inline(always)]
unsafe fn weights<const F: u8>(panel: *const u8, k: usize, both: bool) -> (__m512, __m512) {
    // SAFETY: numbers of the panel (the caller's promise).
    unsafe {
        let none = _mm512_setzero_ps();
        match F {
            SINGLE => {
                let at = panel.cast::<f32>().add(k * COLUMNS);
                (_mm512_loadu_ps(at), if both { _mm512_loadu_ps(at.add(COLUMNS)) } else { none })
            }
            HALF => {
                let at = panel.cast::<u16>().add(k * COLUMNS);
                let half = |at: *const u16| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
                (half(at), if both { half(at.add(COLUMNS)) } else { none })
            }
            _ => {
                let bits = _mm512_loadu_si512(panel.cast::<u16>().add(k * COLUMNS).cast());
                let high = _mm512_and_si512(bits, _mm512_set1_epi32(-65536));
                (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(high))
            }
        }
    }
}

/// # Safety
/// As of [`pair`], for R rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn kernel<const F: u8, const R: usize>(pair: Pair) {
    let level = Level::here();
    // Bytes from one k to the next.
    let step = COLUMNS * if F == SINGLE { 4 } else { 2 };
    // SAFETY: the caller's promises; prefetches read nothing.
    unsafe {
        for first in (0..pair.cols).step_by(RUN) {
            let end = (first + RUN).min(pair.cols);
            let mut sums = [[[_mm512_setzero_ps(); 2]; PAIR]; R];
            for k in (first..end).step_by(2) {
                let both = k + 1 < end;
                for line in k * step / VECTOR..(k + 2) * step / VECTOR {
                    if ahead::wanted(level, R, line) {
                        ahead::into(level, pair.w[0].wrapping_add(line * VECTOR + AHEAD));
                    }
                }
                let w = [weights::<F>(pair.w[0], k, both), weights::<F>(pair.w[1], k, both)];
                for r in 0..R {
                    let x = pair.x.add(r * pair.x_row + k);
                    let even = _mm512_set1_ps(*x);
                    sums[r][0][0] = _mm512_fmadd_ps(even, w[0].0, sums[r][0][0]);
                    sums[r][1][0] = _mm512_fmadd_ps(even, w[1].0, sums[r][1][0]);
                    if both {
                        let odd = _mm512_set1_ps(*x.add(1));
                        sums[r][0][1] = _mm512_fmadd_ps(odd, w[0].1, sums[r][0][1]);
                        sums[r][1][1] = _mm512_fmadd_ps(odd, w[1].1, sums[r][1][1]);
                    }
                }
            }
            for r in 0..R {
                for p in 0..PAIR {
                    let (c, [even, odd]) = (pair.c.add(r * COLUMNS + p * PANEL), sums[r][p]);
                    _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), _mm512_add_ps(even, odd)));
                }
            }
        }
    }
}
