//! Packing of f32 operands as three parts in bfloat16.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_castsi512_ps, _mm512_castsi512_si256,
    _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_extracti64x4_epi64, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_or_si512, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::ops::Range;

use super::kernel::{SIDE, STEP_LEN};
use crate::cpu::bf16::Bf16;
use crate::cpu::dot::kernel::STEP;
use crate::cpu::dot::pack::{Square, transpose};
use crate::cpu::pack::Operand;

/// Numbers of a vector.
const LANES: usize = 16;
/// Numbers of a row that are asked for ahead.
const AHEAD: usize = 2 * STEP;
/// Numbers of one part of a step.
const PART: usize = SIDE * STEP;

/// What an operand is in a product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A: its outer indices are rows of the result.
    Left,
    /// B: its outer indices are columns of the result.
    Right,
}

impl Role {
    /// What belongs to this role and to the other, A's first.
    pub fn in_order<T>(self, own: T, other: T) -> (T, T) {
        match self {
            Role::Left => (own, other),
            Role::Right => (other, own),
        }
    }
}

/// Packs up to SIDE outer indices by up to STEP of k; zeros beyond.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub fn block(role: Role, to: &mut [Bf16], from: Operand<'_, f32>, outer: Range<usize>, ks: Range<usize>) {
    let to: &mut [Bf16; STEP_LEN] = (&mut to[..STEP_LEN]).try_into().expect("a step");
    for half in 0..2 {
        let (first, k) = (outer.start + half * LANES, ks.start);
        let (lower, upper) = (k..ks.end.min(k + LANES), k + LANES..ks.end.max(k + LANES));
        let outer = first..outer.end.max(first).min(first + LANES);
        // SAFETY: the function's features; a line of each part of the step, inside `to`.
        unsafe {
            match role {
                Role::Left => {
                    let (low, high) = (by_outer(from, &outer, &lower), by_outer(from, &outer, &upper));
                    for i in 0..LANES {
                        store(to, (half * LANES + i) * STEP, row_parts(low[i], high[i]));
                    }
                }
                Role::Right => {
                    for (i, ks) in [lower, upper].iter().enumerate() {
                        let rows = by_k(from, &outer, ks);
                        for pair in 0..LANES / 2 {
                            let at = ((i * LANES / 2 + pair) * SIDE + half * LANES) * 2;
                            store(to, at, pair_parts(rows[2 * pair], rows[2 * pair + 1]));
                        }
                    }
                }
            }
        }
    }
}

/// Up to 16 outer indices by up to 16 k: vector i holds outer index i.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn by_outer(from: Operand<'_, f32>, outer: &Range<usize>, ks: &Range<usize>) -> [__m512; LANES] {
    // SAFETY: the caller's promise.
    unsafe { if from.by_columns() { turned(lines(from, ks, outer)) } else { lines(from, outer, ks) } }
}

/// The same where vector i holds k index i.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn by_k(from: Operand<'_, f32>, outer: &Range<usize>, ks: &Range<usize>) -> [__m512; LANES] {
    // SAFETY: the caller's promise.
    unsafe { if from.by_columns() { lines(from, ks, outer) } else { turned(lines(from, outer, ks)) } }
}

/// Up to 16 rows by up to 16 columns of the matrix in memory, zeros beyond. Asks for what is packed next: rows lie far apart,
/// where no hardware looks ahead.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn lines(from: Operand<'_, f32>, rows: &Range<usize>, columns: &Range<usize>) -> [__m512; LANES] {
    let mask = ((1u32 << columns.len()) - 1) as u16;
    let ahead = if from.by_columns() { STEP * from.width() } else { AHEAD };
    // SAFETY: the mask covers the slice; a prefetch may point anywhere.
    unsafe {
        let mut square = [_mm512_setzero_ps(); LANES];
        if columns.is_empty() {
            return square;
        }
        if rows.len() == LANES && columns.len() == LANES {
            let (first, width) = (&from.row(rows.start)[columns.start..], from.width());
            assert!(first.len() >= (LANES - 1) * width + LANES);
            for (i, numbers) in square.iter_mut().enumerate() {
                let row = first.as_ptr().add(i * width);
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(ahead).cast());
                *numbers = _mm512_loadu_ps(row);
            }
            return square;
        }
        for (i, numbers) in square.iter_mut().enumerate().take(rows.len()) {
            let row = &from.row(rows.start + i)[columns.clone()];
            _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(ahead).cast());
            *numbers = _mm512_maskz_loadu_ps(mask, row.as_ptr());
        }
        square
    }
}

