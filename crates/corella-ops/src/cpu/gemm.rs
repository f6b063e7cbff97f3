//! Matrix products: operands packed into panels, the micro-kernel run over cache blocks.
//!
//! Every output element is the sum, over blocks of KC, of the micro-kernel's sum inside the block. That order depends on
//! K alone, so a row's result is the same alone or among others, and on any number of threads.

use super::bf16::{Number, convert};
#[cfg(target_arch = "x86_64")]
use super::dot::{Panels, STEP};
#[cfg(target_arch = "aarch64")]
use super::kernel::Neon;
#[cfg(target_arch = "x86_64")]
use super::kernel::{Avx2, Avx512};
use super::kernel::{Finish, Kernel, Portable};
use super::pack::{Operand, Packed, pack};
use super::path::{Path, Vectors};
use super::pool::Pool;
use super::scratch::{self, Scratch};
use super::shared::SharedMut;

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
pub enum Right<'a, T = f32> {
    /// Packed for this product.
    Fresh(Operand<'a, T>),
    /// Packed before; may be longer than the product in both directions.
    Packed(&'a Packed),
    /// The same for products in bf16 on paths with instructions for them, which [`gemm`] knows nothing of.
    #[cfg(target_arch = "x86_64")]
    Panels(Panels<'a>),
}

impl<T> Right<'_, T> {
    /// `n` outer indices as the inner size of the next product: in whole steps where that product's kernel takes steps.
    pub fn steps(&self, n: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Right::Panels(_) => n.next_multiple_of(STEP),
            _ => n,
        }
    }
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
    b: Right<'_, T>,
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
    if let Right::Packed(packed) = b {
        assert!(packed.outer >= n && packed.k >= k, "packed operand of {}×{}", packed.outer, packed.k);
    }
    let product = Product { workers, path, size, a, c: SharedMut::new(c), store, bias };
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
}

impl<T: Number> Product<'_, T> {
    fn run<K: Kernel>(&self, b: Right<'_, T>) {
        // With few rows a packed panel is used a few times only: it is packed, used and forgotten inside a task.
        if let Right::Fresh(operand) = b
            && self.size.m > K::MC
        {
            let space = scratch::take(self.size.n.next_multiple_of(K::NR) * self.size.k);
            let packed = Packed::new(self.workers, self.path, operand, (self.size.n, self.size.k), space);
            self.blocks::<K>(Right::Packed(&packed));
            scratch::give(packed.into_space());
        } else if let Right::Packed(packed) = b
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
            let mut sums = [0.0; 64];
            let sums = &mut sums[..2 * K::NR];
            for k0 in (0..k).step_by(K::KC) {
                let depth = K::KC.min(k - k0);
                let a = &a[k0..k0 + depth];
                for j in columns.clone().step_by(2) {
                    let first = b.panel(j, k0);
                    let second = if j + 1 < columns.end { b.panel(j + 1, k0) } else { first };
                    assert!(first.len() >= depth * K::NR && second.len() >= depth * K::NR);
                    // SAFETY: `depth` steps of each (assertion); the path's features were detected.
                    unsafe { K::row(depth, a.as_ptr(), [first.as_ptr(), second.as_ptr()], sums) };
                    let width = (2 * K::NR).min(columns.end * K::NR - j * K::NR).min(n - j * K::NR);
                    // SAFETY: these columns belong to this task alone.
                    let c = unsafe { self.c.part(j * K::NR, width) };
                    let add = k0 > 0 || self.store == Store::Add;
                    for (i, (c, sum)) in c.iter_mut().zip(&*sums).enumerate() {
                        *c = match self.bias {
                            _ if add => *c + sum,
                            Some(bias) => sum + bias[j * K::NR + i],
                            None => *sum,
                        };
                    }
                }
            }
        });
    }

    /// Splits the result into blocks of rows and, where these are too few for the threads, of columns.
    fn blocks<K: Kernel>(&self, b: Right<'_, T>) {
        let (row_panels, column_panels) = (self.size.m.div_ceil(K::MR), self.size.n.div_ceil(K::NR));
        let wanted = if self.workers.threads() > 1 { 4 * self.workers.threads() } else { 1 };
        let rows = K::MC / K::MR;
        let row_blocks = row_panels.div_ceil(rows);
        let columns = column_panels.div_ceil(wanted.div_ceil(row_blocks)).max(1);
        let column_blocks = column_panels.div_ceil(columns);
        self.workers.run(row_blocks * column_blocks, &|task| {
            let (row, column) = (task % row_blocks, task / row_blocks);
            self.block::<K>(
                b,
                row * rows..((row + 1) * rows).min(row_panels),
                column * columns..((column + 1) * columns).min(column_panels),
            );
        });
    }

    /// One block of the result: panels of rows × panels of columns.
    fn block<K: Kernel>(&self, b: Right<'_, T>, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
        let Size { m, n, k, ldc } = self.size;
        let fresh = if matches!(b, Right::Fresh(_)) { K::KC * K::NR } else { 0 };
        let mut packed_a = Scratch::new(rows.len() * K::MR * K::KC.min(k));
        let mut space = Scratch::new(fresh);
        for k0 in (0..k).step_by(K::KC) {
            let depth = K::KC.min(k - k0);
            for (panel, to) in rows.clone().zip(packed_a.chunks_exact_mut(K::MR * depth)) {
                pack(self.path, K::MR, to, self.a, panel * K::MR, m, k0, depth);
            }
            for j in columns.clone() {
                let panel_b = match b {
                    Right::Packed(packed) => packed.panel(j, k0),
                    Right::Fresh(operand) => {
                        pack(self.path, K::NR, &mut space, operand, j * K::NR, n, k0, depth);
                        &*space
                    }
                    #[cfg(target_arch = "x86_64")]
                    Right::Panels(_) => unreachable!("panels for dot products"),
                };
                let width = K::NR.min(n - j * K::NR);
                let finish = match self.bias {
                    _ if k0 > 0 || self.store == Store::Add => Finish::Add,
                    Some(bias) => Finish::WriteBias(&bias[j * K::NR..][..width]),
                    None => Finish::Write,
                };
                assert!(panel_b.len() >= K::NR * depth);
                // The next panel comes from the third-level cache while this one is worked on.
                let next = match b {
                    Right::Packed(packed) if j + 1 < columns.end => packed.panel(j + 1, k0),
                    _ => &[],
                };
                let share = next.len().div_ceil(rows.len());
                for (i, panel_a) in rows.clone().zip(packed_a.chunks_exact(K::MR * depth)) {
                    let height = K::MR.min(m - i * K::MR);
                    let at = i * K::MR * ldc + j * K::NR;
                    let done = (i - rows.start) * share;
                    prefetch(next.get(done..(done + share).min(next.len())).unwrap_or_default());
                    // SAFETY: the tile lies inside c (checked by `tile_at`) and belongs to this task alone;
                    // both panels have `depth` steps (chunk length and assertion above); the path exists only
                    // after its features were detected.
                    unsafe {
                        let c = self.c.tile_at(at, (height - 1) * ldc + width);
                        K::tile(depth, panel_a.as_ptr(), panel_b.as_ptr(), c, ldc, height, width, finish);
                    }
                }
            }
        }
    }
}

/// Asks for numbers that will be needed soon.
#[inline(always)]
pub fn prefetch<T>(soon: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in soon.chunks(64 / size_of::<T>()) {
        // SAFETY: a prefetch of an address inside a slice; it reads nothing.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}
