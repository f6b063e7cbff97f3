//! Matrix products: operands packed into panels, the micro-kernel run over cache blocks.
//!
//! A task is a block of rows by a range of panels of B. It walks over k in stretches for which its rows of A stay in the
//! second-level cache, over the panels, over blocks of k for which a panel stays in the first-level cache, and over tiles of
//! rows. Sums of a stretch stay with the task, so the result is touched once in a stretch. With vectors of 512 bits a block is a
//! stretch: sums stay in registers, and panels come from the second-level cache too.
//!
//! Every output element is the sum, over stretches, of the sum over blocks of KC of the micro-kernel's sum inside the block.
//! That order depends on K alone, so a row's result is the same alone or among others, and on any number of threads.

use std::ops::Range;

use super::bf16::{Number, convert};
use super::blocks::Blocks;
#[cfg(target_arch = "x86_64")]
use super::dot::settle;
#[cfg(target_arch = "aarch64")]
use super::kernel::Neon;
#[cfg(target_arch = "x86_64")]
use super::kernel::{Avx2, Avx512};
use super::kernel::{Kernel, Portable, prefetch_to_write};
use super::pack::{NEAR, Operand, Packed, pack};
use super::path::{Path, Vectors};
use super::pool::Pool;
use super::scratch::{self, Scratch};
use super::shared::SharedMut;
#[cfg(target_arch = "x86_64")]
use super::stream512;
use super::vectorized::vectorized;

/// What happens to the old content of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// It is replaced.
    Write,
    /// The product is added to it.
    Add,
}

/// Who computes.
#[derive(Clone, Copy)]
pub enum Workers<'a> {
    /// All threads of a pool.
    Pool(&'a Pool),
    /// The calling thread alone (inside a parallel region).
    Caller,
}

impl Workers<'_> {
    /// Calls `job(0) … job(tasks - 1)`.
    pub fn run(self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        match self {
            Workers::Pool(pool) => pool.run(tasks, job),
            Workers::Caller => (0..tasks).for_each(job),
        }
    }

    /// How many they are.
    pub fn threads(self) -> usize {
        match self {
            Workers::Pool(pool) => pool.threads(),
            Workers::Caller => 1,
        }
    }
}

/// The B operand.
#[derive(Clone, Copy)]
pub enum Source<'a, T = f32> {
    /// Packed for this product.
    Fresh(Operand<'a, T>),
    /// Packed before; may be longer than the product in both directions.
    Packed(&'a Packed),
}

/// Sizes of a product: result (m, n), inner size k, row distance of the result.
#[derive(Clone, Copy)]
pub struct Size {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// Distance between rows of the result.
    pub ldc: usize,
}

/// c[i, j] (=, +=) Σ_k a[i, k] · b[j, k] + bias[j]; a bias goes with [`Store::Write`].
pub fn gemm<T: Number>(
    workers: Workers<'_>,
    path: Path,
    size: Size,
    a: Operand<'_, T>,
    b: Source<'_, T>,
    c: &mut [f32],
    store: Store,
    bias: Option<&[f32]>,
) {
    let Size { m, n, k, .. } = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(c.len() >= (m - 1) * size.ldc + n, "result of {m}×{n} does not fit");
    assert!(bias.is_none_or(|bias| bias.len() >= n) && (bias.is_none() || store == Store::Write));
    if k == 0 {
        // An empty sum.
        if store == Store::Write {
            for row in c.chunks_mut(size.ldc).take(m) {
                row[..n].fill(0.0);
                row[..n].iter_mut().zip(bias.unwrap_or_default()).for_each(|(c, b)| *c = *b);
            }
        }
        return;
    }
    if let Source::Packed(packed) = b {
        assert!(packed.outer >= n && packed.k >= k, "packed operand of {}×{}", packed.outer, packed.k);
    }
    #[cfg(target_arch = "x86_64")]
    let stream = store == Store::Write && k <= Avx512::KC * Avx512::STRETCH && stream512::streams(path, c, size.ldc);
    #[cfg(not(target_arch = "x86_64"))]
    let stream = false;
    let product = Product { workers, path, size, a, c: SharedMut::new(c), store, bias, stream };
    match path.vectors() {
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => product.run::<Avx2>(b),
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => product.run::<Avx512>(b),
        #[cfg(target_arch = "aarch64")]
        Vectors::Neon => product.run::<Neon>(b),
        // Vectors of another processor: no path has them here.
        _ => product.run::<Portable>(b),
    }
}

/// A product that is about to run.
struct Product<'a, T: Number> {
    workers: Workers<'a>,
    path: Path,
    size: Size,
    a: Operand<'a, T>,
    c: SharedMut<'a>,
    store: Store,
    bias: Option<&'a [f32]>,
    /// Whether whole lines of the result pass the caches by: it is large and written once.
    stream: bool,
}

