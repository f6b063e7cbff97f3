//! Products of rows with packed weights: which thread computes which panels with which kernel.

use std::ops::Range;

use super::super::gemm::Workers;
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
#[cfg(target_arch = "x86_64")]
use super::super::{dot::settle, stream512};
use super::activations::Activations;
#[cfg(target_arch = "x86_64")]
use super::brain;
use super::kernel::{Integers, Side, Step};
use super::layout::{BLOCK, COLUMNS, Layout, PAIR, UNIT, VECTOR};
use super::tiles::{Tile, Tiles, Unit, cut};
use super::weight::Weight;
use super::{ahead, float, shares};
use crate::contract_infer::Store;
#[cfg(target_arch = "x86_64")]
use crate::quant::WeightFormat;

/// One of the layers of a call.
pub struct Layer<'a> {
    /// (OC, C).
    pub w: &'a Weight,
    /// (OC).
    pub bias: Option<&'a [f32]>,
}

/// Bytes of activations that stay in the second-level cache while pair after pair of panels passes by.
const ROWS_BYTES: usize = 1 << 20;
/// From so many rows on whole tiles meet several pairs unit by unit: a unit of so many rows stays in the second-level cache, beside the
/// pairs' sums, and each unit of the weights is unpacked once for all of them.
const GROUPED: usize = 128;
/// Rows of a stretch there.
const GROUPED_ROWS: usize = 512;
/// Pairs of a group. Fewer whole rows meet two pairs: a unit of the rows is brought to the first-level cache for both at once.
const PAIRS: usize = 4;
const PAIRS_OF_FEWER: usize = 2;
/// Most pairs of a task where each goes by itself: what a task begins with would be a few hundredths of each.
const PAIRS_OF_TASK: usize = 4;
/// Tasks of each thread, at least, before they get longer.
const TASKS: usize = 8;

/// See [`crate::OpsInfer::linear`].
pub fn linear(pool: &Pool, path: Path, out: &mut [f32], x: &[f32], n: usize, layers: &[Layer<'_>], store: Store) {
    let Some(c) = layers.first().map(|layer| layer.w.cols) else { return };
    let width = layers.iter().map(|layer| layer.w.rows).sum::<usize>();
    if n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if c > 0 && path.has_split_product() && layers.iter().all(|layer| layer.w.format == WeightFormat::Bf16) {
        return brain::linear(pool, path, out, x, n, layers, store);
    }
    let kernels = Integers::on(path);
    let tiles = |layout: Option<Layout>| layout.and_then(|layout| kernels.tiles(layout, n));
    let whole = layers.iter().filter_map(|layer| tiles(layer.w.layout)).map(Tiles::whole).max().unwrap_or(1);
    let quantised = layers.iter().any(|layer| layer.w.layout.is_some());
    let activations = quantised.then(|| Activations::new(pool, path, x, n, c, whole));
    let sides = activations.as_ref().map_or(Vec::new(), |x| sides(pool, x, layers));
    let mut first = 0;
    let parts: Vec<Part<'_>> = layers
        .iter()
        .map(|layer| {
            let side = |layout: Layout| sides.iter().find(|(of, _)| same_side(*of, layout));
            let numbers = match (layer.w.layout, &activations) {
                (Some(layout), Some(x)) => {
                    side(layout).map(|(_, side)| Quantised { layout, tiles: tiles(layer.w.layout), x, side })
                }
                _ => None,
            };
            let part = Part { w: layer.w, bias: layer.bias, numbers, first };
            first += layer.w.rows;
            part
        })
        .collect();
    #[cfg(target_arch = "x86_64")]
    let streams = store == Store::Write && stream512::streams(path, &out[..n * width], width);
    #[cfg(not(target_arch = "x86_64"))]
    let streams = false;
    let ungrouped = (ROWS_BYTES / c.max(1)).max(64);
    let pairs = parts.iter().map(|part| part.w.pair_count()).sum::<usize>();
    let (most, group, at_once) = match whole {
        1 => (ungrouped, (pairs / (TASKS * pool.threads())).clamp(1, PAIRS_OF_TASK), 1),
        _ if n >= GROUPED => (GROUPED_ROWS, PAIRS, PAIRS),
        _ => (ungrouped, PAIRS_OF_FEWER, PAIRS_OF_FEWER),
    };
    let call = Call { path, kernels, x, width, out: SharedMut::new(out), store, streams, at_once };
    // Rows in few stretches of equal length, whole tiles each.
    let rows = n.div_ceil(n.div_ceil(most)).next_multiple_of(whole);
    // For each stretch the pairs of panels of all layers, in one region.
    let groups: Vec<(&Part<'_>, Range<usize>)> = parts
        .iter()
        .flat_map(|part| {
            let pairs = part.w.pair_count();
            (0..pairs).step_by(group).map(move |first| (part, first..(first + group).min(pairs)))
        })
        .collect();
    shares::run(Workers::Pool(pool), n.div_ceil(rows) * groups.len(), &|task| {
        let (stretch, i) = (task / groups.len(), task % groups.len());
        let (part, pairs) = &groups[i];
        let range = stretch * rows..((stretch + 1) * rows).min(n);
        match &part.numbers {
            Some(numbers) => {
                let (part_then, pairs_then) = &groups[(i + 1) % groups.len()];
                call.integers(part, numbers, pairs.clone(), range, part_then.w.panels(pairs_then.start));
            }
            None => pairs.clone().for_each(|pair| call.floats(part, pair, range.clone())),
        }
    });
}

/// Whether two layouts need the same numbers of activations.
fn same_side(a: Layout, b: Layout) -> bool {
    (Side::of(a.scales), a.sub(), a.zero) == (Side::of(b.scales), b.sub(), b.zero)
}

/// The side numbers of all layouts among the layers.
fn sides(pool: &Pool, x: &Activations, layers: &[Layer<'_>]) -> Vec<(Layout, Scratch<i32>)> {
    let mut sides: Vec<(Layout, Scratch<i32>)> = Vec::new();
    for layout in layers.iter().filter_map(|layer| layer.w.layout) {
        if !sides.iter().any(|(of, _)| same_side(*of, layout)) {
            sides.push((layout, x.side_numbers(pool, layout)));
        }
    }
    sides
}

/// A layer with what was prepared for it.
struct Part<'a> {
    w: &'a Weight,
    bias: Option<&'a [f32]>,
    /// `None` with floating-point weights.
    numbers: Option<Quantised<'a>>,
    /// Its first column of the output.
    first: usize,
}

/// What products with quantised weights need.
struct Quantised<'a> {
    layout: Layout,
    /// Kernels for many rows, where there are many.
    tiles: Option<Tiles>,
    x: &'a Activations,
    /// [`Activations::side_numbers`].
    side: &'a [i32],
}

/// What all tasks share.
struct Call<'a> {
    path: Path,
    kernels: Integers,
    x: &'a [f32],
    width: usize,
    out: SharedMut<'a>,
    store: Store,
    /// Whether the output passes the caches by.
    streams: bool,
    /// Pairs that many rows meet unit by unit.
    at_once: usize,
}

