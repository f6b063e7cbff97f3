//! Packing of bfloat16 operands: rows of tiles with whole steps of k for A, panels of interleaved pairs for B.

use std::arch::x86_64::{
    __m512i, _mm256_maskz_loadu_epi16, _mm512_cvtepu16_epi32, _mm512_maskz_loadu_epi16, _mm512_or_si512,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use std::ops::Range;

use super::kernel::{NR, STEP};
use crate::cpu::bf16::Bf16;
use crate::cpu::gemm::Workers;
use crate::cpu::pack::Operand;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;

/// Outer indices that are transposed together.
const GROUP: usize = 16;

/// A 32-bit mask of the first `n` elements.
fn first(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// Rows become columns: dword i of vector j becomes dword j of vector i.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows by dwords, then pairs of pairs by quadwords: lane l of u[4g + c] is column 4l + c of rows 4g .. 4g+4.
    let mut u = [_mm512_setzero_si512(); 16];
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
    let mut out = [_mm512_setzero_si512(); 16];
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

/// Up to 16 outer indices of one step of an operand whose rows are outer indices: vector i holds the 32 numbers of row
/// `outer` + i, zero beyond the operand.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_rows(from: Operand<'_, Bf16>, outer: usize, end: usize, k0: usize, k: usize) -> [__m512i; 16] {
    let mut rows = [_mm512_setzero_si512(); 16];
    let width = STEP.min(k - k0);
    for (i, row) in rows.iter_mut().enumerate().take(end - outer) {
        let numbers = &from.row(outer + i)[k0..k0 + width];
        // SAFETY: the mask covers `width` numbers, the length of the slice.
        *row = unsafe { _mm512_maskz_loadu_epi16(first(width), numbers.as_ptr().cast()) };
    }
    rows
}

/// Up to 16 outer indices of one step of an operand whose columns are outer indices: vector p holds pairs k0 + 2p,
/// k0 + 2p + 1 of outer indices `outer` .. , zero beyond the operand.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_columns(from: Operand<'_, Bf16>, outer: usize, end: usize, k0: usize, k: usize) -> [__m512i; 16] {
    let width = GROUP.min(end - outer);
    let load = |row: usize| {
        if row >= k || width == 0 {
            return _mm512_setzero_si512();
        }
        let numbers = &from.row(row)[outer..outer + width];
        // SAFETY: the mask covers `width` numbers, the length of the slice.
        let numbers = unsafe { _mm256_maskz_loadu_epi16(first(width) as u16, numbers.as_ptr().cast()) };
        _mm512_cvtepu16_epi32(numbers)
    };
    let mut pairs = [_mm512_setzero_si512(); 16];
    for (p, pair) in pairs.iter_mut().enumerate() {
        let (low, high) = (load(k0 + 2 * p), load(k0 + 2 * p + 1));
        *pair = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
    }
    pairs
}

/// A step of a group of 16 outer indices as pairs (p, outer), or as rows (outer, 32).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load(from: Operand<'_, Bf16>, outer: usize, end: usize, k0: usize, k: usize, as_pairs: bool) -> [__m512i; 16] {
    match (from.by_columns(), as_pairs) {
        (true, true) => load_columns(from, outer, end, k0, k),
        (true, false) => transpose(load_columns(from, outer, end, k0, k)),
        (false, true) => transpose(load_rows(from, outer, end, k0, k)),
        (false, false) => load_rows(from, outer, end, k0, k),
    }
}

/// Stores 32 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [Bf16], x: __m512i) {
    let to = &mut to[..32];
    // SAFETY: 32 numbers are 64 bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
}

/// The B operand in panels of NR outer indices: panel after panel, (k/2, NR, 2) inside, k padded to whole steps.
pub struct PackedRight {
    data: Scratch<Bf16>,
    /// Outer indices.
    pub outer: usize,
    /// Inner size, padded.
    pub k: usize,
}

impl PackedRight {
    /// Packs `outer` × `k` of an operand.
    pub fn new(workers: Workers<'_>, from: Operand<'_, Bf16>, outer: usize, k: usize) -> PackedRight {
        let (panels, padded) = (outer.div_ceil(NR), k.next_multiple_of(STEP));
        let mut data = Scratch::new(panels * NR * padded);
        let to = SharedMut::new(&mut data);
        workers.run(panels, &|panel| {
            // SAFETY: the panel that belongs to this task.
            let to = unsafe { to.part(panel * NR * padded, NR * padded) };
            // SAFETY: this module is used on paths with these features only.
            unsafe { pack_panel(to, from, panel * NR, outer, k) };
        });
        PackedRight { data, outer, k: padded }
    }

    /// The panel that holds outer indices from `panel`·NR on.
    pub fn panel(&self, panel: usize) -> &[Bf16] {
        &self.data[panel * NR * self.k..][..NR * self.k]
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_panel(to: &mut [Bf16], from: Operand<'_, Bf16>, outer: usize, end: usize, k: usize) {
    for (step, to) in to.chunks_exact_mut(STEP * NR).enumerate() {
        for half in 0..NR / GROUP {
            let outer = outer + half * GROUP;
            let end = end.min(outer + GROUP).max(outer);
            let pairs = load(from, outer, end, step * STEP, k, true);
            for (to, pair) in to.chunks_exact_mut(2 * NR).zip(pairs) {
                store(&mut to[half * 2 * GROUP..], pair);
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
    for group in (0..rows).step_by(GROUP) {
        let first = outer.start + group;
        let end = outer.end.clamp(first, first + GROUP);
        for step in 0..steps {
            let vectors = load(from, first, end, stretch.start + step * STEP, k, false);
            for (i, vector) in vectors.into_iter().enumerate().take(rows - group) {
                let (tile, row) = ((group + i) / mr, (group + i) % mr);
                store(&mut to[((tile * steps + step) * mr + row) * STEP..], vector);
            }
        }
    }
}
