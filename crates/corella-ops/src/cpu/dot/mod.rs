//! Matrix products in bfloat16 with sums in f32, on processors that have instructions for them.
//!
//! A's rows are read where they are if they are whole, and B is packed into panels. A task is a block of rows by a range of
//! panels; it walks over k in long stretches for which its rows of A stay in the second-level cache, over the panels, over
//! short stretches of k for which a panel stays in the first-level cache, and over tiles of rows. A tile's sums go on where
//! they stopped, so there is one order over k, whatever the blocks.

pub mod amx;
mod finish;
mod kernel;
mod pack;
mod probe;

pub use finish::{Finish, Then};
pub use pack::{PackedRight, pack_left};

use super::bf16::{Bf16, Number};
use super::gemm::{Size, Store, Workers};
use super::pack::Operand;
use super::path::Path;
use super::scratch::Scratch;
pub use amx::Amx;
use finish::{Place, finish};
pub use kernel::{Avx512Bf16, DotKernel, NR, STEP};

/// Rows of a task: with the longest stretch of k, 1.5 MiB of A.
const ROWS: usize = 256;
/// Longest stretch of k for which the rows of a task stay in the second-level cache.
const LONG: usize = 3072;
/// Stretch of k for which a panel stays in the first-level cache, 32 KiB.
const SHORT: usize = 512;

impl Path {
    /// Whether products in bfloat16 have kernels of their own.
    pub fn has_dot(self) -> bool {
        matches!(self, Path::Avx512Bf16 | Path::Amx)
    }
}

/// The A operand: rows where they are, and the last tile, or all, packed.
struct Left<'a> {
    direct: Option<Operand<'a, Bf16>>,
    /// Tiles from `packed_from` on.
    packed: Scratch<Bf16>,
    packed_from: usize,
    mr: usize,
    padded: usize,
}

impl<'a> Left<'a> {
    fn new(workers: Workers<'_>, from: Operand<'a, Bf16>, mr: usize, m: usize, k: usize) -> Left<'a> {
        let whole = !from.by_columns() && k.is_multiple_of(STEP);
        let packed_from = if whole { m / mr } else { 0 };
        let packed = pack::pack_left(workers, from, mr, packed_from * mr, m, k);
        Left { direct: whole.then_some(from), packed, packed_from, mr, padded: k.next_multiple_of(STEP) }
    }

    /// Where tile `tile` begins at `k`, and the distances of its rows and steps.
    fn at(&self, tile: usize, k: usize) -> (*const Bf16, usize, usize) {
        match self.direct {
            Some(from) if tile < self.packed_from => (from.row(tile * self.mr)[k..].as_ptr(), from.width(), STEP),
            _ => {
                let at = (tile - self.packed_from) * self.mr * self.padded + k * self.mr;
                (self.packed[at..].as_ptr(), STEP, self.mr * STEP)
            }
        }
    }
}

/// result = Σ_k a[i, k] · b[j, k], then what `to` says. The path has dot products ([`Path::has_dot`]).
pub fn product<O: Number>(
    workers: Workers<'_>,
    path: Path,
    size: Size,
    a: Operand<'_, Bf16>,
    b: &PackedRight,
    to: &Finish<'_, O>,
) {
    assert!(to.store == Store::Write || size_of::<O>() == size_of::<f32>(), "only f32 results are added to");
    assert!(b.outer >= size.n && b.k == size.k.next_multiple_of(STEP), "packed operand of {}×{}", b.outer, b.k);
    match path {
        Path::Amx => run::<Amx, O>(workers, size, a, b, to),
        Path::Avx512Bf16 => run::<Avx512Bf16, O>(workers, size, a, b, to),
        other => unreachable!("{} has no dot products", other.name()),
    }
}

fn run<K: DotKernel, O: Number>(
    workers: Workers<'_>,
    size: Size,
    a: Operand<'_, Bf16>,
    b: &PackedRight,
    to: &Finish<'_, O>,
) {
    if size.m == 0 || size.n == 0 {
        return;
    }
    let left = Left::new(workers, a, K::MR, size.m, size.k);
    let (tiles, panels) = (size.m.div_ceil(K::MR), size.n.div_ceil(NR));
    let block = ROWS / K::MR;
    let row_blocks = tiles.div_ceil(block);
    let wanted = if workers.threads() > 1 { 4 * workers.threads() } else { 1 };
    let range = panels.div_ceil(wanted.div_ceil(row_blocks)).max(1);
    let column_blocks = panels.div_ceil(range);
    workers.run(row_blocks * column_blocks, &|task| {
        let (row, column) = (task % row_blocks, task / row_blocks);
        let rows = row * block..((row + 1) * block).min(tiles);
        let columns = column * range..((column + 1) * range).min(panels);
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { K::begin() };
        self::block::<K, O>(&left, b, to, size, rows, columns);
        // SAFETY: begun above.
        unsafe { K::end() };
    });
}

/// Tiles of rows × panels.
fn block<K: DotKernel, O: Number>(
    left: &Left<'_>,
    b: &PackedRight,
    to: &Finish<'_, O>,
    size: Size,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) {
    let tile = K::MR * NR;
    // Sums of one panel, or of all where k has several long stretches.
    let kept = if b.k > LONG { columns.len() } else { 1 };
    let mut sums = Scratch::<f32>::new(kept * rows.len() * tile);
    // No steps at all: an empty sum.
    if b.k == 0 {
        sums.fill(0.0);
    }
    for long in (0..b.k.max(1)).step_by(LONG) {
        let long_end = (long + LONG).min(b.k);
        for j in columns.clone() {
            let panel = b.panel(j);
            let sums =
                &mut sums[if kept > 1 { (j - columns.start) * rows.len() * tile } else { 0 }..][..rows.len() * tile];
            for short in (long..long_end.max(long + 1)).step_by(SHORT) {
                let short_end = (short + SHORT).min(long_end);
                for (i, sums) in rows.clone().zip(sums.chunks_exact_mut(tile)) {
                    if short_end > short {
                        let (a, a_row, a_step) = left.at(i, short);
                        let panel = &panel[short * NR..short_end * NR];
                        // SAFETY: `left` and the panel hold whole steps up to `short_end` (their packing, or the shape);
                        // `begin` was called by the caller on this thread.
                        unsafe {
                            let steps = (short_end - short) / STEP;
                            K::tile(steps, a, a_row, a_step, panel.as_ptr(), sums.as_mut_ptr(), short > 0);
                        }
                    }
                    if short_end == b.k {
                        let (row, column) = (i * K::MR, j * NR);
                        let (rows, columns) = (K::MR.min(size.m - row), NR.min(size.n - column));
                        // SAFETY: this tile belongs to this task alone.
                        unsafe { finish(sums, to, Place { row, column, rows, columns }) };
                    }
                }
            }
        }
    }
}

/// Runs bare products on the calling thread for some tenth of a millisecond; returns their floating-point operations.
pub fn bare_products(path: Path) -> usize {
    // SAFETY: the path exists only after its features were detected and permitted.
    unsafe {
        match path {
            Path::Amx => <Amx as probe::Peak>::run(4_000),
            Path::Avx512Bf16 => <Avx512Bf16 as probe::Peak>::run(20_000),
            other => unreachable!("{} has no dot products", other.name()),
        }
    }
}
