//! Splitting work: over blocks of rows, or over blocks of columns where rows are summed up.

use super::array::Element;
use super::pool::Pool;
use super::shared::SharedMut;

/// Columns of a block are a multiple of this, a few cache lines.
const COLUMN_BLOCK: usize = 64;

/// Calls `job(first row, rows, part of out)` for blocks of rows of `out` (n, width).
pub fn by_rows<T: Element>(
    pool: &Pool,
    out: &mut [T],
    n: usize,
    width: usize,
    job: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let block = n.div_ceil(pool.threads() * 4).max(1);
    let out = SharedMut::new(out);
    pool.run(n.div_ceil(block), &|task| {
        let first = task * block;
        let rows = block.min(n - first);
        // SAFETY: blocks of rows do not overlap.
        job(first, rows, unsafe { out.part(first * width, rows * width) });
    });
}

/// Calls `job(first column, columns)` for blocks of columns: for sums over rows, whose order stays the rows'.
pub fn by_columns(pool: &Pool, c: usize, job: impl Fn(usize, usize) + Sync) {
    // As wide as the threads allow: a walk down many rows reads whole stretches of them.
    let block = c.div_ceil(pool.threads()).next_multiple_of(COLUMN_BLOCK);
    pool.run(c.div_ceil(block), &|task| {
        let first = task * block;
        job(first, block.min(c - first));
    });
}