impl<T: Number> Product<'_, T> {
    fn run<K: Kernel>(&self, b: Source<'_, T>) {
        // With few rows a packed panel is used a few times only: it is packed, used and forgotten inside a task.
        if let Source::Fresh(operand) = b
            && self.size.m > K::MC
        {
            let space = scratch::take(self.size.n.next_multiple_of(K::NR) * self.size.k);
            let packed = Packed::new(self.workers, self.path, operand, (self.size.n, self.size.k), space);
            self.blocks::<K>(Source::Packed(&packed));
            scratch::give(packed.into_space());
        } else if let Source::Packed(packed) = b
            && self.size.m == 1
            && let Some(row) = self.a.single_row()
        {
            self.single::<K>(row, packed);
        } else {
            self.blocks::<K>(b);
        }
    }

    /// One row against panels that are read once, two at a time.
    fn single<K: Kernel>(&self, row: Operand<'_, T>, b: &Packed) {
        let Size { n, k, .. } = self.size;
        let panels = n.div_ceil(K::NR);
        let mut a = Scratch::new(k);
        convert(self.path, &mut a, &row.from(0)[..k]);
        // Pairs of panels per task: few tasks, and each reads a long stretch.
        let pairs = panels.div_ceil(2).div_ceil(4 * self.workers.threads());
        self.workers.run(panels.div_ceil(2 * pairs), &|task| {
            let columns = 2 * pairs * task..(2 * pairs * (task + 1)).min(panels);
            let (mut block, mut sums) = ([0.0; 64], [0.0; 64]);
            let (block, sums) = (&mut block[..2 * K::NR], &mut sums[..2 * K::NR]);
            for j in columns.clone().step_by(2) {
                let first = b.panel(j);
                let second = if j + 1 < columns.end { b.panel(j + 1) } else { first };
                assert!(first.len() >= k * K::NR && second.len() >= k * K::NR);
                let width = (2 * K::NR).min(columns.end * K::NR - j * K::NR).min(n - j * K::NR);
                for stretch in stretches::<K>(k) {
                    for k0 in stretch.clone().step_by(K::KC) {
                        let depth = K::KC.min(stretch.end - k0);
                        let panels = [first[k0 * K::NR..].as_ptr(), second[k0 * K::NR..].as_ptr()];
                        // SAFETY: `depth` steps of each (assertion); the path's features were detected.
                        unsafe { K::row(depth, a[k0..stretch.end].as_ptr(), panels, block) };
                        if k0 == stretch.start {
                            sums.copy_from_slice(block);
                        } else {
                            sums.iter_mut().zip(&*block).for_each(|(sum, x)| *sum += x);
                        }
                    }
                    self.put(sums, 2 * K::NR, (0, j * K::NR), (1, width), stretch.start > 0);
                }
            }
        });
    }

    /// Splits the result into blocks of rows and, where these are too few for the threads, of columns.
    fn blocks<K: Kernel>(&self, b: Source<'_, T>) {
        let (row_panels, column_panels) = (self.size.m.div_ceil(K::MR), self.size.n.div_ceil(K::NR));
        let blocks = Blocks::new(row_panels, column_panels, K::MC / K::MR, self.workers.threads());
        self.workers.run(blocks.tasks(), &|task| {
            let (rows, columns) = blocks.of(task);
            self.block::<K>(b, rows, columns);
            #[cfg(target_arch = "x86_64")]
            settle();
        });
    }

    /// One block of the result: panels of rows × panels of columns.
    fn block<K: Kernel>(&self, b: Source<'_, T>, rows: Range<usize>, columns: Range<usize>) {
        let Size { m, n, k, .. } = self.size;
        let longest = (K::KC * K::STRETCH).min(k);
        let fresh = if matches!(b, Source::Fresh(_)) { longest * K::NR } else { 0 };
        let mut packed_a = Scratch::new(rows.len() * K::MR * longest);
        // Sums of a tile, or of all where a stretch has several blocks.
        let kept = if longest > K::KC { rows.len() } else { 1 };
        let mut sums = Scratch::new(kept * K::MR * K::NR);
        let mut space = Scratch::new(fresh);
        for stretch in stretches::<K>(k) {
            let long = stretch.len();
            let near = if self.a.by_columns() { NEAR } else { long };
            for k0 in (0..long).step_by(near) {
                let depth = near.min(long - k0);
                for (panel, to) in rows.clone().zip(packed_a.chunks_exact_mut(K::MR * long)) {
                    let to = &mut to[k0 * K::MR..][..depth * K::MR];
                    pack(self.path, K::MR, to, self.a, panel * K::MR, m, stretch.start + k0, depth);
                }
            }
            for j in columns.clone() {
                let panel_b = match b {
                    Source::Packed(packed) => &packed.panel(j)[stretch.start * K::NR..][..long * K::NR],
                    Source::Fresh(operand) => {
                        pack(self.path, K::NR, &mut space, operand, j * K::NR, n, stretch.start, long);
                        &space[..long * K::NR]
                    }
                };
                // The next panel comes from the third-level cache while this one is worked on.
                let mut next = match b {
                    Source::Packed(packed) if j + 1 < columns.end => {
                        &packed.panel(j + 1)[stretch.start * K::NR..stretch.end * K::NR]
                    }
                    _ => &[],
                };
                let share = next.len().div_ceil(rows.len() * long.div_ceil(K::KC));
                for k0 in (0..long).step_by(K::KC) {
                    let depth = K::KC.min(long - k0);
                    let b = panel_b[k0 * K::NR..][..depth * K::NR].as_ptr();
                    for (i, a) in packed_a.chunks_exact(K::MR * long).enumerate().take(rows.len()) {
                        let (now, rest) = next.split_at(share.min(next.len()));
                        next = rest;
                        let a = a[k0 * K::MR..][..depth * K::MR].as_ptr();
                        let sums = &mut sums[i % kept * K::MR * K::NR..][..K::MR * K::NR];
                        let (row, column) = ((rows.start + i) * K::MR, j * K::NR);
                        let last = k0 + depth == long;
                        if last && !self.stream {
                            self.ask_for((row, column), K::MR.min(m - row));
                        }
                        // SAFETY: both panels have `depth` steps, and the sums are a tile (slices above); the path exists only
                        // after its features were detected.
                        unsafe { K::tile_asking(depth, a, b, sums.as_mut_ptr(), k0 > 0, now) };
                        if last {
                            let inside = (K::MR.min(m - row), K::NR.min(n - column));
                            self.put(sums, K::NR, (row, column), inside, stretch.start > 0);
                        }
                    }
                }
            }
        }
    }

    /// Asks for a tile of the result that will be written.
    fn ask_for(&self, (row, column): (usize, usize), rows: usize) {
        for row in row..row + rows {
            let line = self.c.address(row * self.size.ldc + column);
            prefetch_to_write(line);
            prefetch_to_write(line.wrapping_add(16));
        }
    }

    /// Brings the sums (rows, `wide`) of a stretch of k to the result from (row, column) on, where `inside` rows and columns
    /// are inside; they are added to those of the stretches before.
    fn put(&self, sums: &[f32], wide: usize, (row, column): (usize, usize), inside: (usize, usize), more: bool) {
        let bias = self.bias.filter(|_| !more).map_or(&[][..], |bias| &bias[column..column + inside.1]);
        let (ldc, (rows, width)) = (self.size.ldc, inside);
        let to = Target { c: &self.c, at: row * ldc + column, ldc, rows, width };
        #[cfg(target_arch = "x86_64")]
        if self.stream && width == wide {
            for (i, sums) in sums.chunks_exact(wide).take(rows).enumerate() {
                // SAFETY: a row of the caller's task, which begins at a cache line as all rows and panels do; the path has the
                // features (`streams`).
                unsafe { stream512::row(self.c.part(to.at + i * ldc, width), sums, bias) };
            }
            return;
        }
        put_rows(self.path, &to, sums, wide, more || self.store == Store::Add, bias);
    }
}

