//! Attention in bfloat16, with the micro-kernels of [`crate::cpu::dot`].
//!
//! Scores and softmax are in f32; probabilities and the gradients of scores are rounded to bfloat16, as operands of the
//! products that follow. Scores lie as (keys, queries) in panels of [`NR`] queries.

mod backward;
mod forward;
mod softmax;

use std::ops::Range;

use super::SharedBuf;
use super::backward::Inputs;
use super::forward::{Output, Place};
use crate::cpu::bf16::Bf16;
use crate::cpu::buf::Buf;
use crate::cpu::dot::{Amx, Avx512Bf16, DotKernel, NR, STEP, pack_left};
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::scratch::Scratch;

/// Keys of a block: whole steps, and whole tiles of every micro-kernel.
const KEYS: usize = 96;
/// Panels of queries of a block.
const PANELS: usize = 2;
/// Queries of a block.
const QUERIES: usize = PANELS * NR;

/// Some blocks of queries of a head, if path and format are this module's.
pub fn forward(path: Path, output: &Output<'_>, qkv: &Buf, place: Place, queries: Range<usize>) -> bool {
    match (path, qkv) {
        (Path::Amx, Buf::Bf16(qkv)) => forward::run_of_queries::<Amx<1>>(output, qkv, place, queries),
        (Path::Avx512Bf16, Buf::Bf16(qkv)) => forward::run_of_queries::<Avx512Bf16<1>>(output, qkv, place, queries),
        _ => return false,
    }
    true
}

/// Gradients of some keys of a head, if path and formats are this module's. `put` as of the f32 kernel.
pub fn backward(
    path: Path,
    inputs: &Inputs<'_>,
    keys: Range<usize>,
    dqkv: &SharedBuf<'_>,
    put: &impl Fn(usize, usize, &[f32]),
) -> bool {
    let (Buf::Bf16(qkv), Buf::Bf16(dout)) = (inputs.qkv, inputs.dout) else { return false };
    match path {
        Path::Amx => backward::keys_grad::<Amx<1>>(path, inputs, (qkv, dout), keys, dqkv, put),
        Path::Avx512Bf16 => backward::keys_grad::<Avx512Bf16<1>>(path, inputs, (qkv, dout), keys, dqkv, put),
        _ => return false,
    }
    true
}

/// An A operand in tiles of the kernel's rows: (tile, step, MR, STEP).
struct Tiles {
    data: Scratch<Bf16>,
    mr: usize,
    steps: usize,
}

impl Tiles {
    /// Packs `outer` × `k` of an operand.
    fn new<K: DotKernel>(from: Operand<'_, Bf16>, outer: usize, k: usize) -> Tiles {
        let steps = k.div_ceil(STEP);
        let mut data = Scratch::new(outer.next_multiple_of(K::MR) * steps * STEP);
        if !data.is_empty() {
            // SAFETY: the path has the features of its kernel.
            unsafe { pack_left(&mut data, from, K::MR, 0..outer, 0..steps * STEP, k) };
        }
        Tiles { data, mr: K::MR, steps }
    }

    /// From a tile and a step on.
    fn from(&self, tile: usize, step: usize) -> Left<'_> {
        let at = (tile * self.steps + step) * self.mr * STEP;
        Left { data: &self.data[at..], tile: self.steps * self.mr * STEP, step: self.mr * STEP }
    }
}

/// Rows of [`STEP`] numbers, one after the other inside a tile of a step.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [Bf16],
    /// Distance of tiles.
    tile: usize,
    /// Distance of steps.
    step: usize,
}

/// sums (tiles·MR, NR) (=, += if `add`) a · b for some tiles and `steps` ≥ 1 steps. b: a panel, (steps·STEP/2, NR, 2).
///
/// # Safety
/// [`DotKernel::begin`] was called on this thread.
unsafe fn multiply<K: DotKernel>(sums: &mut [f32], a: Left<'_>, b: &[Bf16], (tiles, steps): (usize, usize), add: bool) {
    let rows = K::MR * STEP;
    assert!(tiles == 0 || a.data.len() >= (tiles - 1) * a.tile + (steps - 1) * a.step + rows, "steps of A");
    assert!(steps > 0 && b.len() >= steps * STEP * NR && sums.len() >= tiles * K::MR * NR, "steps of B, sums");
    for (i, sums) in sums.chunks_exact_mut(K::MR * NR).enumerate().take(tiles) {
        // SAFETY: the lengths were asserted; `begin` is the caller's promise.
        unsafe { K::tile(steps, a.data[i * a.tile..].as_ptr(), STEP, a.step, b.as_ptr(), sums.as_mut_ptr(), add) };
    }
}

/// Keys of a block of `n` from `k0` on that some query of the panel from `t0` on sees.
fn seen(n: usize, k0: usize, t0: usize) -> usize {
    n.min((t0 + NR).saturating_sub(k0))
}
