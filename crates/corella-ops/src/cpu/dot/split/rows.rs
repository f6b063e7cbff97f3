//! Rows in f32 as sums of numbers in bfloat16.

use super::{STEP, Shape};
use crate::cpu::Rounding;
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::pool::Pool;
use crate::cpu::rows::by_rows;
use crate::cpu::scratch::Scratch;
use crate::cpu::vectorized::vectorized;

/// Steps that are written together: lines of many would share their places in the first-level cache.
const NEAR: usize = 4;

/// Rows in f32 as [`super::split_product`] reads them.
pub struct SplitRows {
    numbers: Scratch<Bf16>,
    path: Path,
    pub(super) shape: Shape,
    /// Rows in f32.
    pub n: usize,
    /// Inner size, padded.
    pub k: usize,
}

impl SplitRows {
    /// Splits or rounds the first `n` rows of x (N,C) for the kernels of a path.
    pub fn new(pool: &Pool, (path, rounding): (Path, Rounding), x: &[f32], n: usize, c: usize) -> SplitRows {
        let k = c.next_multiple_of(STEP);
        let shape = Shape::on(path, rounding);
        let Shape { parts, few, tile: mr } = shape;
        let part = |to: &mut [Bf16], x: &[f32], step: usize, part: usize| match parts {
            1 => round(path, to, x, step),
            _ => split(path, to, x, step, part),
        };
        let mut numbers = Scratch::<Bf16>::new(if n <= few { n } else { n.next_multiple_of(mr) } * parts * k);
        let row = |i: usize| if i < n { &x[i * c..][..c] } else { &[] };
        if n <= few {
            by_rows(pool, &mut numbers, n, parts * k, |first, _, numbers| {
                for (i, to) in numbers.chunks_exact_mut(parts * k).enumerate() {
                    part(to, row(first + i), parts * STEP, STEP);
                }
            });
        } else {
            by_rows(pool, &mut numbers, n.div_ceil(mr), parts * k * mr, |first, _, numbers| {
                for (tile, to) in numbers.chunks_exact_mut(parts * k * mr).enumerate() {
                    for (near, to) in to.chunks_mut(NEAR * shape.step()).enumerate() {
                        for i in 0..mr {
                            let x = row((first + tile) * mr + i);
                            let x = &x[(near * NEAR * STEP).min(x.len())..];
                            let steps = to.len() / shape.step();
                            let x = &x[..x.len().min(steps * STEP)];
                            part(&mut to[i * STEP..], x, shape.step(), mr * STEP);
                        }
                    }
                }
            });
        }
        SplitRows { numbers, path, shape, n, k }
    }

    /// Whether they were split for this path.
    pub fn is_for(&self, path: Path) -> bool {
        self.path == path
    }

    /// Few rows: the parts of a step in turns, upper ones first.
    pub fn few(&self) -> Operand<'_, Bf16> {
        assert!(self.n <= self.shape.few, "{} rows", self.n);
        Operand::rows(&self.numbers, self.shape.parts * self.k)
    }

    /// More rows: tile `tile` of MR rows, from step `step` on: (k/STEP, parts, MR, STEP).
    pub fn tile(&self, tile: usize, step: usize) -> &[Bf16] {
        assert!(self.n > self.shape.few, "{} rows", self.n);
        let numbers = self.k / STEP * self.shape.step();
        &self.numbers[tile * numbers..][..numbers][step * self.shape.step()..]
    }
}

vectorized! {
    /// x rounded to BF16: STEP numbers, `step` from those of the step before. Numbers of the last step that x lacks are zero, and so are
    /// whole steps of no x.
    fn round(to: &mut [Bf16], x: &[f32], step: usize) {
        let (steps, mut rest) = x.as_chunks::<STEP>();
        let mut places = to.chunks_mut(step);
        for (x, to) in steps.iter().zip(places.by_ref()) {
            to[..STEP].iter_mut().zip(x).for_each(|(to, x)| *to = Bf16::put(*x));
        }
        for to in places.filter(|to| to.len() >= STEP) {
            to[..STEP].fill(Bf16(0));
            to.iter_mut().zip(rest).for_each(|(to, x)| *to = Bf16::put(*x));
            rest = &[];
        }
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
