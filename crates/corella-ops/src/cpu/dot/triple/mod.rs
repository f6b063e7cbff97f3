//! Products in f32 on tiles of bfloat16: a number is the sum of three in bfloat16, which keep its 24 bits.
//!
//! x·y = Σ over parts of x and of y; of the nine products the six largest are taken, what is left is below 2⁻²⁴·|x·y|, half of
//! what one rounding to f32 may be off. Products of parts are exact, sums are in f32 (Henry, Tang, Heinecke: "Leveraging the
//! bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019). Tiles take sixteen times the products of
//! f32 instructions, so six each are still more than twice as fast.
//!
//! What is not finite makes the sums that it belongs to NaN, infinities too. Results below 2⁻¹²⁶ are 0, and numbers below 2⁻¹⁰²
//! have fewer bits.
//!
//! For stretches of k: the operand with fewer outer indices is packed whole, and *passes by*; a task packs a block of the other,
//! which *stays* in the second-level cache, and meets it with panel after panel of the first. Each step of both is asked for while
//! the one before it is multiplied. Every sum is that of its stretches, and in a stretch k ascends: the order depends on K alone.

mod kernel;
mod outgoing;
mod pack;

use std::ops::Range;

use super::amx::Amx;
use super::finish::{Finish, Place, settle};
use super::kernel::{DotKernel, FewKernel, STEP};
use crate::cpu::bf16::Bf16;
use crate::cpu::blocks::Blocks;
use crate::cpu::gemm::{Size, Store, Workers};
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;
use kernel::{SIDE, STEP_LEN};
use outgoing::{Outgoing, Products};
use pack::Role;

/// Products of parts that a product takes.
pub const PRODUCTS: usize = 6;
/// k of a stretch, at most: both operands come from the second-level cache, and sums stay in registers.
const LONG: usize = 768;
/// Most numbers of a block that stays, three parts each: 840 KiB, so that the panels which pass by do not drive it out.
const STAYING: usize = 140 << 10;

impl Path {
    /// Whether the product in three parts runs.
    pub fn has_triple_product(self) -> bool {
        self == Path::Amx
    }
}

/// out[i, j] (=, += where `store` says so) Σ_k a[i, k] · b[j, k] + bias[j]; K is not 0. The path has it
/// ([`Path::has_triple_product`]).
pub fn product(
    workers: Workers<'_>,
    size: Size,
    a: Operand<'_, f32>,
    b: Operand<'_, f32>,
    out: &mut [f32],
    store: Store,
    bias: Option<&[f32]>,
) {
    let Size { m, n, k, ldc } = size;
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0 && out.len() >= (m - 1) * ldc + n, "result of {m}×{n} does not fit");
    let long = k.div_ceil(k.div_ceil(LONG)).next_multiple_of(STEP);
    for start in (0..k).step_by(long) {
        let to = match start {
            0 => Finish { store, bias, ..Finish::new(out, ldc) },
            _ => Finish { store: Store::Add, ..Finish::new(out, ldc) },
        };
        let (left, right) =
            (Side { role: Role::Left, from: a, outer: m }, Side { role: Role::Right, from: b, outer: n });
        let (stays, passes) = if m >= n { (left, right) } else { (right, left) };
        stretch(workers, (stays, passes), start..(start + long).min(k), &to);
    }
}

/// An operand and what it is in the product.
#[derive(Clone, Copy)]
struct Side<'a> {
    role: Role,
    from: Operand<'a, f32>,
    /// Outer indices.
    outer: usize,
}

impl Side<'_> {
    /// Panels of SIDE outer indices.
    fn panels(&self) -> usize {
        self.outer.div_ceil(SIDE)
    }

    /// Packs step `step` of `ks` of one panel.
    fn pack(&self, to: &mut [Bf16], panel: usize, ks: &Range<usize>, step: usize) {
        let outer = panel * SIDE..self.outer.min((panel + 1) * SIDE);
        let ks = ks.start + step * STEP..ks.end.min(ks.start + (step + 1) * STEP);
        // SAFETY: products of this module run on paths with these features only.
        unsafe { pack::block(self.role, to, self.from, outer, ks) };
    }
}

