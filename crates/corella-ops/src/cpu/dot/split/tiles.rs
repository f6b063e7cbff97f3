//! Products of split rows on tiles (AMX).
//!
//! That is twice the tiles of A for each of B. A block of rows, for a stretch of k, stays in the second-level cache; panels of B
//! come by, each asked for while the one before it meets the rows, and both are read from there, with the sums of the whole stretch
//! in registers. Between stretches sums are kept in memory: the order over k is that of a single row.

use super::super::amx::Amx;
use super::super::finish::finish;
use super::super::kernel::{DotKernel, FewKernel, NR, STEP};
use super::block::{Block, Cut, Product};
use super::tile::{A_STEP, Soon, TILE, tile};
use crate::cpu::bf16::Bf16;
use crate::cpu::gemm::Workers;
use crate::cpu::scratch::Scratch;

/// Steps of all tiles of a block for a stretch of k, at most: 1 MiB of A.
const STEPS: usize = 256;
/// Steps of k that are one stretch, at most: 128 KiB of a panel, and as much again for the next.
const STRETCH: usize = 64;
/// Tiles of rows of a block, at most, where k is one stretch.
const TILES: usize = STEPS / STRETCH;
/// The same where k is several: shorter stretches, and fewer times that panels come by.
const TILES_KEPT: usize = 2 * TILES;
/// Panels of a task where k is one stretch: tasks of a block follow one another, so few are enough.
const PANELS: usize = 4;
/// Panels of a task where k is several, and the block comes anew for each.
const PANELS_KEPT: usize = 32;

/// As [`super::split_product`], where neither side is empty.
pub fn product(workers: Workers<'_>, product: Product<'_>) {
    let steps = product.steps();
    let tall = product.tall(if steps <= STRETCH { TILES } else { TILES_KEPT });
    let stretches = steps.div_ceil(STRETCH.min(STEPS / tall));
    let wide = if stretches == 1 { PANELS } else { PANELS_KEPT };
    product.run(workers, Cut { tall, stretches, wide }, &|block| {
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { Amx::<1>::begin() };
        match block.tiles.len() {
            0 | 1 => block.on_tiles::<32>(),
            2 | 3 => block.on_tiles::<16>(),
            4..8 => block.on_tiles::<8>(),
            _ => block.on_tiles::<4>(),
        }
        // SAFETY: begun above.
        unsafe { Amx::<1>::end() };
    });
}

impl Block<'_> {
    /// `LINES` of the next panel are asked for in each step of each tile.
    fn on_tiles<const LINES: usize>(&self) {
        let (tiles, panels, steps) = (self.tiles.len(), self.panels.len(), self.steps);
        let Product { x, b: all, to, .. } = self.of;
        // Sums of a tile, or of all where k has several stretches.
        let kept = if steps > self.stretch { tiles * panels } else { 1 };
        let mut sums = Scratch::<f32>::new(kept * TILE);
        for start in (0..steps).step_by(self.stretch) {
            let end = (start + self.stretch).min(steps);
            for (j, panel) in self.panels.clone().enumerate() {
                let b = &all.panel(panel)[start * STEP * NR..end * STEP * NR];
                // The same of the next panel, or the next stretch of the first, or where the next task begins.
                let next = match (j + 1 < panels, end < steps) {
                    (true, _) => self.at(panel + 1, start),
                    (false, true) => self.at(self.panels.start, end),
                    (false, false) => self.at(panel + 1, 0),
                };
                for (i, row) in self.tiles.clone().enumerate() {
                    let at = (j * tiles + i) % kept;
                    let a = &x.tile(row, start)[..(end - start) * A_STEP];
                    let place = self.place(row, panel);
                    let next_sums = sums[(at + 1) % kept * TILE..].as_ptr();
                    let sums = &mut sums[at * TILE..][..TILE];
                    // An address that is mapped, in any case: the processor looks for others in vain each time.
                    let (out, row_bytes) = match self.is_written(end) {
                        true => (to.out.address(place.row * to.ldc + place.column), to.ldc * 4),
                        false => (sums.as_ptr(), 0),
                    };
                    let panel = next.wrapping_add(i * (end - start) * LINES * STEP);
                    let soon = Soon { panel, sums: next_sums, out, row_bytes };
                    // SAFETY: whole steps of both (slices above), the sums of a tile; `begin` was called on this thread. The
                    // tile of the result belongs to this task alone; the path has the features.
                    unsafe {
                        tile::<LINES>(end - start, a.as_ptr(), b.as_ptr(), sums.as_mut_ptr(), start > 0, soon);
                        if end == steps {
                            finish(sums, to, place);
                        }
                    }
                }
            }
        }
    }

    /// Where a panel is at a step, if there is such a panel.
    fn at(&self, panel: usize, step: usize) -> *const Bf16 {
        self.of.b.panel(self.panel(panel))[step * STEP * NR..].as_ptr()
    }

    /// Whether a tile's result is written at `end`, and not past the caches.
    fn is_written(&self, end: usize) -> bool {
        end == self.steps && !self.of.to.stream
    }
}
