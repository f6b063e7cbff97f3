//! The integer kernel for many rows on tiles (AMX): 16 rows × 2 panels of signed 8-bit codes.
//!
//! A tile product takes 16 cycles whether its runs are 32 or 64 weights long, and bringing its sums to the vector unit and
//! scaling them takes as long. So integer scales are multiplied into the codes when a unit is unpacked, as two planes of
//! bytes, scale·code = 2^s·high + low: whole tiles of 64 weights, and sums that leave the tiles once per unit. With
//! half-precision scales, whose f32 steps have an order, they leave once per block, and the next block's tiles run meanwhile.
//! Formats with minima have unsigned codes up to 31 and scales up to 63: the planes are products with three bits of the
//! scale each, s = 3. Signed scales are multiplied in 16 bits, and the product is cut, s = 6, low from 0 to 63.
//!
//! An unpacked unit of a panel: planes of codes (64 vectors each; one where scales are halves), then scales and minima.

// Rows and panels index several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::super::dot::amx::{Config, permitted};
use super::kernel::{EIGHT, Side, Step, codes, layout};
use super::layout::{BLOCK, COLUMNS, Layout, PAIR, PANEL, Scales, UNIT, VECTOR};

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Places of a kernel that ask for what comes later.
pub const ASKS: usize = 16;
/// Bit of CPUID leaf 7, register EDX.
const AMX_INT8: u32 = 1 << 25;
/// Blocks of a unit; a shorter one is filled up with zeros.
const BLOCKS: usize = UNIT / BLOCK;
/// Bytes of a plane of codes; zero is 0.
const PLANE: usize = UNIT * PANEL;
/// Bytes of scales or minima of a panel: halves by block, or integer minima in pairs of runs.
const NUMBERS: usize = 2 * PANEL * BLOCKS;
/// Where the second plane begins; without one, the scales by block, then the minima.
const SECOND: usize = PLANE;
/// Where d of each column begins, and dmin follows; then the minima.
const D: usize = 2 * PLANE;
const MINS: usize = D + 4 * PANEL;
/// Pairs of runs of a unit, at most.
const MOST_PAIRS: usize = UNIT / 16 / 2;
/// Bytes of a unit of a panel.
pub const UNIT_BYTES: usize = MINS + NUMBERS;

/// Whether the processor has integer tiles and this process may use them; asked once, because a guest's CPUID goes to its host
/// and takes as long as reading half a megabyte.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| permitted() && __cpuid_count(7, 0).edx & AMX_INT8 != 0)
}

/// Registers 0 to 3 hold sums, 4 and 5 runs of 16 rows of activations, 6 and 7 runs of a panel.
const fn config(run: usize) -> Config {
    let (x, w) = (run as u16, (run / 4) as u8);
    Config::new([64, 64, 64, 64, x, x, 64, 64], [16, 16, 16, 16, 16, 16, w, w])
}

static BLOCK_RUNS: Config = config(BLOCK);
static WHOLE: Config = config(64);

fn load(config: &'static Config) {
    // SAFETY: kernels of this kind exist only where tiles are permitted; the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly)) };
}

/// Prepares this thread's tile registers for the kernel of some scales.
pub fn begin(scales: Scales) {
    load(match scales {
        Scales::Halves { .. } => &BLOCK_RUNS,
        Scales::Integers { .. } => &WHOLE,
    });
}

/// Prepares whole tiles: runs of 64.
pub fn begin_whole() {
    load(&WHOLE);
}

