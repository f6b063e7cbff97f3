//! Where a tensor of a checkpoint lies, and reading it in pieces, so that it does not lie in memory twice.

use corella_ops::WeightFormat;
use corella_ops::quant::blocks::numbers;
use corella_ops::quant::dequantize_row;

use crate::formats::{Cause, Encoding, FormatError, ModelFile};
use crate::source::{PIECE, each_piece, row_bytes};

/// How the rows of a file stand to the rows in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// The same.
    AsStored,
    /// Heads whose rotary pairs are neighbours (2i, 2i+1) in the file, and halves (i, i + HS/2) in memory.
    NeighboursToHalves {
        /// HS.
        head_size: usize,
    },
    /// The file holds (cols, rows), as Hugging Face's `Conv1D` keeps its matrices; of plain formats only.
    Transposed,
}

/// A tensor of a file: a matrix (rows, cols), or a vector of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in the file.
    pub name: String,
    /// Which of the checkpoint's files.
    pub file: usize,
    /// First byte in the file.
    pub begin: u64,
    /// How its numbers are stored.
    pub format: WeightFormat,
    /// Rows.
    pub rows: usize,
    /// Columns, whole blocks of the format.
    pub cols: usize,
    /// How the rows stand to those in memory.
    pub order: RowOrder,
}