impl Call<'_> {
    /// The columns of pairs of panels, for a range of rows, with integer kernels. `next` are the panels after these.
    fn integers(
        &self,
        part: &Part<'_>,
        numbers: &Quantised<'_>,
        pairs: Range<usize>,
        rows: Range<usize>,
        next: [*const u8; PAIR],
    ) {
        let columns = |pair| Columns::new(numbers, part.w.cols, part.w.pair(pair));
        match numbers.tiles {
            Some(tiles) => {
                let pairs: Vec<_> =
                    pairs.map(|pair| (columns(pair), To { call: self, part, column: pair * COLUMNS })).collect();
                many_rows(tiles, numbers, &pairs, self.at_once, rows, next);
            }
            None => {
                let most = self.kernels.rows();
                let kernel = |n| self.kernels.kernel(numbers.layout, n);
                let tiles = cut(rows.len(), rows.len().div_ceil(most), most, kernel);
                let mut sums = Scratch::new(rows.len() * COLUMNS);
                for pair in pairs.clone() {
                    let next = if pair + 1 < pairs.end { part.w.panels(pair + 1) } else { next };
                    sums.fill(0.0);
                    columns(pair).few_rows(&tiles, rows.start, next, &mut sums);
                    self.store(part, pair * COLUMNS, rows.start, sums.as_chunks().0);
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        if self.streams {
            settle();
        }
    }

    /// The same with floating-point weights.
    fn floats(&self, part: &Part<'_>, pair: usize, rows: Range<usize>) {
        let cols = part.w.cols;
        for first in rows.clone().step_by(float::ROWS) {
            let rows = float::ROWS.min(rows.end - first);
            let mut sums = [[0.0; COLUMNS]; float::ROWS];
            let x = &self.x[first * cols..][..rows * cols];
            float::pair(part.w.format, self.path, x, cols, part.w.pair(pair), &mut sums[..rows]);
            self.store(part, pair * COLUMNS, first, &sums[..rows]);
        }
    }

    /// Brings sums (rows, columns) of the columns from `o` on to the output, from row `first` on.
    fn store(&self, part: &Part<'_>, o: usize, first: usize, sums: &[[f32; COLUMNS]]) {
        let width = COLUMNS.min(part.w.rows.saturating_sub(o));
        let bias = part.bias.map(|bias| &bias[o..]);
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: columns of this task's pair in one of its rows.
            let out = unsafe { self.out.part((first + r) * self.width + part.first + o, width) };
            #[cfg(target_arch = "x86_64")]
            if self.streams && width == COLUMNS && out.as_ptr().addr().is_multiple_of(VECTOR) {
                // SAFETY: 512-bit vectors (`streams`), and whole lines.
                unsafe { stream512::row(out, sums, bias.map_or(&[], |bias| &bias[..COLUMNS])) };
                continue;
            }
            match out.first_chunk_mut() {
                Some(whole) => {
                    store_whole(self.path, whole, sums, bias.and_then(|bias| bias.first_chunk()), self.store)
                }
                None => store_row(out, sums, bias, self.store),
            }
        }
    }
}

vectorized! {
    /// [`store_row`] of a whole pair of panels.
    fn store_whole(out: &mut [f32; COLUMNS], sums: &[f32; COLUMNS], bias: Option<&[f32; COLUMNS]>, store: Store) {
        if let (None, Store::Write) = (bias, store) {
            *out = *sums;
        } else {
            store_row(out, sums, bias.map(|bias| bias.as_slice()), store);
        }
    }
}

/// out = sums (+ bias), or += if so said.
#[inline(always)]
fn store_row(out: &mut [f32], sums: &[f32; COLUMNS], bias: Option<&[f32]>, store: Store) {
    match (bias, store) {
        (None, Store::Write) => out.copy_from_slice(&sums[..out.len()]),
        (None, Store::Add) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        (Some(bias), store) => {
            for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                *out = if store == Store::Add { *out + (sum + bias) } else { sum + bias };
            }
        }
    }
}

