//! Packing of bfloat16 operands: rows of tiles with whole steps of k for A, panels of interleaved pairs for B.
//!
//! The helpers are inlined into the loops that call them: a block of 16 registers that is handed over in memory costs as much
//! as what is done to it.

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_loadu_si512, _mm512_maskz_loadu_epi16, _mm512_permutex2var_epi64,
    _mm512_set_epi64, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi16,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi16, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use std::ops::Range;

use super::kernel::{NR, STEP};
use crate::cpu::bf16::Bf16;
use crate::cpu::gemm::Workers;
use crate::cpu::pack::Operand;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;

/// Outer indices that are transposed together, and pairs of a step.
const GROUP: usize = 16;
/// Numbers of a panel's step: (STEP/2, NR, 2).
const BLOCK: usize = STEP * NR;

/// A group's step: 16 registers of 32 numbers.
pub type Square = [__m512i; GROUP];

/// A 32-bit mask of the first `n` elements.
#[inline(always)]
fn first(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// Rows become columns: dword i of vector j becomes dword j of vector i.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub unsafe fn transpose(r: Square) -> Square {
    // SAFETY: the caller's promise.
    unsafe {
        // Pairs of rows by dwords, then pairs of pairs by quadwords: lane l of u[4g + c] is column 4l + c of rows 4g .. 4g+4.
        let mut u = [_mm512_setzero_si512(); GROUP];
        for g in 0..4 {
            let [a, b, c, d] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            u[4 * g] = _mm512_unpacklo_epi64(ab_low, cd_low);
            u[4 * g + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            u[4 * g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            u[4 * g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        // Then the four lanes of four vectors are a matrix of their own.
        let mut out = [_mm512_setzero_si512(); GROUP];
        for c in 0..4 {
            let [a, b, d, e] = [u[c], u[4 + c], u[8 + c], u[12 + c]];
            let (even_low, odd_low) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (even_high, odd_high) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
            out[c] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
            out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
        }
        out
    }
}

/// Numbers `at` .. `at` + `width` ≤ 32 of row `row` of the matrix in memory, zeros behind them.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn load_part(from: Operand<'_, Bf16>, row: usize, at: usize, width: usize) -> __m512i {
    let numbers = &from.row(row)[at..at + width];
    // SAFETY: the mask covers `width` numbers, the length of the slice; the features are the caller's promise.
    unsafe { _mm512_maskz_loadu_epi16(first(width), numbers.as_ptr().cast()) }
}

/// Up to 16 outer indices of one step of an operand whose rows are outer indices: vector i holds the 32 numbers of row
/// `outer` + i, zero beyond the operand.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn load_rows(from: Operand<'_, Bf16>, outer: usize, end: usize, k0: usize, k: usize) -> Square {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [_mm512_setzero_si512(); GROUP];
        for (i, row) in rows.iter_mut().enumerate().take(end.saturating_sub(outer)) {
            *row = load_part(from, outer + i, k0, STEP.min(k - k0));
        }
        rows
    }
}

/// Pair `pair` of a step from `k0` on, of up to 32 outer indices of an operand whose columns are outer indices: numbers of
/// rows k0 + 2·pair and the next, side by side, of 16 outer indices each; zero beyond the operand. Asks for the same rows of
/// the next step: they lie far apart, where no hardware looks ahead.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn load_pair(
    from: Operand<'_, Bf16>,
    outer: usize,
    end: usize,
    (k0, pair): (usize, usize),
    k: usize,
) -> [__m512i; 2] {
    // SAFETY: the caller's promise; a prefetch may point anywhere.
    unsafe {
        let (width, row) = (end.saturating_sub(outer).min(NR), k0 + 2 * pair);
        let mut rows = [_mm512_setzero_si512(); 2];
        for (i, numbers) in rows.iter_mut().enumerate() {
            if row + i < k && width > 0 {
                *numbers = load_part(from, row + i, outer, width);
                let ahead = from.row(row + i)[outer..].as_ptr().wrapping_add(STEP * from.width());
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
        }
        let [low, high] = rows;
        paired(low, high)
    }
}

/// The numbers of two rows side by side: of the first 16 outer indices, and of the others.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn paired(low: __m512i, high: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        // Lane l: outer indices 8l .. 8l + 4 of one, 8l + 4 .. 8l + 8 of the other.
        let (a, b) = (_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high));
        [
            _mm512_permutex2var_epi64(a, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), b),
            _mm512_permutex2var_epi64(a, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), b),
        ]
    }
}

