//! Products of split rows on 512-bit vectors (AVX-512 BF16).
//!
//! A block of rows, for a stretch of k, stays in the second-level cache; panels of B come by, each asked for while the one before it
//! meets the rows. Of a panel a short stretch stays in the first-level cache, with the sums of all tiles of the block, and meets tile
//! after tile. Sums go on where they stopped: the order over k is that of a single row.

use std::ops::Range;

use super::super::finish::{Finish, Place, finish, settle};
use super::super::kernel::{Avx512Bf16, DotKernel, NR, STEP};
use super::super::pack::Panels;
use super::super::prefetch;
use super::SplitRows;
use crate::cpu::bf16::Bf16;
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::infer::shares;
use crate::cpu::scratch::Scratch;

/// Rows of a tile, whether in one part or two, and its sums.
const MR: usize = Avx512Bf16::<2>::MR;
const TILE: usize = MR * NR;
/// Parts of all tiles of a block, and steps of k that are one stretch, at most: 480 KiB of A, 128 KiB of a panel and as much of the next.
const TILE_PARTS: usize = 10;
const STRETCH: usize = 64;
/// Steps that meet all tiles: 16 KiB of a panel.
const SHORT: usize = 8;
/// Panels of a task where k is one stretch, and where it is several and the block comes anew for each.
const PANELS: usize = 4;
const PANELS_KEPT: usize = 32;

/// As [`super::split_product`], where neither side is empty; rows are in `PARTS` parts.
pub fn product<const PARTS: usize>(
    workers: Workers<'_>,
    size: Size,
    x: &SplitRows,
    b: Panels<'_>,
    to: &Finish<'_, f32>,
) {
    let (tiles, panels, steps) = (size.m.div_ceil(MR), size.n.div_ceil(NR), x.k / STEP);
    let blocks = tiles.div_ceil(TILE_PARTS / PARTS);
    let tall = tiles.div_ceil(blocks);
    let stretches = steps.div_ceil(STRETCH);
    let most = if stretches == 1 { PANELS } else { PANELS_KEPT };
    let wide = most.min((blocks * panels).div_ceil(4 * workers.threads()));
    let columns = panels.div_ceil(wide);
    shares::run(workers, blocks * columns, &|task| {
        let (row, column) = (task / columns * tall, task % columns * wide);
        let (rows, panels) = (row..(row + tall).min(tiles), column..(column + wide).min(panels));
        Block::<PARTS> { x, b, to, size, steps, stretch: steps.div_ceil(stretches), tiles: rows, panels }.run();
        settle();
    });
}

/// A task.
struct Block<'a, const PARTS: usize> {
    x: &'a SplitRows,
    b: Panels<'a>,
    to: &'a Finish<'a, f32>,
    size: Size,
    /// Steps of k.
    steps: usize,
    /// Steps of a stretch.
    stretch: usize,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl<const PARTS: usize> Block<'_, PARTS> {
    /// Numbers of a step of A: (PARTS, MR, STEP), upper parts first.
    const A_STEP: usize = PARTS * MR * STEP;

    fn run(&self) {
        let (tiles, panels, steps) = (self.tiles.len(), self.panels.len(), self.steps);
        // Sums of a panel, or of all where k has several stretches.
        let kept = if steps > self.stretch { panels } else { 1 };
        let mut sums = Scratch::<f32>::new(kept * tiles * TILE);
        for start in (0..steps).step_by(self.stretch) {
            let end = (start + self.stretch).min(steps);
            for (j, panel) in self.panels.clone().enumerate() {
                // The same of the next panel, or the next stretch of the first, or where the next task begins.
                let next = match (j + 1 < panels, end < steps) {
                    (true, _) => self.part(panel + 1, start..end),
                    (false, true) => self.part(self.panels.start, end..(end + self.stretch).min(steps)),
                    (false, false) => self.part(panel + 1, 0..self.stretch),
                };
                let sums = &mut sums[j % kept * tiles * TILE..][..tiles * TILE];
                self.stretch(panel, start..end, next, sums);
            }
        }
    }

    /// A stretch of a panel meets all rows; `next` is read after it.
    fn stretch(&self, panel: usize, steps: Range<usize>, next: &[Bf16], sums: &mut [f32]) {
        let meetings = self.tiles.len() * steps.len().div_ceil(SHORT);
        let mut soon = next.chunks(next.len().div_ceil(meetings).next_multiple_of(STEP).max(STEP));
        for start in steps.clone().step_by(SHORT) {
            let end = (start + SHORT).min(steps.end);
            let b = self.part(panel, start..end);
            for (tile, sums) in self.tiles.clone().zip(sums.chunks_exact_mut(TILE)) {
                let a = &self.x.tile(tile, start)[..(end - start) * Self::A_STEP];
                prefetch(soon.next().unwrap_or(&[]));
                let (a, b) = (a.as_ptr(), b.as_ptr());
                // SAFETY: whole steps of both (slices), the sums of a tile; the path exists only after its features were detected.
                // The tile of the result belongs to this task alone.
                unsafe {
                    Avx512Bf16::<PARTS>::tile(end - start, a, STEP, Self::A_STEP, b, sums.as_mut_ptr(), start > 0);
                    if end == self.steps {
                        finish(sums, self.to, self.place(tile, panel));
                    }
                }
            }
        }
    }

    /// Steps of a panel; of the last one instead of those behind it.
    fn part(&self, panel: usize, steps: Range<usize>) -> &[Bf16] {
        let panel = panel.min(self.size.n.div_ceil(NR) - 1);
        &self.b.panel(panel)[steps.start * STEP * NR..steps.end * STEP * NR]
    }

    fn place(&self, tile: usize, panel: usize) -> Place {
        let (row, column) = (tile * MR, panel * NR);
        Place { row, column, rows: MR.min(self.size.m - row), columns: NR.min(self.size.n - column) }
    }
}
