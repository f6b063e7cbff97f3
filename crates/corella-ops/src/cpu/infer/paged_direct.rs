//! Attention of few queries, which read keys and values as they are stored: each line of memory is converted once for four
//! queries, and a line of what comes soon is asked for where a line is read. The order of additions is that of
//! [`super::paged`]; the loops are in [`super::paged256`] and [`super::paged512`].

use super::super::path::{Path, Vectors};
use super::super::vendor::is_amd;
use super::cached_numbers::element_bytes;
use super::paged::STRETCH;
use super::paged_read::GROUPS;
use super::pages::GROUP;
use super::{paged256, paged512};
use crate::contract_infer::KvKind;

/// Queries up to which converting again for every four costs less than keeping what was converted.
pub const QUERIES: usize = 8;
/// Queries that meet a line together.
pub const TILE: usize = 4;
// Kinds of numbers as constant parameters.
pub const HALF: u8 = 0;
pub const BRAIN: u8 = 1;
pub const BYTE: u8 = 2;
pub const SINGLE: u8 = 3;

/// Calls a function with a kind, a number of queries (up to 4) and one of vectors as constant parameters.
macro_rules! with_shape {
    ($kind:expr, $n:expr, $vectors:tt, $name:ident $args:tt) => {
        match $kind {
            KvKind::F32 => with_shape!(@queries SINGLE, $n, $vectors, $name $args),
            KvKind::F16 => with_shape!(@queries HALF, $n, $vectors, $name $args),
            KvKind::Bf16 => with_shape!(@queries BRAIN, $n, $vectors, $name $args),
            KvKind::Q8 => with_shape!(@queries BYTE, $n, $vectors, $name $args),
        }
    };
    (@queries $kind:ident, $n:expr, $vectors:tt, $name:ident $args:tt) => {
        match $n {
            1 => $name::<$kind, 1, $vectors> $args,
            2 => $name::<$kind, 2, $vectors> $args,
            3 => $name::<$kind, 3, $vectors> $args,
            _ => $name::<$kind, 4, $vectors> $args,
        }
    };
}

pub(super) use with_shape;

/// Bytes of a number.
pub const fn size(kind: u8) -> usize {
    match kind {
        SINGLE => 4,
        BYTE => 1,
        _ => 2,
    }
}

/// Bytes from a line that is read to the one that is asked for, at least: less and the answer comes late (docs/log.md).
pub const AHEAD: usize = 2048;

/// Bytes of keys or values that several tiles of queries or columns meet in turn, from the first-level cache.
const NEAR: usize = 8192;

/// Whether there are loops for `n` queries of heads of `hs` dimensions, and they pay.
pub fn has_loops(path: Path, n: usize, hs: usize) -> bool {
    n <= QUERIES
        && match path.vectors() {
            Vectors::Avx512 => true,
            Vectors::Avx2 => hs.is_multiple_of(GROUP),
            _ => false,
        }
}

/// Whether a stretch's keys are read from one end to the other, then its values, and the lines of each ask for those of what is
/// read after it: faster by a quarter on AMD's processors than several streams side by side, each asked for a little ahead
/// (docs/log.md). Elsewhere it has not been measured; 256-bit vectors have no loops for more streams than one.
pub fn reads_in_turn(path: Path) -> bool {
    is_amd() || path.vectors() == Vectors::Avx2
}

/// One or two runs of groups of keys, each (HS,16).
#[derive(Clone, Copy)]
pub struct Keys {
    /// How numbers are stored.
    pub kind: KvKind,
    /// HS.
    pub hs: usize,
    /// Groups of a run, behind each other in memory.
    pub run: usize,
    /// The first of each run; the second run is read if there are two.
    pub groups: [*const u8; GROUPS],
    /// What is read soon, asked for line by line, as far as the run is long. Any address will do.
    pub soon: [*const u8; GROUPS],
    /// Where in a row of scores those of the first group lie.
    pub places: [usize; GROUPS],
}

impl Keys {
    /// `run` groups of each run, from group `first` on.
    #[inline(always)]
    pub fn part(self, first: usize, run: usize, group_bytes: usize) -> Keys {
        let skip = |at: *const u8| at.wrapping_add(first * group_bytes);
        let places = self.places.map(|place| place + first * GROUP);
        Keys { run, groups: self.groups.map(skip), soon: self.soon.map(skip), places, ..self }
    }
}

/// scores\[q\]\[place of g + 0 .. 16\] = Σ_i queries\[q\]\[i\] · keys\[g\]\[i\]\[0 .. 16\], i ascending, for each group g; rows of
/// scores are a stretch apart.
///
/// # Safety
/// queries (n,HS), `count` runs of [`Keys`] (one or two), n rows of scores with 16 places for each group; [`has_loops`], two runs
/// only where keys and values are not [read in turn](reads_in_turn).
pub unsafe fn dot(path: Path, queries: *const f32, n: usize, keys: Keys, count: usize, scores: *mut f32) {
    let group_bytes = GROUP * keys.hs * element_bytes(keys.kind);
    let near = if n <= TILE { keys.run } else { (NEAR / group_bytes).max(1) };
    for group in (0..keys.run).step_by(near) {
        let keys = keys.part(group, near.min(keys.run - group), group_bytes);
        for first in (0..n).step_by(TILE) {
            // SAFETY: some of the queries, some of the groups.
            unsafe {
                let (queries, scores) = (queries.add(first * keys.hs), scores.add(first * STRETCH));
                let n = (n - first).min(TILE);
                match path.vectors() {
                    Vectors::Avx512 => paged512::dot(queries, n, keys, count, scores),
                    _ => paged256::dot(queries, n, keys, scores),
                }
            }
        }
    }
}

/// Values of positions, (count,HS).
#[derive(Clone, Copy)]
pub struct Values {
    /// How numbers are stored.
    pub kind: KvKind,
    /// HS.
    pub hs: usize,
    /// Positions.
    pub count: usize,
    /// The values.
    pub at: *const u8,
    /// Values that are read soon, asked for as keys are.
    pub soon: *const u8,
}

/// sums\[q\] += Σ_s p\[q\]\[s\] · values\[s\], s ascending; rows of p are a stretch apart, those of sums `width` floats.
///
/// # Safety
/// n rows of p with a weight for each position, [`Values`], sums (n,width), width HS up to a multiple of 16; [`has_loops`].
pub unsafe fn add_weighted(path: Path, p: *const f32, n: usize, values: Values, width: usize, sums: *mut f32) {
    let most = if path.vectors() == Vectors::Avx512 { paged512::COLUMNS } else { paged256::COLUMNS };
    let bytes = values.hs * element_bytes(values.kind);
    let near = if n <= TILE && width <= most { values.count } else { (NEAR / bytes).max(GROUP) };
    for from in (0..values.count).step_by(near.max(1)) {
        let skip = |at: *const u8| at.wrapping_add(from * bytes);
        let count = near.min(values.count - from);
        let values = Values { count, at: skip(values.at), soon: skip(values.soon), ..values };
        for first in (0..n).step_by(TILE) {
            let n = (n - first).min(TILE);
            let mut column = 0;
            while column < width {
                // SAFETY: some of the positions and queries, at most as many columns as there are left.
                column += unsafe {
                    let (p, sums) = (p.add(first * STRETCH + from), sums.add(first * width + column));
                    match path.vectors() {
                        Vectors::Avx512 => paged512::add(p, n, values, column, width, sums),
                        _ => paged256::add(p, n, values, column, width, sums),
                    }
                };
            }
        }
    }
}
