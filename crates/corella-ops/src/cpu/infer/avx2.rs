//! Integer kernels on 256-bit multiply-adds of bytes (AVX2): a panel in two halves of 8 columns.

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead::{self, Level, ask_ahead};
use super::kernel::{AS_FLOAT, FIVE, FOUR, SIX, Side, Step, codes, layout};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, PANEL, ROW, Scales, UNIT, VECTOR};
use crate::quant::blocks::IQ4_VALUES;

/// Rows of a tile at most: with more, too many of their sums would leave the 16 registers.
pub const ROWS: usize = 4;
/// Columns of a vector.
const LANES: usize = 8;

/// Whether the codes are used as signed bytes. Unsigned codes of 8 bits would overflow the 16-bit sums; signed ones do not,
/// because each product is taken as |w| · (±x), at most 128·127.
pub const fn signed(codes: Codes) -> bool {
    matches!(codes, Codes::Eight | Codes::Table)
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

/// 8 half-precision numbers.
///
/// # Safety
/// 16 bytes can be read.
#[inline(always)]
pub unsafe fn f16s(at: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// See [`super::kernel::Kernel`].
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn unit<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) {
    // SAFETY: handed on.
    unsafe { side_by_side::<CODES, SCALES, R, 1>([step]) };
}

/// See [`super::kernel::Two`].
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn two<const CODES: u8, const SCALES: u8, const R: usize>(first: &Step, second: &Step) {
    // SAFETY: handed on.
    unsafe { side_by_side::<CODES, SCALES, R, 2>([first, second]) };
}

/// Vectors of a pair of panels.
const VECTORS: usize = COLUMNS / LANES;

/// Vectors that meet `rows` rows together, so that most sums stay in the 16 registers; measured (docs/log.md).
const fn at_once(rows: usize) -> usize {
    if rows <= 2 { VECTORS } else { 2 }
}

/// Units of `S` pairs, block by block in turn: processors without AVX-512 fetch two streams faster than one (docs/log.md).
///
/// # Safety
/// As of [`unit`], for each step; all have as many blocks.
#[inline(always)]
unsafe fn side_by_side<const CODES: u8, const SCALES: u8, const R: usize, const S: usize>(steps: [&Step; S]) {
    // SAFETY: handed on.
    unsafe {
        match const { at_once(R) } {
            2 => vectors::<CODES, SCALES, R, S, 2>(steps),
            _ => vectors::<CODES, SCALES, R, S, VECTORS>(steps),
        }
    }
}

/// The same with `V` vectors at once.
///
/// # Safety
/// As of [`side_by_side`].
#[inline(always)]
unsafe fn vectors<const CODES: u8, const SCALES: u8, const R: usize, const S: usize, const V: usize>(
    steps: [&Step; S],
) {
    let layout = const { layout(CODES, SCALES) };
    let blocks = steps[0].blocks;
    // SAFETY: everything below reads and writes inside the units, rows and sums that the caller promises.
    unsafe {
        let side = |step: &Step, r: usize, i: usize| *step.side.add(r * step.side_row + i);
        match layout.scales {
            Scales::Halves { min } => {
                let (scales, mins) = (Layout::SCALES_AT, layout.mins_at(blocks));
                let mut f = [[[_mm256_setzero_ps(); VECTORS]; R]; S];
                for b in 0..blocks {
                    for (step, f) in steps.iter().zip(&mut f) {
                        for first in (0..VECTORS).step_by(V) {
                            let [sums, _] = block::<CODES, SCALES, R, V>(step, first, b);
                            for v in 0..V {
                                let at = 2 * (COLUMNS * b + (first + v) * LANES);
                                let scale = f16s(step.w.add(scales + at));
                                let beyond = _mm256_mul_ps(scale, _mm256_set1_ps(AS_FLOAT));
                                for r in 0..R {
                                    let scaled = if min || const { signed(codes(CODES)) } {
                                        _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][v]), scale)
                                    } else {
                                        let sum = _mm256_add_epi32(sums[r][v], _mm256_set1_epi32(side(step, r, b)));
                                        _mm256_fmsub_ps(_mm256_castsi256_ps(sum), scale, beyond)
                                    };
                                    let x_scale = f32::from_bits(side(step, r, Side::SCALES_AT + b) as u32);
                                    let f = &mut f[r][first + v];
                                    *f = _mm256_fmadd_ps(scaled, _mm256_set1_ps(x_scale), *f);
                                }
                                if min {
                                    let min = f16s(step.w.add(mins + at));
                                    for r in 0..R {
                                        let x = f32::from_bits(side(step, r, b) as u32);
                                        let f = &mut f[r][first + v];
                                        *f = _mm256_fmadd_ps(min, _mm256_set1_ps(x), *f);
                                    }
                                }
                            }
                        }
                    }
                }
                for (step, f) in steps.iter().zip(&f) {
                    for r in 0..R {
                        for v in 0..VECTORS {
                            let c = step.c.add(r * step.c_row + v * LANES);
                            _mm256_storeu_ps(c, _mm256_add_ps(f[r][v], _mm256_loadu_ps(c)));
                        }
                    }
                }
            }
            Scales::Integers { sub, min } => {
                const BLOCKS: usize = UNIT / BLOCK;
                let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(BLOCKS), layout.d_at(BLOCKS));
                let mut total = [[[_mm256_setzero_si256(); VECTORS]; R]; S];
                for b in 0..BLOCKS {
                    for (step, total) in steps.iter().zip(&mut total) {
                        for first in (0..VECTORS).step_by(V) {
                            let runs = block::<CODES, SCALES, R, V>(step, first, b);
                            for (i, sums) in runs.iter().enumerate().take(BLOCK / sub) {
                                let run = b * BLOCK / sub + i;
                                for v in 0..V {
                                    let at = step.w.add(scales + COLUMNS * run + (first + v) * LANES);
                                    let scale = _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()));
                                    for r in 0..R {
                                        let start =
                                            if min || const { signed(codes(CODES)) } { 0 } else { side(step, r, run) };
                                        let sum = _mm256_add_epi32(sums[r][v], _mm256_set1_epi32(start));
                                        let total = &mut total[r][first + v];
                                        *total = _mm256_add_epi32(*total, _mm256_mullo_epi32(sum, scale));
                                    }
                                }
                            }
                        }
                    }
                }
                for (step, total) in steps.iter().zip(&total) {
                    add_scaled::<R>(step, total, d);
                    if min {
                        let mut total = [[_mm256_setzero_si256(); VECTORS]; R];
                        for pair in 0..UNIT / sub / 2 {
                            for v in 0..VECTORS {
                                let bytes = _mm_loadu_si128(step.w.add(mins + 2 * (COLUMNS * pair + v * LANES)).cast());
                                let mins = _mm256_cvtepu8_epi16(bytes);
                                for r in 0..R {
                                    let x = _mm256_set1_epi32(side(step, r, pair));
                                    // The minima are subtracted.
                                    total[r][v] = _mm256_sub_epi32(total[r][v], _mm256_madd_epi16(mins, x));
                                }
                            }
                        }
                        add_scaled::<R>(step, &total, d + 2 * COLUMNS);
                    }
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
unsafe fn add_scaled<const R: usize>(step: &Step, total: &[[__m256i; VECTORS]; R], d: usize) {
    // SAFETY: d of the unit, the row's scale and its sums (the caller's promise).
    unsafe {
        for v in 0..VECTORS {
            let d = f16s(step.w.add(d + 2 * v * LANES));
            for (r, total) in total.iter().enumerate() {
                let scale = _mm256_mul_ps(d, _mm256_set1_ps(*step.x_scale.add(r)));
                let c = step.c.add(r * step.c_row + v * LANES);
                _mm256_storeu_ps(c, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[v]), scale, _mm256_loadu_ps(c)));
            }
        }
    }
}

