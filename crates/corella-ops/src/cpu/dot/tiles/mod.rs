//! Products in bfloat16 on tiles (AMX).
//!
//! A block of rows, for a stretch of k, is packed tile by tile and stays in the second-level cache; panels of B come by, each asked
//! for while the one before it meets the rows. Of a panel what fits stays in the first-level cache meanwhile, and A passes it by.
//! Sums of a stretch stay in registers, if it is the only one; between stretches, and pieces of them that fit into the first-level
//! cache, they are kept in memory and go on where they stopped.

mod kernel;
mod outgoing;

use std::ops::Range;

use super::amx::Amx;
use super::finish::{Finish, Place, settle};
use super::kernel::{DotKernel, FewKernel, NR, STEP};
use super::pack::{Panels, pack_left};
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::pack::Operand;
use crate::cpu::scratch::Scratch;
use kernel::{A_STEP, B_STEP, MR, NEAR};
use outgoing::{Outgoing, Piece};

/// Steps of k that are one stretch.
const WHOLE: usize = 32;
/// Tiles of rows of a block, at most, where k is one stretch: 1 MiB of A.
const TILES: usize = 16;
/// Steps of all tiles of a block, nearly at most, where FEW panels come by and k is one stretch: 512 KiB of A. Panels are read again
/// for little there.
const STEPS_FEW: usize = 256;
/// Panels that are few: see STEPS_FEW.
const FEW: usize = 8;
/// Tiles of rows of a block, at least, if there are so many: a panel is read for them.
const TILES_LEAST: usize = 4;
/// The most where k is several, whose sums are kept: 512 KiB of A.
const TILES_KEPT: usize = 8;
/// Panels of a task where k is several stretches: 1 MiB of sums.
const PANELS_KEPT: usize = 32;

/// As [`super::product`], on tiles.
pub fn product<O: Number>(workers: Workers<'_>, size: Size, a: Operand<'_, Bf16>, b: Panels<'_>, to: &Finish<'_, O>) {
    let steps = size.k.div_ceil(STEP);
    let tasks = Tasks::new(size.m.div_ceil(MR), size.n.div_ceil(NR), steps, workers.threads());
    workers.run(tasks.count(), &|task| {
        let (tiles, panels) = tasks.of(task);
        let block = Block { a, b, to, size, steps, tiles, panels };
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { Amx::<1>::begin() };
        // All lines of a panel in the steps of the tiles before it.
        match block.tiles.len() {
            1 => block.run::<32>(),
            2 => block.run::<16>(),
            3 => block.run::<11>(),
            4 => block.run::<8>(),
            5 => block.run::<7>(),
            6 => block.run::<6>(),
            7 => block.run::<5>(),
            8..11 => block.run::<4>(),
            11..16 => block.run::<3>(),
            _ => block.run::<2>(),
        }
        // SAFETY: begun above.
        unsafe { Amx::<1>::end() };
        settle();
    });
}

/// How the result is cut: blocks of rows of nearly one height, as many for each thread, and where rows are too few, columns too.
struct Tasks {
    tiles: usize,
    panels: usize,
    /// Blocks of rows.
    tall: usize,
    /// Groups of panels.
    wide: usize,
}

impl Tasks {
    fn new(tiles: usize, panels: usize, steps: usize, threads: usize) -> Tasks {
        let (most, kept) = match steps <= WHOLE {
            true if panels <= FEW => (TILES.min(STEPS_FEW.div_ceil(steps)), panels),
            true => (TILES, panels),
            false => (TILES_KEPT, PANELS_KEPT),
        };
        let rounds = tiles.div_ceil(most * threads);
        let tall = (rounds * threads).min(tiles.div_ceil(TILES_LEAST));
        let threads_left = if tall.is_multiple_of(threads) { 1 } else { (4 * threads).div_ceil(tall) };
        let wide = panels.div_ceil(kept).max(threads_left).min(panels);
        Tasks { tiles, panels, tall, wide }
    }

    fn count(&self) -> usize {
        self.tall * self.wide
    }

    /// Tiles and panels of a task.
    fn of(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |of: usize, parts: usize, i: usize| of * i / parts..of * (i + 1) / parts;
        (part(self.tiles, self.tall, task % self.tall), part(self.panels, self.wide, task / self.tall))
    }
}

/// A task.
struct Block<'a, O: Number> {
    a: Operand<'a, Bf16>,
    b: Panels<'a>,
    to: &'a Finish<'a, O>,
    size: Size,
    /// Steps of k.
    steps: usize,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl<O: Number> Block<'_, O> {
    /// `LINES` of the next panel are asked for in each step of each tile.
    fn run<const LINES: usize>(&self) {
        let (tiles, panels, steps) = (self.tiles.len(), self.panels.len(), self.steps);
        // Sums of all tiles where k has several stretches, else of the one that is formed and the one that is finished.
        let kept = if steps > WHOLE { tiles * panels } else { 2 };
        let mut out = Outgoing::new(self.to, kept);
        let mut left = Scratch::<Bf16>::new(tiles * steps.min(WHOLE) * A_STEP);
        for start in (0..steps).step_by(WHOLE) {
            let stretch = start..(start + WHOLE).min(steps);
            let left = &mut left[..tiles * stretch.len() * A_STEP];
            let (rows, ks) = (self.tiles.start * MR..self.size.m, start * STEP..stretch.end * STEP);
            // SAFETY: the path has the features (where a product begins).
            unsafe { pack_left(left, self.a, MR, rows, ks, self.size.k) };
            for (j, panel) in self.panels.clone().enumerate() {
                // What follows: the same of the next panel, or the next stretch of the first, or the next task's first.
                let mut soon = match (j + 1 < panels, stretch.end < steps) {
                    (true, _) => self.at(panel + 1, start),
                    (false, true) => self.at(self.panels.start, stretch.end),
                    (false, false) => self.at(self.panels.start, 0),
                };
                for from in stretch.clone().step_by(if steps > WHOLE { NEAR } else { WHOLE }) {
                    let end = if steps > WHOLE { (from + NEAR).min(stretch.end) } else { stretch.end };
                    let b = &self.b.panel(panel)[from * B_STEP..end * B_STEP];
                    for (i, row) in self.tiles.clone().enumerate() {
                        let a = &left[(i * stretch.len() + from - start) * A_STEP..][..(end - from) * A_STEP];
                        let tile = (j * tiles + i) % kept;
                        let last = (end == steps).then(|| self.place(row, panel));
                        let piece = Piece { steps: end - from, a, b, tile, add: from > 0, last, soon };
                        // SAFETY: `begin` was called on this thread, the path has the features; the task's tiles of the result
                        // are its alone.
                        unsafe { out.multiply::<LINES>(&piece) };
                        soon = soon.wrapping_add((end - from) * LINES * STEP);
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { out.end() };
    }

    /// Where a panel is at a step.
    fn at(&self, panel: usize, step: usize) -> *const Bf16 {
        self.b.panel(panel)[step * B_STEP..].as_ptr()
    }

    fn place(&self, tile: usize, panel: usize) -> Place {
        let (row, column) = (tile * MR, panel * NR);
        Place { row, column, rows: MR.min(self.size.m - row), columns: NR.min(self.size.n - column) }
    }
}
