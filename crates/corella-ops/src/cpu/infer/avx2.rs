//! Integer kernels on 256-bit multiply-adds of bytes (AVX2): a panel in two halves of 8 columns.

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kernel::{EIGHT, Step, TABLE, codes, layout};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, PANEL, ROW, Scales, UNIT, VECTOR};
use crate::quant::blocks::IQ4_VALUES;

/// Rows of a tile at most: their sums and what else is needed fit into 16 registers.
pub const ROWS: usize = 4;
/// Columns of a half.
const HALF: usize = 8;

/// Whether the codes are used as signed bytes. Unsigned codes of 8 bits would overflow the 16-bit sums; signed ones do not,
/// because each product is taken as |w| · (±x), at most 128·127.
const fn signed(codes: u8) -> bool {
    codes == EIGHT || codes == TABLE
}

/// The groups of [`Codes::groups`] of the half's columns: signed values where [`signed`] says so, else unsigned codes below 64.
///
/// # Safety
/// `block` points at half a vector's offset into a block in the layout of `CODES`; j < 4.
#[inline(always)]
unsafe fn groups<const CODES: u8>(block: *const u8, j: usize) -> (__m256i, __m256i) {
    // SAFETY: vectors of the block and the bytes of the table; the features are the caller's.
    unsafe {
        let plane = |i: usize| _mm256_loadu_si256(block.add(i * ROW).cast());
        let vector = |i: usize| plane(const { codes(CODES).planes() } + i);
        let raw = vector(j);
        let mask = _mm256_set1_epi8(15);
        let (low, high) = (_mm256_and_si256(raw, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(raw), mask));
        let merge = |four, plane, mask: i8| _mm256_or_si256(four, _mm256_and_si256(plane, _mm256_set1_epi8(mask)));
        match const { codes(CODES) } {
            Codes::Eight => {
                let flip = _mm256_set1_epi8(-128);
                let [first, second] = Codes::Eight.groups(j);
                (_mm256_xor_si256(vector(first), flip), _mm256_xor_si256(vector(second), flip))
            }
            Codes::Four => (low, high),
            Codes::Table => {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(IQ4_VALUES.as_ptr().cast()));
                (_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high))
            }
            Codes::Five => {
                let plane = plane(0);
                let (left, right) = (_mm_cvtsi32_si128(4 - j as i32), _mm_cvtsi32_si128(j as i32));
                (merge(low, _mm256_sll_epi16(plane, left), 16), merge(high, _mm256_srl_epi16(plane, right), 16))
            }
            Codes::Six => {
                let to = |plane| match j {
                    0 => _mm256_slli_epi16::<4>(plane),
                    1 => _mm256_slli_epi16::<2>(plane),
                    2 => plane,
                    _ => _mm256_srli_epi16::<2>(plane),
                };
                (merge(low, to(plane(0)), 48), merge(high, to(plane(1)), 48))
            }
        }
    }
}

/// sum + Σ of four neighbouring products.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn dot<const CODES: u8>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: arithmetic alone; the features are the caller's.
    unsafe {
        let pairs = if signed(CODES) {
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
        } else {
            _mm256_maddubs_epi16(w, x)
        };
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// 8 half-precision numbers.
///
/// # Safety
/// 16 bytes can be read.
#[inline(always)]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// See [`super::kernel::Kernel`].
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn unit<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) {
    for p in 0..PAIR {
        for half in 0..2 {
            // SAFETY: handed on.
            unsafe { columns::<CODES, SCALES, R>(step, p, half) };
        }
    }
}