/// Steps of [`groups`] whose products are added in 16 bits: 4·2·31·127 and 2·2·63·127 fit.
const fn narrow(codes: u8) -> usize {
    match codes {
        FOUR | FIVE => 4,
        SIX => 2,
        _ => 1,
    }
}

/// Sums of `R` rows and `V` vectors, of both halves of a block.
type Sums<const R: usize, const V: usize> = [[[__m256i; V]; R]; 2];

/// Whether a block has two runs with scales of their own.
const fn two_runs(scales: u8) -> bool {
    matches!(layout(FOUR, scales).scales, Scales::Integers { sub: 16, .. })
}

/// Integer sums of block `b`: of the runs that share a scale, if there are two, else of the whole block in the first.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn block<const CODES: u8, const SCALES: u8, const R: usize, const V: usize>(
    step: &Step,
    first: usize,
    b: usize,
) -> Sums<R, V> {
    // SAFETY: handed on. Steps one by one: a loop over them would not be unrolled.
    unsafe {
        let mut pairs = [[[_mm256_setzero_si256(); V]; R]; 2];
        let mut sums = pairs;
        quarter::<CODES, SCALES, R, V, 0>(step, first, b, &mut pairs, &mut sums);
        quarter::<CODES, SCALES, R, V, 1>(step, first, b, &mut pairs, &mut sums);
        quarter::<CODES, SCALES, R, V, 2>(step, first, b, &mut pairs, &mut sums);
        quarter::<CODES, SCALES, R, V, 3>(step, first, b, &mut pairs, &mut sums);
        sums
    }
}

