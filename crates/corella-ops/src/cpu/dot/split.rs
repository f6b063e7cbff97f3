//! Products of activations in f32 and weights in bfloat16 on tiles: an activation is the sum of two numbers in bfloat16, which
//! keep 16 of its 24 bits.
//!
//! That is twice the tiles of A for each of B. So here A is what stays in the first-level cache and B what passes by: a task
//! is a group of panels by all rows; for stretches of k for which the group stays in the second-level cache, for tiles of rows,
//! for a few panels, for short stretches of k, it meets the panels one after the other. Sums are kept between stretches: the
//! order over k is that of a single row.

use super::amx::Amx;
use super::finish::{Finish, Place, finish, settle};
use super::kernel::{DotKernel, NR, STEP};
use super::pack::Panels;
use super::{few, prefetch};
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::infer::shares;
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::pool::Pool;
use crate::cpu::rows::by_rows;
use crate::cpu::scratch::Scratch;
use crate::cpu::vectorized::vectorized;

/// The kernel: tiles with numbers of A in two parts.
type Kernel = Amx<2>;
/// Sums of a tile.
const TILE: usize = Kernel::MR * NR;
/// Panels of a task: 512 KiB for a stretch, as much again for the next task, and a tile of rows beside them.
const GROUP: usize = 8;
/// k of a stretch.
const STRETCH: usize = 1024;
/// Panels that meet a tile's rows while these are in the first-level cache, with their sums.
const NEAR: usize = 4;
/// k for which they are: 32 KiB of A.
const SHORT: usize = 256;

impl Path {
    /// Whether `split_product` runs.
    pub fn has_split_product(self) -> bool {
        self == Path::Amx
    }
}

/// Rows in f32 as `split_product` reads them: STEP upper parts, STEP lower parts, and so on.
pub struct SplitRows {
    numbers: Scratch<Bf16>,
    rows: usize,
    /// Inner size, padded.
    k: usize,
}

impl SplitRows {
    /// Splits the first `n` rows of x (N,C).
    pub fn new(pool: &Pool, path: Path, x: &[f32], n: usize, c: usize) -> SplitRows {
        let k = c.next_multiple_of(STEP);
        // Whole tiles, but of few rows only as many as there are.
        let rows = if n <= Kernel::FEW { n } else { n.next_multiple_of(Kernel::MR) };
        let mut numbers = Scratch::<Bf16>::new(rows * 2 * k);
        by_rows(pool, &mut numbers, rows, 2 * k, |first, _, numbers| {
            for (i, to) in numbers.chunks_exact_mut(2 * k).enumerate() {
                split(path, to, if first + i < n { &x[(first + i) * c..][..c] } else { &[] });
            }
        });
        SplitRows { numbers, rows, k }
    }

    /// Rows from `row` on, from `k` on.
    fn at(&self, row: usize, k: usize) -> &[Bf16] {
        &self.numbers[2 * (row * self.k + k)..]
    }
}

vectorized! {
    /// x as sums of two BF16 each, which keep 16 of its 24 bits: upper and lower parts of STEP numbers in turns, for kernels
    /// with two parts. Numbers of the last step that x lacks are zero. The upper part is x cut off: it never overflows.
    pub fn split(to: &mut [Bf16], x: &[f32]) {
        let (steps, rest) = x.as_chunks::<STEP>();
        let (to, last) = to.split_at_mut(2 * STEP * steps.len());
        for (to, x) in to.chunks_exact_mut(2 * STEP).zip(steps) {
            let (upper, lower) = to.split_at_mut(STEP);
            for ((upper, lower), x) in upper.iter_mut().zip(lower).zip(x) {
                *upper = Bf16((x.to_bits() >> 16) as u16);
                *lower = Bf16::put(x - upper.to_f32());
            }
        }
        last.fill(Bf16(0));
        for (i, x) in rest.iter().enumerate() {
            last[i] = Bf16((x.to_bits() >> 16) as u16);
            last[STEP + i] = Bf16::put(x - last[i].to_f32());
        }
    }
}

/// result (m, n) = Σ_k x[i, k] · b[j, k], then what `to` says. The path has it ([`Path::has_split_product`]).
pub fn split_product(workers: Workers<'_>, path: Path, size: Size, x: &SplitRows, b: Panels<'_>, to: &Finish<'_, f32>) {
    assert!(path.has_split_product(), "tiles");
    let Size { m, n, .. } = size;
    assert!(x.rows >= m && b.outer >= n && b.k == x.k, "packed operand of {}×{}", b.outer, b.k);
    if m == 0 || n == 0 || x.k == 0 {
        return;
    }
    if m <= Kernel::FEW {
        return few::<Kernel, f32>(workers, Size { k: x.k, ..size }, Operand::rows(&x.numbers, 2 * x.k), b, to);
    }
    let panels = n.div_ceil(NR);
    // Small groups where there are few panels, so that every thread has some.
    let group = GROUP.min(panels.div_ceil(4 * workers.threads())).max(1);
    shares::run(workers, panels.div_ceil(group), &|task| {
        let first = task * group;
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { Kernel::begin() };
        Group { x, b, to, size, first, end: (first + group).min(panels) }.run();
        // SAFETY: begun above.
        unsafe { Kernel::end() };
        settle();
    });
}

