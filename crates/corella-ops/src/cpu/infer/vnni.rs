//! Integer kernels on 512-bit dot products of bytes (AVX-512 VNNI).

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::ahead::{self, ask_ahead};
use super::kernel::{AS_FLOAT, Side, Step, codes, layout};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, PANEL, ROW, Scales, UNIT, VECTOR};
use crate::quant::blocks::IQ4_VALUES;

/// The values of a table code, + 128.
const TABLE_CODES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (IQ4_VALUES[i] as u8) ^ 0x80;
        i += 1;
    }
    codes
};

/// The groups of [`Codes::groups`] of a panel's block, as unsigned bytes.
///
/// # Safety
/// `block` points at the panel's first vector of a block in the layout of `CODES`; j < 4.
#[inline(always)]
pub unsafe fn groups<const CODES: u8>(block: *const u8, j: usize) -> (__m512i, __m512i) {
    // SAFETY: vectors of the block and the bytes of the table; the features are the caller's.
    unsafe {
        let plane = |i: usize| _mm512_loadu_si512(block.add(i * ROW).cast());
        let vector = |i: usize| plane(const { codes(CODES).planes() } + i);
        let raw = vector(j);
        let mask = _mm512_set1_epi8(15);
        let (low, high) = (_mm512_and_si512(raw, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(raw), mask));
        // Bits of a plane, brought to where they belong; whatever comes from the neighbouring byte is masked away.
        let merge = |four, plane, mask: i8| _mm512_ternarylogic_epi32::<0xf8>(four, plane, _mm512_set1_epi8(mask));
        match const { codes(CODES) } {
            Codes::Eight => {
                let [first, second] = Codes::Eight.groups(j);
                (vector(first), vector(second))
            }
            Codes::Four => (low, high),
            Codes::Table => {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(TABLE_CODES.as_ptr().cast()));
                (_mm512_shuffle_epi8(table, low), _mm512_shuffle_epi8(table, high))
            }
            Codes::Five => {
                let plane = plane(0);
                let (left, right) = (_mm_cvtsi32_si128(4 - j as i32), _mm_cvtsi32_si128(j as i32));
                (merge(low, _mm512_sll_epi16(plane, left), 16), merge(high, _mm512_srl_epi16(plane, right), 16))
            }
            Codes::Six => {
                let to = |plane| match j {
                    0 => _mm512_slli_epi16::<4>(plane),
                    1 => _mm512_slli_epi16::<2>(plane),
                    2 => plane,
                    _ => _mm512_srli_epi16::<2>(plane),
                };
                (merge(low, to(plane(0)), 48), merge(high, to(plane(1)), 48))
            }
        }
    }
}

/// 16 half-precision numbers.
///
/// # Safety
/// 32 bytes can be read.
#[inline(always)]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
}

