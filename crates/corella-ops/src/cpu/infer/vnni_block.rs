//! The integer kernel for many rows: 6 rows × 2 unpacked panels, sums in registers.
//!
//! The products are written in assembly: compiled from intrinsics, the activations of a whole block were loaded ahead and
//! spilled, and the kernel ran at half its rate (docs/log.md).

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::kernel::{EIGHT, Step, layout};
use super::layout::{BLOCK, PAIR, PANEL, Scales, UNIT, VECTOR};

/// Rows of a tile.
pub const ROWS: usize = 6;

/// Adds the products of consecutive groups to sums\[row\]\[panel\].
///
/// `w` are the vectors of both panels, `x` the elements of the first row, `row` the bytes between rows; the numbers of
/// groups follow.
macro_rules! products {
    ($sums:ident, $w:expr, $x:expr, $row:expr, [$($g:literal),*]) => {{
        let x: *const i8 = $x;
        // With a type, so that the registers are named by it.
        let mut scratch = [_mm512_setzero_si512(); 4];
        asm!(
            $(
                concat!("vmovdqu64 {w0:z}, [{p0} + 64*", $g, "]"),
                concat!("vpbroadcastd {xa:z}, [{x} + 4*", $g, "]"),
                concat!("vmovdqu64 {w1:z}, [{p1} + 64*", $g, "]"),
                concat!("vpbroadcastd {xb:z}, [{x} + {row} + 4*", $g, "]"),
                "vpdpbusd {s00:z}, {w0:z}, {xa:z}",
                "vpdpbusd {s01:z}, {w1:z}, {xa:z}",
                concat!("vpbroadcastd {xa:z}, [{x} + 2*{row} + 4*", $g, "]"),
                "vpdpbusd {s10:z}, {w0:z}, {xb:z}",
                "vpdpbusd {s11:z}, {w1:z}, {xb:z}",
                concat!("vpbroadcastd {xb:z}, [{y} + 4*", $g, "]"),
                "vpdpbusd {s20:z}, {w0:z}, {xa:z}",
                "vpdpbusd {s21:z}, {w1:z}, {xa:z}",
                concat!("vpbroadcastd {xa:z}, [{y} + {row} + 4*", $g, "]"),
                "vpdpbusd {s30:z}, {w0:z}, {xb:z}",
                "vpdpbusd {s31:z}, {w1:z}, {xb:z}",
                concat!("vpbroadcastd {xb:z}, [{y} + 2*{row} + 4*", $g, "]"),
                "vpdpbusd {s40:z}, {w0:z}, {xa:z}",
                "vpdpbusd {s41:z}, {w1:z}, {xa:z}",
                "vpdpbusd {s50:z}, {w0:z}, {xb:z}",
                "vpdpbusd {s51:z}, {w1:z}, {xb:z}",
            )*
            p0 = in(reg) $w[0],
            p1 = in(reg) $w[1],
            x = in(reg) x,
            y = in(reg) x.wrapping_add(3 * $row),
            row = in(reg) $row,
            w0 = out(zmm_reg) scratch[0], w1 = out(zmm_reg) scratch[1],
            xa = out(zmm_reg) scratch[2], xb = out(zmm_reg) scratch[3],
            s00 = inout(zmm_reg) $sums[0][0], s01 = inout(zmm_reg) $sums[0][1],
            s10 = inout(zmm_reg) $sums[1][0], s11 = inout(zmm_reg) $sums[1][1],
            s20 = inout(zmm_reg) $sums[2][0], s21 = inout(zmm_reg) $sums[2][1],
            s30 = inout(zmm_reg) $sums[3][0], s31 = inout(zmm_reg) $sums[3][1],
            s40 = inout(zmm_reg) $sums[4][0], s41 = inout(zmm_reg) $sums[4][1],
            s50 = inout(zmm_reg) $sums[5][0], s51 = inout(zmm_reg) $sums[5][1],
            options(nostack, readonly, preserves_flags),
        );
        let _ = scratch;
    }};
}