/// 8 columns of one panel.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn columns<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step, p: usize, half: usize) {
    let layout = const { layout(CODES, SCALES) };
    let first = p * PANEL + half * HALF;
    // SAFETY: everything below reads and writes inside the unit, rows and sums that the caller promises.
    unsafe {
        let w = step.w;
        match layout.scales {
            Scales::Halves { min } => {
                let (scales, mins) = (Layout::SCALES_AT, layout.mins_at(step.blocks));
                let mut f = [_mm256_setzero_ps(); R];
                for b in 0..step.blocks {
                    let [low, high] = block::<CODES, R>(layout, step, p, half, b, [b, usize::MAX], min);
                    let at = 2 * (COLUMNS * b + first);
                    let scale = halves(w.add(scales + at));
                    for r in 0..R {
                        let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(low[r], high[r]));
                        f[r] = _mm256_fmadd_ps(sum, scale, f[r]);
                    }
                    if min {
                        let min = halves(w.add(mins + at));
                        for (r, f) in f.iter_mut().enumerate() {
                            let x = f32::from_bits(*step.side.add(r * step.side_row + b) as u32);
                            *f = _mm256_fmadd_ps(min, _mm256_set1_ps(x), *f);
                        }
                    }
                }
                for (r, f) in f.iter().enumerate() {
                    let scale = _mm256_set1_ps(*step.x_scale.add(r));
                    let c = step.c.add(r * step.c_row + first);
                    _mm256_storeu_ps(c, _mm256_fmadd_ps(*f, scale, _mm256_loadu_ps(c)));
                }
            }
            Scales::Integers { sub, min } => {
                const BLOCKS: usize = UNIT / BLOCK;
                let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(BLOCKS), layout.d_at(BLOCKS));
                let scale =
                    |s: usize| _mm256_cvtepi8_epi32(_mm_loadl_epi64(w.add(scales + COLUMNS * s + first).cast()));
                let mut total = [_mm256_setzero_si256(); R];
                for b in 0..BLOCKS {
                    let runs = if sub == 32 { [b, usize::MAX] } else { [2 * b, 2 * b + 1] };
                    let [low, high] = block::<CODES, R>(layout, step, p, half, b, runs, min);
                    for r in 0..R {
                        let scaled = if sub == 32 {
                            _mm256_mullo_epi32(_mm256_add_epi32(low[r], high[r]), scale(b))
                        } else {
                            let low = _mm256_mullo_epi32(low[r], scale(2 * b));
                            _mm256_add_epi32(low, _mm256_mullo_epi32(high[r], scale(2 * b + 1)))
                        };
                        total[r] = _mm256_add_epi32(total[r], scaled);
                    }
                }
                add_scaled::<R>(step, first, &total, d);
                if min {
                    let mut total = [_mm256_setzero_si256(); R];
                    for pair in 0..UNIT / sub / 2 {
                        let bytes = _mm_loadu_si128(w.add(mins + 2 * (COLUMNS * pair + first)).cast());
                        let mins = _mm256_cvtepu8_epi16(bytes);
                        for (r, total) in total.iter_mut().enumerate() {
                            let x = _mm256_set1_epi32(*step.side.add(r * step.side_row + pair));
                            // The minima are subtracted.
                            *total = _mm256_sub_epi32(*total, _mm256_madd_epi16(mins, x));
                        }
                    }
                    add_scaled::<R>(step, first, &total, d + 2 * COLUMNS);
                }
            }
        }
    }
}

/// c += (d·scale of x)·total.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn add_scaled<const R: usize>(step: &Step, first: usize, total: &[__m256i; R], d: usize) {
    // SAFETY: d of the unit, the row's scale and its sums (the caller's promise).
    unsafe {
        let d = halves(step.w.add(d + 2 * first));
        for (r, total) in total.iter().enumerate() {
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(*step.x_scale.add(r)));
            let c = step.c.add(r * step.c_row + first);
            _mm256_storeu_ps(c, _mm256_fmadd_ps(_mm256_cvtepi32_ps(*total), scale, _mm256_loadu_ps(c)));
        }
    }
}

/// Integer sums of both halves of block `b`, which begin with the starts of the runs `runs` (none for `usize::MAX`).
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn block<const CODES: u8, const R: usize>(
    layout: Layout,
    step: &Step,
    p: usize,
    half: usize,
    b: usize,
    runs: [usize; 2],
    min: bool,
) -> [[__m256i; R]; 2] {
    // SAFETY: block b of the panel, elements and side numbers of each row.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); R]; 2];
        for (sums, run) in sums.iter_mut().zip(runs) {
            // Signed values have no zero to take away.
            if !min && !signed(CODES) && run != usize::MAX {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_set1_epi32(*step.side.add(r * step.side_row + run));
                }
            }
        }
        for j in 0..4 {
            let block = step.w.add(layout.codes_at(step.blocks) + b * layout.codes.block_bytes());
            let at = block.add(p * VECTOR + half * VECTOR / 2);
            let [first, second] = const { codes(CODES) }.groups(j);
            let [a, z] = const { codes(CODES) }.halves(j);
            let (low, high) = groups::<CODES>(at, j);
            for r in 0..R {
                let x = step.x.add(r * UNIT).cast::<i32>().add(8 * b);
                sums[a][r] = dot::<CODES>(sums[a][r], low, _mm256_set1_epi32(*x.add(first)));
                sums[z][r] = dot::<CODES>(sums[z][r], high, _mm256_set1_epi32(*x.add(second)));
            }
        }
        sums
    }
}
