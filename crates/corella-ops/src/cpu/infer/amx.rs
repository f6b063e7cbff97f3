//! The integer kernel for many rows on tiles (AMX): 32 rows × 2 panels of signed 8-bit codes.
//!
//! Tiles multiply a run of weights that share a scale in a few cycles; what takes time is bringing the sums to memory and
//! scaling them. So the tiles of the next run are started before the sums of this one are scaled.

// Rows and panels index several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::dot::amx::{Config, permitted};
use super::kernel::{EIGHT, Step, layout};
use super::layout::{BLOCK, PAIR, PANEL, Scales, UNIT, VECTOR};

/// Rows of a tile of sums.
pub const ROWS: usize = 32;
/// Bit of CPUID leaf 7, register EDX.
const AMX_INT8: u32 = 1 << 25;

/// Whether the processor has integer tiles and this process may use them.
pub fn available() -> bool {
    permitted() && __cpuid_count(7, 0).edx & AMX_INT8 != 0
}

/// Registers 0 to 3 hold sums, 4 and 5 a run of 16 rows of activations, 6 and 7 one of a panel.
const fn config(sub: usize) -> Config {
    let (x, w) = (sub as u16, (sub / 4) as u8);
    Config::new([64, 64, 64, 64, x, x, 64, 64], [16, 16, 16, 16, 16, 16, w, w])
}

static RUNS_OF_32: Config = config(32);
static RUNS_OF_16: Config = config(16);

/// Prepares this thread's tile registers for runs of `sub` weights.
pub fn begin(sub: usize) {
    let config = if sub == 32 { &RUNS_OF_32 } else { &RUNS_OF_16 };
    // SAFETY: kernels of this kind exist only where tiles are permitted; the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const *config, options(nostack, readonly)) };
}

/// Prepares whole tiles: runs of 64.
pub fn begin_whole() {
    static WHOLE: Config = config(64);
    // SAFETY: as above.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) };
}

/// Gives the tile registers back.
pub fn end() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Sums of a run: (panels, rows, 16).
#[repr(C, align(64))]
struct Sums([[[i32; PANEL]; ROWS]; PAIR]);

/// Multiplies a run.
///
/// # Safety
/// `x` are 32 rows of a run of activations, `row` bytes apart, `w` a run of each panel; [`begin`] was called for its length.
#[inline(always)]
unsafe fn multiply(x: *const i8, row: usize, w: [*const u8; PAIR], sums: &mut Sums) {
    // SAFETY: the caller's promises; the sums are 4 KiB; tile registers are this block's alone.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm6, [{w0} + {line}*1]",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{y} + {row}*1]",
            "tdpbssd tmm1, tmm5, tmm6",
            "tileloadd tmm7, [{w1} + {line}*1]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tdpbssd tmm3, tmm5, tmm7",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 1024], tmm1",
            "tilestored [{c} + {line}*1 + 2048], tmm2",
            "tilestored [{c} + {line}*1 + 3072], tmm3",
            x = in(reg) x,
            y = in(reg) x.wrapping_add(16 * row),
            row = in(reg) row,
            w0 = in(reg) w[0],
            w1 = in(reg) w[1],
            line = in(reg) VECTOR,
            c = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// [`super::kernel::Kernel`] for [`ROWS`] rows and signed codes of 8 bits.
