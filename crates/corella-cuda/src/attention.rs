//! Attention: on tensor cores for bf16 and heads of 64 or 128, else plainly.

use corella_ops::{AttentionDims, Dtype};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda};
use crate::beside::Beside;
use crate::driver::{Address, Launch};
use crate::geometry::MOST_HS;

/// As `struct Heads` of kernels/attention.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Heads {
    t: i32,
    nh: i32,
    nkv: i32,
}

/// As `struct View` of kernels/attention_plain.cu: one of q, k, v or their gradients inside a wider array.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub array: Array,
    pub offset: u64,
    pub width: u64,
}

/// As `struct PlainHeads` of kernels/attention_plain.cu.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PlainHeads {
    pub b: i32,
    pub t: i32,
    pub nh: i32,
    pub nkv: i32,
    pub hs: i32,
    pub keys: i32,
    pub pos0: i32,
}

impl Argument for Heads {}
impl Argument for View {}
impl Argument for PlainHeads {}

/// Threads of a block of every kernel here.
const BLOCK: u32 = 128;
/// Warps of a block, each with a row of its own in the plain kernels.
const WARPS: usize = 4;

/// A kernel on tensor cores: the rows (queries, or keys) that a block takes, and of a tile that passes by, as at the end of
/// kernels/attention.cu.
#[derive(Clone, Copy)]
struct Tiles {
    entry: &'static str,
    block: usize,
    tile: usize,
    /// Whether the gradients leave the sums of each block's rows, and those of queries delta, as in attention_blocks.cu.
    sums: bool,
}

