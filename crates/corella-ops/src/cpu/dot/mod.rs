//! Matrix products in bfloat16 with sums in f32, on processors that have instructions for them.
//!
//! A's rows are read where they are if they are whole, and B is packed into panels. A task is a block of rows by a range of
//! panels; it walks over k in long stretches for which its rows of A stay in the second-level cache, over the panels, over
//! short stretches of k for which a panel stays in the first-level cache, and over tiles of rows. A tile's sums go on where
//! they stopped, so there is one order over k, whatever the blocks. A few rows (generation) meet panel after panel, as memory
//! brings them, with the same additions.

pub mod amx;
mod finish;
mod images;
mod kernel;
mod pack;
mod probe;
mod split;
pub mod triple;

pub use finish::{Finish, STREAMED, Then, settle};
pub use images::Images;
pub use pack::{PackedRight, Panels, pack_left, transpose};
pub use split::{SplitRows, split_product};

use std::ops::Range;

use super::bf16::{Bf16, Number};
use super::blocks::Blocks;
use super::gemm::{Size, Store, Workers};
use super::infer::shares;
use super::pack::Operand;
use super::path::Path;
use super::scratch::Scratch;
pub use amx::Amx;
use finish::{Place, finish};
pub use kernel::{Avx512Bf16, DotKernel, FewKernel, NR, STEP};

/// Most rows of a task.
const ROWS: usize = 256;
/// Stretch of k for which the rows of a task stay in the second-level cache: 512 KiB of A. Shorter products have one stretch
/// up to three times as long, and need room for the sums of a single panel only.
const LONG: usize = 1024;
/// Stretch of k for which a panel stays in the first-level cache beside a tile's rows of A.
const SHORT: usize = 256;

impl Path {
    /// Whether products in bfloat16 have kernels of their own.
    pub fn has_dot(self) -> bool {
        matches!(self, Path::Avx512Bf16 | Path::Amx)
    }
}

/// result = Σ_k a[i, k] · b[j, k], then what `to` says. The path has dot products ([`Path::has_dot`]). B may be longer than the
/// product in both directions.
pub fn product<O: Number>(
    workers: Workers<'_>,
    path: Path,
    size: Size,
    a: Operand<'_, Bf16>,
    b: Panels<'_>,
    to: &Finish<'_, O>,
) {
    assert!(path.has_dot(), "{} has no dot products", path.name());
    match path {
        Path::Amx => run::<Amx<1>, O>(workers, size, a, b, to),
        _ => run::<Avx512Bf16, O>(workers, size, a, b, to),
    }
}

fn run<K: DotKernel, O: Number>(
    workers: Workers<'_>,
    size: Size,
    a: Operand<'_, Bf16>,
    b: Panels<'_>,
    to: &Finish<'_, O>,
) {
    assert!(to.store == Store::Write || size_of::<O>() == size_of::<f32>(), "only f32 results are added to");
    assert!(b.outer >= size.n && b.k >= size.k.next_multiple_of(STEP), "packed operand of {}×{}", b.outer, b.k);
    if size.m == 0 || size.n == 0 {
        return;
    }
    if size.m <= K::FEW && size.k > 0 && !a.by_columns() && size.k.is_multiple_of(STEP) {
        return few::<K, O>(workers, size, a, b, to);
    }
    let (tiles, panels) = (size.m.div_ceil(K::MR), size.n.div_ceil(NR));
    let blocks = Blocks::new(tiles, panels, ROWS / K::MR, workers.threads());
    workers.run(blocks.tasks(), &|task| {
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { K::begin() };
        let (rows, columns) = blocks.of(task);
        Block { a, b, to, size, rows, columns }.run::<K>();
        // SAFETY: begun above.
        unsafe { K::end() };
        settle();
    });
}

/// A few rows, whole steps of k.
fn few<K: FewKernel, O: Number>(
    workers: Workers<'_>,
    size: Size,
    a: Operand<'_, Bf16>,
    b: Panels<'_>,
    to: &Finish<'_, O>,
) {
    let Size { m, n, k, .. } = size;
    assert!(a.row(m - 1).len() >= k * K::PARTS, "{m} rows of {k}");
    shares::run(workers, n.div_ceil(NR), &|j| {
        let mut sums = Scratch::<f32>::new(K::FEW * NR);
        let panel = &b.panel(j)[..k * NR];
        // SAFETY: the path exists only after its features were detected and permitted; rows of A (asserted) and the panel are
        // `k` long; the tile belongs to this task alone.
        unsafe {
            K::begin_few(m);
            K::few(m, k / STEP, a.row(0).as_ptr(), a.width(), panel.as_ptr(), sums.as_mut_ptr());
            K::end();
            let column = j * NR;
            finish(&sums, to, Place { row: 0, column, rows: m, columns: NR.min(n - column) });
        }
        settle();
    });
}

