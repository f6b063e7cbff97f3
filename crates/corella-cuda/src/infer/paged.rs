//! Attention over the paged cache: rows one by one in stretches of positions, or many rows of a sequence on tensor cores.

use corella_ops::{Dtype, HeadDims, KvKind};

use super::batch::{Batch, LINES, STRETCH};
use super::pages::{KvPages, padded_head};
use crate::array::Buf;
use crate::backend::{Argument, Cuda};
use crate::driver::{Address, Launch};
use crate::geometry::MOST_HS;

/// Threads of a block of every kernel here.
const BLOCK: usize = 128;
/// Bytes of partial results that one launch may leave; more rows take several launches.
const MOST_PARTIAL: usize = 64 << 20;

/// As `struct QueryHeads` of kernels/paged.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct QueryHeads {
    nh: i32,
    nkv: i32,
    hs: i32,
}

impl Argument for QueryHeads {}

/// Query heads that a block takes with one reading of the keys.
fn heads_together(group: usize) -> usize {
    match group {
        1 => 1,
        2..=4 => 4,
        _ => 8,
    }
}

/// `rows` single rows: a block for each stretch of each key head and pass over its group.
fn decode(d: HeadDims, rows: usize, stretches: usize) -> Launch {
    let (group, hsp) = (d.nh / d.nkv, padded_head(d.hs));
    let heads = heads_together(group);
    let lines = BLOCK / (hsp / 8);
    Launch {
        grid: [rows as u32, (d.nkv * group.div_ceil(heads)) as u32, stretches as u32],
        block: BLOCK as u32,
        shared: (4 * heads * (hsp + STRETCH + lines * hsp)) as u32,
    }
}

/// A block for each chunk of each key head: a tile of queries, two of keys and two of values.
fn prefill(d: HeadDims, chunks: usize) -> Launch {
    Launch { grid: [chunks as u32, d.nkv as u32, 1], block: BLOCK as u32, shared: (5 * LINES * d.hs * 2) as u32 }
}

/// Four warps a block, each with a task.
fn warps(tasks: usize) -> Launch {
    let blocks = u32::try_from(tasks.div_ceil(BLOCK / 32)).expect("a grid of fewer than 2^31 blocks");
    Launch { grid: [blocks, 1, 1], block: BLOCK as u32, shared: 0 }
}

impl Cuda {
    /// See [`corella_ops::OpsInfer::attention_paged`].
    #[track_caller]
    pub(crate) fn attend_paged(&self, out: &mut Buf, pages: &mut KvPages, qkv: &Buf, batch: &Batch, d: HeadDims) {
        let n = batch.n;
        let dims = pages.dims;
        assert!(d.hs <= MOST_HS, "heads of up to {MOST_HS}");
        let (kind, group) = (dims.kind.name(), d.nh / d.nkv);
        let (cache, plan) = (pages.argument(), batch.argument());
        let heads = QueryHeads { nh: d.nh as i32, nkv: d.nkv as i32, hs: d.hs as i32 };
        let together = out.dtype == Dtype::Bf16
            && qkv.dtype == Dtype::Bf16
            && matches!(d.hs, 64 | 128)
            && dims.kind != KvKind::Q8
            && group <= 64
            && !self.batch_invariant();
        // Before any kernel of the layer: those of attention read it while the ones before them may still run.
        let division = batch.division(self.shared_driver(), group, together);
        self.run(
            &format!("kv_write_{kind}"),
            warps(n * 2 * d.nkv),
            &[&cache, &qkv.array(), &plan, &heads, &(n as u32)],
        );
        if division.chunks > 0 {
            let entry = format!("paged_prefill_{kind}_{}", d.hs);
            let (to, from, chunks) = (out.memory.at, qkv.memory.at, division.chunk_list());
            self.run(&entry, prefill(d, division.chunks), &[&to, &cache, &from, &plan, &chunks, &heads]);
        }
        let (entry, stretches) = (format!("paged_decode_{kind}_{}", heads_together(group)), division.stretches);
        let single = |partial: Address, list: Address, count: usize| {
            let shape = decode(d, count, stretches);
            self.run(&entry, shape, &[&out.array(), &partial, &cache, &qkv.array(), &plan, &list, &heads]);
        };
        if stretches == 1 {
            return single(0, division.list, division.singles);
        }
        let row_bytes = 4 * d.nh * stretches * (d.hs + 2);
        let most = (MOST_PARTIAL / row_bytes.max(1)).max(1);
        for first in (0..division.singles).step_by(most) {
            let count = most.min(division.singles - first);
            let partial = self.scratch("stretches of attention", count * row_bytes);
            let list = division.list + 4 * first as u64;
            single(partial, list, count);
            let arguments: [&dyn Argument; 7] =
                [&out.array(), &partial, &plan, &list, &heads, &(count as u32), &(stretches as u32)];
            self.run("paged_combine", warps(count * d.nh), &arguments);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_fits_every_card_and_groups_are_covered() {
        for (nh, nkv, hs) in [(1, 1, 4), (32, 8, 128), (64, 8, 128), (12, 12, 64), (12, 1, 256), (6, 2, 80), (3, 3, 33)]
        {
            let d = HeadDims { nh, nkv, hs };
            let launch = decode(d, 3, 2);
            assert!(launch.shared <= 99 << 10, "{d:?}: {launch:?}");
            assert!(launch.grid[1] as usize / nkv * heads_together(nh / nkv) >= nh / nkv, "{d:?}");
            assert!(prefill(d, 1).shared <= 99 << 10 || hs > 128);
        }
    }
}
