//! Integer micro-kernels: a unit of a pair of panels against a few rows.
//!
//! Sums of integer products are exact, so only the f32 steps have an order, the same in every kernel and for any number of
//! rows. For a unit, with I the integer sums of the weights that share a scale:
//!
//! ```text
//! half-precision scales   f = Σ x's scale·(scale·I) (+ min·Σx), block by block;   c += f
//! integer scales          S = Σ scale·I, M = Σ min·Σx, exact integers;   c += (d·x's scale)·S,  c −= (dmin·x's scale)·M
//! ```

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::ahead::Level;
use super::layout::{Codes, Layout, Scales};

/// Rows of a tile at most.
pub const MAX_ROWS: usize = 6;

/// One step of a tile: a unit of weights and of activations. Pointers of rows are `*_row` elements apart.
#[derive(Clone, Copy)]
pub struct Step {
    /// The unit of the pair.
    pub w: *const u8,
    /// Scales and minima of both panels, for a kernel that wants them apart ([`super::tiles::Unit`]).
    pub numbers: *const u8,
    /// The unit that will be read after this one, to be asked for meanwhile. An address alone; nothing need lie there.
    pub ahead: *const u8,
    /// Where to.
    pub level: Level,
    /// How kernels that ask a tile's share alone do so.
    pub share: Share,
    /// Blocks of the unit.
    pub blocks: usize,
    /// Rows, for a kernel that is not made for a number of them.
    pub rows: usize,
    /// Elements, a row every [`UNIT`](super::layout::UNIT): a unit of [`super::activations::Activations`].
    pub x: *const i8,
    /// The scale of each row, for integer scales: for others, each block of it has one, among the side numbers.
    pub x_scale: *const f32,
    /// The unit's numbers of [`Side`].
    pub side: *const i32,
    /// Numbers between rows.
    pub side_row: usize,
    /// Sums, 32 per row.
    pub c: *mut f32,
    /// Floats between rows.
    pub c_row: usize,
}

/// How a tile asks for its share of the unit that will be read after this one: each line once, in their order, which is what
/// the processor looks ahead by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Places.
    pub asks: usize,
    /// Bytes from one to the next.
    pub step: usize,
}

/// What a product needs of sums and scales of activations, for each unit of a row. Which, depends on the layout; x is the
/// rounded integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Half-precision scales. For each block what its integer sum begins with, −zero·Σx, as [`AS_FLOAT`] says; with minima,
    /// which have no zero, x's scale times Σx instead, as f32 bits. From [`Side::SCALES_AT`] on x's scale of each block, as f32 bits.
    Blocks {
        /// Whether there are minima.
        min: bool,
    },
    /// Integer scales: for each run that shares one, what its integer sum begins with: −zero·Σx.
    Start,
    /// Integer scales and minima: for each pair of runs both Σx as i16. Of runs of 32, from [`Side::CENTRED_AT`] on also −[`Side::CENTRE`]·Σx: what the
    /// sum of a run begins with, if its codes are to be taken less that number.
    Pairs,
}

impl Side {
    /// Numbers of a unit, whether all are used or not.
    pub const LEN: usize = 16;
    /// See [`Side::Pairs`].
    pub const CENTRE: i32 = 8;
    /// See [`Side::Pairs`].
    pub const CENTRED_AT: usize = 8;
    /// See [`Side::Blocks`].
    pub const SCALES_AT: usize = 8;

    /// What a layout needs.
    pub const fn of(scales: Scales) -> Side {
        match scales {
            Scales::Halves { min } => Side::Blocks { min },
            Scales::Integers { min: true, .. } => Side::Pairs,
            _ => Side::Start,
        }
    }
}

/// 1.5·2^23: an integer below 2^22 added to its bits gives those of their sum, so (sum − 1.5·2^23)·scale, rounded once, is one
/// multiply-add where a conversion and a product would be two. Exactly so: 1.5·2^23 times a half-precision scale is an f32.
pub const AS_FLOAT: f32 = 12_582_912.0;

