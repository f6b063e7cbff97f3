//! Packing of f32 panels on 512-bit vectors.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm256_maskz_loadu_epi16, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_si512, _mm512_slli_epi32,
};

use super::bf16::Number;
use super::dot::transpose;
use super::pack::Operand;

/// Floats of a vector.
const LANES: usize = 16;
/// Rows that are asked for ahead: they lie far apart, where no hardware looks ahead.
const AHEAD: usize = 12;
/// Numbers of a row that are asked for ahead where many rows are read together: more than the hardware follows.
const FURTHER: usize = 64;

/// A mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> u16 {
    ((1u32 << n.min(LANES)) - 1) as u16
}

/// The lanes of a mask from memory, zero elsewhere.
///
/// # Safety
/// AVX-512 F, BW and VL; the numbers of the mask are there.
#[inline(always)]
unsafe fn load<T: Number>(from: *const T, mask: u16) -> __m512 {
    // SAFETY: the caller's promise; formats are f32 and bfloat16, told apart by their size.
    unsafe {
        if size_of::<T>() == 4 {
            return _mm512_maskz_loadu_ps(mask, from.cast());
        }
        let bits = _mm256_maskz_loadu_epi16(mask, from.cast());
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }
}

/// [`super::pack::pack`] where outer indices are columns of the matrix in memory: `width` of `w` are inside.
///
/// # Safety
/// AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn columns<T: Number>(
    to: &mut [f32],
    w: usize,
    from: Operand<'_, T>,
    (outer, width): (usize, usize),
    (k0, depth): (usize, usize),
) {
    assert!(width <= w);
    for (k, to) in to.chunks_exact_mut(w).take(depth).enumerate() {
        let row = &from.row(k0 + k)[outer..][..width];
        for at in (0..w).step_by(LANES) {
            let (inside, room) = (first(width.saturating_sub(at)), first(w - at));
            // SAFETY: masks cover what is inside of the row and of the step; prefetches read nothing.
            unsafe {
                let numbers = row.as_ptr().wrapping_add(at);
                _mm_prefetch::<_MM_HINT_T0>(numbers.wrapping_add(AHEAD * from.width()).cast());
                _mm512_mask_storeu_ps(to.as_mut_ptr().wrapping_add(at), room, load(numbers, inside));
            }
        }
    }
}

/// The same where outer indices are rows.
///
/// # Safety
/// AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn rows<T: Number>(
    to: &mut [f32],
    w: usize,
    from: Operand<'_, T>,
    (outer, width): (usize, usize),
    (k0, depth): (usize, usize),
) {
    assert!(to.len() >= depth * w && width <= w);
    for at in (0..w).step_by(LANES) {
        let (inside, room) = (width.saturating_sub(at).min(LANES), first(w - at));
        for k in (0..depth).step_by(LANES) {
            let steps = LANES.min(depth - k);
            let mut square = [_mm512_setzero_si512(); LANES];
            for (i, numbers) in square.iter_mut().enumerate().take(inside) {
                let row = &from.row(outer + at + i)[k0 + k..][..steps];
                // SAFETY: the mask covers the slice; a prefetch reads nothing.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(FURTHER).cast());
                    *numbers = _mm512_castps_si512(load(row.as_ptr(), first(steps)));
                }
            }
            // SAFETY: the function's features.
            let square = unsafe { transpose(square) };
            for (i, numbers) in square.iter().enumerate().take(steps) {
                // SAFETY: step k + i of the panel, lanes of it that are there (asserted).
                unsafe {
                    let step = to.as_mut_ptr().add((k + i) * w + at);
                    _mm512_mask_storeu_ps(step, room, _mm512_castsi512_ps(*numbers));
                }
            }
        }
    }
}
