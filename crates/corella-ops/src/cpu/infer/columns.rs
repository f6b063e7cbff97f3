//! Pairs of panels, unit by unit along k, against rows of activations.

use std::ops::Range;

use super::super::scratch::Scratch;
use super::activations::Activations;
use super::ahead::Level;
use super::kernel::{Integers, Share, Side, Step, Two};
use super::layout::{BLOCK, COLUMNS, Layout, UNIT, VECTOR};
use super::output::{Output, Place};
use super::tiles::{Shares, Tile, Tiles, Unit, cut};

/// What products with quantised weights need.
pub struct Quantised<'a> {
    pub layout: Layout,
    /// Kernels for many rows, where there are many.
    pub tiles: Option<Tiles>,
    pub x: &'a Activations,
    /// [`Activations::side_numbers`].
    pub side: &'a [i32],
}

/// A pair of panels, what it is multiplied with and where the results go.
pub struct Columns<'a> {
    numbers: &'a Quantised<'a>,
    /// C.
    cols: usize,
    pair: &'a [u8],
    /// Bytes of a whole unit.
    unit_bytes: usize,
    place: Place<'a>,
}

impl<'a> Columns<'a> {
    /// A pair of panels of `cols` weights along k.
    pub fn new(numbers: &'a Quantised<'a>, cols: usize, pair: &'a [u8], place: Place<'a>) -> Columns<'a> {
        let layout = numbers.layout;
        assert!(
            pair.len() == layout.pair_bytes(cols) && numbers.x.units == Layout::units(cols),
            "a pair of panels of {cols}"
        );
        Columns { numbers, cols, pair, unit_bytes: layout.unit_bytes(UNIT / BLOCK), place }
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
            level: Level::First,
            share: Share::default(),
            blocks: Layout::blocks(self.cols, u),
            rows: count,
            x: elements.as_ptr(),
            x_scale: x.scales(row, u).as_ptr(),
            side: side[(u * x.rows + row) * Side::LEN..].as_ptr(),
            side_row: Side::LEN,
            c: sums.as_mut_ptr(),
            c_row: COLUMNS,
        }
    }

    /// Where unit `u` is. With one row, what is computed between two units is time in which no memory is asked for.
    #[inline(always)]
    fn at(&self, u: usize) -> *const u8 {
        self.pair.as_ptr().wrapping_add(u * self.unit_bytes)
    }

    /// Unit `u`.
    #[inline(always)]
    fn unit(&self, u: usize) -> &'a [u8] {
        &self.pair[self.numbers.layout.unit_range(self.cols, u)]
    }
}

