//! How a quantised matrix lies in memory: the bytes in the order in which products read them.
//!
//! 16 rows of the matrix (columns of the product) make a panel, 256 weights along k a unit, 32 a block, 4 a group. A vector of
//! 64 bytes holds one group of all 16 columns: bytes 4i .. 4i+4 belong to column i, as the dot-product instructions of
//! AVX-512, AVX2 and AMX want it. Two panels make a pair, the columns that a kernel works on together. Their numbers and
//! vectors lie side by side, so that a thread reads a matrix from its beginning to its end without leaving out a line: what
//! processors ask for by themselves goes by that (docs/log.md).
//!
//! ```text
//! unit   scales · minima · (d · dmin for formats with scales of two levels) · codes of each block
//! codes  of both panels in turn
//!        4 bits: 4 vectors, vector j = group j in the low halves, group j + 4 in the high halves of its bytes
//!        5 bits: one vector before these, bit g of its bytes is the fifth bit of group g
//!        6 bits: two before these, bits 2j and 2j+1 of the first for group j, of the second for group j + 4
//!        8 bits: 8 vectors, vector g = group g
//! ```
//!
//! Nothing is lost: every format that [`crate::quant`] reads is kept with its own codes and scales. Codes of two and three
//! bits take four, and those of the 6-bit scales eight.

use crate::quant::WeightFormat;
use crate::quant::blocks::Scheme;

/// Columns of a panel.
pub const PANEL: usize = 16;
/// Panels of a pair.
pub const PAIR: usize = 2;
/// Columns of a pair.
pub const COLUMNS: usize = PAIR * PANEL;
/// Weights of a unit along k.
pub const UNIT: usize = 256;
/// Weights of a block along k.
pub const BLOCK: usize = 32;
/// Bytes of a vector.
pub const VECTOR: usize = 64;
/// Bytes from a vector of a panel to its next one: that of the other panel lies between.
pub const ROW: usize = PAIR * VECTOR;

/// How codes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// 4 bits.
    Four,
    /// 4 bits that choose from a table; products see value + 128.
    Table,
    /// 5 bits.
    Five,
    /// 6 bits.
    Six,
    /// 8 bits.
    Eight,
}

impl Codes {
    /// Vectors of a block of a panel.
    #[inline(always)]
    pub const fn vectors(self) -> usize {
        match self {
            Codes::Four | Codes::Table => 4,
            Codes::Five => 5,
            Codes::Six => 6,
            Codes::Eight => 8,
        }
    }

    /// How many of them, the first ones, hold the bits above the fourth.
    #[inline(always)]
    pub const fn planes(self) -> usize {
        match self {
            Codes::Eight => 0,
            _ => self.vectors() - 4,
        }
    }

    /// Bytes of a block of a pair.
    #[inline(always)]
    pub const fn block_bytes(self) -> usize {
        self.vectors() * ROW
    }

    /// The groups that step j of four of a block meets: those whose codes lie together.
    #[inline(always)]
    pub const fn groups(self, j: usize) -> [usize; 2] {
        match self {
            Codes::Eight => [2 * j, 2 * j + 1],
            _ => [j, j + 4],
        }
    }

    /// In which halves of a block the groups of step j lie.
    #[inline(always)]
    pub const fn halves(self, j: usize) -> [usize; 2] {
        match self {
            Codes::Eight => [j / 2, j / 2],
            _ => [0, 1],
        }
    }
}

/// What scales a sum of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// One half-precision scale for a block of 32, and a half-precision minimum if so said.
    Halves {
        /// Whether there are minima.
        min: bool,
    },
    /// An integer scale for every `sub` weights, and one half-precision scale for the unit; the same for minima.
    Integers {
        /// 16 or 32.
        sub: usize,
        /// Whether there are minima.
        min: bool,
    },
}

/// The layout of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How codes are stored.
    pub codes: Codes,
    /// What scales them.
    pub scales: Scales,
    /// The code (as products see it) of zero.
    pub zero: i32,
    /// Sums are 2^shift times what they should be: [`Scheme::shift`].
    pub shift: u32,
}

impl Layout {
    /// Where the scales of a unit begin: what is used first is read, and asked for, first.
    pub const SCALES_AT: usize = 0;