impl Place {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        row_bytes(self.format, self.cols)
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes() as u64
    }

    /// Fills `bytes` with whole rows from row `first` of memory on. A weight that is not finite is an error.
    pub fn read_rows(&self, files: &[ModelFile], first: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        let (file, row) = (&files[self.file], self.row_bytes());
        match self.order {
            RowOrder::AsStored => self.read_checked(file, first * row, bytes),
            RowOrder::NeighboursToHalves { head_size } => {
                let mut rows = (first..).zip(bytes.chunks_exact_mut(row));
                rows.try_for_each(|(i, bytes)| self.read_checked(file, neighbour(i, head_size) * row, bytes))
            }
            RowOrder::Transposed => {
                let size = self.format.block_bytes();
                let mut column = vec![0; bytes.len() / row * size];
                for k in 0..self.cols {
                    self.read_checked(file, (k * self.rows + first) * size, &mut column)?;
                    for (bytes, number) in bytes.chunks_exact_mut(row).zip(column.chunks_exact(size)) {
                        bytes[k * size..][..size].copy_from_slice(number);
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads what lies `offset` bytes behind the tensor's beginning.
    fn read_checked(&self, file: &ModelFile, offset: usize, bytes: &mut [u8]) -> Result<(), FormatError> {
        file.read_at(self.begin + offset as u64, bytes)?;
        match first_not_finite(self.format, bytes) {
            None => Ok(()),
            Some(index) => {
                let before = offset / self.format.block_bytes() * self.format.block_len();
                let (tensor, index) = (self.name.clone(), (before + index) as u64);
                Err(Cause::NonFinite { tensor, index }.of(file.path()))
            }
        }
    }

    /// Whether another tensor of the same shape holds the same values. Both are read up to the first piece that differs.
    pub fn holds_the_same(&self, other: &Place, files: &[ModelFile]) -> Result<bool, FormatError> {
        let step = (PIECE / self.row_bytes().max(1)).max(1);
        for first in (0..self.rows).step_by(step) {
            let rows = step.min(self.rows - first);
            if self.values(files, first, rows)? != other.values(files, first, rows)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The values of some rows.
    fn values(&self, files: &[ModelFile], first: usize, rows: usize) -> Result<Vec<f32>, FormatError> {
        let mut bytes = vec![0; rows * self.row_bytes()];
        self.read_rows(files, first, &mut bytes)?;
        let mut values = vec![0.0; rows * self.cols];
        dequantize_row(self.format, &bytes, &mut values);
        Ok(values)
    }

    /// All values, in the order of memory.
    pub fn read_f32(&self, files: &[ModelFile]) -> Result<Vec<f32>, FormatError> {
        let mut values = Vec::with_capacity(self.rows * self.cols);
        let read = |first: usize, bytes: &mut [u8]| self.read_rows(files, first, bytes);
        each_piece(self.rows, self.row_bytes(), &read, |bytes| {
            let start = values.len();
            values.resize(start + bytes.len() / self.row_bytes() * self.cols, 0.0);
            dequantize_row(self.format, bytes, &mut values[start..]);
        })?;
        Ok(values)
    }
}

/// The file's row of row `i` in memory: heads that memory has in halves are pairs of neighbours in the file.
fn neighbour(i: usize, head_size: usize) -> usize {
    let (head, i) = (i / head_size * head_size, i % head_size);
    head + i % (head_size / 2) * 2 + i / (head_size / 2)
}

/// Appends a head's rows the other way round: those of the two halves in turns.
fn neighbours(head: &[u8], row: usize, out: &mut Vec<u8>) {
    let (first, second) = head.split_at(head.len() / 2);
    for (a, b) in first.chunks_exact(row).zip(second.chunks_exact(row)) {
        out.extend_from_slice(a);
        out.extend_from_slice(b);
    }
}

impl RowOrder {
    /// The bytes of a matrix of `cols` numbers a row, from the order of memory into that of a file.
    pub fn to_file(self, bytes: Vec<u8>, format: WeightFormat, cols: usize) -> Vec<u8> {
        let row = row_bytes(format, cols);
        let mut out = Vec::new();
        match self {
            RowOrder::AsStored => return bytes,
            RowOrder::NeighboursToHalves { head_size } => {
                out.reserve(bytes.len());
                bytes.chunks_exact(head_size * row).for_each(|head| neighbours(head, row, &mut out));
            }
            RowOrder::Transposed => {
                let (size, rows) = (format.block_bytes(), bytes.len() / row.max(1));
                out.resize(bytes.len(), 0);
                for (i, from) in bytes.chunks_exact(row).enumerate() {
                    for (col, number) in from.chunks_exact(size).enumerate() {
                        out[(col * rows + i) * size..][..size].copy_from_slice(number);
                    }
                }
            }
        }
        out
    }
}

/// Index of the first number, or of the first number of the first block, that is infinite or not a number.
fn first_not_finite(format: WeightFormat, bytes: &[u8]) -> Option<usize> {
    // Exponent bits of the last bytes of a number that are all ones.
    let ones = |b: &[u8], bits: u16| u16::from_le_bytes([b[0], b[1]]) & bits == bits;
    match format {
        WeightFormat::F32 => first::<4>(bytes, |b| ones(&b[2..], 0x7f80)),
        WeightFormat::Bf16 => first::<2>(bytes, |b| ones(b, 0x7f80)),
        WeightFormat::F16 => first::<2>(bytes, |b| ones(b, 0x7c00)),
        WeightFormat::IQ1_M => {
            let wrong = |block: &[u8]| numbers(format, block).d & 0x7c00 == 0x7c00;
            bytes.chunks_exact(format.block_bytes()).position(wrong).map(|i| i * format.block_len())
        }
        blocks => {
            let scales = blocks.halves_at();
            let wrong = |block: &[u8]| scales.iter().any(|at| ones(&block[*at..], 0x7c00));
            bytes.chunks_exact(blocks.block_bytes()).position(wrong).map(|i| i * blocks.block_len())
        }
    }
}

/// The first number for which `wrong` holds; stretch by stretch, so that the loop is one of vectors.
fn first<const BYTES: usize>(bytes: &[u8], wrong: impl Fn(&[u8; BYTES]) -> bool) -> Option<usize> {
    const STRETCH: usize = 1024;
    let numbers = bytes.as_chunks().0;
    let any = |stretch: &[[u8; BYTES]]| stretch.iter().fold(false, |any, number| any | wrong(number));
    let start = numbers.chunks(STRETCH).position(any)? * STRETCH;
    numbers[start..].iter().position(wrong).map(|i| start + i)
}

/// The format of a tensor's numbers, if models are computed from it.
pub fn computable(encoding: Encoding, tensor: &str) -> Result<WeightFormat, Cause> {
    encoding.weights().ok_or_else(|| Cause::UnknownType {
        field: format!("tensor {tensor}"),
        found: encoding.name().to_owned(),
        allowed: "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ1 to IQ4, TQ1_0 and TQ2_0 are computed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pairs_become_halves_and_back() {
        let file: Vec<u8> = vec![0, 10, 1, 11, 2, 12, 3, 13];
        let memory: Vec<u8> = (0..8).map(|i| file[neighbour(i, 4)]).collect();
        assert_eq!(memory, [0, 1, 10, 11, 2, 3, 12, 13]);
        let memory: Vec<u8> = (0..8).map(|i| file[neighbour(i, 8)]).collect();
        assert_eq!(memory, [0, 1, 2, 3, 10, 11, 12, 13]);
        let mut back = Vec::new();
        neighbours(&memory, 1, &mut back);
        assert_eq!(back, file);
    }

    #[test]
    fn numbers_that_are_not_finite_are_found_and_subnormals_are_not() {
        let f32s = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(first_not_finite(WeightFormat::F32, &f32s(&[1.0, f32::MAX, 1e-45, f32::NAN])), Some(3));
        assert_eq!(first_not_finite(WeightFormat::F32, &f32s(&[1.0, f32::NEG_INFINITY])), Some(1));
        assert_eq!(first_not_finite(WeightFormat::Bf16, &[0x7f, 0x7f, 0x01, 0x00, 0x80, 0xff]), Some(2));
        assert_eq!(first_not_finite(WeightFormat::F16, &[0xff, 0x7b, 0x01, 0x00, 0x00, 0x7c]), Some(2));
        for format in WeightFormat::ALL.into_iter().filter(|f| f.block_len() > 1) {
            let subnormal = vec![0u8; 2 * format.block_bytes()];
            // Each scale and minimum in its turn; IQ1_M has four bits of its scale in each of four numbers.
            let turns: Vec<Vec<(usize, u8)>> = match format.halves_at() {
                [] => vec![vec![(49, 0x10), (53, 0xe0), (55, 0x70)]],
                halves => halves.iter().map(|at| vec![(*at, 1), (at + 1, 0x7e)]).collect(),
            };
            for turn in turns {
                let mut blocks = subnormal.clone();
                for (i, (at, byte)) in turn.iter().enumerate() {
                    blocks[format.block_bytes() + at] = *byte;
                    let found = (i + 1 == turn.len()).then_some(format.block_len());
                    assert_eq!(first_not_finite(format, &blocks), found, "{} with byte {at}", format.name());
                }
            }
        }
    }
}
