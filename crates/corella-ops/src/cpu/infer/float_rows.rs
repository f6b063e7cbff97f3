//! Many rows against floating-point weights on AVX2: rows lie side by side, stretch after stretch of k, so that a stretch of the
//! weights stays in the first-level cache while tile after tile of rows passes by.

use std::ops::Range;

use super::super::path::{Path, Vectors};
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::float::{self, Pair};
use super::float256::{self, ROWS};
use super::layout::COLUMNS;
use crate::quant::WeightFormat;

/// Steps of k of a stretch: whole runs, whose sums are added to the result one by one, as elsewhere.
const STRETCH: usize = 4 * float::RUN;

/// N rows of C activations: of each stretch, tiles of [`ROWS`] rows as (steps, rows), the last one of fewer.
pub struct FloatRows {
    x: Scratch,
    n: usize,
    c: usize,
}

impl FloatRows {
    /// The first `n` rows of x (N,C), on a path of AVX2.
    pub fn new(pool: &Pool, path: Path, x: &[f32], n: usize, c: usize) -> FloatRows {
        assert!(path.vectors() == Vectors::Avx2, "{path:?}");
        let mut rows = FloatRows { x: Scratch::new(n * c), n, c };
        let (all, tiles) = (SharedMut::new(&mut rows.x), n.div_ceil(ROWS));
        pool.run(tiles, &|tile| {
            let first = tile * ROWS;
            let count = ROWS.min(n - first);
            for k in (0..c).step_by(STRETCH) {
                let steps = STRETCH.min(c - k);
                // SAFETY: a tile of a stretch, which is this task's.
                let to = unsafe { all.part(n * k + first * steps, count * steps) };
                for r in 0..count {
                    let from = &x[(first + r) * c + k..][..steps];
                    to[r..].iter_mut().step_by(count).zip(from).for_each(|(to, x)| *to = *x);
                }
            }
        });
        rows
    }

    /// The products of some rows, from the beginning of a tile on, with a pair of panels: sums (rows, 32).
    pub fn products(&self, format: WeightFormat, pair: &[u8], rows: Range<usize>) -> Scratch {
        assert!(rows.start.is_multiple_of(ROWS) && rows.end <= self.n, "rows {rows:?} of {}", self.n);
        assert!(pair.len() >= 2 * float::panel_bytes(format, self.c), "a pair of {}", self.c);
        let mut sums = Scratch::new(rows.len() * COLUMNS);
        sums.fill(0.0);
        for k in (0..self.c).step_by(STRETCH) {
            let steps = STRETCH.min(self.c - k);
            let at = |p| pair.as_ptr().wrapping_add(float::panel(format, p) + k * COLUMNS * format.block_bytes());
            for first in rows.clone().step_by(ROWS) {
                let count = ROWS.min(rows.end - first);
                let x = &self.x[self.n * k + first * steps..][..count * steps];
                let c = &mut sums[(first - rows.start) * COLUMNS..][..count * COLUMNS];
                let tile = Pair { x: x.as_ptr(), x_row: 0, cols: steps, w: std::array::from_fn(at), c: c.as_mut_ptr() };
                // SAFETY: rows and sums as cut above, panels from step k on as asserted; the path has AVX2, FMA and F16C (`new`).
                unsafe { float256::pair::<true>(format, count, tile) };
            }
        }
        sums
    }
}