    /// Layout of a quantised format; `None` for floating-point ones.
    pub fn of(format: WeightFormat) -> Option<Layout> {
        let scheme = Scheme::of(format)?;
        let codes = match (scheme.bits, scheme.table) {
            (_, true) => Codes::Table,
            (5, _) => Codes::Five,
            (6, _) => Codes::Six,
            (8, _) => Codes::Eight,
            _ => Codes::Four,
        };
        let scales = if format.block_len() == UNIT {
            Scales::Integers { sub: scheme.sub, min: scheme.has_min }
        } else {
            Scales::Halves { min: scheme.has_min }
        };
        Some(Layout {
            codes,
            scales,
            zero: if scheme.table { 128 } else { i32::from(scheme.zero) },
            shift: scheme.shift,
        })
    }

    /// Brings finished sums to what they should be.
    #[inline(always)]
    pub fn finish(self, sums: &mut [f32]) {
        if self.shift > 0 {
            let unit = self.unit();
            sums.iter_mut().for_each(|sum| *sum *= unit);
        }
    }

    /// See [`Scheme::unit`].
    #[inline(always)]
    pub fn unit(self) -> f32 {
        1.0 / (1u32 << self.shift) as f32
    }

    /// Weights that share a scale.
    pub fn sub(self) -> usize {
        match self.scales {
            Scales::Halves { .. } => BLOCK,
            Scales::Integers { sub, .. } => sub,
        }
    }

    /// Activations that share a scale: with half-precision scales, each block of them has one of its own.
    pub const fn activations(self) -> usize {
        match self.scales {
            Scales::Halves { .. } => BLOCK,
            Scales::Integers { .. } => UNIT,
        }
    }

    /// Where the minima of a unit of `blocks` blocks begin. Half-precision ones lie as the
    /// scales do, blocks × 32; integer ones in pairs of sub-blocks, (subs/2) × 32 × 2.
    #[inline(always)]
    pub const fn mins_at(self, blocks: usize) -> usize {
        match self.scales {
            Scales::Halves { .. } => 2 * COLUMNS * blocks,
            Scales::Integers { sub, .. } => COLUMNS * BLOCK / sub * blocks,
        }
    }

    /// Where d of each column begins; dmin follows.
    #[inline(always)]
    pub const fn d_at(self, blocks: usize) -> usize {
        self.mins_at(blocks)
            + match self.scales {
                Scales::Integers { sub, min: true } => COLUMNS * BLOCK / sub * blocks,
                _ => 0,
            }
    }

    /// Where its codes begin: after whole lines.
    #[inline(always)]
    pub const fn codes_at(self, blocks: usize) -> usize {
        match self.scales {
            Scales::Halves { min: false } => self.mins_at(blocks),
            Scales::Halves { min: true } => self.mins_at(blocks) + 2 * COLUMNS * blocks,
            Scales::Integers { min: false, .. } => self.d_at(blocks) + 2 * COLUMNS,
            Scales::Integers { min: true, .. } => self.d_at(blocks) + 4 * COLUMNS,
        }
    }

    /// Bytes of a unit of `blocks` blocks of a pair.
    #[inline(always)]
    pub const fn unit_bytes(self, blocks: usize) -> usize {
        self.codes_at(blocks) + blocks * self.codes.block_bytes()
    }

    /// Units of a panel of `cols` weights along k.
    pub fn units(cols: usize) -> usize {
        cols.div_ceil(UNIT)
    }

    /// Blocks of unit `u`: the last may be shorter.
    #[inline]
    pub fn blocks(cols: usize, u: usize) -> usize {
        (cols - u * UNIT).min(UNIT) / BLOCK
    }

    /// Where unit `u` of a pair lies.
    #[inline]
    pub fn unit_range(self, cols: usize, u: usize) -> std::ops::Range<usize> {
        let start = u * self.unit_bytes(UNIT / BLOCK);
        start..start + self.unit_bytes(Layout::blocks(cols, u))
    }

    /// Bytes of a pair of panels of `cols` weights along k.
    #[inline]
    pub fn pair_bytes(self, cols: usize) -> usize {
        let last = match cols % UNIT / BLOCK {
            0 => 0,
            blocks => self.unit_bytes(blocks),
        };
        cols / UNIT * self.unit_bytes(UNIT / BLOCK) + last
    }
}