/// The kernels of a head size: forward, gradient of queries, gradient of keys and values; where the warps of a block multiply
/// together, those of kernels/attention_blocks.cu.
fn tensor_kernels(hs: usize, by_blocks: bool) -> Option<[Tiles; 3]> {
    let sums = hs == 64 && by_blocks;
    let kernels = |[forward, queries, keys]: [(&'static str, usize, usize); 3]| {
        [forward, queries, keys].map(|(entry, block, tile)| Tiles { entry, block, tile, sums })
    };
    match hs {
        64 if by_blocks => Some(kernels([
            ("attention_blocks", 64, 64),
            ("attention_blocks_grad_queries", 64, 64),
            ("attention_blocks_grad_keys", 64, 64),
        ])),
        64 => Some(kernels([
            ("attention_64", 128, 64),
            ("attention_grad_queries_64", 128, 32),
            ("attention_grad_keys_64", 64, 64),
        ])),
        128 => Some(kernels([
            ("attention_128", 64, 64),
            ("attention_grad_queries_128", 64, 32),
            ("attention_grad_keys_128", 64, 32),
        ])),
        _ => None,
    }
}

impl Tiles {
    /// A block for each stretch of positions of each head: shared memory holds `held` arrays of the block's rows, two arrays of
    /// two tiles in flight, and `more` bytes for each row of a tile.
    fn launch(self, d: AttentionDims, heads: usize, held: usize, more: usize) -> Launch {
        let bytes = (held * self.block + 4 * self.tile) * d.hs * 2 + more * self.tile;
        Launch { grid: [d.t.div_ceil(self.block) as u32, heads as u32, d.b as u32], block: BLOCK, shared: bytes as u32 }
    }
}

/// A warp for each position of each head.
pub(crate) fn plain_launch(d: AttentionDims, heads: usize) -> Launch {
    let blocks = (d.b * heads * d.t).div_ceil(WARPS);
    Launch { grid: [u32::try_from(blocks).expect("a grid of fewer than 2^31 blocks"), 1, 1], block: BLOCK, shared: 0 }
}

/// A thread for each eight numbers of all heads, where lanes of one warp share a head; and rows and heads count in 32 bits.
fn packets_launch(d: AttentionDims) -> Option<Launch> {
    let lanes = d.hs / 8;
    let fits =
        d.hs.is_multiple_of(8) && lanes.is_power_of_two() && lanes <= 32 && d.b * d.t * d.nh <= i32::MAX as usize;
    let blocks = (d.b * d.t * d.nh * lanes).div_ceil(BLOCK as usize);
    fits.then(|| Launch {
        grid: [u32::try_from(blocks).expect("a grid of fewer than 2^31 blocks"), 1, 1],
        block: BLOCK,
        shared: 0,
    })
}

fn plain_heads(d: AttentionDims) -> PlainHeads {
    assert!(d.hs <= MOST_HS, "heads of up to {MOST_HS}");
    let [b, t, nh, nkv, hs] = [d.b, d.t, d.nh, d.nkv, d.hs].map(|x| x as i32);
    PlainHeads { b, t, nh, nkv, hs, keys: t, pos0: 0 }
}

/// q, k and v of an array.
fn parts(qkv: &Buf, d: AttentionDims) -> [View; 3] {
    [0, d.nh, d.nh + d.nkv].map(|head| View { array: qkv.array(), offset: (head * d.hs) as u64, width: d.qkv() as u64 })
}

/// The output, or its gradient.
fn whole(out: &Buf, d: AttentionDims) -> View {
    View { array: out.array(), offset: 0, width: d.c() as u64 }
}

impl Cuda {
    #[track_caller]
    pub(crate) fn attend(&self, out: &mut Buf, lse: &mut Buf, qkv: &Buf, d: AttentionDims) {
        let lse = lse.f32();
        let low = [out.dtype, qkv.dtype].iter().all(|dtype| *dtype == Dtype::Bf16);
        if let Some([forward, ..]) = tensor_kernels(d.hs, self.driver().multiplies_by_blocks()).filter(|_| low) {
            let shape = forward.launch(d, d.nh, 1, 0);
            self.run(forward.entry, shape, &[&out.memory.at, &lse, &qkv.memory.at, &heads(d)]);
        } else {
            let [q, k, v] = parts(qkv, d);
            let arguments: [&dyn Argument; 6] = [&whole(out, d), &lse, &q, &k, &v, &plain_heads(d)];
            self.run("attention_plain", plain_launch(d, d.nh), &arguments);
        }
    }

    #[track_caller]
    pub(crate) fn attend_grad(&self, dqkv: &mut Buf, dout: &Buf, out: &Buf, qkv: &Buf, lse: &Buf, d: AttentionDims) {
        let rows = d.b * d.t;
        let lse: Address = lse.f32();
        let delta: Address = self.scratch("attention's delta", 4 * rows * d.nh);
        let low = [dqkv.dtype, dout.dtype, out.dtype, qkv.dtype].iter().all(|dtype| *dtype == Dtype::Bf16);
        let kernels = tensor_kernels(d.hs, self.driver().multiplies_by_blocks()).filter(|_| low);
        if let Some([_, queries, keys]) = kernels.filter(|[_, queries, keys]| queries.sums && keys.sums) {
            let chunks = d.b * d.t.div_ceil(queries.block);
            let sums = self.scratch("column sums of queries, keys and values", 4 * chunks * d.qkv());
            let (dqkv, dout, out, qkv, heads) =
                (dqkv.memory.at, dout.memory.at, out.memory.at, qkv.memory.at, heads(d));
            let arguments: [&dyn Argument; 8] = [&dqkv, &sums, &delta, &dout, &out, &qkv, &lse, &heads];
            self.run(queries.entry, queries.launch(d, d.nh, 2, 0), &arguments);
            let arguments: [&dyn Argument; 7] = [&dqkv, &sums, &dout, &qkv, &lse, &delta, &heads];
            self.run(keys.entry, keys.launch(d, d.nkv, 2, 16), &arguments);
            let sums = Some((sums, chunks));
            return self.left().leave(Beside { of: dqkv, n: rows, c: d.qkv(), image: None, sums });
        }
        if let Some(shape) = packets_launch(d) {
            self.run("attention_delta_packets", shape, &[&delta, &dout.array(), &out.array(), &plain_heads(d)]);
        } else {
            let arguments: [&dyn Argument; 4] = [&delta, &whole(dout, d), &whole(out, d), &plain_heads(d)];
            self.run("attention_delta", plain_launch(d, d.nh), &arguments);
        }
        if let Some([_, queries, keys]) = kernels {
            let (dqkv, dout, qkv, heads) = (dqkv.memory.at, dout.memory.at, qkv.memory.at, heads(d));
            let arguments: [&dyn Argument; 6] = [&dqkv, &dout, &qkv, &lse, &delta, &heads];
            self.run(queries.entry, queries.launch(d, d.nh, 2, 0), &arguments);
            self.run(keys.entry, keys.launch(d, d.nkv, 2, 16), &arguments);
        } else {
            let ([q, k, v], [dq, dk, dv]) = (parts(qkv, d), parts(dqkv, d));
            let (dout, heads) = (whole(dout, d), plain_heads(d));
            let arguments: [&dyn Argument; 8] = [&dq, &dout, &q, &k, &v, &lse, &delta, &heads];
            self.run("attention_plain_grad_queries", plain_launch(d, d.nh), &arguments);
            let arguments: [&dyn Argument; 9] = [&dk, &dv, &dout, &q, &k, &v, &lse, &delta, &heads];
            self.run("attention_plain_grad_keys", plain_launch(d, d.nkv), &arguments);
        }
    }
}

fn heads(d: AttentionDims) -> Heads {
    Heads { t: d.t as i32, nh: d.nh as i32, nkv: d.nkv as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_shared_memory_of_every_card() {
        for (hs, by_blocks) in [(64, false), (64, true), (128, false), (128, true)] {
            let d = AttentionDims { b: 2, t: 1000, nh: 12, nkv: 4, hs };
            let [forward, queries, keys] = tensor_kernels(hs, by_blocks).expect("a size with kernels");
            for (tiles, heads, held, more) in [(forward, d.nh, 1, 0), (queries, d.nh, 2, 0), (keys, d.nkv, 2, 16)] {
                let launch = tiles.launch(d, heads, held, more);
                assert!(launch.shared <= 99 << 10, "{hs}: {launch:?}");
                let [blocks, ..] = launch.grid.map(|x| x as usize);
                assert!(blocks * tiles.block >= d.t && (blocks - 1) * tiles.block < d.t, "{hs}: {launch:?}");
                assert_eq!(launch.grid[1..], [heads as u32, d.b as u32]);
            }
        }
        assert!(tensor_kernels(96, true).is_none());
    }
}
