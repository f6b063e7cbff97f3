//! Splitting work: over blocks of rows, or over blocks of columns where rows are summed up.

use super::array::Element;
use super::elementwise::add_rows;
use super::path::Path;
use super::pool::Pool;
use super::scratch::Scratch;
use super::shared::SharedMut;

/// Rows of a chunk whose sums are formed by themselves; fixed, so that they do not depend on the threads.
const CHUNK: usize = 64;
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

/// Sums over rows beside other work on them, in one pass: calls `job(rows, sums)` for chunks of the `n` rows, each with sums of
/// its own that begin at 0, and adds those of the chunks to `out` in their order. The arrays of `out` have one length and lie
/// side by side in `sums`.
pub fn by_chunks<const A: usize>(
    pool: &Pool,
    path: Path,
    out: [&mut [f32]; A],
    n: usize,
    job: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    let (chunks, c) = (n.div_ceil(CHUNK), out.first().map_or(0, |out| out.len()));
    let mut sums = Scratch::new(chunks * A * c);
    let parts = SharedMut::new(&mut sums);
    pool.run(chunks, &|chunk| {
        // SAFETY: each chunk has its own part.
        let sums = unsafe { parts.part(chunk * A * c, A * c) };
        sums.fill(0.0);
        job(chunk * CHUNK..((chunk + 1) * CHUNK).min(n), sums);
    });
    for (i, out) in out.into_iter().enumerate() {
        if chunks > 0 {
            add_rows(path, out, &sums, A * c, i * c);
        }
    }
}
