//! Linear layers and lookups of packed weights.
//!
//! Few rows, but not one, in bf16 beside common forms of weights: tensor cores, with each weight read once for up to 64 rows. Of other rows
//! eight share a weight, more than eight in bf16 go to tiles on tensor cores. Many rows in bf16: the library of the card's maker,
//! from [`LIBRARY_ROWS`] on. Where results must not depend on the batch, the kernel of tiles takes every number of rows: its
//! sums have one order.

use corella_ops::{Dtype, Linear, Store, shapes};

use super::weight::{Form, Weight, WeightArgument};
use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda};
use crate::driver::{Address, Finish, Launch, Operand, Product};
use crate::ids::Ids;
use crate::matrix_library::PLACE;

/// Layers of one launch, as MOST_LAYERS of kernels/weights.cuh.
const MOST_LAYERS: usize = 4;
/// Warps of a block, each with a row of the weights of its own.
const WARPS: usize = 4;
/// Rows of x that a weight is read for.
const ROWS: usize = 8;
/// Rows of x that a block of kernels/linear_few.cu takes, and warps along the weights' rows, 16 for each. The kernels of all sizes
/// add up a row in one order.
const FEW: [(usize, usize); 4] = [(8, 1), (16, 2), (32, 2), (64, 4)];
/// Threads that share 16 rows of the weights there.
const FEW_THREADS: usize = 4 * 32;
/// Rows of x, and of the weights, of a tile, as in kernels/linear_tiles.cu, and its shared memory: two stages of 64 columns.
const TILE_ROWS: usize = 128;
const TILE_OUTPUTS: usize = 64;
const TILE_SHARED: u32 = 2 * (128 + 64) * 64 * 2;
/// From this many rows on, weights are unpacked to bf16 in memory for the library: 4 bytes of traffic a weight, for which
/// 2·128 flop are a good exchange.
const LIBRARY_ROWS: usize = 128;
/// Most blocks along y.
const MOST_Y: usize = 65_535;

/// As `struct Layers` of kernels/weights.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct Layers {
    w: [WeightArgument; MOST_LAYERS],
    bias: [Address; MOST_LAYERS],
    count: u32,
    width: u32,
    first: u32,
    c: u32,
    add: u32,
}

/// As `struct Rounded` of kernels/linear_rows.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rounded {
    codes: Address,
    scales: Address,
}

/// As `struct Part` of kernels/paged_write.cu: rows inside wider ones.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub array: Array,
    pub first: u64,
    pub width: u64,
}

impl Argument for Layers {}
impl Argument for Rounded {}
impl Argument for Part {}

fn grid(x: usize, y: usize, block: u32, shared: u32) -> Launch {
    Launch {
        grid: [u32::try_from(x).expect("a grid of fewer than 2^31 blocks"), y.min(MOST_Y) as u32, 1],
        block,
        shared,
    }
}

/// A thread for each of `c` columns of each of `n` rows.
pub(crate) fn elements_of_rows(n: usize, c: usize) -> Launch {
    grid(c.div_ceil(256), n, 256, 0)
}

fn few_rows(outputs: usize, n: usize, rows: usize) -> Launch {
    let y = n.div_ceil(rows);
    assert!(y <= MOST_Y, "{n} rows of a product");
    grid(outputs.div_ceil(WARPS), y, (WARPS * 32) as u32, 0)
}

/// End of the kernel's name, and its launch.
fn few_columns(outputs: usize, n: usize) -> (usize, Launch) {
    let (columns, warps) = FEW.into_iter().find(|(columns, _)| n <= *columns).unwrap_or(FEW[FEW.len() - 1]);
    let y = n.div_ceil(columns);
    assert!(y <= MOST_Y, "{n} rows of a product");
    (columns, grid(outputs.div_ceil(16 * warps), y, (FEW_THREADS * warps) as u32, 0))
}

