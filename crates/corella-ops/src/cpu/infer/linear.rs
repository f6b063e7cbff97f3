//! Products of rows with packed weights: which thread computes which panels with which kernel.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::activations::{Activations, PART};
use super::float;
use super::kernel::{Integers, Side, Step};
use super::layout::{BLOCK, COLUMNS, Layout, PAIR, PANEL, UNIT};
use super::weight::Weight;
use crate::contract_infer::Store;

/// One of the layers of a call.
pub struct Layer<'a> {
    /// (OC, C).
    pub w: &'a Weight,
    /// (OC).
    pub bias: Option<&'a [f32]>,
}

/// Rows that pass by an unpacked unit together: their activations of one unit stay in the second-level cache.
const ROW_BLOCK: usize = 480;
/// Up to so many rows, unpacking a unit costs more than it saves.
const FEW: usize = 12;
/// Bytes of weights that a task reads at least, so that few tasks pay for the start of a stream.
const TASK_BYTES: usize = 1 << 16;

/// See [`crate::OpsInfer::linear`].
pub fn linear(pool: &Pool, path: Path, out: &mut [f32], x: &[f32], n: usize, layers: &[Layer<'_>], store: Store) {
    let Some(c) = layers.first().map(|layer| layer.w.cols) else { return };
    assert!(layers.iter().all(|layer| layer.w.cols == c), "layers of one input");
    let width = layers.iter().map(|layer| layer.w.rows).sum::<usize>();
    assert!(out.len() >= n * width && x.len() >= n * c, "{n} rows of {c} and {width}");
    if n == 0 {
        return;
    }
    let quantised = layers.iter().any(|layer| layer.w.layout.is_some());
    let kernels = Integers::on(path);
    let activations = quantised.then(|| Activations::new(pool, path, x, n, c, kernels.block_rows().max(1)));
    let mut first = 0;
    let parts: Vec<Part<'_>> = layers
        .iter()
        .map(|layer| {
            let side = activations.as_ref().zip(layer.w.layout).map(|(x, layout)| side_numbers(x, layout));
            let part = Part { w: layer.w, bias: layer.bias, side, first };
            first += layer.w.rows;
            part
        })
        .collect();
    let call = Call {
        path,
        kernels: Integers::on(path),
        x,
        activations: activations.as_ref(),
        n,
        width,
        out: SharedMut::new(out),
        store,
    };
    // Tasks of several pairs of panels, of all layers in one region.
    let tasks: Vec<(usize, std::ops::Range<usize>)> = parts
        .iter()
        .enumerate()
        .flat_map(|(i, part)| {
            let pairs = part.w.pair_count();
            let by_bytes = TASK_BYTES.div_ceil((part.w.bytes() as usize / pairs.max(1)).max(1));
            let step = by_bytes.min(pairs.div_ceil(2 * pool.threads())).max(1);
            (0..pairs).step_by(step).map(move |p| (i, p..(p + step).min(pairs)))
        })
        .collect();
    pool.run(tasks.len(), &|task| {
        let (part, pairs) = &tasks[task];
        let part = &parts[*part];
        for pair in pairs.clone() {
            match part.w.layout {
                Some(layout) => call.integers(part, layout, pair),
                None => call.floats(part, pair),
            }
        }
    });
}

/// A layer with what was prepared for it.
struct Part<'a> {
    w: &'a Weight,
    bias: Option<&'a [f32]>,
    side: Option<Vec<i32>>,
    /// Its first column of the output.
    first: usize,
}

/// What all tasks share.
struct Call<'a> {
    path: Path,
    kernels: Integers,
    x: &'a [f32],
    activations: Option<&'a Activations>,
    n: usize,
    width: usize,
    out: SharedMut<'a>,
    store: Store,
}

/// The numbers of [`Side`] for all units of all rows.
fn side_numbers(x: &Activations, layout: Layout) -> Vec<i32> {
    let (parts, runs) = (layout.sub() / PART, UNIT / layout.sub());
    let mut numbers = vec![0; x.rows * x.units() * Side::LEN];
    for (i, numbers) in numbers.chunks_exact_mut(Side::LEN).enumerate() {
        let unit = x.unit(i % x.rows, i / x.rows);
        let sum = |run: usize| (0..parts).map(|part| unit.sum(run * parts + part)).sum::<i32>();
        match Side::of(layout.scales) {
            Side::Start => numbers.iter_mut().take(runs).enumerate().for_each(|(s, n)| *n = -layout.zero * sum(s)),
            Side::Sums => {
                numbers.iter_mut().take(runs).enumerate().for_each(|(s, n)| *n = (sum(s) as f32).to_bits() as i32);
            }
            Side::Pairs => {
                for (pair, n) in numbers.iter_mut().take(runs / 2).enumerate() {
                    // At most 32·127: both fit into 16 bits.
                    *n = (sum(2 * pair) & 0xffff) | sum(2 * pair + 1) << 16;
                }
            }
        }
    }
    numbers
}

