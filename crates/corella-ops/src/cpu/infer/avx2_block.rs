//! The integer kernels for many rows on 256-bit multiply-adds of bytes (AVX2): up to 6 rows × 16 columns.
//!
//! A multiply-add of bytes (`vpmaddubsw`) makes sums of 16 bits; a second one (`vpmaddwd`) widens them, and is half the work if it
//! follows each. Codes of 4 bits leave room for the sums of eight groups, of 5 bits for four, of 6 bits for two: so many are added
//! in 16 bits, and the widening multiplies with integer scales as well. Signed codes of 8 bits leave none, and take |w|·(±x).
//!
//! 12 sums, two vectors of weights and two for a product fill the 16 registers; totals over blocks are kept in memory. The
//! loop is written in assembly, as compilers spill some of these (see [`super::vnni_block`]).

// Rows and vectors index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::ahead;
use super::avx2::{f16s, signed};
use super::kernel::{AS_FLOAT, FIVE, FOUR, SIX, Side, Step, codes, layout};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, PANEL, Scales, UNIT, VECTOR};

/// Columns of a vector.
const LANES: usize = 8;
/// Vectors of a panel.
const OF_PANEL: usize = PANEL / LANES;

/// Rows of a tile at most: with signed codes |w| takes registers too.
pub const fn rows(codes: Codes) -> usize {
    if signed(codes) { 4 } else { 6 }
}

// Where the numbers of a panel lie, in vectors of 16 columns of 4 bytes: scales of blocks or runs; minima of blocks, else
// their scales times [`AS_FLOAT`], or pairs of 16 bits, of minima, else of scales; d and dmin.
const PAIRS: usize = 16;
const D: usize = 24;

/// Bytes of the numbers of a panel.
pub const NUMBERS: usize = 26 * VECTOR;

/// Groups whose sums are added in 16 bits.
const fn narrow(codes: u8, scales: Scales) -> usize {
    match codes {
        FOUR => run(scales),
        FIVE => 4,
        SIX => 2,
        _ => 1,
    }
}

/// Groups that share a scale.
const fn run(scales: Scales) -> usize {
    match scales {
        Scales::Integers { sub, .. } => sub / 4,
        Scales::Halves { .. } => BLOCK / 4,
    }
}

/// Brings scales and minima of a unit of a pair into the form of this kernel, panel after panel.
///
/// # Safety
/// `from` is a unit of `blocks` blocks in `layout`, `to` has room for [`PAIR`] times [`NUMBERS`]; AVX2 and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn numbers(layout: Layout, from: *const u8, to: *mut u8, blocks: usize) {
    for half in 0..PAIR * OF_PANEL {
        let first = half * LANES;
        // SAFETY: the caller's promise: 8 columns of the numbers of a pair, and their places in a panel's.
        unsafe {
            let to = to.add(half / OF_PANEL * NUMBERS);
            let vector = |i: usize| to.add(i * VECTOR + half % OF_PANEL * VECTOR / 2);
            let (scales, mins, d) =
                (from.add(Layout::SCALES_AT), from.add(layout.mins_at(blocks)), from.add(layout.d_at(blocks)));
            match layout.scales {
                Scales::Halves { min } => {
                    for b in 0..blocks {
                        let at = 2 * (COLUMNS * b + first);
                        let scale = f16s(scales.add(at));
                        _mm256_storeu_ps(vector(b).cast(), scale);
                        let beside =
                            if min { f16s(mins.add(at)) } else { _mm256_mul_ps(scale, _mm256_set1_ps(AS_FLOAT)) };
                        _mm256_storeu_ps(vector(PAIRS + b).cast(), beside);
                    }
                }
                Scales::Integers { sub, min } => {
                    let runs = UNIT / sub;
                    let scale =
                        |run: usize| _mm256_cvtepi8_epi32(_mm_loadl_epi64(scales.add(COLUMNS * run + first).cast()));
                    let both = |low, high| _mm256_blend_epi16::<0xaa>(low, _mm256_slli_epi32::<16>(high));
                    for run in 0..runs {
                        // Twice in 16 bits: for both halves of a narrow sum.
                        let scale = scale(run);
                        let scale = if signed(layout.codes) { scale } else { both(scale, scale) };
                        _mm256_storeu_si256(vector(run).cast(), scale);
                    }
                    for pair in 0..runs / 2 {
                        let pairs = if min {
                            let mins = mins.add(2 * (COLUMNS * pair + first));
                            let mins = _mm256_cvtepu8_epi16(_mm_loadu_si128(mins.cast()));
                            // They are subtracted.
                            _mm256_sub_epi16(_mm256_setzero_si256(), mins)
                        } else {
                            both(scale(2 * pair), scale(2 * pair + 1))
                        };
                        _mm256_storeu_si256(vector(PAIRS + pair).cast(), pairs);
                    }
                    _mm256_storeu_ps(vector(D).cast(), f16s(d.add(2 * first)));
                    if min {
                        _mm256_storeu_ps(vector(D + 1).cast(), f16s(d.add(2 * (COLUMNS + first))));
                    }
                }
            }
        }
    }
}