/// Gives the tile registers back.
pub fn end() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Brings a unit of a pair into the form of this kernel: the first panel's, then the second's. Two lines from `ahead` on are asked
/// for with each block.
///
/// # Safety
/// `from` is a unit of `blocks` blocks in `layout`, `to` has room for [`PAIR`] times [`UNIT_BYTES`]; AVX-512 F, BW, VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn unpack<const CODES: u8>(layout: Layout, from: *const u8, to: *mut u8, blocks: usize, ahead: *const u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let (scales, mins, d) =
            (from.add(Layout::SCALES_AT), from.add(layout.mins_at(blocks)), from.add(layout.d_at(blocks)));
        let groups = |p: usize, b: usize, j: usize| {
            let block = from.add(layout.codes_at(blocks) + b * layout.codes.block_bytes());
            super::vnni::groups::<CODES>(block.add(p * VECTOR), j)
        };
        let to = |p: usize, at: usize| to.add(p * UNIT_BYTES + at);
        let plane = |p: usize, b: usize, g: usize| to(p, (8 * b + g) * VECTOR).cast::<__m512i>();
        let ask = |b: usize, p: usize| super::ahead::line(ahead.wrapping_add((b * PAIR + p) * VECTOR));
        match layout.scales {
            Scales::Halves { min } => {
                let zero = _mm512_set1_epi8(layout.zero as u8 as i8);
                for (b, p) in (0..blocks).flat_map(|b| (0..PAIR).map(move |p| (b, p))) {
                    ask(b, p);
                    for j in 0..4 {
                        let (low, high) = groups(p, b, j);
                        let [first, second] = const { codes(CODES) }.groups(j);
                        _mm512_store_si512(plane(p, b, first), _mm512_sub_epi8(low, zero));
                        _mm512_store_si512(plane(p, b, second), _mm512_sub_epi8(high, zero));
                    }
                    for (numbers, at) in
                        [(scales, SECOND), (mins, SECOND + NUMBERS)].into_iter().take(1 + usize::from(min))
                    {
                        let numbers = numbers.add(2 * (COLUMNS * b + PANEL * p));
                        to(p, at + 2 * PANEL * b).copy_from_nonoverlapping(numbers, 2 * PANEL);
                    }
                }
                let rest = BLOCKS - blocks;
                for p in 0..PAIR {
                    to(p, 8 * VECTOR * blocks).write_bytes(0, 8 * VECTOR * rest);
                    for at in [SECOND, SECOND + NUMBERS].into_iter().take(1 + usize::from(min)) {
                        to(p, at + 2 * PANEL * blocks).write_bytes(0, 2 * PANEL * rest);
                    }
                }
            }
            Scales::Integers { sub, min } => {
                let scale = |p: usize, run: usize| {
                    let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(scales.add(COLUMNS * run + PANEL * p).cast()));
                    // In both halves of a column's place.
                    let low = _mm512_and_si512(wide, _mm512_set1_epi32(0xffff));
                    _mm512_or_si512(low, _mm512_slli_epi32::<16>(wide))
                };
                let zero = _mm512_set1_epi16(layout.zero as i16);
                for (b, p) in (0..BLOCKS).flat_map(|b| (0..PAIR).map(move |p| (b, p))) {
                    ask(b, p);
                    let scales = [scale(p, b * BLOCK / sub), scale(p, (b * BLOCK + BLOCK / 2) / sub)];
                    let signed = [Signed::new(scales[0], zero), Signed::new(scales[1], zero)];
                    for j in 0..4 {
                        let (first, second) = groups(p, b, j);
                        let (places, halves) = (const { codes(CODES) }.groups(j), const { codes(CODES) }.halves(j));
                        for ((codes, g), i) in [first, second].into_iter().zip(places).zip(halves) {
                            let (low, high) = if min { digits(codes, scales[i]) } else { signed[i].planes(codes) };
                            _mm512_store_si512(plane(p, b, g), low);
                            _mm512_store_si512(plane(p, b, g).byte_add(SECOND), high);
                        }
                    }
                }
                for p in 0..PAIR {
                    for i in 0..1 + usize::from(min) {
                        let d = d.add(2 * (COLUMNS * i + PANEL * p));
                        to(p, D + 2 * PANEL * i).copy_from_nonoverlapping(d, 2 * PANEL);
                    }
                    for pair in 0..if min { UNIT / sub / 2 } else { 0 } {
                        let mins = mins.add(2 * (COLUMNS * pair + PANEL * p));
                        to(p, MINS + 2 * PANEL * pair).copy_from_nonoverlapping(mins, 2 * PANEL);
                    }
                }
            }
        }
    }
}

/// Codes (bytes up to 31) times scales (16 bits, up to 63) as bytes: (low, high) with 8·high + low.
#[inline(always)]
fn digits(codes: __m512i, scale: __m512i) -> (__m512i, __m512i) {
    // SAFETY: arithmetic alone; the features are the caller's. No product of two bytes leaves its byte.
    unsafe {
        let low = _mm512_mullo_epi16(codes, _mm512_and_si512(scale, _mm512_set1_epi16(7)));
        (low, _mm512_mullo_epi16(codes, _mm512_srli_epi16::<3>(scale)))
    }
}

