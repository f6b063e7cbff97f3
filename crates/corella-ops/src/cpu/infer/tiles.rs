//! Kernels for many rows: a unit of a pair of panels is brought into a form of their own once, and then meets tile after tile
//! of rows. All of them are for x86-64: elsewhere [`Tiles`] has no value, and its methods are never called.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused_macros, unused_unsafe, unreachable_code))]

#[cfg(target_arch = "x86_64")]
use super::super::vendor::is_amd;
use super::ahead::Level;
use super::kernel::{
    EIGHT, FIVE, FOUR, HALVES, HALVES_MIN, INTEGERS_16, INTEGERS_16_MIN, INTEGERS_32, INTEGERS_32_MIN, Integers,
    Kernel, SIX, Share, TABLE, unit,
};
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PAIR, Scales, UNIT, VECTOR};
#[cfg(target_arch = "x86_64")]
use super::vnni_block::ASKS;

/// Up to so many rows are few: bringing units into another form costs more than it saves. Halves of bytes with one scale are
/// quickly taken apart.
#[cfg(target_arch = "x86_64")]
const fn few(kernels: Integers, layout: Layout) -> usize {
    match (kernels, layout.codes, layout.scales) {
        (Integers::Avx2, ..) => super::avx2::ROWS,
        (_, Codes::Four | Codes::Table, Scales::Halves { .. }) => 12,
        _ => 6,
    }
}

/// From so many rows on tiles of 16 pay: later for codes of 8 bits, which dot products leave where they are (docs/log.md).
#[cfg(target_arch = "x86_64")]
const fn many(layout: Layout) -> usize {
    match layout.codes {
        Codes::Eight => 27,
        _ => 13,
    }
}

/// Which kernels for many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// Up to 4 or 6 rows on multiply-adds of bytes (AVX2); see [`super::avx2_block`].
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Up to 6 rows on dot products of bytes (VNNI); see [`super::vnni_block`].
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// 16 rows on tiles (AMX); see [`super::amx`].
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Integers {
    /// Its kernels for `rows` rows, where they are many and it has some.
    pub fn tiles(self, layout: Layout, rows: usize) -> Option<Tiles> {
        let _ = (layout, rows);
        match self {
            #[cfg(target_arch = "x86_64")]
            Integers::Amx if rows >= many(layout) => Some(Tiles::Amx),
            #[cfg(target_arch = "x86_64")]
            Integers::Vnni | Integers::Amx if rows > few(self, layout) => Some(Tiles::Vnni),
            #[cfg(target_arch = "x86_64")]
            Integers::Avx2 if rows > few(self, layout) => Some(Tiles::Avx2),
            _ => None,
        }
    }
}

/// How the lines of the unit that will be read after this one are shared out among what asks for them.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Bytes that unpacking asks for.
    unpacking: usize,
    /// What each tile asks for.
    pub each: Share,
    /// Where to: what unpacking reads in one go is wanted near.
    pub level: Level,
}

impl Shares {
    /// Where the share of tile `i` begins.
    pub fn first(self, i: usize) -> usize {
        self.unpacking + i * self.each.asks * self.each.step
    }
}

/// A unit of a pair of panels in the form of a kernel: what a [`Step`](super::kernel::Step) says of it.
#[derive(Clone, Copy)]
pub struct Unit {
    /// Codes, and whatever else the kernel wants beside them.
    pub w: *const u8,
    /// Scales and minima of both panels, if the kernel wants them apart.
    pub numbers: *const u8,
}

