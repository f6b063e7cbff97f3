//! Matrix products: pack both operands into panels, then run the micro-kernel over cache blocks.
//!
//! Every output element is the sum, over blocks of KC, of the micro-kernel's sum inside the block. That order depends on
//! K alone, so a row's result is the same alone or among others, and on any number of threads.

use std::cell::Cell;

use super::kernel::{MR, NR, tile};
use super::path::Path;
use super::pool::Pool;
use super::shared::SharedMut;

/// Depth of a block: a B panel of KC × NR (16 KiB) stays in the first-level cache.
const KC: usize = 256;
/// Rows of a block: an A block of MC × KC (96 KiB) stays in the second-level cache.
const MC: usize = 16 * MR;
/// Columns of a task.
const NC: usize = 16 * NR;

/// A matrix of the product, seen from its outer index (row of the result for A, column for B) and the inner index k.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between neighbours along the outer index.
    pub outer: usize,
    /// Distance between neighbours along k.
    pub inner: usize,
}

impl<'a> Operand<'a> {
    /// Outer index along the rows of a row-major matrix of width `cols`.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Operand { data, outer: cols, inner: 1 }
    }

    /// Outer index along the columns of a row-major matrix of width `cols`.
    pub fn columns(data: &'a [f32], cols: usize) -> Self {
        Operand { data, outer: 1, inner: cols }
    }
}

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
    fn run(self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        match self {
            Workers::Pool(pool) => pool.run(tasks, job),
            Workers::Caller => (0..tasks).for_each(job),
        }
    }
}

thread_local! {
    /// Packing space of this thread, kept between products.
    static SCRATCH: [Cell<Vec<f32>>; 2] = const { [Cell::new(Vec::new()), Cell::new(Vec::new())] };
}

/// Lends one of this thread's scratch vectors, at least `len` long.
fn with_scratch<R>(which: usize, len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut space = SCRATCH.with(|s| s[which].take());
    if space.len() < len {
        space.resize(len, 0.0);
    }
    let result = body(&mut space[..len]);
    SCRATCH.with(|s| s[which].set(space));
    result
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

/// c[i, j] (=, +=) Σ_k a[i, k] · b[j, k] + bias[j].
pub fn gemm(
    workers: Workers<'_>,
    path: Path,
    size: Size,
    a: Operand<'_>,
    b: Operand<'_>,
    c: &mut [f32],
    store: Store,
    bias: Option<&[f32]>,
) {
    let Size { m, n, k, .. } = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0 && c.len() >= (m - 1) * size.ldc + n, "result of {m}×{n} does not fit");
    let (a_panels, b_panels) = (m.div_ceil(MR), n.div_ceil(NR));
    let out = Output { c: SharedMut::new(c), size, store, bias };
    with_scratch(0, a_panels * MR * k, |packed_a| {
        pack_all::<MR>(workers, path, packed_a, a, m, k);
        let packed_a = &*packed_a;
        if m <= MC {
            // B is used once: each task packs a panel into its own small space and uses it at once.
            workers.run(b_panels, &|panel| {
                with_scratch(1, KC * NR, |space| {
                    for k0 in (0..k).step_by(KC) {
                        let kc = KC.min(k - k0);
                        let packed_b = &mut space[..kc * NR];
                        path.vectorize(|| pack::<NR>(packed_b, b, panel * NR, n, k0, kc));
                        for i in 0..a_panels {
                            out.put(
                                path,
                                k0,
                                (i, panel),
                                &packed_a[k0 * MR * a_panels + i * MR * kc..][..MR * kc],
                                packed_b,
                            );
                        }
                    }
                });
            });
        } else {
            with_scratch(1, b_panels * NR * k, |packed_b| {
                pack_all::<NR>(workers, path, packed_b, b, n, k);
                let packed_b = &*packed_b;
                let (row_blocks, column_blocks) = (m.div_ceil(MC), n.div_ceil(NC));
                workers.run(row_blocks * column_blocks, &|task| {
                    let (row, column) = (task % row_blocks, task / row_blocks);
                    let rows = row * (MC / MR)..((row + 1) * (MC / MR)).min(a_panels);
                    let columns = column * (NC / NR)..((column + 1) * (NC / NR)).min(b_panels);
                    for k0 in (0..k).step_by(KC) {
                        let kc = KC.min(k - k0);
                        for j in columns.clone() {
                            let b = &packed_b[k0 * NR * b_panels + j * NR * kc..][..NR * kc];
                            for i in rows.clone() {
                                let a = &packed_a[k0 * MR * a_panels + i * MR * kc..][..MR * kc];
                                out.put(path, k0, (i, j), a, b);
                            }
                        }
                    }
                });
            });
        }
    });
}