/// See [`super::kernel::Kernel`].
///
/// # Safety
/// As there; the processor has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn unit<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) {
    let layout = const { layout(CODES, SCALES) };
    // SAFETY: everything below reads and writes inside the unit, rows and sums that the caller promises.
    unsafe {
        match layout.scales {
            Scales::Halves { min } => {
                let blocks = step.blocks;
                let (scales, mins) = (Layout::SCALES_AT, layout.mins_at(blocks));
                let mut f = [[_mm512_setzero_ps(); PAIR]; R];
                for b in 0..blocks {
                    let sums = block_32::<CODES, SCALES, R>(step, b, min);
                    for p in 0..PAIR {
                        let scale = halves(step.w.add(scales + 2 * (COLUMNS * b + PANEL * p)));
                        let beyond = _mm512_mul_ps(scale, _mm512_set1_ps(AS_FLOAT));
                        for r in 0..R {
                            let scaled = if min {
                                _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][p]), scale)
                            } else {
                                _mm512_fmsub_ps(_mm512_castsi512_ps(sums[r][p]), scale, beyond)
                            };
                            let x_scale = *step.side.add(r * step.side_row + Side::SCALES_AT + b);
                            f[r][p] = _mm512_fmadd_ps(scaled, _mm512_set1_ps(f32::from_bits(x_scale as u32)), f[r][p]);
                        }
                        if min {
                            let min = halves(step.w.add(mins + 2 * (COLUMNS * b + PANEL * p)));
                            for r in 0..R {
                                let x = f32::from_bits(*step.side.add(r * step.side_row + b) as u32);
                                f[r][p] = _mm512_fmadd_ps(min, _mm512_set1_ps(x), f[r][p]);
                            }
                        }
                    }
                }
                for r in 0..R {
                    for p in 0..PAIR {
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        _mm512_storeu_ps(c, _mm512_add_ps(f[r][p], _mm512_loadu_ps(c)));
                    }
                }
            }
            Scales::Integers { sub, min } => {
                const BLOCKS: usize = UNIT / BLOCK;
                let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(BLOCKS), layout.d_at(BLOCKS));
                let scale = |p: usize, s: usize| {
                    _mm512_cvtepi8_epi32(_mm_loadu_si128(step.w.add(scales + COLUMNS * s + PANEL * p).cast()))
                };
                let mut total = [[_mm512_setzero_si512(); PAIR]; R];
                for b in 0..BLOCKS {
                    if sub == 32 {
                        let sums = block_32::<CODES, SCALES, R>(step, b, min);
                        for p in 0..PAIR {
                            let scale = scale(p, b);
                            for r in 0..R {
                                total[r][p] = _mm512_add_epi32(total[r][p], _mm512_mullo_epi32(sums[r][p], scale));
                            }
                        }
                    } else {
                        let [first, second] = block_16::<CODES, SCALES, R>(step, b, min);
                        for p in 0..PAIR {
                            let (low, high) = (scale(p, 2 * b), scale(p, 2 * b + 1));
                            for r in 0..R {
                                let scaled = _mm512_add_epi32(
                                    _mm512_mullo_epi32(first[r][p], low),
                                    _mm512_mullo_epi32(second[r][p], high),
                                );
                                total[r][p] = _mm512_add_epi32(total[r][p], scaled);
                            }
                        }
                    }
                }
                add_scaled::<R>(step, &total, d);
                if min {
                    let mut total = [[_mm512_setzero_si512(); PAIR]; R];
                    for pair in 0..UNIT / sub / 2 {
                        for p in 0..PAIR {
                            let bytes = _mm256_loadu_si256(step.w.add(mins + 2 * (COLUMNS * pair + PANEL * p)).cast());
                            let mins = _mm512_cvtepu8_epi16(bytes);
                            for r in 0..R {
                                let x = _mm512_set1_epi32(*step.side.add(r * step.side_row + pair));
                                // Subtracted in the end; the sign is turned here.
                                total[r][p] = _mm512_dpwssd_epi32(total[r][p], mins, x);
                            }
                        }
                    }
                    for row in &mut total {
                        for total in row {
                            *total = _mm512_sub_epi32(_mm512_setzero_si512(), *total);
                        }
                    }
                    add_scaled::<R>(step, &total, d + 2 * COLUMNS);
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
unsafe fn add_scaled<const R: usize>(step: &Step, total: &[[__m512i; PAIR]; R], d: usize) {
    // SAFETY: d of the unit, the row's scale and its sums (the caller's promise).
    unsafe {
        for p in 0..PAIR {
            let d = halves(step.w.add(d + 2 * PANEL * p));
            for r in 0..R {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(*step.x_scale.add(r)));
                let c = step.c.add(r * step.c_row + p * PANEL);
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][p]), scale, _mm512_loadu_ps(c));
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// What the sum of run `s` of row `r` begins with.
#[inline(always)]
unsafe fn start(step: &Step, r: usize, s: usize, min: bool) -> __m512i {
    // SAFETY: a side number of the row (the caller's promise).
    unsafe { if min { _mm512_setzero_si512() } else { _mm512_set1_epi32(*step.side.add(r * step.side_row + s)) } }
}

/// Integer sums of block `b`.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn block_32<const CODES: u8, const SCALES: u8, const R: usize>(
    step: &Step,
    b: usize,
    min: bool,
) -> [[__m512i; PAIR]; R] {
    // SAFETY: block b of each panel, elements and side numbers of each row.
    unsafe {
        let codes_at = const { layout(CODES, SCALES) }.codes_at(step.blocks);
        let mut sums = [[_mm512_setzero_si512(); PAIR]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = [start(step, r, b, min); PAIR];
        }
        for j in 0..4 {
            ask_ahead::<CODES, SCALES, R>(step, step.level, b, j);
            let mut w = [(_mm512_setzero_si512(), _mm512_setzero_si512()); PAIR];
            for p in 0..PAIR {
                let block = step.w.add(codes_at + b * const { codes(CODES).block_bytes() } + p * VECTOR);
                w[p] = groups::<CODES>(block, j);
            }
            let [first, second] = const { codes(CODES) }.groups(j);
            for r in 0..R {
                let x = step.x.add(r * UNIT).cast::<i32>().add(8 * b);
                let (low, high) = (_mm512_set1_epi32(*x.add(first)), _mm512_set1_epi32(*x.add(second)));
                for p in 0..PAIR {
                    sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], w[p].0, low);
                    sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], w[p].1, high);
                }
            }
        }
        sums
    }
}