/// Where the columns of a pair go.
struct To<'a> {
    call: &'a Call<'a>,
    part: &'a Part<'a>,
    /// The first, of its layer.
    column: usize,
}

impl To<'_> {
    /// Asks for the lines of some rows of the output, if they will be written through the caches.
    fn ask(&self, rows: Range<usize>) {
        if !self.call.streams {
            for row in rows {
                let at = row * self.call.width + self.part.first + self.column;
                let line = self.call.out.address(at).cast::<u8>();
                ahead::line_to_write(line);
                ahead::line_to_write(line.wrapping_add(VECTOR));
            }
        }
    }

    /// Brings sums (rows, columns) to the output, from row `first` on.
    fn store(&self, first: usize, sums: &[[f32; COLUMNS]]) {
        self.call.store(self.part, self.column, first, sums);
    }
}

/// A pair of panels and what it is multiplied with.
struct Columns<'a> {
    numbers: &'a Quantised<'a>,
    /// C.
    cols: usize,
    pair: &'a [u8],
    /// Bytes of a panel, and of a unit.
    panel_bytes: usize,
    unit_bytes: usize,
}

impl<'a> Columns<'a> {
    fn new(numbers: &'a Quantised<'a>, cols: usize, pair: &'a [u8]) -> Columns<'a> {
        let (panel_bytes, unit_bytes) = (numbers.layout.panel_bytes(cols), numbers.layout.unit_bytes(UNIT / BLOCK));
        assert!(
            pair.len() == PAIR * panel_bytes && numbers.x.units == Layout::units(cols),
            "a pair of panels of {cols}"
        );
        Columns { numbers, cols, pair, panel_bytes, unit_bytes }
    }

    /// A step for `count` rows from `row` on, whose sums (count, columns) are at the front of `sums`.
    fn step(&self, Unit { w, numbers }: Unit, u: usize, row: usize, count: usize, sums: &mut [f32]) -> Step {
        let Quantised { x, side, .. } = self.numbers;
        let elements = x.elements(row, u);
        assert!(elements.len() >= count * UNIT && sums.len() >= count * COLUMNS, "{count} rows from {row}");
        Step {
            w,
            numbers,
            ahead: w,
            ahead_step: 0,
            blocks: Layout::blocks(self.cols, u),
            x: elements.as_ptr(),
            x_scale: x.scales(row, u).as_ptr(),
            side: side[(u * x.rows + row) * Side::LEN..].as_ptr(),
            side_row: Side::LEN,
            c: sums.as_mut_ptr(),
            c_row: COLUMNS,
        }
    }

    /// Unit `u` of each panel. With one row, what is computed between two units is time in which no memory is asked for.
    #[inline(always)]
    fn units(&self, u: usize) -> [*const u8; PAIR] {
        std::array::from_fn(|p| self.pair.as_ptr().wrapping_add(p * self.panel_bytes + u * self.unit_bytes))
    }

    /// The same with what is read in checked bounds.
    #[inline(always)]
    fn stored(&self, u: usize) -> [&'a [u8]; PAIR] {
        let (first, second) = self.pair.split_at(self.panel_bytes);
        let range = self.numbers.layout.unit_range(self.cols, u, 0);
        [&first[range.clone()], &second[range]]
    }

    /// sums (rows, columns) += x · pair for the rows of the tiles, counted from row `row` on, reading the weights as they are stored.
    /// `next` are the panels after these.
    fn few_rows(&self, tiles: &[Tile], row: usize, next: [*const u8; PAIR], sums: &mut [f32]) {
        let units = self.numbers.x.units;
        for u in 0..units {
            let w = Unit { w: self.units(u), numbers: std::ptr::null() };
            for &Tile { first, count, kernel } in tiles {
                let mut step = self.step(w, u, row + first, count, &mut sums[first * COLUMNS..]);
                if first == 0 {
                    step.ahead = if u + 1 < units { self.units(u + 1) } else { next };
                }
                // SAFETY: the unit of both panels (`new` compared the pair with the units), rows and sums as `step` checked; the
                // path's features were detected.
                unsafe { kernel(&step) };
            }
        }
    }
}

/// Pairs of one layer, for a range of rows, `at_once` at a time: each unit is unpacked once for all rows, unit by unit of these pairs.
/// Sums of a tile go to the output as soon as they are complete. `next` are the panels after these.
fn many_rows(
    tiles: Tiles,
    numbers: &Quantised<'_>,
    pairs: &[(Columns<'_>, To<'_>)],
    at_once: usize,
    rows: Range<usize>,
    next: [*const u8; PAIR],
) {
    let (layout, units) = (numbers.layout, numbers.x.units);
    let mut space = Scratch::<u8>::new(tiles.space());
    // Rows are filled up to whole tiles, whose sums are not defined.
    let whole = rows.len().next_multiple_of(tiles.whole());
    let mut sums = Scratch::new(at_once.min(pairs.len()) * whole * COLUMNS);
    let share = tiles.share(layout, tiles.count(whole));
    let cut = cut(whole, tiles.count(whole), tiles.most(), |n| tiles.kernel(layout, n, share));
    tiles.begin(layout);
    for first in (0..pairs.len()).step_by(at_once) {
        let (group, behind) = pairs[first..].split_at(at_once.min(pairs.len() - first));
        let next = behind.first().map_or(next, |(columns, _)| columns.units(0));
        sums.fill(0.0);
        for u in 0..units {
            for (j, (columns, to)) in group.iter().enumerate() {
                let after = match (group.get(j + 1), u + 1 < units) {
                    (Some((columns, _)), _) => columns.units(u),
                    (None, true) => group[0].0.units(u + 1),
                    (None, false) => next,
                };
                let sums = &mut sums[j * whole * COLUMNS..][..whole * COLUMNS];
                let (stored, blocks) = (columns.stored(u), Layout::blocks(columns.cols, u));
                tiles.unpack(layout, stored, &mut space, blocks, after);
                let unit = tiles.unit(layout, stored, &space, blocks);
                for (i, &Tile { first, count, kernel }) in cut.iter().enumerate() {
                    let row = rows.start + first;
                    if u + 1 == units {
                        // The first tile's lines beside the next one's: nothing else asks for them.
                        let from = if i == 0 { i } else { i + 1 };
                        for tile in &cut[from..(i + 2).min(cut.len())] {
                            let row = rows.start + tile.first;
                            to.ask(row..(row + tile.count).min(rows.end));
                        }
                    }
                    let mut step = columns.step(unit, u, row, count, &mut sums[first * COLUMNS..]);
                    step.ahead = after.map(|unit| unit.wrapping_add(share.first(i)));
                    step.ahead_step = share.step;
                    // SAFETY: the unit of both panels in the form of the kernel; rows and sums as `step` checked; `begin` was
                    // called; the path's features were detected.
                    unsafe { kernel(&step) };
                    if u + 1 == units {
                        let inside = (row + count).min(rows.end) - row;
                        to.store(row, sums[first * COLUMNS..][..inside * COLUMNS].as_chunks().0);
                    }
                }
            }
        }
    }
    tiles.end();
}
