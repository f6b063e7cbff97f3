//! Weights that are only read, in one of six forms that kernels/weights.cuh names.

use std::sync::Arc;

use corella_ops::quant::blocks::{Scheme, take_apart};
use corella_ops::{WeightFormat, shapes};

use crate::backend::Argument;
use crate::driver::{Address, Driver, Memory};
use crate::error::CudaError;

/// How a weight lies on the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    F32,
    F16,
    Bf16,
    /// Q8_0, its scales apart.
    Q8,
    /// Q4_K, its blocks as in files.
    Q4K,
    /// Any other format: a signed byte for each weight, scale and minimum in f32 for each 16 or 32 of them.
    Wide,
}

impl Form {
    fn of(format: WeightFormat) -> Form {
        match format {
            WeightFormat::F32 => Form::F32,
            WeightFormat::F16 => Form::F16,
            WeightFormat::Bf16 => Form::Bf16,
            WeightFormat::Q8_0 => Form::Q8,
            WeightFormat::Q4_K => Form::Q4K,
            _ => Form::Wide,
        }
    }

    /// End of the names of its kernels.
    pub fn suffix(self) -> &'static str {
        match self {
            Form::F32 => "f32",
            Form::F16 => "f16",
            Form::Bf16 => "bf16",
            Form::Q8 => "q8",
            Form::Q4K => "q4k",
            Form::Wide => "wide",
        }
    }

    /// Whether kernels/linear_few.cu reads it.
    pub fn has_few(self) -> bool {
        matches!(self, Form::Bf16 | Form::Q8 | Form::Q4K)
    }

    /// Whether products of few rows on plain cores take the other factor in signed bytes.
    pub fn multiplies_bytes(self) -> bool {
        matches!(self, Form::Q8 | Form::Q4K)
    }
}

/// As `struct Weight` of kernels/weights.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WeightArgument {
    data: Address,
    scales: Address,
    mins: Address,
    cols: u64,
    rows: u32,
    sub: u32,
}

impl Argument for WeightArgument {}

/// A matrix (rows, cols) that is only read.
#[derive(Debug)]
pub struct Weight {
    pub(crate) form: Form,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    format: WeightFormat,
    data: Memory,
    scales: Memory,
    mins: Memory,
}

/// Bytes of a row of each array: weights, scales, minima.
fn row_bytes(format: WeightFormat, cols: usize) -> [usize; 3] {
    let sub = Scheme::of(format).map_or(1, |scheme| scheme.sub);
    match Form::of(format) {
        Form::F32 => [4 * padded(cols), 0, 0],
        Form::F16 | Form::Bf16 => [2 * padded(cols), 0, 0],
        Form::Q8 => [cols, 2 * cols / 32, 0],
        Form::Q4K => [cols / 256 * 144, 0, 0],
        Form::Wide => [cols, 4 * cols / sub, 4 * cols / sub],
    }
}

/// Columns with the zeros behind them: kernels read eight at once.
fn padded(cols: usize) -> usize {
    cols.next_multiple_of(8)
}

impl Weight {
    pub(crate) fn bytes_of(format: WeightFormat, rows: usize, cols: usize) -> u64 {
        row_bytes(format, cols).iter().map(|bytes| *bytes as u64 * rows as u64).sum()
    }

    pub(crate) fn new(
        driver: &Arc<dyn Driver>,
        format: WeightFormat,
        rows: usize,
        cols: usize,
    ) -> Result<Weight, CudaError> {
        let [data, scales, mins] = row_bytes(format, cols).map(|bytes| Memory::zeros(driver, rows * bytes));
        Ok(Weight { form: Form::of(format), rows, cols, format, data: data?, scales: scales?, mins: mins? })
    }

    /// Bytes on the card.
    pub(crate) fn bytes(&self) -> u64 {
        Weight::bytes_of(self.format, self.rows, self.cols)
    }

    /// As kernels take it.
    pub(crate) fn argument(&self) -> WeightArgument {
        let sub = Scheme::of(self.format).map_or(1, |scheme| scheme.sub);
        WeightArgument {
            data: self.data.at,
            scales: self.scales.at,
            mins: self.mins.at,
            cols: padded(self.cols) as u64,
            rows: self.rows as u32,
            sub: sub as u32,
        }
    }

    /// The numbers of a weight in bf16 without padding.
    pub(crate) fn bf16(&self) -> Option<Address> {
        (self.form == Form::Bf16 && self.cols == padded(self.cols)).then_some(self.data.at)
    }

    /// Bytes of a row in a file.
    fn row_in_file(&self) -> usize {
        self.format.row_bytes(self.cols).expect("rows of whole blocks, as `weight` has checked")
    }

    /// Panics unless so many bytes are whole rows that fit from `first` on.
    #[track_caller]
    fn takes_rows(&self, first: usize, bytes: usize) {
        shapes::weight_rows(self.rows, self.row_in_file(), first, bytes);
    }

    /// Packs whole rows as they lie in a file.
    #[track_caller]
    pub(crate) fn write_rows(&self, driver: &dyn Driver, first: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.takes_rows(first, bytes.len());
        let in_file = self.row_in_file();
        let mut packed = [Vec::new(), Vec::new(), Vec::new()];
        for row in bytes.chunks_exact(in_file) {
            self.pack_row(row, &mut packed);
        }
        let each = row_bytes(self.format, self.cols);
        for ((memory, packed), bytes) in [&self.data, &self.scales, &self.mins].into_iter().zip(&packed).zip(each) {
            driver.upload(memory.at + (first * bytes) as u64, packed)?;
        }
        Ok(())
    }

    fn pack_row(&self, row: &[u8], [data, scales, mins]: &mut [Vec<u8>; 3]) {
        match self.form {
            Form::F32 | Form::F16 | Form::Bf16 => {
                let end = data.len() + row_bytes(self.format, self.cols)[0];
                data.extend_from_slice(row);
                data.resize(end, 0);
            }
            Form::Q4K => data.extend_from_slice(row),
            Form::Q8 => {
                for block in row.chunks_exact(34) {
                    scales.extend_from_slice(&block[..2]);
                    data.extend_from_slice(&block[2..]);
                }
            }
            Form::Wide => {
                let scheme = Scheme::of(self.format).expect("a quantised format");
                for block in row.chunks_exact(self.format.block_bytes()) {
                    let block = take_apart(self.format, block);
                    let codes = &block.codes[..self.format.block_len()];
                    data.extend(codes.iter().map(|code| scheme.value(*code) as i8 as u8));
                    for s in 0..codes.len() / scheme.sub {
                        scales.extend((block.d * (f32::from(block.scales[s]) * scheme.unit())).to_le_bytes());
                        mins.extend((block.dmin * f32::from(block.mins[s])).to_le_bytes());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_formats_take_what_they_take_in_files() {
        for (format, bytes) in [
            (WeightFormat::Bf16, 2 * 4096),
            (WeightFormat::Q8_0, 34 * 128),
            (WeightFormat::Q4_K, 144 * 16),
            (WeightFormat::Q6_K, 4096 + 2 * 4 * 256),
        ] {
            assert_eq!(Weight::bytes_of(format, 3, 4096), 3 * bytes, "{format:?}");
        }
    }
}