impl Call<'_> {
    /// The columns of a pair of panels, for all rows, with integer kernels.
    fn integers(&self, part: &Part<'_>, layout: Layout, pair: usize) {
        let (Some(x), Some(side)) = (self.activations, &part.side) else { unreachable!("prepared by `linear`") };
        let columns = Columns { kernels: self.kernels, layout, cols: part.w.cols, pair: part.w.pair(pair), x, side };
        for first in (0..self.n).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(self.n - first);
            let tile = self.kernels.block_rows().max(1);
            let mut sums = Scratch::new(rows.next_multiple_of(tile) * COLUMNS);
            sums.fill(0.0);
            if tile > 1 && self.n > FEW {
                columns.many_rows(first, rows, &mut sums);
            } else {
                columns.few_rows(first, rows, &mut sums);
            }
            self.store(part, pair * COLUMNS, first, COLUMNS, &sums[..rows * COLUMNS]);
        }
    }

    /// The same with floating-point weights.
    fn floats(&self, part: &Part<'_>, pair: usize) {
        let (cols, bytes) = (part.w.cols, part.w.pair(pair));
        for (p, panel) in bytes.chunks_exact((bytes.len() / PAIR).max(1)).enumerate() {
            let o = pair * COLUMNS + p * PANEL;
            for first in (0..self.n).step_by(float::ROWS) {
                let rows = float::ROWS.min(self.n - first);
                let mut sums = [[0.0; PANEL]; float::ROWS];
                float::tile(part.w.format, self.path, &self.x[first * cols..], cols, cols, panel, &mut sums[..rows]);
                self.store(part, o, first, PANEL, sums[..rows].as_flattened());
            }
        }
    }

    /// Brings sums (rows, columns) of the columns from `o` on to the output, from row `first` on.
    fn store(&self, part: &Part<'_>, o: usize, first: usize, columns: usize, sums: &[f32]) {
        let width = columns.min(part.w.rows.saturating_sub(o));
        if width == 0 {
            return;
        }
        for (r, sums) in sums.chunks_exact(columns).enumerate() {
            // SAFETY: columns of this task's pair in one row.
            let out = unsafe { self.out.part((first + r) * self.width + part.first + o, width) };
            for (i, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let biased = part.bias.map_or(*sum, |bias| sum + bias[o + i]);
                *out = if self.store == Store::Add { *out + biased } else { biased };
            }
        }
    }
}

/// A pair of panels and what it is multiplied with.
struct Columns<'a> {
    kernels: Integers,
    layout: Layout,
    /// C.
    cols: usize,
    pair: &'a [u8],
    x: &'a Activations,
    side: &'a [i32],
}

impl Columns<'_> {
    /// A step for `count` rows from `row` on, whose sums (count, columns) are at the front of `sums`.
    fn step(&self, w: [*const u8; PAIR], u: usize, row: usize, count: usize, sums: &mut [f32]) -> Step {
        assert!(row + count <= self.x.rows && sums.len() >= count * COLUMNS, "{count} rows from {row}");
        Step {
            w,
            blocks: Layout::blocks(self.cols, u),
            x: self.x.unit(row, u).places().as_ptr(),
            x_row: Activations::ROW,
            side: self.side[(u * self.x.rows + row) * Side::LEN..].as_ptr(),
            side_row: Side::LEN,
            c: sums.as_mut_ptr(),
            c_row: COLUMNS,
        }
    }

    /// sums (rows, columns) += x\[first ..\] · pair, reading the weights as they are stored.
    fn few_rows(&self, first: usize, rows: usize, sums: &mut [f32]) {
        let tile = self.kernels.rows();
        let (whole, last) = (self.kernels.kernel(self.layout, tile.min(rows)), (rows - 1) % tile + 1);
        let last_kernel = self.kernels.kernel(self.layout, last);
        for u in 0..self.x.units() {
            let w = [0, 1].map(|p| self.pair[self.layout.unit_range(self.cols, u, p)].as_ptr());
            for (row, sums) in (0..rows).step_by(tile).zip(sums.chunks_mut(tile * COLUMNS)) {
                let count = tile.min(rows - row);
                let step = self.step(w, u, first + row, count, sums);
                // SAFETY: the unit of both panels, rows and sums as `step` checked; the path's features were detected.
                unsafe { if count == tile { whole(&step) } else { last_kernel(&step) } };
            }
        }
    }

    /// The same with each unit unpacked once for all rows. `rows` is filled up to whole tiles, whose sums are not defined.
    fn many_rows(&self, first: usize, rows: usize, sums: &mut [f32]) {
        let (bytes, tile) = (self.layout.unpacked().unit_bytes(UNIT / BLOCK), self.kernels.block_rows());
        let mut space = Scratch::<u8>::new(PAIR * bytes);
        let kernel = self.kernels.block_kernel(self.layout.scales);
        self.kernels.begin(self.layout);
        for u in 0..self.x.units() {
            let mut w = [std::ptr::null(); PAIR];
            for ((p, to), space) in w.iter_mut().enumerate().zip(space.chunks_exact_mut(bytes)) {
                let unit = &self.pair[self.layout.unit_range(self.cols, u, p)];
                let copied = self.kernels.unpack(self.layout, unit, space, Layout::blocks(self.cols, u));
                *to = if copied { space.as_ptr() } else { unit.as_ptr() };
            }
            for (row, sums) in (0..rows).step_by(tile).zip(sums.chunks_mut(tile * COLUMNS)) {
                let step = self.step(w, u, first + row, tile, sums);
                // SAFETY: the unit of both panels in the unpacked layout; rows and sums as `step` checked; `begin` was called;
                // the path's features were detected.
                unsafe { kernel(&step) };
            }
        }
        self.kernels.end();
    }
}