/// A task.
struct Block<'a, O: Number> {
    a: Operand<'a, Bf16>,
    b: Panels<'a>,
    to: &'a Finish<'a, O>,
    size: Size,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<O: Number> Block<'_, O> {
    /// The product's inner size in whole steps.
    fn k(&self) -> usize {
        self.size.k.next_multiple_of(STEP)
    }

    fn run<K: DotKernel>(&self) {
        let (size, k) = (self.size, self.k());
        let (rows, panels, tile) = (self.rows.len(), self.columns.len(), K::MR * NR);
        let long = if k <= 3 * LONG { k } else { LONG };
        // Sums of one panel, or of all where k has several long stretches.
        let kept = if k > long { panels } else { 1 };
        let mut sums = Scratch::<f32>::new(kept * rows * tile);
        if k == 0 {
            // An empty sum.
            sums.fill(0.0);
            for j in self.columns.clone() {
                self.rows.clone().zip(sums.chunks_exact(tile)).for_each(|(i, sums)| self.finish::<K>(i, j, sums));
            }
            return;
        }
        // Rows are read where they are, if they are whole.
        let direct = !self.a.by_columns() && size.k.is_multiple_of(STEP) && self.rows.end * K::MR <= size.m;
        let mut packed = Scratch::<Bf16>::new(if direct { 0 } else { rows * K::MR * long });
        for from in (0..k).step_by(long) {
            let stretch = from..(from + long).min(k);
            let packed = if direct { None } else { Some(&mut packed[..rows * K::MR * stretch.len()]) };
            let left = match packed {
                None => Left::Direct(self.a),
                Some(packed) => {
                    let first = self.rows.start * K::MR;
                    // SAFETY: the path has the features (where a product begins).
                    unsafe { pack::pack_left(packed, self.a, K::MR, first..size.m, stretch.clone(), size.k) };
                    Left::Packed(packed)
                }
            };
            for (index, j) in self.columns.clone().enumerate() {
                let at = if kept > 1 { index * rows * tile } else { 0 };
                self.panel::<K>(&left, &stretch, j, &mut sums[at..at + rows * tile]);
            }
        }
    }

    /// One stretch of k of one panel, all rows.
    fn panel<K: DotKernel>(&self, left: &Left<'_>, stretch: &Range<usize>, j: usize, sums: &mut [f32]) {
        let panel = &self.b.panel(j)[..stretch.end * NR];
        let mut ahead = Ahead::new(self, stretch, j, sums.len() / (K::MR * NR));
        for short in stretch.clone().step_by(SHORT) {
            let end = (short + SHORT).min(stretch.end);
            for (row, sums) in sums.chunks_exact_mut(K::MR * NR).enumerate() {
                let (a, a_row, a_step) = match left {
                    Left::Direct(a) => {
                        let first = (self.rows.start + row) * K::MR;
                        if j == self.columns.start && row + 1 < self.rows.len() {
                            (first + K::MR..first + 2 * K::MR).for_each(|next| prefetch(&a.row(next)[short..end]));
                        }
                        (a.row(first)[short..].as_ptr(), a.width(), STEP)
                    }
                    Left::Packed(a) => {
                        let at = (row * stretch.len() + short - stretch.start) * K::MR;
                        (a[at..].as_ptr(), STEP, K::MR * STEP)
                    }
                };
                prefetch(ahead.next());
                let b = panel[short * NR..end * NR].as_ptr();
                // SAFETY: A has whole tiles and whole steps up to `end` (packed so, or checked for what is direct), and so
                // has the panel; `begin` was called on this thread.
                unsafe { K::tile((end - short) / STEP, a, a_row, a_step, b, sums.as_mut_ptr(), short > 0) };
                if end == self.k() {
                    self.finish::<K>(self.rows.start + row, j, sums);
                }
            }
        }
    }

    fn finish<K: DotKernel>(&self, tile: usize, panel: usize, sums: &[f32]) {
        let (row, column) = (tile * K::MR, panel * NR);
        let (rows, columns) = (K::MR.min(self.size.m - row), NR.min(self.size.n - column));
        // SAFETY: this tile belongs to this task alone; the path has the features.
        unsafe { finish(sums, self.to, Place { row, column, rows, columns }) };
    }
}

/// The rows of a task, for a stretch of k.
enum Left<'a> {
    /// Where they are.
    Direct(Operand<'a, Bf16>),
    /// (tile, step, MR, STEP).
    Packed(&'a [Bf16]),
}

/// The next panel, in as many parts as there are tiles to do before it: it comes from far while they are done.
struct Ahead<'a> {
    rest: &'a [Bf16],
    part: usize,
}

impl<'a> Ahead<'a> {
    fn new<O: Number>(block: &Block<'a, O>, stretch: &Range<usize>, j: usize, rows: usize) -> Ahead<'a> {
        if j + 1 >= block.columns.end {
            return Ahead { rest: &[], part: 1 };
        }
        let rest = &block.b.panel(j + 1)[stretch.start * NR..stretch.end * NR];
        Ahead { rest, part: rest.len().div_ceil(rows * stretch.len().div_ceil(SHORT)).next_multiple_of(STEP) }
    }

    fn next(&mut self) -> &'a [Bf16] {
        let (part, rest) = self.rest.split_at(self.part.min(self.rest.len()));
        self.rest = rest;
        part
    }
}

/// Asks for numbers that will be needed soon: every second line, as lines come from memory in pairs, and the few buffers for
/// lines on the way are what a product runs out of first.
#[inline(always)]
fn prefetch(soon: &[Bf16]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in soon.chunks(2 * STEP) {
        // SAFETY: a prefetch of an address inside a slice; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Runs bare products on the calling thread for some tenth of a millisecond; returns their floating-point operations.
pub fn bare_products(path: Path) -> usize {
    assert!(path.has_dot(), "{} has no dot products", path.name());
    // SAFETY: the path exists only after its features were detected and permitted.
    unsafe {
        match path {
            Path::Amx => <Amx<1> as probe::Peak>::run(4_000),
            _ => <Avx512Bf16 as probe::Peak>::run(20_000),
        }
    }
}