/// Integer sums of both halves of block `b`.
///
/// # Safety
/// As of [`unit`].
#[inline(always)]
unsafe fn block_16<const CODES: u8, const SCALES: u8, const R: usize>(
    step: &Step,
    b: usize,
    min: bool,
) -> [[[__m512i; PAIR]; R]; 2] {
    // SAFETY: as in `block_32`.
    unsafe {
        let codes_at = const { layout(CODES, SCALES).codes_at(UNIT / BLOCK) };
        let mut sums = [[[_mm512_setzero_si512(); PAIR]; R]; 2];
        for r in 0..R {
            sums[0][r] = [start(step, r, 2 * b, min); PAIR];
            sums[1][r] = [start(step, r, 2 * b + 1, min); PAIR];
        }
        for j in 0..4 {
            ask_ahead::<CODES, SCALES, R>(step, step.level, b, j);
            let mut w = [(_mm512_setzero_si512(), _mm512_setzero_si512()); PAIR];
            for p in 0..PAIR {
                let block = step.w.add(codes_at + b * const { codes(CODES).block_bytes() } + p * VECTOR);
                w[p] = groups::<CODES>(block, j);
            }
            let [first, second] = const { codes(CODES) }.groups(j);
            let [a, z] = const { codes(CODES) }.halves(j);
            for r in 0..R {
                let x = step.x.add(r * UNIT).cast::<i32>().add(8 * b);
                let (low, high) = (_mm512_set1_epi32(*x.add(first)), _mm512_set1_epi32(*x.add(second)));
                for p in 0..PAIR {
                    sums[a][r][p] = _mm512_dpbusd_epi32(sums[a][r][p], w[p].0, low);
                    sums[z][r][p] = _mm512_dpbusd_epi32(sums[z][r][p], w[p].1, high);
                }
            }
        }
        sums
    }
}

/// Brings the codes of a unit of a pair into bytes, as [`Codes::Eight`] has them. Two lines from `ahead` on are asked for with each
/// block.
///
/// # Safety
/// `from` is a unit of `blocks` blocks in `layout`, `to` has room for as many of 8 bits; AVX-512 as in [`unit`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn unpack<const CODES: u8>(layout: Layout, from: *const u8, to: *mut u8, blocks: usize, ahead: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        for b in 0..blocks {
            let from = from.add(layout.codes_at(blocks) + b * layout.codes.block_bytes());
            let to = to.add(b * Codes::Eight.block_bytes());
            for p in 0..PAIR {
                ahead::line(ahead.wrapping_add((b * PAIR + p) * VECTOR));
                for j in 0..4 {
                    let (low, high) = groups::<CODES>(from.add(p * VECTOR), j);
                    let [first, second] = const { codes(CODES) }.groups(j);
                    _mm512_storeu_si512(to.add(first * ROW + p * VECTOR).cast(), low);
                    _mm512_storeu_si512(to.add(second * ROW + p * VECTOR).cast(), high);
                }
            }
        }
    }
}
