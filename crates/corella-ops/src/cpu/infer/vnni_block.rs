//! The integer kernel for many rows on dot products of bytes (AVX-512 VNNI): up to 6 rows × 2 panels, sums in registers.
//!
//! 12 sums take 96 dot products over a block; what else the two vector units do in that time decides the rate. Scales are
//! widened once per unit ([`numbers`]), not for each tile. Integer scales are not multiplied in 32 bits, which takes three
//! operations of a unit, but as pairs of 16 bits (`vpdpwssd`), which takes one and adds as well: a sum of 32 products with
//! codes from −8 to 7, or of 16 with codes from 0 to 15, fits into the lower 16 bits, and the upper ones meet a zero. So
//! codes of 4 bits with a scale for 32 weights are centred, Σ (code − 8)·x, and 8·scale·Σx is added once per unit. Other
//! codes with integer scales have sums that are too wide, and are multiplied in 32 bits. On AMD's processors that takes one
//! operation and an addition beside it, so there nothing is centred.
//!
//! The loop over blocks is written in assembly: compiled from intrinsics, the activations of a whole block were loaded
//! ahead and spilled, and the kernel ran at half its rate (docs/log.md).

// Rows and panels index several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::ahead::Level;
use super::kernel::{AS_FLOAT, EIGHT, FOUR, Side, Step, codes, layout};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, PANEL, Scales, UNIT, VECTOR};

/// Rows of a tile at most.
pub const ROWS: usize = 6;

/// Where the numbers of a panel lie, in vectors: scales of blocks or runs; minima of blocks, else their scales times
/// [`AS_FLOAT`], or pairs of integer scales times [`Side::CENTRE`], and pairs of minima with their sign turned; d and dmin.
const MINS: usize = 16;
const CENTRES: usize = 16;
const PAIRS: usize = 24;
const D: usize = 32;
/// How often a tile may ask for two lines of the next unit: after every fourth, second or single group of a unit.
pub const ASKS: [usize; 3] = [GROUPS / 4, GROUPS / 2, GROUPS];
/// The same as bits for the loop, and whether lines come into the second-level cache.
const HALF: u32 = 1;
const EACH: u32 = HALF << 1;
const SECOND: u32 = 4;
/// Groups of a unit.
const GROUPS: usize = UNIT / 4;

/// Bytes of the numbers of a panel.
pub const NUMBERS: usize = 34 * VECTOR;

// What a kernel does with sums of a block.
/// f32 scales.
const KIND_HALVES: u8 = 0;
/// The same, and minima.
const KIND_HALVES_MIN: u8 = 1;
/// Integer scales of 16 bits, of sums of 16 bits.
const KIND_NARROW: u8 = 2;
/// Integer scales of sums of 32 bits.
const KIND_WIDE: u8 = 3;

const fn kind(codes: u8, scales: Scales) -> u8 {
    match scales {
        Scales::Halves { min: false } => KIND_HALVES,
        Scales::Halves { min: true } => KIND_HALVES_MIN,
        Scales::Integers { .. } if codes == FOUR => KIND_NARROW,
        Scales::Integers { .. } => KIND_WIDE,
    }
}

/// Whether codes are centred, though zero is zero.
const fn centred(codes: Codes, scales: Scales) -> bool {
    matches!((codes, scales), (Codes::Four, Scales::Integers { sub: BLOCK, min: true }))
}

/// Brings scales and minima of a unit of a pair into the form of this kernel, panel after panel.
///
/// # Safety
/// `from` is a unit of `blocks` blocks in `layout`, `to` has room for [`PAIR`] times [`NUMBERS`]; AVX-512 F, BW, VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn numbers(layout: Layout, from: *const u8, to: *mut u8, blocks: usize) {
    for p in 0..PAIR {
        // SAFETY: the caller's promise.
        unsafe { panel_numbers(layout, from, p, to.add(p * NUMBERS), blocks) };
    }
}