/// A micro-kernel for one layout and number of rows.
///
/// # Safety
/// The step's pointers reach what they say: a unit of the pair in the kernel's layout, and for each row a unit of activations,
/// [`Side::LEN`] numbers, and 32 sums that nobody else uses. The processor has the path's features.
pub type Kernel = unsafe fn(&Step);

/// The same for the units of two pairs, which have as many blocks.
///
/// # Safety
/// As of [`Kernel`], for both steps.
pub type Two = unsafe fn(&Step, &Step);

/// A module's kernel `unit` for up to 6 rows, or for up to 4.
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_macros))]
macro_rules! unit {
    (4, $rows:expr, $module:ident, $codes:expr, $scales:expr) => {
        match $rows {
            1 => super::$module::unit::<$codes, $scales, 1>,
            2 => super::$module::unit::<$codes, $scales, 2>,
            3 => super::$module::unit::<$codes, $scales, 3>,
            _ => super::$module::unit::<$codes, $scales, 4>,
        }
    };
    ($rows:expr, $module:ident, $codes:expr, $scales:expr) => {
        match $rows {
            1 => super::$module::unit::<$codes, $scales, 1>,
            2 => super::$module::unit::<$codes, $scales, 2>,
            3 => super::$module::unit::<$codes, $scales, 3>,
            4 => super::$module::unit::<$codes, $scales, 4>,
            5 => super::$module::unit::<$codes, $scales, 5>,
            _ => super::$module::unit::<$codes, $scales, 6>,
        }
    };
}
pub(super) use unit;

/// The shape `$shapes` of a module's kernel for each layout.
macro_rules! layouts {
    ($layout:expr, $shapes:ident, $module:ident) => {{
        use Codes::*;
        use Scales::*;
        match ($layout.codes, $layout.scales) {
            (Four, Halves { min: false }) => $shapes!($module, FOUR, HALVES),
            (Four, Halves { min: true }) => $shapes!($module, FOUR, HALVES_MIN),
            (Four, Integers { sub: 32, min: true }) => $shapes!($module, FOUR, INTEGERS_32_MIN),
            (Four, Integers { min: true, .. }) => $shapes!($module, FOUR, INTEGERS_16_MIN),
            (Four, Integers { min: false, .. }) => $shapes!($module, FOUR, INTEGERS_16),
            (Table, Halves { .. }) => $shapes!($module, TABLE, HALVES),
            (Table, Integers { .. }) => $shapes!($module, TABLE, INTEGERS_32),
            (Five, Halves { min: false }) => $shapes!($module, FIVE, HALVES),
            (Five, Halves { min: true }) => $shapes!($module, FIVE, HALVES_MIN),
            (Five, Integers { .. }) => $shapes!($module, FIVE, INTEGERS_32_MIN),
            (Six, _) => $shapes!($module, SIX, INTEGERS_16),
            (Eight, Halves { .. }) => $shapes!($module, EIGHT, HALVES),
            (Eight, Integers { .. }) => $shapes!($module, EIGHT, INTEGERS_16),
        }
    }};
}