/// Rows become columns.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn turned(square: [__m512; LANES]) -> [__m512; LANES] {
    // SAFETY: registers of the same size, for which any bits are numbers; the caller's promise.
    unsafe { std::mem::transmute(transpose(std::mem::transmute::<[__m512; LANES], Square>(square))) }
}

/// x within what rounds to a finite number: what is cut off stays for the other parts, and an infinity for the last one, NaN.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn clamped(x: __m512) -> __m512 {
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);
    // SAFETY: the caller's promise. Of two operands, one of them NaN, the second is taken.
    unsafe { _mm512_max_ps(_mm512_set1_ps(-LARGEST), _mm512_min_ps(_mm512_set1_ps(LARGEST), x)) }
}

/// 16 numbers in BF16 as f32.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn wide(numbers: __m256i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers))) }
}

/// 32 numbers of a row, rounded, and what is left of them.
///
/// # Safety
/// AVX-512 F and BF16.
#[inline(always)]
unsafe fn row_part(low: __m512, high: __m512, clamp: bool) -> (__m512i, __m512, __m512) {
    // SAFETY: the caller's promise; a register of BF16 is one of bits.
    unsafe {
        let (a, b) = if clamp { (clamped(low), clamped(high)) } else { (low, high) };
        let part: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(b, a));
        let (a, b) = (wide(_mm512_castsi512_si256(part)), wide(_mm512_extracti64x4_epi64::<1>(part)));
        (part, _mm512_sub_ps(low, a), _mm512_sub_ps(high, b))
    }
}

/// 32 numbers of a row as three parts, 32 numbers each.
///
/// # Safety
/// AVX-512 F and BF16.
#[inline(always)]
unsafe fn row_parts(low: __m512, high: __m512) -> [__m512i; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let (upper, low, high) = row_part(low, high, true);
        let (middle, low, high) = row_part(low, high, false);
        let (lower, _, _) = row_part(low, high, false);
        [upper, middle, lower]
    }
}

/// 16 numbers of one k and of the next, rounded, as pairs, and what is left of them.
///
/// # Safety
/// AVX-512 F and BF16.
#[inline(always)]
unsafe fn pair_part(even: __m512, odd: __m512, clamp: bool) -> (__m512i, __m512, __m512) {
    // SAFETY: the caller's promise; a register of BF16 is one of bits.
    unsafe {
        let (a, b) = if clamp { (clamped(even), clamped(odd)) } else { (even, odd) };
        let a = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(a)));
        let b = _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(b)));
        let (a_wide, b) = (_mm512_slli_epi32::<16>(a), _mm512_slli_epi32::<16>(b));
        let (rest_a, rest_b) =
            (_mm512_sub_ps(even, _mm512_castsi512_ps(a_wide)), _mm512_sub_ps(odd, _mm512_castsi512_ps(b)));
        (_mm512_or_si512(a, b), rest_a, rest_b)
    }
}

/// 16 numbers of one k and of the next as three parts, 16 pairs each.
///
/// # Safety
/// AVX-512 F and BF16.
#[inline(always)]
unsafe fn pair_parts(even: __m512, odd: __m512) -> [__m512i; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let (upper, even, odd) = pair_part(even, odd, true);
        let (middle, even, odd) = pair_part(even, odd, false);
        let (lower, _, _) = pair_part(even, odd, false);
        [upper, middle, lower]
    }
}

/// Stores a line of each part of a step.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn store(to: &mut [Bf16; STEP_LEN], at: usize, parts: [__m512i; 3]) {
    for (part, x) in parts.into_iter().enumerate() {
        let line = &mut to[part * PART + at..][..2 * LANES];
        // SAFETY: 32 numbers are 64 bytes.
        unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), x) };
    }
}
