//! Rows in f32 as sums of two numbers in bfloat16.

use super::{Rows, STEP};
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::pool::Pool;
use crate::cpu::rows::by_rows;
use crate::cpu::scratch::Scratch;
use crate::cpu::vectorized::vectorized;

/// Steps that are written together: lines of many would share their places in the first-level cache.
const NEAR: usize = 4;

/// Rows in f32 as [`super::split_product`] reads them: 16 of 24 bits.
pub struct SplitRows {
    numbers: Scratch<Bf16>,
    /// How the path's kernels take them.
    pub(super) rows: Rows,
    /// Rows in f32.
    pub n: usize,
    /// Inner size, padded.
    pub k: usize,
}

impl SplitRows {
    /// Splits the first `n` rows of x (N,C) for the kernels of a path.
    pub fn new(pool: &Pool, path: Path, x: &[f32], n: usize, c: usize) -> SplitRows {
        let k = c.next_multiple_of(STEP);
        let rows = Rows::on(path);
        let (mr, a_step) = (rows.tile, 2 * rows.tile * STEP);
        let mut numbers = Scratch::<Bf16>::new(if n <= rows.few { n } else { n.next_multiple_of(mr) } * 2 * k);
        let row = |i: usize| if i < n { &x[i * c..][..c] } else { &[] };
        if n <= rows.few {
            by_rows(pool, &mut numbers, n, 2 * k, |first, _, numbers| {
                for (i, to) in numbers.chunks_exact_mut(2 * k).enumerate() {
                    split(path, to, row(first + i), 2 * STEP, STEP);
                }
            });
        } else {
            by_rows(pool, &mut numbers, n.div_ceil(mr), 2 * k * mr, |first, _, numbers| {
                for (tile, to) in numbers.chunks_exact_mut(2 * k * mr).enumerate() {
                    for (near, to) in to.chunks_mut(NEAR * a_step).enumerate() {
                        for i in 0..mr {
                            let x = row((first + tile) * mr + i);
                            let x = &x[(near * NEAR * STEP).min(x.len())..];
                            let steps = to.len() / a_step;
                            let x = &x[..x.len().min(steps * STEP)];
                            split(path, &mut to[i * STEP..], x, a_step, mr * STEP);
                        }
                    }
                }
            });
        }
        SplitRows { numbers, rows, n, k }
    }

    /// Few rows: upper and lower parts of a step in turns.
    pub fn few(&self) -> Operand<'_, Bf16> {
        assert!(self.n <= self.rows.few, "{} rows", self.n);
        Operand::rows(&self.numbers, 2 * self.k)
    }

    /// More rows: tile `tile` of MR rows, from step `step` on: (k/STEP, 2, MR, STEP).
    pub fn tile(&self, tile: usize, step: usize) -> &[Bf16] {
        let Rows { few, tile: mr } = self.rows;
        assert!(self.n > few, "{} rows", self.n);
        &self.numbers[tile * 2 * mr * self.k..][..2 * mr * self.k][step * 2 * mr * STEP..]
    }
}

vectorized! {
    /// x as sums of two BF16 each, which keep 16 of its 24 bits: STEP upper parts, `step` from those of the step before, and
    /// STEP lower parts, `part` behind them. Numbers of the last step that x lacks are zero, and so are whole steps of no x. The upper
    /// part is x cut off: it never overflows.
    fn split(to: &mut [Bf16], x: &[f32], step: usize, part: usize) {
        let (steps, rest) = x.as_chunks::<STEP>();
        let mut places = to.chunks_mut(step);
        for (x, to) in steps.iter().zip(places.by_ref()) {
            let (upper, lower) = to[..part + STEP].split_at_mut(part);
            for ((upper, lower), x) in upper[..STEP].iter_mut().zip(lower).zip(x) {
                *upper = Bf16((x.to_bits() >> 16) as u16);
                *lower = Bf16::put(x - upper.to_f32());
            }
        }
        let mut rest = rest;
        for to in places.filter(|to| to.len() >= part + STEP) {
            for i in 0..STEP {
                let x = rest.get(i).copied().unwrap_or(0.0);
                to[i] = Bf16((x.to_bits() >> 16) as u16);
                to[part + i] = Bf16::put(x - to[i].to_f32());
            }
            rest = &[];
        }
    }
}
