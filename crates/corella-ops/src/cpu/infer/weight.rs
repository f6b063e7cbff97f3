//! A matrix that is only read: packed row by row as it is loaded.

use std::sync::{Mutex, PoisonError};

use super::super::array::Array;
#[cfg(target_arch = "x86_64")]
use super::super::bf16::Bf16;
#[cfg(target_arch = "x86_64")]
use super::super::dot::{Panels, STEP};
use super::super::gemm::Workers;
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::zeros;
use super::layout::{COLUMNS, Layout, PAIR, PANEL};
use super::{float, pack, shares};
use crate::contract::OpsError;
use crate::contract_infer::ReadRows;
use crate::quant::WeightFormat;

/// Bytes of the file that a thread reads and packs at once, about.
const STRETCH: usize = 256 << 10;

/// How rows are packed.
#[derive(Clone, Copy)]
struct Kind {
    format: WeightFormat,
    quantised: bool,
    cols: usize,
    pair_bytes: usize,
}

impl Kind {
    /// Packs whole rows into pairs of panels, of which the first gets row `first` and the next.
    fn pack(self, path: Path, pairs: &mut [u8], first: usize, bytes: &[u8]) {
        let Kind { format, quantised, cols, pair_bytes } = self;
        let rows: Vec<&[u8]> = bytes.chunks_exact(format.row_bytes(cols).unwrap_or(0).max(1)).collect();
        let mut done = 0;
        while done < rows.len() {
            let row = first + done;
            let (p, lane) = (row % COLUMNS / PANEL, row % PANEL);
            let pair = &mut pairs[row / COLUMNS * pair_bytes..][..pair_bytes];
            match (lane, rows[done..].first_chunk(), quantised) {
                (0, Some(whole), true) => pack::write_panel(path, format, pair, p, whole, cols),
                (_, _, true) => pack::write_column(format, pair, row % COLUMNS, rows[done], cols),
                (0, Some(whole), false) => {
                    float::write_panel(format, &mut pair[float::panel(format, p)..], whole, cols)
                }
                (_, _, false) => float::write_lane(format, &mut pair[float::panel(format, p)..], lane, rows[done]),
            }
            done += if lane == 0 && rows.len() - done >= PANEL { PANEL } else { 1 };
        }
    }
}

/// (rows, cols) weights, in pairs of panels of 16 rows.
#[derive(Debug)]
pub struct Weight {
    /// Format of the file.
    pub format: WeightFormat,
    /// Layout of a unit; `None` for floating-point formats.
    pub layout: Option<Layout>,
    /// OC.
    pub rows: usize,
    /// C.
    pub cols: usize,
    pair_bytes: usize,
    pairs: Array<u8>,
}

impl Weight {
    /// Room for all rows.
    pub fn new(format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        format.check_row(cols, what)?;
        let layout = Layout::of(format);
        let pair_bytes = match layout {
            Some(layout) => layout.pair_bytes(cols),
            None => PAIR * float::panel_bytes(format, cols),
        };
        let len = rows.div_ceil(PAIR * PANEL) * pair_bytes;
        Ok(Weight { format, layout, rows, cols, pair_bytes, pairs: zeros(len, what)? })
    }

    /// Packs rows as they lie in a file.
    pub fn write_rows(&mut self, path: Path, first: usize, bytes: &[u8]) {
        let (kind, pair_bytes) = (self.kind(), self.pair_bytes);
        kind.pack(path, &mut self.pairs[first / COLUMNS * pair_bytes..], first % COLUMNS, bytes);
    }

    /// Packs all rows, which `read` gives from a row on. Each thread reads what it packs, in stretches that stay in its cache,
    /// and walks through a part of the memory of its own: a huge page is cleared by the one who touches it.
    pub fn fill<E: Send>(&mut self, pool: &Pool, path: Path, read: &ReadRows<'_, E>) -> Result<(), E> {
        let (kind, rows, row_bytes, pair_bytes) = (self.kind(), self.rows, self.row_bytes(), self.pair_bytes);
        let pairs = (STRETCH / (COLUMNS * row_bytes)).max(1);
        let stretches: Vec<_> = self.pairs.chunks_mut((pairs * pair_bytes).max(1)).map(Mutex::new).collect();
        let failure = Mutex::new(None);
        shares::run(Workers::Pool(pool), stretches.len(), &|task| {
            let (first, lock) = (task * pairs * COLUMNS, || failure.lock().unwrap_or_else(PoisonError::into_inner));
            if lock().is_some() {
                return;
            }
            let mut bytes = Scratch::new((pairs * COLUMNS).min(rows - first) * row_bytes);
            match read(first, &mut bytes) {
                // Each stretch is one task's alone; the lock only says so to the compiler.
                Ok(()) => {
                    kind.pack(path, &mut stretches[task].lock().unwrap_or_else(PoisonError::into_inner), 0, &bytes)
                }
                Err(error) => *lock() = Some(error),
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Bytes of a row in a file.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.cols).unwrap_or(0).max(1)
    }

    fn kind(&self) -> Kind {
        Kind { format: self.format, quantised: self.layout.is_some(), cols: self.cols, pair_bytes: self.pair_bytes }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.pairs.len() as u64
    }

    /// Pairs of panels; the last may be filled up with zeros.
    pub fn pair_count(&self) -> usize {
        self.rows.div_ceil(COLUMNS)
    }

    /// Pair `pair`.
    pub fn pair(&self, pair: usize) -> &[u8] {
        &self.pairs[pair * self.pair_bytes..][..self.pair_bytes]
    }

    /// A matrix in BF16 as products in that format read it.
    #[cfg(target_arch = "x86_64")]
    pub fn bf16_panels(&self) -> Panels<'_> {
        assert_eq!(self.format, WeightFormat::Bf16, "weights in BF16");
        // SAFETY: any two bytes are a BF16, and nothing is written while they are borrowed.
        let (before, numbers, behind) = unsafe { self.pairs.align_to::<Bf16>() };
        assert!(before.is_empty() && behind.is_empty(), "arrays begin at a cache line");
        Panels::new(numbers, self.rows, self.cols.next_multiple_of(STEP))
    }

    /// Row `row`, dequantised exactly.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        let (pair, column) = (self.pair(row / COLUMNS), row % COLUMNS);
        match self.layout {
            Some(layout) => pack::read_column(self.format, layout, pair, column, out),
            None => {
                let panel = &pair[float::panel(self.format, column / PANEL)..];
                float::read_lane(self.format, panel, column % PANEL, out);
            }
        }
    }
}
