//! Products of small blocks that lie in the caches: nothing is packed, one operand is read number by number.

use crate::cpu::simd::{Simd, with_simd};

/// A block c (rows, columns) that a product is added to.
#[derive(Clone, Copy)]
pub struct Block {
    /// First number.
    pub at: *mut f32,
    /// Distance of rows.
    pub row: usize,
    /// Rows.
    pub rows: usize,
    /// Columns; a multiple of the path's register.
    pub columns: usize,
}

/// The operand that is read number by number: a[i, k] = at[i·row + k·step].
#[derive(Clone, Copy)]
pub struct Single {
    /// First number.
    pub at: *const f32,
    /// Distance of rows of the result.
    pub row: usize,
    /// Distance of steps of the inner index.
    pub step: usize,
}

/// The operand that is read in registers: b[k, j] = at[k·row + j].
#[derive(Clone, Copy)]
pub struct Rows {
    /// First number.
    pub at: *const f32,
    /// Distance of steps of the inner index.
    pub row: usize,
}

/// What a block holds before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that counts.
    Zero,
    /// Sums to add to.
    Sums,
    /// Sums to add to, each column multiplied by a factor first.
    Scaled,
}

/// How sums start. The pointer has a value in each case: in an enum's case without one the compiler's code may branch on what
/// is not set, to no effect, and valgrind reports it.
#[derive(Clone, Copy)]
pub struct Start {
    before: Before,
    /// The factors of the columns, if sums are scaled.
    factors: *const f32,
}

impl Start {
    /// The block holds nothing that counts.
    pub const ZERO: Start = Start { before: Before::Zero, factors: std::ptr::null() };
    /// The block holds sums to add to.
    pub const SUMS: Start = Start { before: Before::Sums, factors: std::ptr::null() };

    /// The block holds sums to add to, each column to be multiplied by a factor first.
    pub fn scaled(factors: *const f32) -> Start {
        Start { before: Before::Scaled, factors }
    }
}

with_simd! {
    /// c[i, j] = start + Σ_k a[i, k] · b[k, j] for `depth` steps, k ascending.
    ///
    /// # Safety
    /// The path's features; the operands and the block cover what is read and written, nobody else uses the block.
    pub unsafe fn product<S>(c: Block, a: Single, b: Rows, depth: usize, start: Start) {
        let registers = c.columns / S::LANES;
        let mut first = 0;
        while first < registers {
            // Groups of up to three registers, as even as possible.
            let groups = (registers - first).div_ceil(3);
            let n = (registers - first).div_ceil(groups);
            let column = first * S::LANES;
            // SAFETY: columns of the block; the rest is handed on.
            unsafe {
                let c = Block { at: c.at.add(column), ..c };
                let b = Rows { at: b.at.add(column), ..b };
                let start = Start { factors: start.factors.wrapping_add(column), ..start };
                match n {
                    1 => column_of_tiles::<S, 1>(c, a, b, depth, start),
                    2 => column_of_tiles::<S, 2>(c, a, b, depth, start),
                    _ => column_of_tiles::<S, 3>(c, a, b, depth, start),
                }
            }
            first += n;
        }
    }
}

/// All rows of N registers' columns.
///
/// # Safety
/// As of [`product`].
#[inline(always)]
unsafe fn column_of_tiles<S: Simd, const N: usize>(c: Block, a: Single, b: Rows, depth: usize, start: Start) {
    let mut i = 0;
    while i < c.rows {
        let left = c.rows - i;
        // SAFETY: as many rows as are left.
        unsafe {
            let (at, a) = (c.at.add(i * c.row), Single { at: a.at.add(i * a.row), ..a });
            i += match left {
                8.. if S::ROWS >= 8 => tile::<S, 8, N>(at, c.row, a, b, depth, start),
                4.. => tile::<S, 4, N>(at, c.row, a, b, depth, start),
                2.. => tile::<S, 2, N>(at, c.row, a, b, depth, start),
                _ => tile::<S, 1, N>(at, c.row, a, b, depth, start),
            };
        }
    }
}

/// R rows of N registers; returns R.
///
/// # Safety
/// As of [`product`].
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const N: usize>(
    c: *mut f32,
    c_row: usize,
    a: Single,
    b: Rows,
    depth: usize,
    start: Start,
) -> usize {
    // SAFETY: R rows and N registers of columns lie inside the block, and `depth` steps inside the operands.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; R];
        for (i, row) in sums.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                let at = c.add(i * c_row + j * S::LANES);
                match start.before {
                    Before::Zero => {}
                    Before::Sums => *sum = S::load(at),
                    Before::Scaled => *sum = S::mul(S::load(at), S::load(start.factors.add(j * S::LANES))),
                }
            }
        }
        // Two pointers and two distances reach eight rows in the processor's addressing.
        let (mut low, mut high, mut many) = (a.at, a.at.wrapping_add(4 * a.row), b.at);
        let three = 3 * a.row;
        for _ in 0..depth {
            let mut registers = [S::splat(0.0); N];
            for (j, register) in registers.iter_mut().enumerate() {
                *register = S::load(many.add(j * S::LANES));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let four = if i < 4 { low } else { high };
                let x = S::splat(*four.add(match i % 4 {
                    0 => 0,
                    1 => a.row,
                    2 => 2 * a.row,
                    _ => three,
                }));
                for (sum, register) in row.iter_mut().zip(&registers) {
                    *sum = S::fma(x, *register, *sum);
                }
            }
            low = low.wrapping_add(a.step);
            high = high.wrapping_add(a.step);
            many = many.wrapping_add(b.row);
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                S::store(c.add(i * c_row + j * S::LANES), *sum);
            }
        }
    }
    R
}