///
/// # Safety
/// As there; the codes are signed, zero is 0; [`begin`] was called on this thread; the processor has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn unit<const SCALES: u8>(step: &Step) {
    let layout = const { layout(EIGHT, SCALES) };
    let (x, row, sub) = (step.x.cast::<i8>(), step.x_row * size_of::<f32>(), layout.sub());
    let runs = step.blocks * BLOCK / sub;
    let mut buffers = [Sums([[[0; PANEL]; ROWS]; PAIR]), Sums([[[0; PANEL]; ROWS]; PAIR])];
    // SAFETY: everything below reads and writes inside the units, rows and sums that the caller promises, and the arrays
    // above.
    unsafe {
        let run_of = |run: usize| {
            let at = run * sub * PANEL;
            (x.add(run * sub), [step.w[0].add(at), step.w[1].add(at)])
        };
        let half = |p: usize, at: usize| _mm512_cvtph_ps(_mm256_loadu_si256(step.w[p].add(at).cast()));
        let (first_x, first_w) = run_of(0);
        multiply(first_x, row, first_w, &mut buffers[0]);
        match layout.scales {
            Scales::Halves { min } => {
                let (scales, mins) = (layout.scales_at(step.blocks), layout.mins_at(step.blocks));
                let mut f = [[_mm512_setzero_ps(); ROWS]; PAIR];
                for b in 0..runs {
                    if b + 1 < runs {
                        let (x, w) = run_of(b + 1);
                        multiply(x, row, w, &mut buffers[(b + 1) % 2]);
                    }
                    for p in 0..PAIR {
                        let scale = half(p, scales + 2 * PANEL * b);
                        for r in 0..ROWS {
                            let sum = _mm512_load_si512(buffers[b % 2].0[p][r].as_ptr().cast());
                            f[p][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, f[p][r]);
                        }
                        if min {
                            let min = half(p, mins + 2 * PANEL * b);
                            for r in 0..ROWS {
                                let x = f32::from_bits(*step.side.add(r * step.side_row + b) as u32);
                                f[p][r] = _mm512_fmadd_ps(min, _mm512_set1_ps(x), f[p][r]);
                            }
                        }
                    }
                }
                for r in 0..ROWS {
                    let scale = _mm512_set1_ps(*step.x.add(r * step.x_row + UNIT / 4));
                    for p in 0..PAIR {
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        _mm512_storeu_ps(c, _mm512_fmadd_ps(f[p][r], scale, _mm512_loadu_ps(c)));
                    }
                }
            }
            Scales::Integers { sub, min } => {
                const BLOCKS: usize = UNIT / BLOCK;
                let (scales, mins, d) = (layout.scales_at(BLOCKS), layout.mins_at(BLOCKS), layout.d_at(BLOCKS));
                let mut total = [[_mm512_setzero_si512(); ROWS]; PAIR];
                for run in 0..runs {
                    if run + 1 < runs {
                        let (x, w) = run_of(run + 1);
                        multiply(x, row, w, &mut buffers[(run + 1) % 2]);
                    }
                    for p in 0..PAIR {
                        let scale = _mm512_cvtepi8_epi32(_mm_loadu_si128(step.w[p].add(scales + PANEL * run).cast()));
                        for r in 0..ROWS {
                            let sum = _mm512_load_si512(buffers[run % 2].0[p][r].as_ptr().cast());
                            total[p][r] = _mm512_add_epi32(total[p][r], _mm512_mullo_epi32(sum, scale));
                        }
                    }
                }
                add_scaled(step, &total, d);
                if min {
                    let mut total = [[_mm512_setzero_si512(); ROWS]; PAIR];
                    for p in 0..PAIR {
                        for pair in 0..UNIT / sub / 2 {
                            let bytes = _mm256_loadu_si256(step.w[p].add(mins + 2 * PANEL * pair).cast());
                            let mins = _mm512_cvtepu8_epi16(bytes);
                            for r in 0..ROWS {
                                let x = _mm512_set1_epi32(*step.side.add(r * step.side_row + pair));
                                total[p][r] = _mm512_dpwssd_epi32(total[p][r], mins, x);
                            }
                        }
                        // The minima are subtracted.
                        total[p].iter_mut().for_each(|sum| *sum = _mm512_sub_epi32(_mm512_setzero_si512(), *sum));
                    }
                    add_scaled(step, &total, d + 2 * PANEL);
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
unsafe fn add_scaled(step: &Step, total: &[[__m512i; ROWS]; PAIR], d: usize) {
    // SAFETY: d of the unit, the row's scale and its sums (the caller's promise).
    unsafe {
        for p in 0..PAIR {
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(step.w[p].add(d).cast()));
            for r in 0..ROWS {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(*step.x.add(r * step.x_row + UNIT / 4)));
                let c = step.c.add(r * step.c_row + p * PANEL);
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[p][r]), scale, _mm512_loadu_ps(c));
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}