/// The same of one panel.
///
/// # Safety
/// As of [`numbers`]; `to` has room for [`NUMBERS`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn panel_numbers(layout: Layout, from: *const u8, p: usize, to: *mut u8, blocks: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let (scales, mins, d) =
            (from.add(Layout::SCALES_AT), from.add(layout.mins_at(blocks)), from.add(layout.d_at(blocks)));
        let vector = |i: usize| to.add(i * VECTOR);
        let half = |at: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
        let bytes = |at: *const u8| _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()));
        match layout.scales {
            Scales::Halves { min } => {
                for b in 0..blocks {
                    let at = 2 * (COLUMNS * b + PANEL * p);
                    let scale = half(scales.add(at));
                    _mm512_storeu_ps(vector(b).cast(), scale);
                    let beside = if min { half(mins.add(at)) } else { _mm512_mul_ps(scale, _mm512_set1_ps(AS_FLOAT)) };
                    _mm512_storeu_ps(vector(MINS + b).cast(), beside);
                }
            }
            Scales::Integers { sub, min } => {
                let runs = UNIT / sub;
                // In 16 bits: a sum's upper half, its sign, is not to be multiplied.
                let mask = if layout.codes == Codes::Four { 0xffff } else { -1 };
                for run in 0..runs {
                    let scale = _mm512_and_si512(bytes(scales.add(COLUMNS * run + PANEL * p)), _mm512_set1_epi32(mask));
                    _mm512_storeu_si512(vector(run).cast(), scale);
                }
                _mm512_storeu_ps(vector(D).cast(), half(d.add(2 * PANEL * p)));
                if min {
                    for pair in 0..runs / 2 {
                        let mins = mins.add(2 * (COLUMNS * pair + PANEL * p));
                        let mins = _mm512_cvtepu8_epi16(_mm256_loadu_si256(mins.cast()));
                        // They are subtracted.
                        let negative = _mm512_sub_epi16(_mm512_setzero_si512(), mins);
                        _mm512_storeu_si512(vector(PAIRS + pair).cast(), negative);
                    }
                    _mm512_storeu_ps(vector(D + 1).cast(), half(d.add(2 * (COLUMNS + PANEL * p))));
                }
                if centred(layout.codes, layout.scales) {
                    for pair in 0..runs / 2 {
                        let scale = |run: usize| bytes(scales.add(COLUMNS * run + PANEL * p));
                        let (first, second) = (scale(2 * pair), scale(2 * pair + 1));
                        let both = _mm512_mask_blend_epi16(0xaaaa_aaaa, first, _mm512_slli_epi32::<16>(second));
                        let times = _mm512_mullo_epi16(both, _mm512_set1_epi16(Side::CENTRE as i16));
                        _mm512_storeu_si512(vector(CENTRES + pair).cast(), times);
                    }
                }
            }
        }
    }
}

/// [`super::kernel::Kernel`] for `R` rows, codes of 8 bits (of values that fit into 4, if `CODES` is [`FOUR`]), and
/// numbers as [`numbers`] writes them, of both panels behind each other.
///
/// # Safety
/// As there; the processor has AVX-512 VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn unit<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) {
    let scales = const { layout(EIGHT, SCALES).scales };
    // SAFETY: everything below reads and writes inside the units, numbers, rows and sums that the caller promises.
    unsafe {
        let (sums, below) = blocks::<CODES, SCALES, R>(step);
        let number = |p: usize, i: usize| step.numbers.add(p * NUMBERS + i * VECTOR);
        match scales {
            Scales::Halves { .. } => {
                for r in 0..R {
                    for p in 0..PAIR {
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        _mm512_storeu_ps(c, _mm512_add_ps(_mm512_castsi512_ps(sums[r][p]), _mm512_loadu_ps(c)));
                    }
                }
            }
            Scales::Integers { min, .. } => {
                for p in 0..PAIR {
                    let (d, dmin) = (_mm512_loadu_ps(number(p, D).cast()), _mm512_loadu_ps(number(p, D + 1).cast()));
                    for r in 0..R {
                        let scale = _mm512_set1_ps(*step.x_scale.add(r));
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        let total = _mm512_cvtepi32_ps(sums[r][p]);
                        let mut sum = _mm512_fmadd_ps(total, _mm512_mul_ps(d, scale), _mm512_loadu_ps(c));
                        if min {
                            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(below[r][p]), _mm512_mul_ps(dmin, scale), sum);
                        }
                        _mm512_storeu_ps(c, sum);
                    }
                }
            }
        }
    }
}