/// Pairs of one layer, one after the other or two in turns where that is faster, for a range of rows, reading the weights as they are stored. `next` is the pair after
/// these.
pub fn few_rows(
    kernels: Integers,
    numbers: &Quantised<'_>,
    pairs: &[Columns<'_>],
    rows: Range<usize>,
    next: *const u8,
    output: &Output<'_>,
) {
    let (layout, n) = (numbers.layout, rows.len());
    let mut sums = Scratch::new(2 * n * COLUMNS);
    let mut left = pairs;
    if let Some(kernel) = kernels.two(layout, n) {
        let (twos, rest) = pairs.as_chunks();
        for two in twos {
            two_pairs(kernel, two, rows.start, &mut sums);
            for (columns, sums) in two.iter().zip(sums.chunks_exact_mut(n * COLUMNS)) {
                layout.finish(sums);
                output.store(&columns.place, rows.start, sums.as_chunks().0);
            }
        }
        left = rest;
    }
    let (most, units, level) = (kernels.rows(), numbers.x.units, Level::here());
    let tiles = cut(n, n.div_ceil(most), most, |n| kernels.kernel(layout, n));
    let sums = &mut sums[..n * COLUMNS];
    for (i, columns) in left.iter().enumerate() {
        let next = left.get(i + 1).map_or(next, |columns| columns.at(0));
        sums.fill(0.0);
        for u in 0..units {
            let w = Unit { w: columns.at(u), numbers: std::ptr::null() };
            touch(&columns.unit(u)[..layout.codes_at(Layout::blocks(columns.cols, u))]);
            for &Tile { first, count, kernel } in &tiles {
                let mut step = columns.step(w, u, rows.start + first, count, &mut sums[first * COLUMNS..]);
                if first == 0 {
                    step.level = level;
                    step.ahead = if u + 1 < units { columns.at(u + 1) } else { next };
                }
                // SAFETY: the unit of the pair (`new` compared the pair with the units), rows and sums as `step` checked; the
                // path's features were detected.
                unsafe { kernel(&step) };
            }
        }
        layout.finish(sums);
        output.store(&columns.place, rows.start, sums.as_chunks().0);
    }
}

/// Two pairs side by side for rows from `row` on: `sums` (2, rows, columns) get theirs.
fn two_pairs(kernel: Two, [first, second]: &[Columns<'_>; 2], row: usize, sums: &mut [f32]) {
    let n = sums.len() / (2 * COLUMNS);
    sums.fill(0.0);
    let (a, b) = sums.split_at_mut(n * COLUMNS);
    for u in 0..first.numbers.x.units {
        let unit = |columns: &Columns<'_>| Unit { w: columns.at(u), numbers: std::ptr::null() };
        let mut steps = (first.step(unit(first), u, row, n, a), second.step(unit(second), u, row, n, b));
        // Behind the last unit of a pair is what comes in its place then: the pair after the next.
        let ahead = |columns: &Columns<'_>| match u + 1 < columns.numbers.x.units {
            true => columns.at(u + 1),
            false => columns.at(0).wrapping_add(2 * columns.pair.len()),
        };
        (steps.0.ahead, steps.1.ahead) = (ahead(first), ahead(second));
        // SAFETY: units of pairs of one layer (`new` compared them with the units of its rows), rows and sums as `step` checked; the
        // path's features were detected.
        unsafe { kernel(&steps.0, &steps.1) };
    }
}

/// Reads a number of each line. A kernel comes back to the scales of a unit between its codes; a processor takes lines that are
/// left out meanwhile as the end of a stretch, and stops reading ahead (docs/log.md).
#[inline(always)]
fn touch(bytes: &[u8]) {
    for line in bytes.chunks(VECTOR) {
        std::hint::black_box(line[0]);
    }
}

/// Pairs of one layer, for a range of rows, `at_once` at a time: each unit is unpacked once for all rows, unit by unit of these
/// pairs. `next` is the pair after these.
pub fn many_rows(
    kind: Tiles,
    numbers: &Quantised<'_>,
    pairs: &[Columns<'_>],
    at_once: usize,
    rows: Range<usize>,
    next: *const u8,
    output: &Output<'_>,
) {
    let (layout, units) = (numbers.layout, numbers.x.units);
    // Rows are filled up to whole tiles, whose sums are not defined.
    let whole = rows.len().next_multiple_of(kind.whole());
    let shares = kind.shares(layout, kind.count(layout, whole));
    let tiles = cut(whole, kind.count(layout, whole), kind.most(layout), |n| kind.kernel(layout, n, shares.each));
    let mut sums = Scratch::new(at_once.min(pairs.len()) * whole * COLUMNS);
    let mut meeting = Meeting { kind, layout, tiles, shares, rows, output, space: Scratch::new(kind.space()) };
    kind.begin(layout);
    for first in (0..pairs.len()).step_by(at_once) {
        let (group, behind) = pairs[first..].split_at(at_once.min(pairs.len() - first));
        let next = behind.first().map_or(next, |columns| columns.at(0));
        sums.fill(0.0);
        for u in 0..units {
            for (j, (columns, sums)) in group.iter().zip(sums.chunks_exact_mut(whole * COLUMNS)).enumerate() {
                let after = match (group.get(j + 1), u + 1 < units) {
                    (Some(columns), _) => columns.at(u),
                    (None, true) => group[0].at(u + 1),
                    (None, false) => next,
                };
                meeting.unit(columns, u, u + 1 == units, after, sums);
            }
        }
    }
    kind.end();
}

/// Tiles of rows that every unit meets.
struct Meeting<'a> {
    kind: Tiles,
    layout: Layout,
    tiles: Vec<Tile>,
    shares: Shares,
    rows: Range<usize>,
    output: &'a Output<'a>,
    /// A unit in the form of the kernels.
    space: Scratch<u8>,
}

impl Meeting<'_> {
    /// Unit `u` of a pair meets all tiles, whose sums (rows, columns) go to the output as soon as they are complete: with the
    /// `last` unit. `after` is the unit that comes then.
    fn unit(&mut self, columns: &Columns<'_>, u: usize, last: bool, after: *const u8, sums: &mut [f32]) {
        let Meeting { kind, layout, ref rows, shares, .. } = *self;
        let (stored, blocks) = (columns.unit(u), Layout::blocks(columns.cols, u));
        kind.unpack(layout, stored, &mut self.space, blocks, after);
        let unit = kind.unit(layout, stored, &self.space, blocks);
        let inside = |tile: &Tile| rows.start + tile.first..(rows.start + tile.first + tile.count).min(rows.end);
        for (i, tile) in self.tiles.iter().enumerate() {
            if last {
                // The first tile's lines beside the next one's: nothing else asks for them.
                let from = if i == 0 { i } else { i + 1 };
                let soon = &self.tiles[from..(i + 2).min(self.tiles.len())];
                soon.iter().for_each(|tile| self.output.ask(&columns.place, inside(tile)));
            }
            let sums = &mut sums[tile.first * COLUMNS..];
            let mut step = columns.step(unit, u, rows.start + tile.first, tile.count, sums);
            step.ahead = after.wrapping_add(shares.first(i));
            (step.share, step.level) = (shares.each, shares.level);
            // SAFETY: the unit of the pair in the form of the kernel; rows and sums as `step` checked; `begin` was called; the
            // path's features were detected.
            unsafe { (tile.kernel)(&step) };
            if last {
                let rows = inside(tile);
                let sums = &mut sums[..rows.len() * COLUMNS];
                layout.finish(sums);
                self.output.store(&columns.place, rows.start, sums.as_chunks().0);
            }
        }
    }
}
