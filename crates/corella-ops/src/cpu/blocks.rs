//! How the result of a product is shared out.

use std::ops::Range;

/// How a result is cut into tasks.
pub struct Blocks {
    tiles: usize,
    panels: usize,
    /// Tiles of rows of a task.
    tall: usize,
    /// Panels of a task.
    wide: usize,
}

impl Blocks {
    /// `tiles` × `panels`, at most `tallest` tiles of rows a task.
    pub fn new(tiles: usize, panels: usize, tallest: usize, threads: usize) -> Blocks {
        // The largest height with which the last thread is done nearly first: low tasks read all panels for little.
        let rounds = |tall: usize| tiles.div_ceil(tall).div_ceil(threads) * tall;
        let best = (1..=tallest).map(rounds).min().unwrap_or(1);
        let tall = (1..=tallest).rev().find(|tall| rounds(*tall) <= best + best / 16).unwrap_or(1);
        // Where rows are too few for all threads, the columns are cut too.
        let row_blocks = tiles.div_ceil(tall);
        let column_blocks = if threads == 1 || row_blocks >= threads { 1 } else { (4 * threads).div_ceil(row_blocks) };
        Blocks { tiles, panels, tall, wide: panels.div_ceil(column_blocks).max(1) }
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tiles.div_ceil(self.tall) * self.panels.div_ceil(self.wide)
    }

    /// Tiles and panels of a task.
    pub fn of(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let row_blocks = self.tiles.div_ceil(self.tall);
        let (row, column) = (task % row_blocks * self.tall, task / row_blocks * self.wide);
        (row..(row + self.tall).min(self.tiles), column..(column + self.wide).min(self.panels))
    }
}