/// A task: panels `first` .. `end`.
struct Group<'a> {
    x: &'a SplitRows,
    b: Panels<'a>,
    to: &'a Finish<'a, f32>,
    size: Size,
    first: usize,
    end: usize,
}

impl Group<'_> {
    fn run(&self) {
        let (k, panels, tiles) = (self.x.k, self.end - self.first, self.size.m.div_ceil(Kernel::MR));
        // Sums of a tile of rows, or of all where k has several stretches.
        let kept = if k > STRETCH { tiles } else { 1 };
        let mut sums = Scratch::<f32>::new(kept * panels * TILE);
        for start in (0..k).step_by(STRETCH) {
            let end = (start + STRETCH).min(k);
            let mut ahead = Ahead::new(self, end, tiles * panels * (end - start).div_ceil(SHORT));
            for tile in 0..tiles {
                let sums = &mut sums[tile % kept * panels * TILE..][..panels * TILE];
                for near in (0..panels).step_by(NEAR) {
                    for short in (start..end).step_by(SHORT) {
                        let short_end = (short + SHORT).min(end);
                        let a = self.x.at(tile * Kernel::MR, short);
                        assert!(a.len() >= 2 * ((Kernel::MR - 1) * k + short_end - short), "whole tiles");
                        for j in near..(near + NEAR).min(panels) {
                            ahead.ask();
                            let b = &self.b.panel(self.first + j)[short * NR..short_end * NR];
                            let (steps, sums) = ((short_end - short) / STEP, &mut sums[j * TILE..][..TILE]);
                            // SAFETY: whole tiles of A (asserted), whole steps of the panel, the sums of a tile; `begin` was
                            // called on this thread.
                            unsafe {
                                let (a, b, sums) = (a.as_ptr(), b.as_ptr(), sums.as_mut_ptr());
                                Kernel::tile(steps, a, 2 * k, 2 * STEP, b, sums, short > 0);
                            }
                        }
                    }
                }
                if end == k {
                    self.finish(tile, sums);
                }
            }
        }
    }

    /// Stores the sums of a tile of rows.
    fn finish(&self, tile: usize, sums: &[f32]) {
        let row = tile * Kernel::MR;
        for (j, sums) in sums.chunks_exact(TILE).enumerate() {
            let column = (self.first + j) * NR;
            let (rows, columns) = (Kernel::MR.min(self.size.m - row), NR.min(self.size.n - column));
            // SAFETY: this tile belongs to this task alone; the path has the features.
            unsafe { finish(sums, self.to, Place { row, column, rows, columns }) };
        }
    }
}

/// The panels of the next stretch, or of the next task, in as many parts as there are tiles to do before it.
struct Ahead<'a> {
    panels: Panels<'a>,
    /// Panels, then numbers of each.
    next: (std::ops::Range<usize>, std::ops::Range<usize>),
    /// Numbers that were asked for, and that are asked for together.
    done: usize,
    part: usize,
}

impl<'a> Ahead<'a> {
    fn new(group: &Group<'a>, end: usize, calls: usize) -> Ahead<'a> {
        let (k, all) = (group.x.k, group.size.n.div_ceil(NR));
        let next = if end < k {
            (group.first..group.end, end * NR..(end + STRETCH).min(k) * NR)
        } else {
            let len = group.end - group.first;
            (group.end.min(all)..(group.end + len).min(all), 0..STRETCH.min(k) * NR)
        };
        let numbers = next.0.len() * next.1.len();
        Ahead { panels: group.b, next, done: 0, part: numbers.div_ceil(calls).next_multiple_of(STEP) }
    }

    fn ask(&mut self) {
        let (panels, numbers) = &self.next;
        let end = (self.done + self.part).min(panels.len() * numbers.len());
        while self.done < end {
            let (panel, at) = (self.done / numbers.len(), self.done % numbers.len());
            let len = (end - self.done).min(numbers.len() - at);
            prefetch(&self.panels.panel(panels.start + panel)[numbers.start + at..][..len]);
            self.done += len;
        }
    }
}
