//! Packing of f32 operands as three parts in bfloat16.
//!
//! A pair of a step is k and k + 16: so two vectors of 16 numbers become 16 pairs without being shuffled, in lines of A as in those
//! of B.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_loadu_ps, _mm512_range_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_srli_epi32,
    _mm512_storeu_si512, _mm512_sub_ps, _mm512_ternarylogic_epi32,
};
use std::array::from_fn;
use std::ops::Range;

use super::kernel::{SIDE, STEP_LEN};
use crate::cpu::bf16::Bf16;
use crate::cpu::dot::kernel::STEP;
use crate::cpu::dot::pack::{Square, transpose};
use crate::cpu::pack::Operand;

/// Numbers of a vector, and how far the two numbers of a pair are apart.
const LANES: usize = 16;
/// Numbers of a row that are asked for ahead.
const AHEAD: usize = 2 * STEP;
/// Numbers of one part of a step.
const PART: usize = SIDE * STEP;
/// The bits of a number that one in bfloat16 has.
const UPPER: i32 = 0xffff_0000_u32 as i32;

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
#[target_feature(enable = "avx512f,avx512dq")]
pub fn block(role: Role, to: &mut [Bf16], from: Operand<'_, f32>, outer: Range<usize>, ks: Range<usize>) {
    if outer.len() == SIDE && ks.len() == STEP {
        return whole(role, to, from, outer.start, ks.start);
    }
    let (rows, columns) = if from.by_columns() { (ks, outer) } else { (outer, ks) };
    let mut square = [[0.0; STEP]; SIDE];
    for (row, to) in rows.zip(&mut square) {
        to[..columns.len()].copy_from_slice(&from.row(row)[columns.clone()]);
    }
    let numbers = square.as_flattened();
    let inside = if from.by_columns() { Operand::columns(numbers, SIDE) } else { Operand::rows(numbers, STEP) };
    whole(role, to, inside, 0, 0);
}

/// Packs SIDE outer indices from `outer` on by STEP of k from `k` on. Asks for what is packed next: rows of the matrix in memory lie
/// far apart, where no hardware looks ahead.
#[target_feature(enable = "avx512f,avx512dq")]
fn whole(role: Role, to: &mut [Bf16], from: Operand<'_, f32>, outer: usize, k: usize) {
    const { assert!(SIDE == STEP && STEP == 2 * LANES) };
    let to: &mut [Bf16; STEP_LEN] = (&mut to[..STEP_LEN]).try_into().expect("a step");
    let (width, by_columns) = (from.width(), from.by_columns());
    let (row, column, ahead) = if by_columns { (k, outer, STEP * width) } else { (outer, k, AHEAD) };
    let numbers = &from.row(row)[column..][..(STEP - 1) * width + STEP];
    let line = |row: usize, column: usize| {
        let line = numbers[row * width + column..][..LANES].as_ptr();
        // SAFETY: a vector inside the slice; a prefetch may point anywhere; the function's features.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
            _mm512_loadu_ps(line)
        }
    };
    for half in [0, LANES] {
        // SAFETY: the function's features.
        unsafe {
            match (role, by_columns) {
                (Role::Left, false) => {
                    for i in half..half + LANES {
                        store(to, i * STEP, parts(line(i, 0), line(i, LANES)));
                    }
                }
                (Role::Right, true) => {
                    for i in 0..LANES {
                        store(to, (i * SIDE + half) * 2, parts(line(i, half), line(i + LANES, half)));
                    }
                }
                (Role::Left, true) => {
                    let near = turned(from_fn(|i| line(i, half)));
                    let far = turned(from_fn(|i| line(i + LANES, half)));
                    for i in 0..LANES {
                        store(to, (half + i) * STEP, parts(near[i], far[i]));
                    }
                }
                (Role::Right, false) => {
                    let near = turned(from_fn(|i| line(half + i, 0)));
                    let far = turned(from_fn(|i| line(half + i, LANES)));
                    for i in 0..LANES {
                        store(to, (i * SIDE + half) * 2, parts(near[i], far[i]));
                    }
                }
            }
        }
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

/// The upper, middle and lower part of 16 numbers, each in the upper half of 32 bits; the lower half of the lower part holds
/// something else where a part is too small for bfloat16.
///
/// # Safety
/// AVX-512 F and DQ.
#[inline(always)]
unsafe fn split(x: __m512) -> [__m512i; 3] {
    /// The largest that rounds to a finite number: what is cut off stays for the other parts, and an infinity for the last one, NaN.
    const LARGEST: f32 = f32::from_bits(0x7f7f_7fff);
    /// The smaller in magnitude, with the sign of the first; of two, one of them NaN, the other.
    const NEARER: i32 = 0b0010;
    // SAFETY: the caller's promise.
    unsafe {
        let (half, mask) = (_mm512_set1_epi32(0x8000), _mm512_set1_epi32(UPPER));
        let rounded = |x| _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), mask);
        let upper = rounded(_mm512_range_ps::<NEARER>(x, _mm512_set1_ps(LARGEST)));
        let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(upper));
        let middle = rounded(rest);
        let lower = _mm512_sub_ps(rest, _mm512_castsi512_ps(middle));
        [upper, middle, _mm512_castps_si512(lower)]
    }
}

/// 16 numbers and those that they make pairs with as three parts, 16 pairs each.
///
/// # Safety
/// AVX-512 F and DQ.
#[inline(always)]
unsafe fn parts(near: __m512, far: __m512) -> [__m512i; 3] {
    /// a | b & c.
    const JOINED: i32 = 0xf8;
    // SAFETY: the caller's promise.
    unsafe {
        let (near, far, mask) = (split(near), split(far), _mm512_set1_epi32(UPPER));
        from_fn(|part| _mm512_ternarylogic_epi32::<JOINED>(_mm512_srli_epi32::<16>(near[part]), far[part], mask))
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
