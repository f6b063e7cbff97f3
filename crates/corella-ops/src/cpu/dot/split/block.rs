//! How a split product is cut into tasks: a block of tiles of rows by some panels of B.

use std::ops::Range;

use super::super::finish::{Finish, Place, settle};
use super::super::kernel::{NR, STEP};
use super::super::pack::Panels;
use super::SplitRows;
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::infer::shares;

/// A product: see [`super::split_product`].
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub size: Size,
    pub x: &'a SplitRows,
    pub b: Panels<'a>,
    pub to: &'a Finish<'a, f32>,
}

/// How large tasks are.
#[derive(Clone, Copy)]
pub struct Cut {
    /// Tiles of rows of a block.
    pub tall: usize,
    /// Stretches of k.
    pub stretches: usize,
    /// Panels, at most.
    pub wide: usize,
}

impl<'a> Product<'a> {
    /// Tiles of rows.
    fn tiles(&self) -> usize {
        self.size.m.div_ceil(self.x.shape.tile)
    }

    /// Steps of k.
    pub fn steps(&self) -> usize {
        self.x.k / STEP
    }

    /// Tiles of each block, if there are `most` at most and blocks are alike.
    pub fn tall(&self, most: usize) -> usize {
        self.tiles().div_ceil(self.tiles().div_ceil(most))
    }

    /// Runs `job` for each task. Tasks of a block of rows follow one another.
    pub fn run(self, workers: Workers<'_>, cut: Cut, job: &(dyn Fn(Block<'a>) + Sync)) {
        let (tiles, panels, steps) = (self.tiles(), self.size.n.div_ceil(NR), self.steps());
        let blocks = tiles.div_ceil(cut.tall);
        let wide = cut.wide.min((blocks * panels).div_ceil(4 * workers.threads()));
        let columns = panels.div_ceil(wide);
        shares::run(workers, blocks * columns, &|task| {
            let (row, column) = (task / columns * cut.tall, task % columns * wide);
            job(Block {
                of: self,
                steps,
                stretch: steps.div_ceil(cut.stretches),
                tiles: row..(row + cut.tall).min(tiles),
                panels: column..(column + wide).min(panels),
            });
            settle();
        });
    }
}

/// A task.
pub struct Block<'a> {
    pub of: Product<'a>,
    /// Steps of k.
    pub steps: usize,
    /// Steps of a stretch.
    pub stretch: usize,
    pub tiles: Range<usize>,
    pub panels: Range<usize>,
}

impl Block<'_> {
    /// Where the sums of a tile and a panel go.
    pub fn place(&self, tile: usize, panel: usize) -> Place {
        let (Size { m, n, .. }, mr) = (self.of.size, self.of.x.shape.tile);
        let (row, column) = (tile * mr, panel * NR);
        Place { row, column, rows: mr.min(m - row), columns: NR.min(n - column) }
    }

    /// A panel, or the last one instead of those behind it.
    pub fn panel(&self, panel: usize) -> usize {
        panel.min(self.of.size.n.div_ceil(NR) - 1)
    }
}