/// The stretches of k for which a task's rows of A stay in the second-level cache.
fn stretches<K: Kernel>(k: usize) -> impl Iterator<Item = Range<usize>> {
    let longest = K::KC * K::STRETCH;
    (0..k).step_by(longest).map(move |start| start..(start + longest).min(k))
}

/// Where the sums of a block go: `rows` rows of `width` columns, `ldc` apart.
struct Target<'a> {
    c: &'a SharedMut<'a>,
    at: usize,
    ldc: usize,
    rows: usize,
    width: usize,
}

vectorized! {
    /// c (=, += if `add`) sums + bias, the sums `wide` apart. The rows are the caller's alone.
    fn put_rows(to: &Target<'_>, sums: &[f32], wide: usize, add: bool, bias: &[f32]) {
        for (i, sums) in sums.chunks_exact(wide).take(to.rows).enumerate() {
            // SAFETY: a row of the caller's task.
            let c = unsafe { to.c.part(to.at + i * to.ldc, to.width) };
            let (c, c_rest) = c.as_chunks_mut::<16>();
            let (sums, sums_rest) = sums[..to.width].as_chunks::<16>();
            if add {
                for (c, sums) in c.iter_mut().zip(sums) {
                    c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum);
                }
                c_rest.iter_mut().zip(sums_rest).for_each(|(c, sum)| *c += sum);
            } else if bias.is_empty() {
                c.iter_mut().zip(sums).for_each(|(c, sums)| *c = *sums);
                c_rest.copy_from_slice(sums_rest);
            } else {
                let (bias, bias_rest) = bias.as_chunks::<16>();
                for ((c, sums), bias) in c.iter_mut().zip(sums).zip(bias) {
                    c.iter_mut().zip(sums).zip(bias).for_each(|((c, sum), bias)| *c = sum + bias);
                }
                c_rest.iter_mut().zip(sums_rest).zip(bias_rest).for_each(|((c, sum), bias)| *c = sum + bias);
            }
        }
    }
}