/// Stores 32 numbers.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn store(to: &mut [Bf16], x: __m512i) {
    let to = &mut to[..32];
    // SAFETY: 32 numbers are 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
}

/// A B operand in panels of NR outer indices: panel after panel, (k/2, NR, 2) inside, k padded to whole steps.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    data: &'a [Bf16],
    /// Outer indices.
    pub outer: usize,
    /// Inner size, padded.
    pub k: usize,
}

impl<'a> Panels<'a> {
    /// Panels that lie in `data`; `k` is padded.
    pub fn new(data: &'a [Bf16], outer: usize, k: usize) -> Panels<'a> {
        assert!(k.is_multiple_of(STEP) && data.len() >= outer.div_ceil(NR) * NR * k, "panels of {outer}×{k}");
        Panels { data, outer, k }
    }

    /// The panel that holds outer indices from `panel`·NR on.
    pub fn panel(self, panel: usize) -> &'a [Bf16] {
        &self.data[panel * NR * self.k..][..NR * self.k]
    }
}

/// Panels in working memory: of an operand that is packed for one product.
pub struct PackedRight {
    data: Scratch<Bf16>,
    outer: usize,
    k: usize,
}

impl PackedRight {
    /// Packs `outer` × `k` of an operand.
    pub fn new(workers: Workers<'_>, from: Operand<'_, Bf16>, outer: usize, k: usize) -> PackedRight {
        let (panels, padded) = (outer.div_ceil(NR), k.next_multiple_of(STEP));
        let mut data = Scratch::new(panels * NR * padded);
        let to = SharedMut::new(&mut data);
        if from.by_columns() {
            // Steps by themselves: their rows are read whole, one after the other.
            let steps = padded / STEP;
            let share = steps.div_ceil(4 * workers.threads()).max(1);
            workers.run(steps.div_ceil(share), &|task| {
                for step in task * share..((task + 1) * share).min(steps) {
                    for panel in 0..panels {
                        // SAFETY: this step of every panel belongs to this task.
                        let to = unsafe { to.part(panel * NR * padded + step * BLOCK, BLOCK) };
                        // SAFETY: this module is used on paths with these features only.
                        unsafe { pack_columns(to, from, panel * NR, outer, step * STEP, k) };
                    }
                }
            });
        } else {
            workers.run(panels, &|panel| {
                // SAFETY: the panel that belongs to this task.
                let to = unsafe { to.part(panel * NR * padded, NR * padded) };
                // SAFETY: this module is used on paths with these features only.
                unsafe { pack_rows(to, from, panel * NR, outer, k) };
            });
        }
        PackedRight { data, outer, k: padded }
    }

    /// The panels.
    pub fn panels(&self) -> Panels<'_> {
        Panels { data: &self.data, outer: self.outer, k: self.k }
    }

    /// See [`Panels::panel`].
    pub fn panel(&self, panel: usize) -> &[Bf16] {
        self.panels().panel(panel)
    }
}

/// One step from `k0` on of the panel from `outer` on, of an operand whose columns are outer indices.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn pack_columns(to: &mut [Bf16], from: Operand<'_, Bf16>, outer: usize, end: usize, k0: usize, k: usize) {
    for (pair, to) in to.chunks_exact_mut(2 * NR).enumerate() {
        // SAFETY: the function's features.
        unsafe {
            let [low, high] = load_pair(from, outer, end, (k0, pair), k);
            store(to, low);
            store(&mut to[2 * GROUP..], high);
        }
    }
}

/// A whole panel from `outer` on, of an operand whose rows are outer indices.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn pack_rows(to: &mut [Bf16], from: Operand<'_, Bf16>, outer: usize, end: usize, k: usize) {
    for (step, to) in to.chunks_exact_mut(BLOCK).enumerate() {
        for half in 0..NR / GROUP {
            let outer = outer + half * GROUP;
            // SAFETY: the function's features.
            unsafe {
                let pairs = transpose(load_rows(from, outer, end.min(outer + GROUP), step * STEP, k));
                for (to, pair) in to.chunks_exact_mut(2 * NR).zip(pairs) {
                    store(&mut to[half * 2 * GROUP..], pair);
                }
            }
        }
    }
}