/// Signed scales of the columns, for the even bytes and for the odd ones, and their products with the code of zero (16 bits).
struct Signed {
    even: __m512i,
    odd: __m512i,
    zero: __m512i,
}

impl Signed {
    #[inline(always)]
    fn new(scale: __m512i, zero: __m512i) -> Signed {
        // SAFETY: arithmetic alone; the features are the caller's.
        unsafe {
            Signed {
                even: _mm512_and_si512(scale, _mm512_set1_epi16(0xff)),
                odd: _mm512_slli_epi16::<8>(scale),
                zero: _mm512_mullo_epi16(scale, zero),
            }
        }
    }

    /// (Codes − zero) times scales as bytes: (low, high) with 64·high + low, low from 0 to 63.
    #[inline(always)]
    fn planes(&self, codes: __m512i) -> (__m512i, __m512i) {
        const ODD: __mmask64 = 0xaaaa_aaaa_aaaa_aaaa;
        // SAFETY: arithmetic alone; the features are the caller's.
        unsafe {
            let even = _mm512_sub_epi16(_mm512_maddubs_epi16(codes, self.even), self.zero);
            let odd = _mm512_sub_epi16(_mm512_maddubs_epi16(codes, self.odd), self.zero);
            let low = _mm512_mask_blend_epi8(ODD, even, _mm512_bslli_epi128::<1>(odd));
            let high = _mm512_mask_blend_epi8(ODD, _mm512_srai_epi16::<6>(even), _mm512_slli_epi16::<2>(odd));
            (_mm512_and_si512(low, _mm512_set1_epi8(63)), high)
        }
    }
}

/// Sums of four tiles, (rows, 16) each.
#[repr(C, align(64))]
struct Sums([[[i32; PANEL]; ROWS]; 4]);

