//! Products in bfloat16 on 512-bit vectors (AVX-512 BF16).
//!
//! A's rows are read where they are if they are whole, and B is packed into panels. A task is a block of rows by a range of
//! panels; it walks over k in long stretches for which its rows of A stay in the second-level cache, over the panels, over
//! short stretches of k for which a panel stays in the first-level cache, and over tiles of rows. A tile's sums go on where
//! they stopped.

use std::ops::Range;

use super::finish::{Finish, Place, finish, settle};
use super::kernel::{Avx512Bf16, DotKernel, NR, STEP};
use super::pack::{self, Panels};
use super::prefetch;
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::blocks::Blocks;
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::pack::Operand;
use crate::cpu::scratch::Scratch;

/// Most rows of a task.
const ROWS: usize = 256;
/// Stretch of k for which the rows of a task stay in the second-level cache: 512 KiB of A. Shorter products have one stretch
/// up to three times as long, and need room for the sums of a single panel only.
const LONG: usize = 1024;
/// Stretch of k for which a panel stays in the first-level cache beside a tile's rows of A.
const SHORT: usize = 256;

/// Rows of a tile.
const MR: usize = Avx512Bf16::<1>::MR;

/// As [`super::product`], on 512-bit vectors.
pub fn product<O: Number>(workers: Workers<'_>, size: Size, a: Operand<'_, Bf16>, b: Panels<'_>, to: &Finish<'_, O>) {
    let (tiles, panels) = (size.m.div_ceil(MR), size.n.div_ceil(NR));
    let blocks = Blocks::new(tiles, panels, ROWS / MR, workers.threads());
    workers.run(blocks.tasks(), &|task| {
        let (rows, columns) = blocks.of(task);
        Block { a, b, to, size, rows, columns }.run();
        settle();
    });
}

/// A task.
struct Block<'a, O: Number> {
    a: Operand<'a, Bf16>,
    b: Panels<'a>,
    to: &'a Finish<'a, O>,
    size: Size,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<O: Number> Block<'_, O> {
    /// The product's inner size in whole steps.
    fn k(&self) -> usize {
        self.size.k.next_multiple_of(STEP)
    }

    fn run(&self) {
        let (size, k) = (self.size, self.k());
        let (rows, panels, tile) = (self.rows.len(), self.columns.len(), MR * NR);
        let long = if k <= 3 * LONG { k } else { LONG };
        // Sums of one panel, or of all where k has several long stretches.
        let kept = if k > long { panels } else { 1 };
        let mut sums = Scratch::<f32>::new(kept * rows * tile);
        if k == 0 {
            // An empty sum.
            sums.fill(0.0);
            for j in self.columns.clone() {
                self.rows.clone().zip(sums.chunks_exact(tile)).for_each(|(i, sums)| self.finish(i, j, sums));
            }
            return;
        }
        // Rows are read where they are, if they are whole.
        let direct = !self.a.by_columns() && size.k.is_multiple_of(STEP) && self.rows.end * MR <= size.m;
        let mut packed = Scratch::<Bf16>::new(if direct { 0 } else { rows * MR * long });
        for from in (0..k).step_by(long) {
            let stretch = from..(from + long).min(k);
            let packed = if direct { None } else { Some(&mut packed[..rows * MR * stretch.len()]) };
            let left = match packed {
                None => Left::Direct(self.a),
                Some(packed) => {
                    let first = self.rows.start * MR;
                    // SAFETY: the path has the features (where a product begins).
                    unsafe { pack::pack_left(packed, self.a, MR, first..size.m, stretch.clone(), size.k) };
                    Left::Packed(packed)
                }
            };
            for (index, j) in self.columns.clone().enumerate() {
                let at = if kept > 1 { index * rows * tile } else { 0 };
                self.panel(&left, &stretch, j, &mut sums[at..at + rows * tile]);
            }
        }
    }

    /// One stretch of k of one panel, all rows.
    fn panel(&self, left: &Left<'_>, stretch: &Range<usize>, j: usize, sums: &mut [f32]) {
        let panel = &self.b.panel(j)[..stretch.end * NR];
        let mut ahead = Ahead::new(self, stretch, j, sums.len() / (MR * NR));
        for short in stretch.clone().step_by(SHORT) {
            let end = (short + SHORT).min(stretch.end);
            for (row, sums) in sums.chunks_exact_mut(MR * NR).enumerate() {
                let (a, a_row, a_step) = match left {
                    Left::Direct(a) => {
                        let first = (self.rows.start + row) * MR;
                        if j == self.columns.start && row + 1 < self.rows.len() {
                            (first + MR..first + 2 * MR).for_each(|next| prefetch(&a.row(next)[short..end]));
                        }
                        (a.row(first)[short..].as_ptr(), a.width(), STEP)
                    }
                    Left::Packed(a) => {
                        let at = (row * stretch.len() + short - stretch.start) * MR;
                        (a[at..].as_ptr(), STEP, MR * STEP)
                    }
                };
                prefetch(ahead.next());
                let b = panel[short * NR..end * NR].as_ptr();
                // SAFETY: A has whole tiles and whole steps up to `end` (packed so, or checked for what is direct), and so
                // has the panel; the path has the features.
                unsafe {
                    Avx512Bf16::<1>::tile((end - short) / STEP, a, a_row, a_step, b, sums.as_mut_ptr(), short > 0)
                };
                if end == self.k() {
                    self.finish(self.rows.start + row, j, sums);
                }
            }
        }
    }

    fn finish(&self, tile: usize, panel: usize, sums: &[f32]) {
        let (row, column) = (tile * MR, panel * NR);
        let (rows, columns) = (MR.min(self.size.m - row), NR.min(self.size.n - column));
        // SAFETY: this tile belongs to this task alone; the path has the features.
        unsafe { finish(sums, self.to, Place { row, column, rows, columns }) };
    }
}

/// The rows of a task, for a stretch of k.
enum Left<'a> {
    /// Where they are.
    Direct(Operand<'a, Bf16>),
    /// (tile, step, MR, STEP).
    Packed(&'a [Bf16]),
}

/// The next panel, in as many parts as there are tiles to do before it: it comes from far while they are done.
struct Ahead<'a> {
    rest: &'a [Bf16],
    part: usize,
}

impl<'a> Ahead<'a> {
    fn new<O: Number>(block: &Block<'a, O>, stretch: &Range<usize>, j: usize, rows: usize) -> Ahead<'a> {
        if j + 1 >= block.columns.end {
            return Ahead { rest: &[], part: 1 };
        }
        let rest = &block.b.panel(j + 1)[stretch.start * NR..stretch.end * NR];
        Ahead { rest, part: rest.len().div_ceil(rows * stretch.len().div_ceil(SHORT)).next_multiple_of(STEP) }
    }

    fn next(&mut self) -> &'a [Bf16] {
        let (part, rest) = self.rest.split_at(self.part.min(self.rest.len()));
        self.rest = rest;
        part
    }
}
