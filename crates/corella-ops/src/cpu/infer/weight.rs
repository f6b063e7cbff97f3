//! A matrix that is only read: packed row by row as it is loaded.

use super::super::array::Array;
#[cfg(target_arch = "x86_64")]
use super::super::bf16::Bf16;
#[cfg(target_arch = "x86_64")]
use super::super::dot::{Panels, STEP};
use super::super::pool::Pool;
use super::super::zeros;
use super::layout::{COLUMNS, Layout, PAIR, PANEL};
use super::{float, pack};
use crate::contract::OpsError;
use crate::quant::WeightFormat;

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
    pub fn write_rows(&mut self, pool: &Pool, first: usize, bytes: &[u8]) {
        let row_bytes = self.format.row_bytes(self.cols).unwrap_or(0).max(1);
        let count = bytes.len() / row_bytes;
        assert!(bytes.len().is_multiple_of(row_bytes), "whole rows of {row_bytes} bytes");
        assert!(first <= self.rows && count <= self.rows - first, "rows {first}+{count} of {}", self.rows);
        if count == 0 || self.cols == 0 {
            return;
        }
        let (format, layout, cols) = (self.format, self.layout, self.cols);
        let (first_pair, end_pair) = (first / COLUMNS, (first + count).div_ceil(COLUMNS));
        let pairs = &mut self.pairs[first_pair * self.pair_bytes..end_pair * self.pair_bytes];
        let pairs: Vec<_> = pairs.chunks_exact_mut(self.pair_bytes).map(std::sync::Mutex::new).collect();
        pool.run(pairs.len(), &|task| {
            // Each pair is one task's alone; the lock only says so to the compiler.
            let mut pair = pairs[task].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let start = (first_pair + task) * COLUMNS;
            for row in start.max(first)..(start + COLUMNS).min(first + count) {
                let bytes = &bytes[(row - first) * row_bytes..][..row_bytes];
                let place = (row % COLUMNS / PANEL, row % PANEL);
                match layout {
                    Some(layout) => pack::write_lane(format, layout, &mut pair, place, bytes, cols),
                    None => float::write_lane(format, &mut pair[float::panel(format, cols, place.0)..], place.1, bytes),
                }
            }
        });
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

    /// Where the panels of pair `pair` begin.
    pub fn panels(&self, pair: usize) -> [*const u8; PAIR] {
        let pair = self.pair(pair);
        std::array::from_fn(|p| pair.as_ptr().wrapping_add(p * pair.len() / PAIR))
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
        let (pair, place) = (self.pair(row / COLUMNS), (row % COLUMNS / PANEL, row % PANEL));
        match self.layout {
            Some(layout) => pack::read_lane(self.format, layout, pair, place, out),
            None => float::read_lane(self.format, &pair[float::panel(self.format, self.cols, place.0)..], place.1, out),
        }
    }
}