/// [`super::kernel::Kernel`] for `R` rows, codes as [`super::avx2::unpack`] leaves them, and numbers as [`numbers`] writes them.
///
/// # Safety
/// As there; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn unit<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) {
    for p in 0..PAIR {
        // SAFETY: handed on.
        unsafe { panel::<CODES, SCALES, R>(step, p) };
    }
}

/// 16 columns.
///
/// # Safety
/// As of [`unit`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panel<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step, p: usize) {
    let scales = const { layout(CODES, SCALES) }.scales;
    let asks = step.share.asks / PAIR;
    for i in p * asks..(p + 1) * asks {
        ahead::into(step.level, step.ahead.wrapping_add(i * step.share.step));
    }
    // SAFETY: the codes and numbers of a panel of the unit, rows and their sums (the caller's promise).
    unsafe {
        let numbers = step.numbers.add(p * NUMBERS);
        let vector = |i: usize, v: usize| numbers.add(i * VECTOR + v * VECTOR / 2);
        let mut totals = [[_mm256_setzero_si256(); OF_PANEL]; R];
        products::<CODES, SCALES, R>(step, p, numbers, &mut totals);
        let c = |r: usize, v: usize| step.c.add(r * step.c_row + p * PANEL + v * LANES);
        match scales {
            Scales::Halves { .. } => {
                for r in 0..R {
                    for v in 0..OF_PANEL {
                        let sum = _mm256_add_ps(_mm256_castsi256_ps(totals[r][v]), _mm256_loadu_ps(c(r, v)));
                        _mm256_storeu_ps(c(r, v), sum);
                    }
                }
            }
            Scales::Integers { sub, min } => {
                for r in 0..R {
                    let side = step.side.add(r * step.side_row);
                    let mut below = [_mm256_setzero_si256(); OF_PANEL];
                    if min || const { !signed(codes(CODES)) } {
                        for pair in 0..UNIT / sub / 2 {
                            let x = if min { _mm256_set1_epi32(*side.add(pair)) } else { starts::<CODES>(side, pair) };
                            for v in 0..OF_PANEL {
                                let pairs = _mm256_loadu_si256(vector(PAIRS + pair, v).cast());
                                below[v] = _mm256_add_epi32(below[v], _mm256_madd_epi16(pairs, x));
                            }
                        }
                    }
                    let scale = _mm256_set1_ps(*step.x_scale.add(r));
                    for v in 0..OF_PANEL {
                        let mut total = totals[r][v];
                        if !min && const { !signed(codes(CODES)) } {
                            let starts = if CODES == SIX { _mm256_slli_epi32::<1>(below[v]) } else { below[v] };
                            total = _mm256_add_epi32(total, starts);
                        }
                        let d = |i: usize| _mm256_mul_ps(_mm256_loadu_ps(vector(D + i, v).cast()), scale);
                        let mut sum = _mm256_loadu_ps(c(r, v));
                        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), d(0), sum);
                        if min {
                            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(below[v]), d(1), sum);
                        }
                        _mm256_storeu_ps(c(r, v), sum);
                    }
                }
            }
        }
    }
}

/// What the sums of two neighbouring runs begin with, as a pair of 16 bits; half of it with codes of 6 bits, whose zero is 32:
/// 32·16·127 is too much.
///
/// # Safety
/// Two numbers of [`super::kernel::Side::Start`] behind each other.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn starts<const CODES: u8>(side: *const i32, pair: usize) -> __m256i {
    // SAFETY: the caller's promise.
    let both = _mm256_set1_epi64x(unsafe { side.add(2 * pair).cast::<i64>().read_unaligned() });
    let both = if CODES == SIX { _mm256_srai_epi32::<1>(both) } else { both };
    _mm256_packs_epi32(both, both)
}