fn tiles(outputs: usize, n: usize) -> Launch {
    let y = n.div_ceil(TILE_ROWS);
    assert!(y <= MOST_Y, "{n} rows of a product");
    grid(outputs.div_ceil(TILE_OUTPUTS), y, 128, TILE_SHARED)
}

/// Consecutive layers of one form, no more than a launch takes.
fn runs<'a, 'b>(layers: &'a [Linear<'b, Cuda>]) -> impl Iterator<Item = &'a [Linear<'b, Cuda>]> {
    layers.chunk_by(|a, b| a.w.form == b.w.form).flat_map(|run| run.chunks(MOST_LAYERS))
}

impl Cuda {
    /// out[n,:] (=, +=) w[ids[n],:], or w[n,:] without ids.
    #[track_caller]
    pub(crate) fn unpack(&self, out: Array, ids: Option<&Ids>, w: &Weight, n: usize, store: Store) {
        let entry = match w.form {
            Form::F32 => "lookup_f32",
            Form::F16 => "lookup_f16",
            Form::Bf16 => "lookup_bf16",
            Form::Q8 => "lookup_q8",
            Form::Q4K => "lookup_q4k",
            Form::Wide => "lookup_wide",
        };
        let ids = ids.map_or(0, |ids| ids.at());
        let add = u32::from(store == Store::Add);
        let shape = grid(w.cols.div_ceil(8 * 64), n, 64, 0);
        self.run(entry, shape, &[&out, &ids, &w.argument(), &(w.cols as u64), &add, &(n as u32)]);
    }