impl Tiles {
    /// Rows of a tile at most.
    pub fn most(self, layout: Layout) -> usize {
        let _ = layout;
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 => super::avx2_block::rows(layout.codes),
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => super::vnni_block::ROWS,
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::ROWS,
        }
    }

    /// What the number of rows is filled up to a multiple of.
    pub fn whole(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 | Tiles::Vnni => 1,
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::ROWS,
        }
    }

    /// How many tiles `rows` rows make, whole ones where they must be.
    pub fn count(self, layout: Layout, rows: usize) -> usize {
        rows.div_ceil(self.most(layout))
    }

    /// How each of `tiles` tiles asks for its share of the next unit.
    pub fn shares(self, layout: Layout, tiles: usize) -> Shares {
        let blocks = UNIT / BLOCK;
        let unpacking = if self.leaves_codes(layout) { 0 } else { blocks * PAIR * VECTOR };
        let bytes = layout.unit_bytes(blocks) - unpacking;
        let asks = match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 => bytes.div_ceil(tiles * VECTOR).next_multiple_of(PAIR),
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => {
                let [.., most] = ASKS;
                let enough = |asks: &usize| asks * tiles * PAIR * VECTOR >= bytes;
                ASKS.into_iter().find(enough).unwrap_or(most)
            }
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::ASKS,
        };
        let level = if self.leaves_codes(layout) { Level::here() } else { Level::First };
        Shares { unpacking, each: Share { asks, step: bytes.div_ceil(asks * tiles) }, level }
    }

    /// Whether codes stay where they are.
    #[inline(always)]
    fn leaves_codes(self, layout: Layout) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => layout.codes == Codes::Eight,
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => {
                let _ = layout;
                false
            }
        }
    }

    /// The kernel of a layout for `rows` rows, [`Tiles::whole`] ones where they must be, for a share as said. Between
    /// [`Tiles::begin`] and [`Tiles::end`] on the same thread.
    pub fn kernel(self, layout: Layout, rows: usize, share: Share) -> Kernel {
        assert!((1..=self.most(layout)).contains(&rows), "a tile of {rows} rows");
        macro_rules! rows {
            ($module:ident, $codes:expr, $scales:expr) => {
                unit!(rows, $module, $codes, $scales)
            };
        }
        #[cfg(target_arch = "x86_64")]
        macro_rules! signed_rows {
            ($codes:expr, $scales:expr) => {
                unit!(4, rows, avx2_block, $codes, $scales)
            };
        }
        #[cfg(target_arch = "x86_64")]
        macro_rules! lines {
            ($scales:expr) => {
                match share.step.div_ceil(VECTOR) {
                    0 | 1 => super::amx::unit::<$scales, 1>,
                    2 => super::amx::unit::<$scales, 2>,
                    3 => super::amx::unit::<$scales, 3>,
                    4 => super::amx::unit::<$scales, 4>,
                    5 => super::amx::unit::<$scales, 5>,
                    6 => super::amx::unit::<$scales, 6>,
                    _ => super::amx::unit::<$scales, 9>,
                }
            };
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 => match (layout.codes, layout.scales) {
                (Codes::Four, Scales::Halves { min: false }) => rows!(avx2_block, FOUR, HALVES),
                (Codes::Four, Scales::Halves { min: true }) => rows!(avx2_block, FOUR, HALVES_MIN),
                (Codes::Four, Scales::Integers { sub: 32, .. }) => rows!(avx2_block, FOUR, INTEGERS_32_MIN),
                (Codes::Four, Scales::Integers { min: true, .. }) => rows!(avx2_block, FOUR, INTEGERS_16_MIN),
                (Codes::Four, Scales::Integers { min: false, .. }) => rows!(avx2_block, FOUR, INTEGERS_16),
                (Codes::Five, Scales::Halves { min: false }) => rows!(avx2_block, FIVE, HALVES),
                (Codes::Five, Scales::Halves { min: true }) => rows!(avx2_block, FIVE, HALVES_MIN),
                (Codes::Five, Scales::Integers { .. }) => rows!(avx2_block, FIVE, INTEGERS_32_MIN),
                (Codes::Six, _) => rows!(avx2_block, SIX, INTEGERS_16),
                (Codes::Eight | Codes::Table, Scales::Halves { .. }) => signed_rows!(EIGHT, HALVES),
                (Codes::Eight | Codes::Table, Scales::Integers { sub: 32, .. }) => signed_rows!(EIGHT, INTEGERS_32),
                (Codes::Eight | Codes::Table, Scales::Integers { .. }) => signed_rows!(EIGHT, INTEGERS_16),
            },
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => match (layout.scales, layout.codes) {
                (Scales::Halves { min: false }, _) => rows!(vnni_block, EIGHT, HALVES),
                (Scales::Halves { min: true }, _) => rows!(vnni_block, EIGHT, HALVES_MIN),
                (Scales::Integers { sub: 32, min: false }, _) => rows!(vnni_block, EIGHT, INTEGERS_32),
                (Scales::Integers { sub: 32, min: true }, Codes::Four) if !is_amd() => {
                    rows!(vnni_block, FOUR, INTEGERS_32_MIN)
                }
                (Scales::Integers { sub: 32, min: true }, _) => rows!(vnni_block, EIGHT, INTEGERS_32_MIN),
                (Scales::Integers { min: false, .. }, Codes::Four) => rows!(vnni_block, FOUR, INTEGERS_16),
                (Scales::Integers { min: false, .. }, _) => rows!(vnni_block, EIGHT, INTEGERS_16),
                (Scales::Integers { min: true, .. }, _) => rows!(vnni_block, FOUR, INTEGERS_16_MIN),
            },
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => match layout.scales {
                Scales::Halves { min: false } => lines!(HALVES),
                Scales::Halves { min: true } => lines!(HALVES_MIN),
                Scales::Integers { sub: 32, min: false } => lines!(INTEGERS_32),
                Scales::Integers { sub: 32, min: true } => lines!(INTEGERS_32_MIN),
                Scales::Integers { min: false, .. } => lines!(INTEGERS_16),
                Scales::Integers { min: true, .. } => lines!(INTEGERS_16_MIN),
            },
        }
    }

    /// Prepares this thread for the kernel of a layout.
    pub fn begin(self, layout: Layout) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 | Tiles::Vnni => {
                let _ = layout;
            }
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::begin(layout.scales),
        }
    }

    /// Ends what [`Tiles::begin`] began.
    pub fn end(self) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 | Tiles::Vnni => {}
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::end(),
        }
    }

    /// Bytes of a unit of a pair in the form of the kernel, and of its numbers apart.
    fn bytes(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Avx2 => (UNIT * COLUMNS, PAIR * super::avx2_block::NUMBERS),
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => (UNIT * COLUMNS, PAIR * super::vnni_block::NUMBERS),
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => (PAIR * super::amx::UNIT_BYTES, 0),
        }
    }

    /// Bytes of the space of [`Tiles::unpack`].
    pub fn space(self) -> usize {
        let (codes, numbers) = self.bytes();
        codes + numbers
    }

    /// Where a unit is in the form of the kernel once [`Tiles::unpack`] brought it to `space`. Addresses alone, and
    /// not that function's result: the kernel would wait until all that was stored before has left the processor (docs/log.md).
    #[inline(always)]
    pub fn unit(self, layout: Layout, unit: &[u8], space: &[u8], blocks: usize) -> Unit {
        let w = if self.leaves_codes(layout) {
            unit.as_ptr().wrapping_add(layout.codes_at(blocks))
        } else {
            space.as_ptr()
        };
        Unit { w, numbers: space.as_ptr().wrapping_add(self.bytes().0) }
    }

    /// Brings a unit into the form of the kernel, in `space`; codes that have it already stay where they are. Asks meanwhile for
    /// the first lines of the unit that comes later ([`Shares`]).
    pub fn unpack(self, layout: Layout, unit: &[u8], space: &mut [u8], blocks: usize, ahead: *const u8) {
        assert!(space.len() >= self.space() && unit.len() >= layout.unit_bytes(blocks), "a unit of {blocks}");
        macro_rules! codes {
            ($module:ident, $($arg:expr),*) => {
                match layout.codes {
                    Codes::Four => super::$module::unpack::<FOUR>($($arg),*),
                    Codes::Table => super::$module::unpack::<TABLE>($($arg),*),
                    Codes::Five => super::$module::unpack::<FIVE>($($arg),*),
                    Codes::Six => super::$module::unpack::<SIX>($($arg),*),
                    Codes::Eight => super::$module::unpack::<EIGHT>($($arg),*),
                }
            };
        }
        let (codes, numbers) = space.split_at_mut(self.bytes().0);
        let (from, to) = (unit.as_ptr(), codes.as_mut_ptr());
        // SAFETY: a unit in each form, and room for its numbers (assertion); the features of each kind were detected
        // (`Integers::on`).
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Tiles::Avx2 => {
                    super::avx2_block::numbers(layout, from, numbers.as_mut_ptr(), blocks);
                    codes!(avx2, layout, from, to, blocks, ahead);
                }
                #[cfg(target_arch = "x86_64")]
                Tiles::Vnni => {
                    super::vnni_block::numbers(layout, from, numbers.as_mut_ptr(), blocks);
                    if !self.leaves_codes(layout) {
                        codes!(vnni, layout, from, to, blocks, ahead);
                    }
                }
                #[cfg(target_arch = "x86_64")]
                Tiles::Amx => codes!(amx, layout, from, to, blocks, ahead),
            }
        }
    }
}

/// Rows of a tile, from which on, and their kernel.
#[derive(Clone, Copy)]
pub struct Tile {
    /// The first row.
    pub first: usize,
    /// Rows.
    pub count: usize,
    /// The kernel of so many.
    pub kernel: Kernel,
}

/// `rows` rows in `tiles` tiles of at most `most`, whose lengths differ by one at most; `kernel` knows the kernel of a number of
/// rows.
pub fn cut(rows: usize, tiles: usize, most: usize, kernel: impl Fn(usize) -> Kernel) -> Vec<Tile> {
    let short = rows / tiles;
    let kernels = [kernel(short), kernel((short + 1).min(most))];
    let tile = |i: usize| {
        let (first, end) = (rows * i / tiles, rows * (i + 1) / tiles);
        Tile { first, count: end - first, kernel: kernels[end - first - short] }
    };
    (0..tiles).map(tile).collect()
}