/// A vector for each row and panel.
type Sums = [[__m512i; PAIR]; ROWS];

/// Scaled sums of all blocks, f32 numbers or integers by the kind; then integer minima times sums of activations, with their
/// sign turned, where there are such minima. Asks meanwhile, a line at a time, for what the next tile
/// reads (the rows behind these, their side numbers and sums), and as often as the step's share says (one of [`ASKS`]), two lines
/// at a time, for the weights of the next unit.
///
/// # Safety
/// As of [`unit`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn blocks<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step) -> (Sums, Sums) {
    const { assert!(1 <= R && R <= ROWS && UNIT == 8 * BLOCK && NUMBERS == 2176) };
    const { assert!(Side::LEN == 16 && Side::CENTRED_AT == 8 && Side::SCALES_AT == 8) };
    debug_assert!(step.side_row == Side::LEN);
    let mut f = [[_mm512_setzero_si512(); PAIR]; ROWS];
    let mut below = f;
    let how = if step.level == Level::Second { SECOND } else { 0 }
        | match step.share.asks {
            asks if asks == ASKS[0] => 0,
            asks if asks == ASKS[1] => HALF,
            _ => HALF | EACH,
        };
    let first = if const { centred(codes(CODES), layout(EIGHT, SCALES).scales) } { Side::CENTRED_AT } else { 0 };
    // SAFETY: reads units, numbers and rows (the caller's promise), writes registers; prefetches read nothing.
    unsafe {
        asm!(
            // Sums of row r and both panels in a and b: what they begin with.
            ".macro corella_start r, a, b, run",
            ".if \\r < {rows}",
            ".if {start}",
            "vpbroadcastd zmm\\a, dword ptr [{side} + 64*\\r + 4*\\run]",
            "vpbroadcastd zmm\\b, dword ptr [{side} + 64*\\r + 4*\\run]",
            ".else",
            "vpxord zmm\\a, zmm\\a, zmm\\a",
            "vpxord zmm\\b, zmm\\b, zmm\\b",
            ".endif",
            ".endif",
            ".endm",
            ".macro corella_starts run",
            "corella_start 0, 0, 1, \\run",
            "corella_start 1, 2, 3, \\run",
            "corella_start 2, 4, 5, \\run",
            "corella_start 3, 6, 7, \\run",
            "corella_start 4, 8, 9, \\run",
            "corella_start 5, 10, 11, \\run",
            ".endm",
            // Group g of row r, broadcast in register t.
            ".macro corella_product r, a, b, t, g",
            ".if \\r < {rows}",
            "vpbroadcastd zmm\\t, dword ptr [{x} + 256*\\r + 4*\\g]",
            "vpdpbusd zmm\\a, zmm24, zmm\\t",
            "vpdpbusd zmm\\b, zmm25, zmm\\t",
            ".endif",
            ".endm",
            ".macro corella_ask",
            "test {how:e}, {second}",
            "jnz 4f",
            "prefetcht0 [{ahead}]",
            "prefetcht0 [{ahead} + 64]",
            "jmp 5f",
            "4:",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "5:",
            "add {ahead}, {step}",
            ".endm",
            ".macro corella_group g",
            "vmovdqu64 zmm24, [{w} + 128*\\g]",
            "vmovdqu64 zmm25, [{w} + 128*\\g + 64]",
            "corella_product 0, 0, 1, 26, \\g",
            "corella_product 1, 2, 3, 27, \\g",
            "corella_product 2, 4, 5, 28, \\g",
            "corella_product 3, 6, 7, 29, \\g",
            "corella_product 4, 8, 9, 26, \\g",
            "corella_product 5, 10, 11, 27, \\g",
            // Asked after every fourth group, or every second, or each.
            ".if (\\g + 1) % 4 == 0",
            "corella_ask",
            ".else",
            "test {how:e}, {half} << ((\\g + 1) % 2)",
            "jz 3f",
            "corella_ask",
            "3:",
            ".endif",
            ".endm",
            // The sum in s of row r, scaled with n, to the total in f; `beside` is what lies beside half-precision scales.
            ".macro corella_scale r, s, f, n, beside",
            ".if \\r < {rows}",
            ".if {kind} == 0",
            "vfmsub213ps zmm\\s, zmm\\n, zmm\\beside",
            "vfmadd231ps zmm\\f, zmm\\s, dword ptr [{side} + 64*\\r + 32]{{1to16}}",
            ".elseif {kind} == 1",
            "vcvtdq2ps zmm\\s, zmm\\s",
            "vmulps zmm\\s, zmm\\s, zmm\\n",
            "vfmadd231ps zmm\\f, zmm\\s, dword ptr [{side} + 64*\\r + 32]{{1to16}}",
            "vfmadd231ps zmm\\f, zmm\\beside, dword ptr [{side} + 64*\\r]{{1to16}}",
            ".elseif {kind} == 2",
            "vpdpwssd zmm\\f, zmm\\s, zmm\\n",
            ".else",
            "vpmulld zmm\\s, zmm\\s, zmm\\n",
            "vpaddd zmm\\f, zmm\\f, zmm\\s",
            ".endif",
            ".endif",
            ".endm",
            ".macro corella_scales run",
            "vmovdqu64 zmm30, [{n} + 64*\\run]",
            "vmovdqu64 zmm31, [{n} + 2176 + 64*\\run]",
            ".if {kind} < 2",
            "vmovdqu64 zmm28, [{n} + 1024]",
            "vmovdqu64 zmm29, [{n} + 2176 + 1024]",
            ".endif",
            "corella_scale 0, 0, 12, 30, 28",
            "corella_scale 0, 1, 13, 31, 29",
            "corella_scale 1, 2, 14, 30, 28",
            "corella_scale 1, 3, 15, 31, 29",
            "corella_scale 2, 4, 16, 30, 28",
            "corella_scale 2, 5, 17, 31, 29",
            "corella_scale 3, 6, 18, 30, 28",
            "corella_scale 3, 7, 19, 31, 29",
            "corella_scale 4, 8, 20, 30, 28",
            "corella_scale 4, 9, 21, 31, 29",
            "corella_scale 5, 10, 22, 30, 28",
            "corella_scale 5, 11, 23, 31, 29",
            ".endm",
            // Pair of runs q of row r: minima to what is below, which takes the place of the sums, and scales of centres to totals.
            ".macro corella_pair r, a, b, s, t, q",
            ".if \\r < {rows}",
            "vpbroadcastd zmm26, dword ptr [{side} + 64*\\r + 4*\\q]",
            "vpdpwssd zmm\\a, zmm28, zmm26",
            "vpdpwssd zmm\\b, zmm29, zmm26",
            ".if {centred}",
            "vpdpwssd zmm\\s, zmm30, zmm26",
            "vpdpwssd zmm\\t, zmm31, zmm26",
            ".endif",
            ".endif",
            ".endm",
            ".macro corella_pairs q",
            "vmovdqu64 zmm28, [{n} + 64*(24 + \\q)]",
            "vmovdqu64 zmm29, [{n} + 2176 + 64*(24 + \\q)]",
            ".if {centred}",
            "vmovdqu64 zmm30, [{n} + 64*(16 + \\q)]",
            "vmovdqu64 zmm31, [{n} + 2176 + 64*(16 + \\q)]",
            ".endif",
            "corella_pair 0, 0, 1, 12, 13, \\q",
            "corella_pair 1, 2, 3, 14, 15, \\q",
            "corella_pair 2, 4, 5, 16, 17, \\q",
            "corella_pair 3, 6, 7, 18, 19, \\q",
            "corella_pair 4, 8, 9, 20, 21, \\q",
            "corella_pair 5, 10, 11, 22, 23, \\q",
            ".endm",
            ".irp f, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23",
            "vpxord zmm\\f, zmm\\f, zmm\\f",
            ".endr",
            "2:",
            "corella_starts 0",
            "corella_group 0",
            "prefetcht0 [{px}]",
            "corella_group 1",
            "prefetcht0 [{px} + 64]",
            "corella_group 2",
            "prefetcht0 [{px} + 128]",
            "corella_group 3",
            ".if {runs} == 2",
            "corella_scales 0",
            "corella_starts 1",
            ".endif",
            "prefetcht0 [{ps}]",
            "corella_group 4",
            "prefetcht0 [{pc}]",
            "corella_group 5",
            "prefetcht0 [{pc} + 64]",
            "corella_group 6",
            "corella_group 7",
            ".if {runs} == 2",
            "corella_scales 1",
            ".else",
            "corella_scales 0",
            ".endif",
            "add {x}, 32",
            "add {w}, 1024",
            "add {n}, 64*{runs}",
            "add {side}, 4*{runs}",
            "add {px}, 192",
            "add {ps}, 64",
            "add {pc}, 128",
            "dec {blocks:e}",
            "jnz 2b",
            ".if {below}",
            // All blocks of a unit were passed.
            "sub {n}, 64*8*{runs}",
            "sub {side}, 4*8*{runs} + 32*{centred}",
            ".irp a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            "vpxord zmm\\a, zmm\\a, zmm\\a",
            ".endr",
            ".irp q, 0, 1, 2, 3",
            "corella_pairs \\q",
            ".endr",
            ".if {runs} == 2",
            ".irp q, 4, 5, 6, 7",
            "corella_pairs \\q",
            ".endr",
            ".endif",
            ".endif",
            ".purgem corella_start",
            ".purgem corella_starts",
            ".purgem corella_product",
            ".purgem corella_ask",
            ".purgem corella_group",
            ".purgem corella_scale",
            ".purgem corella_scales",
            ".purgem corella_pair",
            ".purgem corella_pairs",
            rows = const R,
            half = const HALF,
            second = const SECOND,
            kind = const const { kind(CODES, layout(EIGHT, SCALES).scales) },
            runs = const const { if let Scales::Integers { sub: 16, .. } = layout(EIGHT, SCALES).scales { 2 } else { 1 } },
            start = const const {
                let (Scales::Halves { min } | Scales::Integers { min, .. }) = layout(EIGHT, SCALES).scales;
                (!min || centred(codes(CODES), layout(EIGHT, SCALES).scales)) as u8
            },
            below = const const { matches!(layout(EIGHT, SCALES).scales, Scales::Integers { min: true, .. }) as u8 },
            centred = const const { centred(codes(CODES), layout(EIGHT, SCALES).scales) as u8 },
            x = inout(reg) step.x => _,
            w = inout(reg) step.w => _,
            n = inout(reg) step.numbers => _,
            side = inout(reg) step.side.add(first) => _,
            px = inout(reg) step.x.wrapping_add(R * UNIT) => _,
            ps = inout(reg) step.side.wrapping_add(R * Side::LEN) => _,
            pc = inout(reg) step.c.wrapping_add(R * PAIR * PANEL) => _,
            ahead = inout(reg) step.ahead => _,
            step = in(reg) step.share.step,
            how = in(reg) how,
            blocks = inout(reg) step.blocks => _,
            out("zmm0") below[0][0], out("zmm1") below[0][1], out("zmm2") below[1][0], out("zmm3") below[1][1],
            out("zmm4") below[2][0], out("zmm5") below[2][1], out("zmm6") below[3][0], out("zmm7") below[3][1],
            out("zmm8") below[4][0], out("zmm9") below[4][1], out("zmm10") below[5][0], out("zmm11") below[5][1],
            out("zmm12") f[0][0], out("zmm13") f[0][1], out("zmm14") f[1][0], out("zmm15") f[1][1],
            out("zmm16") f[2][0], out("zmm17") f[2][1], out("zmm18") f[3][0], out("zmm19") f[3][1],
            out("zmm20") f[4][0], out("zmm21") f[4][1], out("zmm22") f[5][0], out("zmm23") f[5][1],
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
            out("zmm30") _, out("zmm31") _,
            options(nostack, readonly),
        );
    }
    (f, below)
}