    /// See [`corella_ops::OpsInfer::linear`].
    #[track_caller]
    pub(crate) fn packed_linear(&self, out: &mut Buf, x: &Buf, n: usize, layers: &[Linear<'_, Cuda>], store: Store) {
        let sizes = layers.iter().map(|layer| ([layer.w.rows, layer.w.cols], layer.bias.map(|bias| bias.len)));
        let [c, width] = shapes::linear(out, x, n, sizes);
        if n == 0 {
            return;
        }
        let on_tensor_cores = x.dtype == Dtype::Bf16 && c.is_multiple_of(8);
        if on_tensor_cores && n >= LIBRARY_ROWS && !self.batch_invariant() {
            return self.by_library(out, x, n, layers, store);
        }
        let mut first = 0;
        for run in runs(layers) {
            let outputs: usize = run.iter().map(|layer| layer.w.rows).sum();
            let mut argument = Layers {
                w: Default::default(),
                bias: [0; MOST_LAYERS],
                count: run.len() as u32,
                width: width as u32,
                first: first as u32,
                c: c as u32,
                add: u32::from(store == Store::Add),
            };
            for (i, layer) in run.iter().enumerate() {
                argument.w[i] = layer.w.argument();
                argument.bias[i] = layer.bias.map_or(0, |bias| bias.value());
            }
            first += outputs;
            let (total, rows) = (outputs as u32, n as u32);
            let suffix = run[0].w.form.suffix();
            // One row takes the plain kernels, which were faster on an H200 (16 rows of the weights a warp, or one).
            if n > 1 && on_tensor_cores && run[0].w.form.has_few() && !self.batch_invariant() {
                let (columns, shape) = few_columns(outputs, n);
                let entry = format!("few_{suffix}_{columns}");
                self.run(&entry, shape, &[&out.array(), &x.memory.at, &argument, &total, &rows]);
                continue;
            }
            if on_tensor_cores && (n > ROWS || self.batch_invariant()) {
                let entry = format!("tiles_{suffix}");
                self.run(&entry, tiles(outputs, n), &[&out.array(), &x.memory.at, &argument, &total, &rows]);
                continue;
            }
            // One kernel for all numbers of rows where the batch must not matter: two could round in different orders.
            let each = if n == 1 && !self.batch_invariant() { 1 } else { ROWS };
            let (entry, shape) = (format!("linear_{suffix}_{each}"), few_rows(outputs, n, each));
            if run[0].w.form.multiplies_bytes() {
                let rounded = self.rounded(x, n * c);
                self.run(&entry, shape, &[&out.array(), &rounded, &argument, &total, &rows]);
            } else {
                self.run(&entry, shape, &[&out.array(), &x.array(), &argument, &total, &rows]);
            }
        }
    }

    /// x as signed bytes with a scale for each 32.
    fn rounded(&self, x: &Buf, len: usize) -> Rounded {
        let rounded =
            Rounded { codes: self.scratch("rounded rows", len), scales: self.scratch("their scales", len / 32 * 4) };
        let blocks = len / 32;
        let shape = grid(blocks.div_ceil(WARPS), 1, (WARPS * 32) as u32, 0);
        self.run("round_rows", shape, &[&rounded.codes, &rounded.scales, &x.array(), &(blocks as u64)]);
        rounded
    }

    /// Each layer by the library, with the weights in bf16.
    fn by_library(&self, out: &mut Buf, x: &Buf, n: usize, layers: &[Linear<'_, Cuda>], store: Store) {
        let width: usize = layers.iter().map(|layer| layer.w.rows).sum();
        let mut first = 0;
        for Linear { w, bias } in layers {
            let weights = w.bf16().unwrap_or_else(|| {
                let to = self.scratch("unpacked weights", 2 * w.rows * w.cols);
                self.unpack(Array::new(to, Dtype::Bf16), None, w, w.rows, Store::Write);
                to
            });
            // The library adds in f32 only, knows no biases in f32 beside results in bf16, and writes at aligned places.
            let place = out.memory.at + (first * out.dtype.bytes()) as u64;
            let adds = store == Store::Add && out.dtype == Dtype::F32;
            let direct = bias.is_none() && (store == Store::Write || adds) && place.is_multiple_of(PLACE);
            let (to, out_stride, out_dtype) = if direct {
                (place, width, out.dtype)
            } else {
                (self.scratch("a layer's result", 4 * n * w.rows), w.rows, Dtype::F32)
            };
            self.product(&Product {
                m: n,
                n: w.rows,
                k: w.cols,
                dtype: Dtype::Bf16,
                out_dtype,
                out: to,
                out_stride,
                a: Operand { at: x.memory.at, transposed: false },
                b: Operand { at: weights, transposed: false },
                finish: if direct && store == Store::Add { Finish::Add } else { Finish::Plain },
                measured: false,
            });
            if !direct {
                let part = |array, first, width| Part { array, first: first as u64, width: width as u64 };
                let place = part(out.array(), first, width);
                let from = part(Array::new(to, Dtype::F32), 0, w.rows);
                let (rows, c, add) = (n as u32, w.rows as u64, u32::from(store == Store::Add));
                self.run("copy_part", elements_of_rows(n, w.rows), &[&place, &from, &rows, &c, &add]);
                if let Some(bias) = bias {
                    let bias = part(Array::new(bias.value(), Dtype::F32), 0, 0);
                    self.run("copy_part", elements_of_rows(n, w.rows), &[&place, &bias, &rows, &c, &1u32]);
                }
            }
            first += w.rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_and_output_has_a_place() {
        for (outputs, n) in [(1, 1), (4, 8), (5, 9), (128_256, 1), (4096, 4097)] {
            let few = few_rows(outputs, n, ROWS);
            assert!(few.grid[0] as usize * WARPS >= outputs && few.grid[1] as usize * ROWS >= n);
            let (columns, few) = few_columns(outputs, n);
            let warps = few.block as usize / FEW_THREADS;
            assert!(few.grid[0] as usize * 16 * warps >= outputs && few.grid[1] as usize * columns >= n);
            let many = tiles(outputs, n);
            assert!(many.grid[0] as usize * TILE_OUTPUTS >= outputs && many.grid[1] as usize * TILE_ROWS >= n);
            assert!(many.shared <= 99 << 10);
        }
        assert_eq!(std::mem::size_of::<WeightArgument>(), 40);
        assert_eq!(std::mem::size_of::<Layers>(), 4 * 40 + 4 * 8 + 5 * 4 + 4);
    }
}