/// Totals of a panel over the blocks of a unit: of integers, or of f32 as their bits.
///
/// # Safety
/// As of [`unit`]; `numbers` are the panel's.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<const CODES: u8, const SCALES: u8, const R: usize>(
    step: &Step,
    p: usize,
    numbers: *const u8,
    totals: &mut [[__m256i; OF_PANEL]; R],
) {
    const { assert!(Side::LEN == 16 && Side::SCALES_AT == 8) };
    // Sums of a block's first runs of narrow sums.
    let mut parts = [[_mm256_setzero_si256(); OF_PANEL]; R];
    // SAFETY: block after block of the panel's codes, its numbers, and of elements and side numbers of each row; totals and parts.
    unsafe {
        asm!(
            // Group g of row r, broadcast, against both vectors.
            ".macro corella_product r, a, b, g",
            ".if \\r < {rows}",
            "vpbroadcastd ymm14, dword ptr [{x} + 256*\\r + 4*\\g]",
            ".if {signed}",
            "vpsignb ymm15, ymm14, ymm12",
            "vpmaddubsw ymm15, ymm10, ymm15",
            "vpsignb ymm14, ymm14, ymm13",
            "vpmaddubsw ymm14, ymm11, ymm14",
            ".if \\g % {run} == 0",
            "vpmaddwd ymm\\a, ymm15, ymm9",
            "vpmaddwd ymm\\b, ymm14, ymm9",
            ".else",
            "vpmaddwd ymm15, ymm15, ymm9",
            "vpaddd ymm\\a, ymm\\a, ymm15",
            "vpmaddwd ymm14, ymm14, ymm9",
            "vpaddd ymm\\b, ymm\\b, ymm14",
            ".endif",
            ".elseif \\g % {narrow} == 0",
            "vpmaddubsw ymm\\a, ymm12, ymm14",
            "vpmaddubsw ymm\\b, ymm13, ymm14",
            ".else",
            "vpmaddubsw ymm15, ymm12, ymm14",
            "vpaddw ymm\\a, ymm\\a, ymm15",
            "vpmaddubsw ymm14, ymm13, ymm14",
            "vpaddw ymm\\b, ymm\\b, ymm14",
            ".endif",
            ".endif",
            ".endm",
            // The sum in s of row r, whose vector v has its scale in n, to its total: scales are integers.
            ".macro corella_scale r, s, v, n",
            ".if \\r < {rows}",
            ".if {signed}",
            "vpmulld ymm\\s, ymm\\s, ymm\\n",
            ".else",
            "vpmaddwd ymm\\s, ymm\\s, ymm\\n",
            ".endif",
            "vpaddd ymm\\s, ymm\\s, [{t} + 64*\\r + 32*\\v]",
            "vmovdqu [{t} + 64*\\r + 32*\\v], ymm\\s",
            ".endif",
            ".endm",
            // The narrow sum in s of row r and vector v, widened.
            ".macro corella_widen r, s, v, first, last",
            ".if {signed} == 0",
            "vpmaddwd ymm\\s, ymm\\s, ymm15",
            ".if \\first == 0",
            "vpaddd ymm\\s, ymm\\s, [{parts} + 64*\\r + 32*\\v]",
            ".endif",
            ".if \\last == 0",
            "vmovdqu [{parts} + 64*\\r + 32*\\v], ymm\\s",
            ".endif",
            ".endif",
            ".endm",
            // The sums in a and b of row r, whose vectors have their scales in ymm12 and ymm13 (and minima, or what the
            // conversion to f32 takes off again, in memory), to their totals: scales are of blocks. `first` and `last` say whether
            // these narrow sums are a block's first and last.
            ".macro corella_block r, a, b, first, last",
            ".if \\r < {rows}",
            "corella_widen \\r, \\a, 0, \\first, \\last",
            "corella_widen \\r, \\b, 1, \\first, \\last",
            ".if \\last",
            ".if {min} == 0 && {signed} == 0",
            "vpbroadcastd ymm14, dword ptr [{side} + 64*\\r]",
            "vpaddd ymm\\a, ymm\\a, ymm14",
            "vpaddd ymm\\b, ymm\\b, ymm14",
            "vbroadcastss ymm14, dword ptr [{side} + 64*\\r + 32]",
            "vfmsub213ps ymm\\a, ymm12, [{n} + 1024]",
            "vfmsub213ps ymm\\b, ymm13, [{n} + 1024 + 32]",
            ".else",
            "vbroadcastss ymm14, dword ptr [{side} + 64*\\r + 32]",
            "vcvtdq2ps ymm\\a, ymm\\a",
            "vcvtdq2ps ymm\\b, ymm\\b",
            "vmulps ymm\\a, ymm\\a, ymm12",
            "vmulps ymm\\b, ymm\\b, ymm13",
            ".endif",
            "vfmadd213ps ymm\\a, ymm14, [{t} + 64*\\r]",
            "vfmadd213ps ymm\\b, ymm14, [{t} + 64*\\r + 32]",
            ".if {min}",
            "vbroadcastss ymm14, dword ptr [{side} + 64*\\r]",
            "vfmadd231ps ymm\\a, ymm14, [{n} + 1024]",
            "vfmadd231ps ymm\\b, ymm14, [{n} + 1024 + 32]",
            ".endif",
            "vmovups [{t} + 64*\\r], ymm\\a",
            "vmovups [{t} + 64*\\r + 32], ymm\\b",
            ".endif",
            ".endif",
            ".endm",
            // After group g, if narrow sums or a run end there.
            ".macro corella_scales g",
            ".if (\\g + 1) % {narrow} == 0 && ({signed} == 0 || (\\g + 1) % {run} == 0)",
            "vmovdqu ymm12, [{n} + 64*(\\g/{run})]",
            "vmovdqu ymm13, [{n} + 64*(\\g/{run}) + 32]",
            ".if {halves}",
            ".if {signed} == 0",
            "vpcmpeqw ymm15, ymm15, ymm15",
            "vpabsw ymm15, ymm15",
            ".endif",
            "corella_block 0, 0, 1, (\\g/{narrow}==0), (\\g==7)",
            "corella_block 1, 2, 3, (\\g/{narrow}==0), (\\g==7)",
            "corella_block 2, 4, 5, (\\g/{narrow}==0), (\\g==7)",
            "corella_block 3, 6, 7, (\\g/{narrow}==0), (\\g==7)",
            "corella_block 4, 8, 9, (\\g/{narrow}==0), (\\g==7)",
            "corella_block 5, 10, 11, (\\g/{narrow}==0), (\\g==7)",
            ".else",
            "corella_scale 0, 0, 0, 12",
            "corella_scale 1, 2, 0, 12",
            "corella_scale 2, 4, 0, 12",
            "corella_scale 3, 6, 0, 12",
            "corella_scale 4, 8, 0, 12",
            "corella_scale 5, 10, 0, 12",
            "corella_scale 0, 1, 1, 13",
            "corella_scale 1, 3, 1, 13",
            "corella_scale 2, 5, 1, 13",
            "corella_scale 3, 7, 1, 13",
            "corella_scale 4, 9, 1, 13",
            "corella_scale 5, 11, 1, 13",
            ".endif",
            ".endif",
            ".endm",
            ".macro corella_group g",
            "vmovdqu ymm12, [{w} + 64*\\g]",
            "vmovdqu ymm13, [{w} + 64*\\g + 32]",
            ".if {signed}",
            "vpabsb ymm10, ymm12",
            "vpabsb ymm11, ymm13",
            ".endif",
            "corella_product 0, 0, 1, \\g",
            "corella_product 1, 2, 3, \\g",
            "corella_product 2, 4, 5, \\g",
            "corella_product 3, 6, 7, \\g",
            "corella_product 4, 8, 9, \\g",
            "corella_product 5, 10, 11, \\g",
            "corella_scales \\g",
            ".endm",
            ".if {signed}",
            "vpcmpeqw ymm9, ymm9, ymm9",
            "vpabsw ymm9, ymm9",
            ".endif",
            "2:",
            ".irp g, 0, 1, 2, 3, 4, 5, 6, 7",
            "corella_group \\g",
            ".endr",
            "add {x}, 32",
            "add {w}, 512",
            "add {n}, 64*(8/{run})",
            "add {side}, 4",
            "dec {blocks:e}",
            "jnz 2b",
            ".purgem corella_product",
            ".purgem corella_scale",
            ".purgem corella_widen",
            ".purgem corella_block",
            ".purgem corella_scales",
            ".purgem corella_group",
            rows = const R,
            signed = const const { signed(codes(CODES)) as u8 },
            run = const const { run(layout(CODES, SCALES).scales) },
            narrow = const const { narrow(CODES, layout(CODES, SCALES).scales) },
            halves = const const { matches!(layout(CODES, SCALES).scales, Scales::Halves { .. }) as u8 },
            min = const const { matches!(layout(CODES, SCALES).scales, Scales::Halves { min: true }) as u8 },
            x = inout(reg) step.x => _,
            w = inout(reg) step.w.add(p * UNIT * PANEL) => _,
            n = inout(reg) numbers => _,
            side = inout(reg) step.side => _,
            t = in(reg) totals.as_mut_ptr(),
            parts = in(reg) parts.as_mut_ptr(),
            blocks = inout(reg) step.blocks => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _,
            out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _,
            out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }
}