/// The result, and what to do with a finished tile.
struct Output<'a> {
    c: SharedMut<'a>,
    size: Size,
    store: Store,
    bias: Option<&'a [f32]>,
}

impl Output<'_> {
    /// Computes the tile of A panel `at.0` and B panel `at.1` for the block that starts at `k0`, and stores it.
    #[inline]
    fn put(&self, path: Path, k0: usize, at: (usize, usize), a: &[f32], b: &[f32]) {
        let sums = tile(path, a, b);
        let (row0, column0) = (at.0 * MR, at.1 * NR);
        let width = NR.min(self.size.n - column0);
        let rows = MR.min(self.size.m - row0);
        for (i, sums) in sums.iter().enumerate().take(rows) {
            // SAFETY: every tile belongs to exactly one task, and tiles do not overlap.
            let c = unsafe { self.c.part((row0 + i) * self.size.ldc + column0, width) };
            let add = k0 > 0 || self.store == Store::Add;
            // The whole width is the common case; a known length spares a call per row.
            if let Ok(c) = <&mut [f32; NR]>::try_from(&mut *c) {
                if add {
                    for (c, s) in c.iter_mut().zip(sums) {
                        *c += s;
                    }
                } else {
                    *c = *sums;
                }
            } else {
                for (c, s) in c.iter_mut().zip(sums) {
                    *c = if add { *c + s } else { *s };
                }
            }
            if let Some(bias) = self.bias
                && k0 == 0
            {
                for (c, b) in c.iter_mut().zip(&bias[column0..column0 + width]) {
                    *c += b;
                }
            }
        }
    }
}

/// Packs a whole operand: for each block of KC, panel after panel of W outer indices.
fn pack_all<const W: usize>(
    workers: Workers<'_>,
    path: Path,
    to: &mut [f32],
    from: Operand<'_>,
    outer: usize,
    k: usize,
) {
    let panels = outer.div_ceil(W);
    let to = SharedMut::new(to);
    workers.run(panels, &|panel| {
        for k0 in (0..k).step_by(KC) {
            let kc = KC.min(k - k0);
            // SAFETY: panel `panel` of block `k0` is written by this task alone.
            let to = unsafe { to.part(k0 * W * panels + panel * W * kc, W * kc) };
            path.vectorize(|| pack::<W>(to, from, panel * W, outer, k0, kc));
        }
    });
}

/// to[k·W + i] = from(first + i, k0 + k), and 0 beyond the last outer index.
#[inline(always)]
fn pack<const W: usize>(to: &mut [f32], from: Operand<'_>, first: usize, outer: usize, k0: usize, kc: usize) {
    let width = W.min(outer - first);
    if from.outer == 1 {
        for (k, to) in to.chunks_exact_mut(W).enumerate() {
            let row = &from.data[(k0 + k) * from.inner + first..][..width];
            if let (Ok(to), Ok(row)) = (<&mut [f32; W]>::try_from(&mut *to), <&[f32; W]>::try_from(row)) {
                *to = *row;
            } else {
                to[..width].copy_from_slice(row);
                to[width..].fill(0.0);
            }
        }
    } else {
        // Missing rows repeat the last one and are blanked below: the inner loop stays free of branches.
        let rows: [&[f32]; W] = std::array::from_fn(|i| {
            let row = first + i.min(width - 1);
            &from.data[row * from.outer + k0 * from.inner..][..(kc - 1) * from.inner + 1]
        });
        for (k, to) in to.chunks_exact_mut(W).enumerate() {
            for (to, row) in to.iter_mut().zip(&rows) {
                *to = row[k * from.inner];
            }
            if width < W {
                to[width..].fill(0.0);
            }
        }
    }
}