/// Both planes of both panels against 16 rows over a unit: low and high sums of the first panel, then of the second.
/// `$dot` is the instruction for the planes' signs. The sums of `$sums` are 4 KiB. `$lines` lines of the unit that comes later
/// are asked for at [`ASKS`] places.
macro_rules! multiply {
    ($dot:literal, $x:expr, $w:expr, $sums:expr, $lines:expr, $ahead:expr) => {
        asm!(
            ".macro corella_ask",
            ".rept {lines}",
            "prefetcht1 [{ahead}]",
            "add {ahead}, 64",
            ".endr",
            ".endm",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            ".irp k, 0, 1, 2, 3",
            "tileloadd tmm4, [{x} + {row}*1 + 64*\\k]",
            "tileloadd tmm6, [{w0} + {line}*1 + 1024*\\k]",
            concat!($dot, " tmm0, tmm4, tmm6"),
            "corella_ask",
            "tileloadd tmm7, [{w0} + {line}*1 + 4096 + 1024*\\k]",
            concat!($dot, " tmm1, tmm4, tmm7"),
            "corella_ask",
            "tileloadd tmm6, [{w1} + {line}*1 + 1024*\\k]",
            concat!($dot, " tmm2, tmm4, tmm6"),
            "corella_ask",
            "tileloadd tmm7, [{w1} + {line}*1 + 4096 + 1024*\\k]",
            concat!($dot, " tmm3, tmm4, tmm7"),
            "corella_ask",
            ".endr",
            ".purgem corella_ask",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 1024], tmm1",
            "tilestored [{c} + {line}*1 + 2048], tmm2",
            "tilestored [{c} + {line}*1 + 3072], tmm3",
            x = in(reg) $x,
            row = in(reg) UNIT,
            w0 = in(reg) $w,
            w1 = in(reg) $w.wrapping_add(UNIT_BYTES),
            line = in(reg) VECTOR,
            c = in(reg) $sums,
            lines = const $lines,
            ahead = inout(reg) $ahead => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Both panels against 16 rows over a unit, block by block: f = Σ x's scale·(scale·I), then c += f. While the tiles of a block run,
/// those of the block two before it are brought to memory, and those of the block before that are scaled, some rows after each
/// instruction for tiles. `$lines` lines of the unit that comes later are asked for in each block.
///
/// The text is one block of assembly, because the sums f stay in vector registers, which the compiler uses between blocks. `$min` is
/// "1" where there are minima, else "0".
macro_rules! halves {
    ($step:expr, $space:expr, $min:literal, $lines:expr) => {
        asm!(
            // The scales of block b of the panel at w.
            ".macro corella_scales w, b",
            "vcvtph2ps zmm31, [\\w + 4096 + 32*\\b]",
            concat!(".if ", $min),
            "vcvtph2ps zmm30, [\\w + 4352 + 32*\\b]",
            ".endif",
            ".endm",
            // f += x's scale·(scale·I) of some rows, for the sums of block b, which register t brought to memory.
            ".macro corella_rows b, t, rows:vararg",
            ".irp r, \\rows",
            "vcvtdq2ps zmm16, [{space} + 1024*\\t + 64*\\r]",
            "vmulps zmm16, zmm16, zmm31",
            ".if \\b",
            "vfmadd231ps zmm\\r, zmm16, dword ptr [{side} + 64*\\r + 4*\\b + 32]{{1to16}}",
            ".else",
            "vmulps zmm\\r, zmm16, dword ptr [{side} + 64*\\r + 4*\\b + 32]{{1to16}}",
            ".endif",
            concat!(".if ", $min),
            "vfmadd231ps zmm\\r, zmm30, dword ptr [{side} + 64*\\r + 4*\\b]{{1to16}}",
            ".endif",
            ".endr",
            ".endm",
            // Asks for what lies behind ahead.
            ".macro corella_ask",
            ".rept {lines}",
            "prefetcht1 [{ahead}]",
            "add {ahead}, 64",
            ".endr",
            ".endm",
            // Block b of the panel at w on tiles: registers t for sums, x and y for the operands.
            ".macro corella_tiles w, b, t, x, y",
            "tileloadd tmm\\x, [{x} + {row}*1 + 32*\\b]",
            "tileloadd tmm\\y, [\\w + {line}*1 + 512*\\b]",
            "tilezero tmm\\t",
            "tdpbssd tmm\\t, tmm\\x, tmm\\y",
            "corella_ask",
            ".endm",
            // The sums of block d of the panel at v, which register s brought to memory.
            ".macro corella_all v, d, s",
            "corella_scales \\v, \\d",
            "corella_rows \\d, \\s, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            ".endm",
            // Both at once.
            ".macro corella_both w, b, t, x, y, v, d, s",
            "corella_tiles \\w, \\b, \\t, \\x, \\y",
            "corella_all \\v, \\d, \\s",
            ".endm",
            // c += f of panel p.
            ".macro corella_out p",
            ".irp r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
            "vaddps zmm16, zmm\\r, [{c} + 128*\\r + 64*\\p]",
            "vmovups [{c} + 128*\\r + 64*\\p], zmm16",
            ".endr",
            ".endm",
            "corella_tiles {w0}, 0, 0, 4, 6",
            "corella_tiles {w0}, 1, 1, 5, 7",
            "tilestored [{space} + {line}*1], tmm0",
            "corella_tiles {w0}, 2, 2, 4, 6",
            "tilestored [{space} + {line}*1 + 1024], tmm1",
            "corella_both {w0}, 3, 3, 5, 7, {w0}, 0, 0",
            "tilestored [{space} + {line}*1 + 2048], tmm2",
            "corella_both {w0}, 4, 0, 4, 6, {w0}, 1, 1",
            "tilestored [{space} + {line}*1 + 3072], tmm3",
            "corella_both {w0}, 5, 1, 5, 7, {w0}, 2, 2",
            "tilestored [{space} + {line}*1], tmm0",
            "corella_both {w0}, 6, 2, 4, 6, {w0}, 3, 3",
            "tilestored [{space} + {line}*1 + 1024], tmm1",
            "corella_both {w0}, 7, 3, 5, 7, {w0}, 4, 0",
            "tilestored [{space} + {line}*1 + 2048], tmm2",
            "corella_both {w1}, 0, 0, 4, 6, {w0}, 5, 1",
            "tilestored [{space} + {line}*1 + 3072], tmm3",
            "corella_both {w1}, 1, 1, 5, 7, {w0}, 6, 2",
            "tilestored [{space} + {line}*1], tmm0",
            "corella_both {w1}, 2, 2, 4, 6, {w0}, 7, 3",
            "corella_out 0",
            "tilestored [{space} + {line}*1 + 1024], tmm1",
            "corella_both {w1}, 3, 3, 5, 7, {w1}, 0, 0",
            "tilestored [{space} + {line}*1 + 2048], tmm2",
            "corella_both {w1}, 4, 0, 4, 6, {w1}, 1, 1",
            "tilestored [{space} + {line}*1 + 3072], tmm3",
            "corella_both {w1}, 5, 1, 5, 7, {w1}, 2, 2",
            "tilestored [{space} + {line}*1], tmm0",
            "corella_both {w1}, 6, 2, 4, 6, {w1}, 3, 3",
            "tilestored [{space} + {line}*1 + 1024], tmm1",
            "corella_both {w1}, 7, 3, 5, 7, {w1}, 4, 0",
            "tilestored [{space} + {line}*1 + 2048], tmm2",
            "corella_all {w1}, 5, 1",
            "tilestored [{space} + {line}*1 + 3072], tmm3",
            "corella_all {w1}, 6, 2",
            "corella_all {w1}, 7, 3",
            "corella_out 1",
            // The compiler does not see the registers' use: callers without AVX would wait for their upper halves.
            "vzeroupper",
            ".irp name, scales, rows, ask, tiles, all, both, out",
            ".purgem corella_\\name",
            ".endr",
            x = in(reg) $step.x,
            row = in(reg) UNIT,
            w0 = in(reg) $step.w,
            w1 = in(reg) $step.w.wrapping_add(UNIT_BYTES),
            line = in(reg) VECTOR,
            space = in(reg) $space,
            side = in(reg) $step.side,
            c = in(reg) $step.c,
            lines = const $lines,
            ahead = inout(reg) $step.ahead => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _, out("zmm6") _,
            out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _, out("zmm12") _,
            out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm30") _, out("zmm31") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// [`super::kernel::Kernel`] for [`ROWS`] rows and units as [`unpack`] writes them. `LINES` lines behind [`Step::ahead`] are asked
/// for at each of [`ASKS`] places.
///
/// # Safety
/// As there; [`begin`] was called on this thread for these scales; the processor has AVX-512 VNNI; rows of elements are
/// [`UNIT`] bytes apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn unit<const SCALES: u8, const LINES: usize>(step: &Step) {
    let layout = const { layout(EIGHT, SCALES) };
    let mut space = MaybeUninit::<Sums>::uninit();
    let space = space.as_mut_ptr().cast::<[[i32; PANEL]; ROWS]>();
    // SAFETY: everything below reads and writes inside the units, rows and sums that the caller promises, and the array above.
    unsafe {
        match layout.scales {
            Scales::Halves { min } => {
                const { assert!(Side::LEN == 16 && Side::SCALES_AT == 8) };
                debug_assert_eq!((step.c_row, step.side_row), (PAIR * PANEL, Side::LEN));
                if min {
                    halves!(step, space, "1", LINES);
                } else {
                    halves!(step, space, "0", LINES);
                }
            }
            Scales::Integers { sub, min } => {
                if min {
                    multiply!("tdpbsud", step.x, step.w, space, LINES, step.ahead);
                } else {
                    multiply!("tdpbssd", step.x, step.w, space, LINES, step.ahead);
                }
                for p in 0..PAIR {
                    let w = step.w.add(p * UNIT_BYTES);
                    let half = |at: usize| _mm512_cvtph_ps(_mm256_loadu_si256(w.add(at).cast()));
                    let (d, dmin) = (half(D), half(D + 2 * PANEL));
                    let [low, high] = [space.add(2 * p), space.add(2 * p + 1)].map(|tile| tile.cast::<__m512i>());
                    // Of each pair of runs, two numbers of 16 bits a column.
                    let pairs = if min { UNIT / sub / 2 } else { 0 };
                    let mut mins = [_mm512_setzero_si512(); MOST_PAIRS];
                    for (pair, mins) in mins[..pairs].iter_mut().enumerate() {
                        let bytes = _mm256_loadu_si256(w.add(MINS + 2 * PANEL * pair).cast());
                        *mins = _mm512_cvtepu8_epi16(bytes);
                    }
                    for r in 0..ROWS {
                        let (low, high) = (_mm512_load_si512(low.add(r)), _mm512_load_si512(high.add(r)));
                        let high = if min { _mm512_slli_epi32::<3>(high) } else { _mm512_slli_epi32::<6>(high) };
                        let total = _mm512_add_epi32(high, low);
                        let x_scale = _mm512_set1_ps(*step.x_scale.add(r));
                        let c = step.c.add(r * step.c_row + p * PANEL);
                        let scale = _mm512_mul_ps(d, x_scale);
                        let mut sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), scale, _mm512_loadu_ps(c));
                        if min {
                            let mut total = _mm512_setzero_si512();
                            for (pair, mins) in mins[..pairs].iter().enumerate() {
                                let x = _mm512_set1_epi32(*step.side.add(r * step.side_row + pair));
                                total = _mm512_dpwssd_epi32(total, *mins, x);
                            }
                            // The minima are subtracted.
                            sum = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(dmin, x_scale), sum);
                        }
                        _mm512_storeu_ps(c, sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::scratch::Scratch;
    use super::super::kernel;
    use super::super::layout::Codes;
    use super::super::pack::{half_at, pair_of};
    use super::*;
    use crate::cases::{Random, random_rows};
    use crate::quant::{WeightFormat, dequantize_row};

    /// Unpacking needs no tiles, so it is judged on any processor with AVX-512.
    #[test]
    fn a_unit_for_tiles_holds_the_weights_of_its_rows() {
        if !(is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")) {
            return println!("skipped: no AVX-512");
        }
        for format in WeightFormat::ALL {
            let Some(layout) = Layout::of(format) else { continue };
            for blocks in if format.block_len() == UNIT { vec![BLOCKS] } else { vec![BLOCKS, 3] } {
                judge(format, layout, blocks);
            }
        }
    }

    fn judge(format: WeightFormat, layout: Layout, blocks: usize) {
        let cols = blocks * BLOCK;
        let rows = random_rows(&mut Random::new(5), format, COLUMNS, cols);
        let row = |column: usize| &rows[column * rows.len() / COLUMNS..][..rows.len() / COLUMNS];
        let pair = pair_of(format, &rows, cols);
        let mut space: Scratch<u8> = Scratch::new(PAIR * UNIT_BYTES);
        let (from, to) = (pair.as_ptr(), space.as_mut_ptr());
        // SAFETY: the unit of a pair, and room for two of tiles; the features were detected.
        unsafe {
            match layout.codes {
                Codes::Four => unpack::<{ kernel::FOUR }>(layout, from, to, blocks, from),
                Codes::Table => unpack::<{ kernel::TABLE }>(layout, from, to, blocks, from),
                Codes::Five => unpack::<{ kernel::FIVE }>(layout, from, to, blocks, from),
                Codes::Six => unpack::<{ kernel::SIX }>(layout, from, to, blocks, from),
                Codes::Eight => unpack::<EIGHT>(layout, from, to, blocks, from),
            }
        }
        for (column, k) in (0..COLUMNS).flat_map(|column| (0..UNIT).map(move |k| (column, k))) {
            let (panel, lane) = (&space[column / PANEL * UNIT_BYTES..][..UNIT_BYTES], column % PANEL);
            let code = |plane: usize| i32::from(panel[plane + k / 4 * VECTOR + 4 * lane + k % 4] as i8);
            let unsigned = |plane: usize| i32::from(panel[plane + k / 4 * VECTOR + 4 * lane + k % 4]);
            let value = match layout.scales {
                Scales::Halves { min } => {
                    let at = SECOND + 2 * (k / BLOCK * PANEL + lane);
                    let least = if min { half_at(panel, at + NUMBERS) } else { 0.0 };
                    half_at(panel, at) * code(0) as f32 + least
                }
                Scales::Integers { min: false, .. } => {
                    (64 * code(SECOND) + code(0)) as f32 * half_at(panel, D + 2 * lane)
                }
                Scales::Integers { sub, .. } => {
                    let run = k / sub;
                    let min = panel[MINS + 2 * (run / 2 * PANEL + lane) + run % 2];
                    (8 * unsigned(SECOND) + unsigned(0)) as f32 * half_at(panel, D + 2 * lane)
                        - f32::from(min) * half_at(panel, D + 2 * (PANEL + lane))
                }
            };
            let mut expected = vec![0.0; cols];
            dequantize_row(format, row(column), &mut expected);
            let value = value * layout.unit();
            let expected = expected.get(k).copied().unwrap_or(0.0);
            let name = format.name();
            assert!((value - expected).abs() <= 1e-5, "{name}, column {column}, k {k}: {value} is not {expected}");
        }
    }
}