/// Step `J` of four of a block: its products are added to `pairs` in 16 bits, and these to `sums` when they are full.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn quarter<const CODES: u8, const SCALES: u8, const R: usize, const V: usize, const J: usize>(
    step: &Step,
    first: usize,
    b: usize,
    pairs: &mut Sums<R, V>,
    sums: &mut Sums<R, V>,
) {
    // Codes of 4 bits leave room for both halves together.
    let apart = const { two_runs(SCALES) || CODES != FOUR };
    let run = |half: usize| if const { two_runs(SCALES) } { half } else { 0 };
    // SAFETY: block b of the unit, elements of each row.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        if first == 0 {
            ask_ahead::<CODES, SCALES, R>(step, Level::First, b, J);
        }
        let block = step.w.add(const { layout(CODES, SCALES) }.codes_at(step.blocks));
        let block = block.add(b * const { codes(CODES).block_bytes() });
        let (at, halves) = const { (codes(CODES).groups(J), codes(CODES).halves(J)) };
        for v in 0..V {
            let (low, high) = groups::<CODES>(block.add((first + v) * VECTOR / 2), J);
            for (i, w) in [low, high].into_iter().enumerate() {
                for r in 0..R {
                    let x = _mm256_set1_epi32(*step.x.add(r * UNIT).cast::<i32>().add(8 * b + at[i]));
                    if const { signed(codes(CODES)) } {
                        let pair = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                        let sum = &mut sums[run(halves[i])][r][v];
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, ones));
                    } else {
                        let pair = &mut pairs[if apart { halves[i] } else { 0 }][r][v];
                        *pair = _mm256_add_epi16(*pair, _mm256_maddubs_epi16(w, x));
                    }
                }
            }
        }
        if const { !signed(codes(CODES)) } && (J + 1).is_multiple_of(const { narrow(CODES) }) {
            for half in 0..if apart { 2 } else { 1 } {
                for r in 0..R {
                    for v in 0..V {
                        let sum = &mut sums[run(half)][r][v];
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs[half][r][v], ones));
                        pairs[half][r][v] = _mm256_setzero_si256();
                    }
                }
            }
        }
    }
}

/// Brings the codes of a unit of a pair into bytes, signed ones where [`signed`] says so, panel after panel, as
/// [`super::avx2_block`] reads them. Two lines from `ahead` on are asked for with each block.
///
/// # Safety
/// `from` is a unit of `blocks` blocks in `layout`, `to` has room for [`UNIT`] × [`COLUMNS`] bytes; AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn unpack<const CODES: u8>(layout: Layout, from: *const u8, to: *mut u8, blocks: usize, ahead: *const u8) {
    for b in 0..blocks {
        for i in 0..2 * PAIR {
            let (p, half) = (i / 2, i % 2);
            if half == 0 {
                ahead::line(ahead.wrapping_add((b * PAIR + p) * VECTOR));
            }
            // SAFETY: half a vector's offset into block b; its groups of 64 bytes in the panel's part of `to` (the caller's promise).
            unsafe {
                let from = from.add(layout.codes_at(blocks) + b * layout.codes.block_bytes() + i * VECTOR / 2);
                let to = to.add(p * UNIT * PANEL + b * BLOCK * PANEL + half * VECTOR / 2);
                for j in 0..4 {
                    let (low, high) = groups::<CODES>(from, j);
                    let [first, second] = const { codes(CODES) }.groups(j);
                    _mm256_storeu_si256(to.add(first * VECTOR).cast(), low);
                    _mm256_storeu_si256(to.add(second * VECTOR).cast(), high);
                }
            }
        }
    }
}