/// Outer indices from `outer.start` on, and numbers `stretch` of k, of the A operand, in tiles of `mr` rows:
/// (tile, step, mr, STEP). Rows from `outer.end` on, and k from `k` on, are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn pack_left(
    to: &mut [Bf16],
    from: Operand<'_, Bf16>,
    mr: usize,
    outer: Range<usize>,
    stretch: Range<usize>,
    k: usize,
) {
    let steps = stretch.len() / STEP;
    let rows = to.len() / stretch.len();
    // Steps outside: their rows in memory are read in long pieces. Where outer indices are rows, these are the pieces.
    let groups = rows.div_ceil(2 * GROUP);
    for i in 0..groups * steps {
        let (group, step) = if from.by_columns() { (i % groups, i / groups) } else { (i / steps, i % steps) };
        let (first, k0) = (outer.start + 2 * GROUP * group, stretch.start + step * STEP);
        if mr == 2 * GROUP && first + mr <= outer.end && k0 + STEP <= k {
            pack_left_whole(&mut to[(group * steps + step) * mr * STEP..][..mr * STEP], from, first, k0);
            continue;
        }
        pack_left_block(to, from, (mr, steps), 2 * GROUP * group, step, &outer, stretch.start, k);
    }
}

/// A whole step, from `k0` on, of a tile of 32 rows from `first` on, see [`pack_left`]. Asks for the next.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_left_whole(to: &mut [Bf16], from: Operand<'_, Bf16>, first: usize, k0: usize) {
    let (width, by_columns) = (from.width(), from.by_columns());
    let (row, column, ahead) = if by_columns { (k0, first, STEP * width) } else { (first, k0, STEP) };
    let numbers = &from.row(row)[column..][..(2 * GROUP - 1) * width + STEP];
    let line = |row: usize| {
        let line = numbers[row * width..][..STEP].as_ptr();
        // SAFETY: a vector inside the slice; a prefetch may point anywhere; the function's features.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
            _mm512_loadu_si512(line.cast())
        }
    };
    // SAFETY: the function's features.
    unsafe {
        if !by_columns {
            to.chunks_exact_mut(STEP).enumerate().for_each(|(row, to)| store(to, line(row)));
            return;
        }
        let mut halves = [[_mm512_setzero_si512(); GROUP]; 2];
        let [low, high] = &mut halves;
        for (pair, (low, high)) in low.iter_mut().zip(high).enumerate() {
            [*low, *high] = paired(line(2 * pair), line(2 * pair + 1));
        }
        for (half, to) in halves.into_iter().zip(to.chunks_exact_mut(GROUP * STEP)) {
            transpose(half).into_iter().zip(to.chunks_exact_mut(STEP)).for_each(|(x, to)| store(to, x));
        }
    }
}

/// One step of up to 32 rows from `group` on, see [`pack_left`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_left_block(
    to: &mut [Bf16],
    from: Operand<'_, Bf16>,
    (mr, steps): (usize, usize),
    group: usize,
    step: usize,
    outer: &Range<usize>,
    start: usize,
    k: usize,
) {
    let (rows, k0) = (to.len() / (steps * STEP), start + step * STEP);
    let (first, end) = (outer.start + group, outer.end);
    let mut square = [[_mm512_setzero_si512(); GROUP]; 2];
    // SAFETY: the function's features.
    unsafe {
        if from.by_columns() {
            let [low, high] = &mut square;
            for (pair, (low, high)) in low.iter_mut().zip(high).enumerate() {
                [*low, *high] = load_pair(from, first, end, (k0, pair), k);
            }
            square = [transpose(square[0]), transpose(square[1])];
        } else {
            let middle = first + GROUP;
            square = [
                load_rows(from, first, end.min(middle), k0, k),
                load_rows(from, middle, end.min(middle + GROUP), k0, k),
            ];
        }
    }
    let (mut tile, mut row) = (group / mr, group % mr);
    for half in &square {
        for x in half {
            if tile * mr + row >= rows {
                return;
            }
            // SAFETY: the function's features.
            unsafe { store(&mut to[((tile * steps + step) * mr + row) * STEP..], *x) };
            row += 1;
            if row == mr {
                (tile, row) = (tile + 1, 0);
            }
        }
    }
}