/// Which integer kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// Plain Rust.
    Portable,
    /// 256-bit multiply-adds of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit dot products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// The same for few rows, tiles for many (AMX).
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Integers {
    /// The fastest on a path.
    pub fn on(path: Path) -> Integers {
        #[cfg(target_arch = "x86_64")]
        {
            if path.vectors() == Vectors::Avx512 && is_x86_feature_detected!("avx512vnni") {
                return if path == Path::Amx && super::amx::available() { Integers::Amx } else { Integers::Vnni };
            }
            if path.has_avx2() {
                return Integers::Avx2;
            }
        }
        let _ = path;
        Integers::Portable
    }

    /// Rows of a tile at most.
    pub fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Integers::Avx2 => super::avx2::ROWS,
            _ => MAX_ROWS,
        }
    }

    /// The kernel of a layout for `rows` rows.
    pub fn kernel(self, layout: Layout, rows: usize) -> Kernel {
        assert!((1..=self.rows()).contains(&rows), "a tile of {rows} rows");
        #[cfg(target_arch = "x86_64")]
        macro_rules! shapes {
            ($module:ident, $codes:expr, $scales:expr) => {
                unit!(rows, $module, $codes, $scales)
            };
        }
        #[cfg(target_arch = "x86_64")]
        macro_rules! fewer_rows {
            ($module:ident, $codes:expr, $scales:expr) => {
                unit!(4, rows, $module, $codes, $scales)
            };
        }
        // Each number of rows would be code of its own, which plain Rust gains nothing from.
        macro_rules! any_rows {
            ($module:ident, $codes:expr, $scales:expr) => {
                super::$module::unit::<$codes, $scales>
            };
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Integers::Avx2 => layouts!(layout, fewer_rows, avx2),
            #[cfg(target_arch = "x86_64")]
            Integers::Vnni | Integers::Amx => layouts!(layout, shapes, vnni),
            Integers::Portable => layouts!(layout, any_rows, portable),
        }
    }

    /// The kernel of a layout for `rows` rows and units of two pairs, where it is faster than one after the other.
    pub fn two(self, layout: Layout, rows: usize) -> Option<Two> {
        let _ = (layout, rows);
        #[cfg(target_arch = "x86_64")]
        macro_rules! shapes {
            ($module:ident, $codes:expr, $scales:expr) => {
                match rows {
                    1 => Some(super::$module::two::<$codes, $scales, 1>),
                    2 => Some(super::$module::two::<$codes, $scales, 2>),
                    _ => None,
                }
            };
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Integers::Avx2 => layouts!(layout, shapes, avx2),
            _ => None,
        }
    }
}

// Layouts as constant parameters of kernels.

/// [`Codes::Four`].
pub const FOUR: u8 = 0;
/// [`Codes::Table`].
pub const TABLE: u8 = 1;
/// [`Codes::Five`].
pub const FIVE: u8 = 2;
/// [`Codes::Six`].
pub const SIX: u8 = 3;
/// [`Codes::Eight`].
pub const EIGHT: u8 = 4;
/// [`Scales::Halves`] without minima.
pub const HALVES: u8 = 0;
/// [`Scales::Halves`] with minima.
pub const HALVES_MIN: u8 = 1;
/// [`Scales::Integers`] for 32 weights.
pub const INTEGERS_32: u8 = 2;
/// [`Scales::Integers`] for 32 weights with minima.
pub const INTEGERS_32_MIN: u8 = 3;
/// [`Scales::Integers`] for 16 weights.
pub const INTEGERS_16: u8 = 4;
/// [`Scales::Integers`] for 16 weights with minima.
pub const INTEGERS_16_MIN: u8 = 5;

/// The codes that a constant parameter names.
pub const fn codes(codes: u8) -> Codes {
    match codes {
        FOUR => Codes::Four,
        TABLE => Codes::Table,
        FIVE => Codes::Five,
        SIX => Codes::Six,
        _ => Codes::Eight,
    }
}

/// The layout that constant parameters name. `zero` is not among them, products see it through [`Side::Start`], nor is `shift`,
/// which comes after all sums.
pub const fn layout(code: u8, scales: u8) -> Layout {
    let scales = match scales {
        HALVES => Scales::Halves { min: false },
        HALVES_MIN => Scales::Halves { min: true },
        INTEGERS_32 => Scales::Integers { sub: 32, min: false },
        INTEGERS_32_MIN => Scales::Integers { sub: 32, min: true },
        INTEGERS_16 => Scales::Integers { sub: 16, min: false },
        _ => Scales::Integers { sub: 16, min: true },
    };
    Layout { codes: codes(code), scales, zero: 0, shift: 0 }
}