/// One stretch of k.
fn stretch(workers: Workers<'_>, (stays, passes): (Side<'_>, Side<'_>), ks: Range<usize>, to: &Finish<'_, f32>) {
    let steps = ks.len().div_ceil(STEP);
    let passing = whole(workers, passes, &ks);
    let tallest = (STAYING / (steps * STEP * SIDE)).max(1);
    let blocks = Blocks::new(stays.panels(), passes.panels(), tallest, workers.threads());
    workers.run(blocks.tasks(), &|task| {
        let (staying, passes_by) = blocks.of(task);
        let block = Block { stays, passes, passing: &passing, ks: &ks, steps, to };
        // SAFETY: the path exists only after its features were detected and permitted.
        unsafe { Amx::<1>::begin() };
        block.run(staying, passes_by);
        // SAFETY: begun above.
        unsafe { Amx::<1>::end() };
        settle();
    });
}

/// Panel after panel of a stretch of an operand: (panel, step, STEP_LEN).
fn whole(workers: Workers<'_>, side: Side<'_>, ks: &Range<usize>) -> Scratch<Bf16> {
    let (panels, steps) = (side.panels(), ks.len().div_ceil(STEP));
    let mut packed = Scratch::<Bf16>::new(panels * steps * STEP_LEN);
    let to = SharedMut::new(&mut packed);
    // Memory is read in long pieces: rows of it are k for an operand by columns.
    let (outside, inside) = if side.from.by_columns() { (steps, panels) } else { (panels, steps) };
    let share = outside.div_ceil(4 * workers.threads()).max(1);
    workers.run(outside.div_ceil(share), &|task| {
        for outer in task * share..((task + 1) * share).min(outside) {
            for inner in 0..inside {
                let (panel, step) = if side.from.by_columns() { (inner, outer) } else { (outer, inner) };
                // SAFETY: this step of this panel belongs to this task.
                let to = unsafe { to.part((panel * steps + step) * STEP_LEN, STEP_LEN) };
                side.pack(to, panel, ks, step);
            }
        }
    });
    packed
}

/// A task.
struct Block<'a> {
    stays: Side<'a>,
    passes: Side<'a>,
    passing: &'a [Bf16],
    ks: &'a Range<usize>,
    steps: usize,
    to: &'a Finish<'a, f32>,
}

impl Block<'_> {
    fn run(&self, staying: Range<usize>, passes_by: Range<usize>) {
        let (panel_len, count) = (self.steps * STEP_LEN, staying.len());
        let mut near = Scratch::<Bf16>::new(count * panel_len);
        for i in 0..count * self.steps {
            let (panel, step) =
                if self.stays.from.by_columns() { (i % count, i / count) } else { (i / self.steps, i % self.steps) };
            let to = &mut near[panel * panel_len + step * STEP_LEN..][..STEP_LEN];
            self.stays.pack(to, staying.start + panel, self.ks, step);
        }
        let passing = |j: usize| &self.passing[j * panel_len..][..panel_len];
        let mut out = Outgoing::new(self.to);
        for j in passes_by.clone() {
            let panel = passing(j);
            // The next panel comes from far while this one is worked on.
            let mut soon = if j + 1 < passes_by.end { passing(j + 1) } else { &[] };
            let share = soon.len().div_ceil(count).next_multiple_of(2 * STEP);
            for (i, stays) in near.chunks_exact(panel_len).enumerate() {
                let (now, rest) = soon.split_at(share.min(soon.len()));
                soon = rest;
                let (a, b) = self.stays.role.in_order(stays, panel);
                let next = match i + 1 < count {
                    true => (stays.as_ptr().wrapping_add(panel_len), panel.as_ptr()),
                    false => (near.as_ptr(), panel.as_ptr().wrapping_add(panel_len)),
                };
                let next = self.stays.role.in_order(next.0, next.1);
                let place = self.place(staying.start + i, j);
                // SAFETY: `begin` was called on this thread, the path has the features; this tile of the result belongs to this
                // task alone.
                unsafe { out.multiply(&Products { a, b, next, soon: now, place }) };
            }
        }
        // SAFETY: as above.
        unsafe { out.end() };
    }

    /// The tile of a panel that stays and one that passes by.
    fn place(&self, stays: usize, passes: usize) -> Place {
        let (row, column) = self.stays.role.in_order(stays, passes);
        let (m, n) = self.stays.role.in_order(self.stays.outer, self.passes.outer);
        let (row, column) = (row * SIDE, column * SIDE);
        Place { row, column, rows: SIDE.min(m - row), columns: SIDE.min(n - column) }
    }
}
