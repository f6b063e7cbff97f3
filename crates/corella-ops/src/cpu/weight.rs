//! A matrix that is only read, as it lies in a file.

use super::math::sum_by;
use super::path::Path;
use super::pool::Pool;
use super::scratch::Scratch;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::OpsError;
use crate::contract_infer::Store;
use crate::quant::{WeightFormat, dequantize_row};

/// (rows, cols) weights.
#[derive(Debug)]
pub struct Weight {
    format: WeightFormat,
    /// OC.
    pub rows: usize,
    /// C.
    pub cols: usize,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl Weight {
    /// Room for all rows.
    pub fn new(format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        format.check_row(cols, what)?;
        let row_bytes = format.row_bytes(cols).unwrap_or(0);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(row_bytes * rows).map_err(|_| OpsError::OutOfMemory {
            device: "cpu",
            bytes: (row_bytes * rows) as u64,
            what: what.to_owned(),
        })?;
        bytes.resize(row_bytes * rows, 0);
        Ok(Weight { format, rows, cols, row_bytes, bytes })
    }

    /// Takes rows as they lie in a file.
    pub fn write_rows(&mut self, first: usize, bytes: &[u8]) {
        assert!(bytes.len().is_multiple_of(self.row_bytes.max(1)), "whole rows of {} bytes", self.row_bytes);
        self.bytes[first * self.row_bytes..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Row `row`, dequantised exactly.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        dequantize_row(self.format, &self.bytes[row * self.row_bytes..][..self.row_bytes], out);
    }
}

/// `out[i, first + o] (=, +=) x[i]·w[o] + bias[o]` for rows of width `width`.
pub fn linear(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    (first, width): (usize, usize),
    x: &[f32],
    n: usize,
    w: &Weight,
    bias: Option<&[f32]>,
    store: Store,
) {
    let out = SharedMut::new(out);
    let block = w.rows.div_ceil(4 * pool.threads()).max(1);
    pool.run(w.rows.div_ceil(block), &|task| {
        let mut row = Scratch::new(w.cols);
        for o in task * block..((task + 1) * block).min(w.rows) {
            w.read_row(o, &mut row);
            for i in 0..n {
                let sum = dot(path, &x[i * w.cols..][..w.cols], &row) + bias.map_or(0.0, |b| b[o]);
                // SAFETY: one element, of a column that belongs to this task.
                let out = unsafe { out.part(i * width + first + o, 1) };
                out[0] = if store == Store::Add { out[0] + sum } else { sum };
            }
        }
    });
}

vectorized! {
    /// Σ a·b.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum_by(a.len(), |i| a[i] * b[i])
    }
}
