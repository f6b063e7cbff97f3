//! Products of rows with packed weights: which thread computes which panels, for which rows.

use std::ops::Range;

use super::super::Rounding;
use super::super::gemm::Workers;
use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::activations::Activations;
use super::columns::{Columns, Quantised, few_rows, many_rows};
use super::kernel::{Integers, Side};
use super::layout::{BLOCK, COLUMNS, Layout, UNIT};
use super::output::{Output, Place};
use super::tiles::Tiles;
use super::weight::Weight;
#[cfg(target_arch = "x86_64")]
use super::{brain, float_rows::FloatRows, float256};
use super::{float, shares};
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

/// Activations (of a byte where weights are quantised) that stay in the cache while pair after pair of panels passes by.
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
pub fn linear(
    pool: &Pool,
    (path, rounding): (Path, Rounding),
    out: &mut [f32],
    x: &[f32],
    n: usize,
    layers: &[Layer<'_>],
    store: Store,
) {
    let Some(c) = layers.first().map(|layer| layer.w.cols) else { return };
    let width = layers.iter().map(|layer| layer.w.rows).sum::<usize>();
    if n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if c > 0
        && (path.splits() || rounding == Rounding::Bf16)
        && layers.iter().all(|layer| layer.w.format == WeightFormat::Bf16)
    {
        return brain::linear(pool, (path, rounding), out, x, n, layers, store);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = rounding;
    let kernels = Integers::on(path);
    // Without a unit none is the last one, with which many rows write their results.
    let tiles = |layout: Option<Layout>| layout.filter(|_| c > 0).and_then(|layout| kernels.tiles(layout, n));
    let whole = layers.iter().filter_map(|layer| tiles(layer.w.layout)).map(Tiles::whole).max().unwrap_or(1);
    #[cfg(target_arch = "x86_64")]
    let floats = layers.iter().any(|layer| layer.w.layout.is_none());
    let rounded = |run: usize| {
        let wanted = layers.iter().filter_map(|layer| layer.w.layout).any(|layout| layout.activations() == run);
        wanted.then(|| Activations::new(pool, path, (x, run), n, c, whole))
    };
    let (by_block, by_unit) = (rounded(BLOCK), rounded(UNIT));
    let activations = |layout: Layout| match layout.activations() {
        BLOCK => by_block.as_ref(),
        _ => by_unit.as_ref(),
    };
    #[cfg(target_arch = "x86_64")]
    let beside =
        (path.vectors() == Vectors::Avx2 && n > float256::ROWS && floats).then(|| FloatRows::new(pool, path, x, n, c));
    let sides = sides(pool, activations, layers);
    let mut first = 0;
    let parts: Vec<Part<'_>> = layers
        .iter()
        .map(|layer| {
            let side = |layout: Layout| sides.iter().find(|(of, _)| same_side(*of, layout));
            let numbers = layer.w.layout.and_then(|layout| {
                let (x, (_, side)) = (activations(layout)?, side(layout)?);
                Some(Quantised { layout, tiles: tiles(Some(layout)), x, side })
            });
            let part = Part { w: layer.w, bias: layer.bias, numbers, first };
            first += layer.w.rows;
            part
        })
        .collect();
    let ungrouped = (ROWS_BYTES / c.max(1)).max(64);
    let pairs = parts.iter().map(|part| part.w.pair_count()).sum::<usize>();
    let (most, group, at_once) = match whole {
        1 => (ungrouped, (pairs / (TASKS * pool.threads())).clamp(1, PAIRS_OF_TASK), 1),
        _ if n >= GROUPED => (GROUPED_ROWS, PAIRS, PAIRS),
        _ => (ungrouped, PAIRS_OF_FEWER, PAIRS_OF_FEWER),
    };
    let call = Call {
        path,
        kernels,
        x,
        #[cfg(target_arch = "x86_64")]
        beside,
        output: Output::new(path, out, n, width, store),
        at_once,
    };
    // Rows in few stretches, whole tiles each; the last may be shorter.
    let rows = n.div_ceil(n.div_ceil(most)).next_multiple_of(whole.max(float::rows(path)));
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
                call.integers(part, numbers, pairs.clone(), range, part_then.w.pair(pairs_then.start).as_ptr());
            }
            None => pairs.clone().for_each(|pair| call.floats(part, pair, range.clone())),
        }
        call.output.settle();
    });
}

/// Whether two layouts need the same numbers of activations.
fn same_side(a: Layout, b: Layout) -> bool {
    (Side::of(a.scales), a.sub(), a.zero) == (Side::of(b.scales), b.sub(), b.zero)
}

/// The side numbers of all layouts among the layers, from the activations of each.
fn sides<'a>(
    pool: &Pool,
    activations: impl Fn(Layout) -> Option<&'a Activations>,
    layers: &[Layer<'_>],
) -> Vec<(Layout, Scratch<i32>)> {
    let mut sides: Vec<(Layout, Scratch<i32>)> = Vec::new();
    for layout in layers.iter().filter_map(|layer| layer.w.layout) {
        if sides.iter().any(|(of, _)| same_side(*of, layout)) {
            continue;
        }
        sides.extend(activations(layout).map(|x| (layout, x.side_numbers(pool, layout))));
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

impl Part<'_> {
    /// Where the columns of a pair go.
    fn place(&self, pair: usize) -> Place<'_> {
        let o = pair * COLUMNS;
        let width = COLUMNS.min(self.w.rows.saturating_sub(o));
        Place { column: self.first + o, width, bias: self.bias.map(|bias| &bias[o..o + width]) }
    }
}

/// What all tasks share.
struct Call<'a> {
    path: Path,
    kernels: Integers,
    x: &'a [f32],
    /// Many rows for floating-point weights.
    #[cfg(target_arch = "x86_64")]
    beside: Option<FloatRows>,
    output: Output<'a>,
    /// Pairs that many rows meet unit by unit.
    at_once: usize,
}

impl Call<'_> {
    /// The columns of pairs of panels, for a range of rows, with integer kernels. `next` is the pair after these.
    fn integers(
        &self,
        part: &Part<'_>,
        numbers: &Quantised<'_>,
        pairs: Range<usize>,
        rows: Range<usize>,
        next: *const u8,
    ) {
        let columns = |pair| Columns::new(numbers, part.w.cols, part.w.pair(pair), part.place(pair));
        let pairs: Vec<Columns<'_>> = pairs.map(columns).collect();
        match numbers.tiles {
            Some(tiles) => many_rows(tiles, numbers, &pairs, self.at_once, rows, next, &self.output),
            None => few_rows(self.kernels, numbers, &pairs, rows, next, &self.output),
        }
    }

    /// The same with floating-point weights.
    fn floats(&self, part: &Part<'_>, pair: usize, rows: Range<usize>) {
        let cols = part.w.cols;
        #[cfg(target_arch = "x86_64")]
        if let Some(beside) = &self.beside {
            let sums = beside.products(part.w.format, part.w.pair(pair), rows.clone());
            return self.output.store(&part.place(pair), rows.start, sums.as_chunks().0);
        }
        for first in rows.clone().step_by(float::rows(self.path)) {
            let rows = float::rows(self.path).min(rows.end - first);
            let mut sums = [[0.0; COLUMNS]; float::MAX_ROWS];
            let x = &self.x[first * cols..][..rows * cols];
            float::pair(part.w.format, self.path, x, cols, part.w.pair(pair), &mut sums[..rows]);
            self.output.store(&part.place(pair), first, &sums[..rows]);
        }
    }
}
