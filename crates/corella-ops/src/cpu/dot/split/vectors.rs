//! Products of split rows on 512-bit vectors (AVX-512 BF16).
//!
//! A block of rows, for a stretch of k, stays in the second-level cache; panels of B come by, each asked for while the one before it
//! meets the rows. Of a panel a short stretch stays in the first-level cache, with the sums of all tiles of the block, and meets tile
//! after tile. Sums go on where they stopped: the order over k is that of a single row.

use std::ops::Range;

use super::super::finish::finish;
use super::super::kernel::{Avx512Bf16, DotKernel, NR, STEP};
use super::super::prefetch;
use super::block::{Block, Cut, Product};
use crate::cpu::bf16::Bf16;
use crate::cpu::gemm::Workers;
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
pub fn product<const PARTS: usize>(workers: Workers<'_>, product: Product<'_>) {
    let (tall, stretches) = (product.tall(TILE_PARTS / PARTS), product.steps().div_ceil(STRETCH));
    let wide = if stretches == 1 { PANELS } else { PANELS_KEPT };
    product.run(workers, Cut { tall, stretches, wide }, &|block| block.on_vectors::<PARTS>());
}

impl Block<'_> {
    fn on_vectors<const PARTS: usize>(&self) {
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
                self.stretch_on_vectors::<PARTS>(panel, start..end, next, sums);
            }
        }
    }

    /// A stretch of a panel meets all rows; `next` is read after it.
    fn stretch_on_vectors<const PARTS: usize>(
        &self,
        panel: usize,
        steps: Range<usize>,
        next: &[Bf16],
        sums: &mut [f32],
    ) {
        // Numbers of a step of A: (PARTS, MR, STEP), upper parts first.
        let a_step = PARTS * MR * STEP;
        let meetings = self.tiles.len() * steps.len().div_ceil(SHORT);
        let mut soon = next.chunks(next.len().div_ceil(meetings).next_multiple_of(STEP).max(STEP));
        for start in steps.clone().step_by(SHORT) {
            let end = (start + SHORT).min(steps.end);
            let b = self.part(panel, start..end);
            for (tile, sums) in self.tiles.clone().zip(sums.chunks_exact_mut(TILE)) {
                let a = &self.of.x.tile(tile, start)[..(end - start) * a_step];
                prefetch(soon.next().unwrap_or(&[]));
                let (a, b) = (a.as_ptr(), b.as_ptr());
                // SAFETY: whole steps of both (slices), the sums of a tile; the path exists only after its features were detected.
                // The tile of the result belongs to this task alone.
                unsafe {
                    Avx512Bf16::<PARTS>::tile(end - start, a, STEP, a_step, b, sums.as_mut_ptr(), start > 0);
                    if end == self.steps {
                        finish(sums, self.of.to, self.place(tile, panel));
                    }
                }
            }
        }
    }

    /// Steps of a panel; of the last one instead of those behind it.
    fn part(&self, panel: usize, steps: Range<usize>) -> &[Bf16] {
        &self.of.b.panel(self.panel(panel))[steps.start * STEP * NR..steps.end * STEP * NR]
    }
}