#[cfg(test)]
mod tests {
    use super::super::super::path::Path;
    use super::super::super::pool::Pool;
    use super::super::super::scratch::Scratch;
    use super::super::activations::Activations;
    use super::super::kernel::{INTEGERS_32_MIN, Share};
    use super::super::pack::pair_of;
    use super::super::vnni;
    use super::*;
    use crate::cases::{Random, random_rows};
    use crate::quant::WeightFormat;

    /// Which one a processor takes depends on whose it is ([`super::super::tiles::Tiles::kernel`]), so no other test sees both.
    #[test]
    fn scales_of_16_and_of_32_bits_give_the_same_sums() {
        if !(is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni"))
        {
            return println!("skipped: no AVX-512 VNNI");
        }
        let format = WeightFormat::Q4_K;
        let layout = layout(FOUR, INTEGERS_32_MIN);
        assert_eq!(Layout::of(format), Some(layout));
        let mut random = Random::new(7);
        let pair = pair_of(format, &random_rows(&mut random, format, COLUMNS, UNIT), UNIT);
        let blocks = UNIT / BLOCK;
        let mut codes: Scratch<u8> = Scratch::new(UNIT * COLUMNS);
        let mut scales: Scratch<u8> = Scratch::new(PAIR * NUMBERS);
        // SAFETY: a unit of a pair, room for its codes and numbers; the features were detected.
        unsafe {
            numbers(layout, pair.as_ptr(), scales.as_mut_ptr(), blocks);
            vnni::unpack::<FOUR>(layout, pair.as_ptr(), codes.as_mut_ptr(), blocks, pair.as_ptr());
        }
        let pool = Pool::new(1);
        let x = Activations::new(&pool, Path::Portable, (&random.normals(ROWS * UNIT), UNIT), ROWS, UNIT, 1);
        let side = x.side_numbers(&pool, layout);
        let sums = |kernel: unsafe fn(&Step)| {
            let mut sums = vec![0.0_f32; ROWS * COLUMNS];
            let step = Step {
                w: codes.as_ptr(),
                numbers: scales.as_ptr(),
                ahead: codes.as_ptr(),
                level: Level::First,
                share: Share { asks: ASKS[0], step: 0 },
                blocks,
                rows: ROWS,
                x: x.elements(0, 0).as_ptr(),
                x_scale: x.scales(0, 0).as_ptr(),
                side: side.as_ptr(),
                side_row: Side::LEN,
                c: sums.as_mut_ptr(),
                c_row: COLUMNS,
            };
            // SAFETY: a unit, its numbers, and rows of activations, side numbers and sums; the features were detected.
            unsafe { kernel(&step) };
            sums
        };
        let narrow = sums(unit::<FOUR, INTEGERS_32_MIN, ROWS>);
        assert!(narrow.iter().any(|sum| *sum != 0.0));
        assert_eq!(narrow, sums(unit::<EIGHT, INTEGERS_32_MIN, ROWS>));
    }
}
