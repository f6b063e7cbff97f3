//! Products of rows with packed weights: which thread computes which panels with which kernel.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::activations::{Activations, PART};
use super::float;
use super::kernel::{Integers, MAX_PANELS, Side, Step};
use super::layout::{BLOCK, Layout, PANEL, UNIT, VECTOR};
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
const ROW_BLOCK: usize = 512;
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
    let activations = quantised.then(|| Activations::new(pool, path, x, n, c));
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
    let call = Call { path, x, activations: activations.as_ref(), n, width, out: SharedMut::new(out), store };
    // Tasks of several pairs of panels; the pairs of all layers are numbered through.
    let tasks: Vec<(usize, std::ops::Range<usize>)> = parts
        .iter()
        .enumerate()
        .flat_map(|(i, part)| {
            let pairs = part.w.panel_count().div_ceil(MAX_PANELS);
            let by_bytes = TASK_BYTES.div_ceil(MAX_PANELS * part.w.panel(0).len().max(1));
            let step = by_bytes.min(pairs.div_ceil(2 * pool.threads())).max(1);
            (0..pairs).step_by(step).map(move |p| (i, p..(p + step).min(pairs)))
        })
        .collect();
    pool.run(tasks.len(), &|task| {
        let (part, pairs) = &tasks[task];
        let part = &parts[*part];
        for pair in pairs.clone() {
            let panels = pair * MAX_PANELS..((pair + 1) * MAX_PANELS).min(part.w.panel_count());
            match part.w.layout {
                Some(layout) => call.integers(part, layout, panels),
                None => call.floats(part, panels),
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
    let mut numbers = vec![0; x.n * x.units() * Side::LEN];
    for (i, numbers) in numbers.chunks_exact_mut(Side::LEN).enumerate() {
        let unit = x.unit(i / x.units(), i % x.units());
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
    /// Columns of one or two panels, for all rows, with integer kernels.
    fn integers(&self, part: &Part<'_>, layout: Layout, panels: std::ops::Range<usize>) {
        let (Some(x), Some(side)) = (self.activations, &part.side) else { unreachable!("prepared by `linear`") };
        let kernels = Integers::on(self.path);
        let tile = kernels.rows();
        let columns = panels.len() * PANEL;
        let w: Vec<&[u8]> = panels.clone().map(|p| part.w.panel(p)).collect();
        let whole = layout.unit_bytes(UNIT / BLOCK);
        let unpacks = kernels.unpacks() && self.n > 2 * tile && layout != layout.unpacked();
        let unpacked_bytes = if unpacks { layout.unpacked().unit_bytes(UNIT / BLOCK) } else { 0 };
        let mut unpacked = Scratch::new(panels.len() * unpacked_bytes / 4);
        let unpacked = bytes_mut(&mut unpacked);
        let used = if unpacks { layout.unpacked() } else { layout };
        for block in (0..self.n).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(self.n - block);
            let mut sums = Scratch::new(rows * columns);
            sums.fill(0.0);
            for u in 0..x.units() {
                let blocks = (part.w.cols - u * UNIT).min(UNIT) / BLOCK;
                let mut pointers = [w[0].as_ptr(); MAX_PANELS];
                for (p, pointer) in pointers.iter_mut().enumerate().take(panels.len()) {
                    let unit = &w[p][u * whole..][..layout.unit_bytes(blocks)];
                    *pointer = unit.as_ptr();
                    prefetch(&w[p][u * whole..], unit.len());
                    if unpacks {
                        let to = &mut unpacked[p * unpacked_bytes..][..unpacked_bytes];
                        kernels.unpack(layout, unit, to, blocks);
                        *pointer = to.as_ptr();
                    }
                }
                for first in (0..rows).step_by(tile) {
                    let count = tile.min(rows - first);
                    let step = Step {
                        w: pointers,
                        blocks,
                        x: x.unit(block + first, u).places().as_ptr(),
                        x_row: x.row_places(),
                        side: side[((block + first) * x.units() + u) * Side::LEN..].as_ptr(),
                        side_row: x.units() * Side::LEN,
                        c: sums[first * columns..][..count * columns].as_mut_ptr(),
                        c_row: columns,
                    };
                    // SAFETY: units of `blocks` blocks in the layout `used` (sliced above), `count` rows of activations and side
                    // numbers (both made for n rows of this many units), `count` rows of sums; the path's features were detected.
                    unsafe { kernels.kernel(used, count, panels.len())(&step) };
                }
            }
            self.store(part, panels.start, block, columns, &sums);
        }
    }

    /// The same with floating-point weights.
    fn floats(&self, part: &Part<'_>, panels: std::ops::Range<usize>) {
        let cols = part.w.cols;
        for panel in panels {
            for first in (0..self.n).step_by(float::ROWS) {
                let rows = float::ROWS.min(self.n - first);
                let mut sums = [[0.0; PANEL]; float::ROWS];
                let x = &self.x[first * cols..];
                float::tile(part.w.format, self.path, x, cols, cols, part.w.panel(panel), &mut sums[..rows]);
                self.store(part, panel, first, PANEL, sums[..rows].as_flattened());
            }
        }
    }

    /// Brings sums (rows, columns) of the columns from panel `panel` on to the output, from row `first` on.
    fn store(&self, part: &Part<'_>, panel: usize, first: usize, columns: usize, sums: &[f32]) {
        let o = panel * PANEL;
        let width = columns.min(part.w.rows - o);
        for (r, sums) in sums.chunks_exact(columns).enumerate() {
            // SAFETY: columns of this task's panels in one row.
            let out = unsafe { self.out.part((first + r) * self.width + part.first + o, width) };
            for (i, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let biased = part.bias.map_or(*sum, |bias| sum + bias[o + i]);
                *out = if self.store == Store::Add { *out + biased } else { biased };
            }
        }
    }
}

/// The bytes of numbers.
fn bytes_mut(numbers: &mut [f32]) -> &mut [u8] {
    // SAFETY: any four bytes are a float and the other way round; the length is the same in bytes; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), 4 * numbers.len()) }
}

/// Bytes that weights are asked for ahead of their use.
const AHEAD: usize = 4096;

/// Asks for the `len` bytes that lie [`AHEAD`] of the beginning of `rest`, as far as there are so many.
fn prefetch(rest: &[u8], len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in rest.get(AHEAD..(AHEAD + len).min(rest.len())).unwrap_or_default().chunks(VECTOR) {
        // SAFETY: a prefetch of an address inside a slice; it reads nothing.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rest, len, AHEAD);
}
