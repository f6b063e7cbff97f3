//! Kernels for many rows: a unit of a pair of panels is brought into a form of their own once, and then meets tile after tile
//! of rows.

use super::ahead;
use super::kernel::{
    EIGHT, FIVE, FOUR, HALVES, HALVES_MIN, INTEGERS_16, INTEGERS_16_MIN, INTEGERS_32, INTEGERS_32_MIN, Integers,
    Kernel, SIX, TABLE,
};
use super::layout::{BLOCK, Codes, Layout, PAIR, Scales, UNIT};

/// Up to so many rows are few: bringing units into another form costs more than it saves.
pub const FEW: usize = 12;

/// Which kernels for many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// 6 rows on dot products of bytes (VNNI); codes of 8 bits.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// 16 rows on tiles (AMX); see [`super::amx`].
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Integers {
    /// Its kernels for many rows, if it has some.
    pub fn tiles(self) -> Option<Tiles> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Integers::Vnni => Some(Tiles::Vnni),
            #[cfg(target_arch = "x86_64")]
            Integers::Amx => Some(Tiles::Amx),
            _ => None,
        }
    }
}

impl Tiles {
    /// Rows of a tile.
    pub fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => super::vnni_block::ROWS,
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::ROWS,
        }
    }

    /// The kernel for [`Tiles::rows`] rows. Between [`Tiles::begin`] and [`Tiles::end`] on the same thread.
    pub fn kernel(self, scales: Scales) -> Kernel {
        macro_rules! scales {
            ($module:ident) => {
                match scales {
                    Scales::Halves { min: false } => super::$module::unit::<HALVES>,
                    Scales::Halves { min: true } => super::$module::unit::<HALVES_MIN>,
                    Scales::Integers { sub: 32, min: false } => super::$module::unit::<INTEGERS_32>,
                    Scales::Integers { sub: 32, min: true } => super::$module::unit::<INTEGERS_32_MIN>,
                    Scales::Integers { min: false, .. } => super::$module::unit::<INTEGERS_16>,
                    Scales::Integers { min: true, .. } => super::$module::unit::<INTEGERS_16_MIN>,
                }
            };
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => scales!(vnni_block),
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => scales!(amx),
        }
    }

    /// Prepares this thread for the kernel of a layout.
    pub fn begin(self, layout: Layout) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => {
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
            Tiles::Vnni => {}
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::end(),
        }
    }

    /// Bytes of a unit of a panel in the form of the kernel.
    pub fn unit_bytes(self, layout: Layout) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Tiles::Vnni => layout.unpacked().unit_bytes(UNIT / BLOCK),
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx => super::amx::UNIT_BYTES,
        }
    }

    /// Brings a unit of each panel into the form of the kernel, in `space`, or finds that it has it already; asks for the
    /// units at `after` meanwhile.
    pub fn unpack(
        self,
        layout: Layout,
        units: [&[u8]; PAIR],
        after: [*const u8; PAIR],
        space: &mut [u8],
        blocks: usize,
    ) -> [*const u8; PAIR] {
        let bytes = self.unit_bytes(layout);
        assert!(space.len() >= PAIR * bytes && units.iter().all(|unit| unit.len() >= layout.unit_bytes(blocks)));
        macro_rules! codes {
            ($module:ident, $from:expr, $to:expr, $after:expr) => {
                match layout.codes {
                    Codes::Four => super::$module::unpack::<FOUR>(layout, $from, $to, blocks, $after),
                    Codes::Table => super::$module::unpack::<TABLE>(layout, $from, $to, blocks, $after),
                    Codes::Five => super::$module::unpack::<FIVE>(layout, $from, $to, blocks, $after),
                    Codes::Six => super::$module::unpack::<SIX>(layout, $from, $to, blocks, $after),
                    Codes::Eight => super::$module::unpack::<EIGHT>(layout, $from, $to, blocks, $after),
                }
            };
        }
        std::array::from_fn(|p| {
            let (from, to) = (units[p].as_ptr(), space[p * bytes..].as_mut_ptr());
            // SAFETY: a unit in each form (assertion); both kinds have AVX-512, which was detected (`Integers::on`).
            unsafe {
                match self {
                    #[cfg(target_arch = "x86_64")]
                    Tiles::Vnni if layout.codes == Codes::Eight => {
                        ahead::ask(after[p], bytes);
                        return from;
                    }
                    #[cfg(target_arch = "x86_64")]
                    Tiles::Vnni => codes!(vnni, from, to, after[p]),
                    #[cfg(target_arch = "x86_64")]
                    Tiles::Amx => codes!(amx, from, to, after[p]),
                }
            }
            to.cast_const()
        })
    }
}