/// [`super::kernel::Kernel`] for [`ROWS`] rows, codes of 8 bits.
///
/// # Safety
/// As there; the processor has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn unit<const SCALES: u8>(step: &Step) {
    let layout = const { layout(EIGHT, SCALES) };
    let (x, row) = (step.x, UNIT);
    // SAFETY: everything below reads and writes inside the units, rows and sums that the caller promises.
    unsafe {
        let start = |r: usize, run: usize| match layout.scales {
            Scales::Halves { min: true } | Scales::Integers { min: true, .. } => _mm512_setzero_si512(),
            _ => _mm512_set1_epi32(*step.side.add(r * step.side_row + run)),
        };
        let starts = |run: usize| -> [[__m512i; PAIR]; ROWS] { std::array::from_fn(|r| [start(r, run); PAIR]) };
        let half = |p: usize, at: usize| _mm512_cvtph_ps(_mm256_loadu_si256(step.w[p].add(at).cast()));
        match layout.scales {
            Scales::Halves { min } => {
                let (scales, mins) = (layout.scales_at(step.blocks), layout.mins_at(step.blocks));
                let mut f = [[_mm512_setzero_ps(); PAIR]; ROWS];
                for b in 0..step.blocks {
                    let mut sums = starts(b);
                    let w = [step.w[0].add(8 * VECTOR * b), step.w[1].add(8 * VECTOR * b)];
                    products!(sums, w, x.add(BLOCK * b), row, [0, 1, 2, 3, 4, 5, 6, 7]);
                    for p in 0..PAIR {
                        let scale = half(p, scales + 2 * PANEL * b);
                        for r in 0..ROWS {
                            f[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][p]), scale, f[r][p]);
                        }
                        if min {
                            let min = half(p, mins + 2 * PANEL * b);
                            for r in 0..ROWS {
                                let x = f32::from_bits(*step.side.add(r * step.side_row + b) as u32);
                                f[r][p] = _mm512_fmadd_ps(min, _mm512_set1_ps(x), f[r][p]);
                            }
                        }
                    }
                }
                for r in 0..ROWS {
                    let scale = _mm512_set1_ps(*step.x_scale.add(r));
                    for p in 0..PAIR {
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        _mm512_storeu_ps(c, _mm512_fmadd_ps(f[r][p], scale, _mm512_loadu_ps(c)));
                    }
                }
            }
            Scales::Integers { sub, min } => {
                const BLOCKS: usize = UNIT / BLOCK;
                let (scales, mins, d) = (layout.scales_at(BLOCKS), layout.mins_at(BLOCKS), layout.d_at(BLOCKS));
                let mut total = [[_mm512_setzero_si512(); PAIR]; ROWS];
                for run in 0..UNIT / sub {
                    let mut sums = starts(run);
                    let at = run * sub * PANEL;
                    let w = [step.w[0].add(at), step.w[1].add(at)];
                    if sub == 32 {
                        products!(sums, w, x.add(run * sub), row, [0, 1, 2, 3, 4, 5, 6, 7]);
                    } else {
                        products!(sums, w, x.add(run * sub), row, [0, 1, 2, 3]);
                    }
                    for p in 0..PAIR {
                        let bytes = _mm_loadu_si128(step.w[p].add(scales + PANEL * run).cast());
                        let scale = _mm512_cvtepi8_epi32(bytes);
                        for r in 0..ROWS {
                            total[r][p] = _mm512_add_epi32(total[r][p], _mm512_mullo_epi32(sums[r][p], scale));
                        }
                    }
                }
                add_scaled(step, &total, d);
                if min {
                    let mut total = [[_mm512_setzero_si512(); PAIR]; ROWS];
                    for pair in 0..UNIT / sub / 2 {
                        for p in 0..PAIR {
                            let bytes = _mm256_loadu_si256(step.w[p].add(mins + 2 * PANEL * pair).cast());
                            let mins = _mm512_cvtepu8_epi16(bytes);
                            for r in 0..ROWS {
                                let x = _mm512_set1_epi32(*step.side.add(r * step.side_row + pair));
                                total[r][p] = _mm512_dpwssd_epi32(total[r][p], mins, x);
                            }
                        }
                    }
                    // The minima are subtracted.
                    let negative = total.map(|row| row.map(|sum| _mm512_sub_epi32(_mm512_setzero_si512(), sum)));
                    add_scaled(step, &negative, d + 2 * PANEL);
                }
            }
        }
    }
}

/// c += (d·scale of x)·total.
///
/// # Safety
/// As of [`unit`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add_scaled(step: &Step, total: &[[__m512i; PAIR]; ROWS], d: usize) {
    // SAFETY: d of the unit, the row's scale and its sums (the caller's promise).
    unsafe {
        for p in 0..PAIR {
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(step.w[p].add(d).cast()));
            for r in 0..ROWS {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(*step.x_scale.add(r)));
                let c = step.c.add(r * step.c_row + p * PANEL);
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][p]), scale, _mm512_loadu_ps(c));
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}
