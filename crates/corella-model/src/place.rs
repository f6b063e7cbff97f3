//! Where a tensor of a checkpoint lies, and reading it in pieces, so that it does not lie in memory twice.

use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use corella_ops::WeightFormat;
use corella_ops::quant::dequantize_row;

use crate::formats::{Cause, Encoding, FormatError, ModelFile};
use crate::source::PIECE;

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
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.rows as u64 * self.row_bytes() as u64
    }

    /// Calls `use_rows` with the bytes of some rows and the number of the first, in the order of memory, until all were
    /// seen. A weight that is not finite is an error.
    pub fn read_pieces(&self, files: &[ModelFile], mut use_rows: impl FnMut(usize, &[u8])) -> Result<(), FormatError> {
        let unit = match self.order {
            RowOrder::AsStored => 1,
            RowOrder::NeighboursToHalves { head_size } => head_size,
            RowOrder::Transposed => return self.read_transposed(files, use_rows),
        };
        let row = self.row_bytes();
        let step = (PIECE / row.max(1) / unit).max(1) * unit;
        let mut turned = Vec::new();
        self.read_file_rows(files, (self.rows, row), step, |first, bytes| {
            if self.order == RowOrder::AsStored {
                return use_rows(first, bytes);
            }
            turned.clear();
            bytes.chunks_exact(unit * row).for_each(|head| halves(head, row, &mut turned));
            use_rows(first, &turned);
        })
    }

    /// The whole matrix at once: a row of memory is spread over all of the file's.
    fn read_transposed(&self, files: &[ModelFile], mut use_rows: impl FnMut(usize, &[u8])) -> Result<(), FormatError> {
        let size = self.format.block_bytes();
        let (file_row, mut turned) = (self.rows * size, vec![0; self.rows * self.cols * size]);
        self.read_file_rows(files, (self.cols, file_row), (PIECE / file_row.max(1)).max(1), |first, bytes| {
            for (col, from) in bytes.chunks_exact(file_row).enumerate() {
                for (row, number) in from.chunks_exact(size).enumerate() {
                    turned[(row * self.cols + first + col) * size..][..size].copy_from_slice(number);
                }
            }
        })?;
        use_rows(0, &turned);
        Ok(())
    }

    /// Calls `use_rows` for `step` of the file's rows (count, bytes of each) at a time, while the next are being read.
    fn read_file_rows(
        &self,
        files: &[ModelFile],
        (rows, row): (usize, usize),
        step: usize,
        mut use_rows: impl FnMut(usize, &[u8]),
    ) -> Result<(), FormatError> {
        let file = &files[self.file];
        let read = |first: usize, mut bytes: Vec<u8>| {
            bytes.resize(step.min(rows - first) * row, 0);
            self.read_checked(file, first * row, &mut bytes).map(|()| bytes)
        };
        if rows <= step {
            let bytes = read(0, Vec::new())?;
            use_rows(0, &bytes);
            return Ok(());
        }
        thread::scope(|scope| {
            let (full, pieces) = sync_channel(1);
            let (empty, used) = channel();
            scope.spawn(move || {
                for first in (0..rows).step_by(step) {
                    let piece = read(first, used.try_recv().unwrap_or_default()).map(|bytes| (first, bytes));
                    let failed = piece.is_err();
                    // Nobody takes it where the other side has failed.
                    if full.send(piece).is_err() || failed {
                        return;
                    }
                }
            });
            for piece in pieces {
                let (first, bytes) = piece?;
                use_rows(first, &bytes);
                let _ = empty.send(bytes);
            }
            Ok(())
        })
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

    /// All values, in the order of memory.
    pub fn read_f32(&self, files: &[ModelFile]) -> Result<Vec<f32>, FormatError> {
        let mut values = vec![0.0; self.rows * self.cols];
        self.read_pieces(files, |first, bytes| {
            let rows = values[first * self.cols..].chunks_exact_mut(self.cols);
            bytes.chunks_exact(self.row_bytes()).zip(rows).for_each(|(b, out)| dequantize_row(self.format, b, out));
        })?;
        Ok(values)
    }
}

/// Appends a head's rows: first those of even number, then those of odd.
fn halves(head: &[u8], row: usize, out: &mut Vec<u8>) {
    for parity in [0, 1] {
        head.chunks_exact(row).skip(parity).step_by(2).for_each(|r| out.extend_from_slice(r));
    }
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
        let row = cols / format.block_len() * format.block_bytes();
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
    let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match format {
        WeightFormat::F32 => bytes.chunks_exact(4).position(|b| half(&b[2..]) & 0x7f80 == 0x7f80),
        WeightFormat::Bf16 => bytes.chunks_exact(2).position(|b| half(b) & 0x7f80 == 0x7f80),
        WeightFormat::F16 => bytes.chunks_exact(2).position(|b| half(b) & 0x7c00 == 0x7c00),
        blocks => {
            let scales = scale_offsets(blocks);
            let wrong = |block: &[u8]| scales.iter().any(|at| half(&block[*at..]) & 0x7c00 == 0x7c00);
            bytes.chunks_exact(blocks.block_bytes()).position(wrong).map(|i| i * blocks.block_len())
        }
    }
}

/// Where the half-precision scales of a block lie.
fn scale_offsets(format: WeightFormat) -> &'static [usize] {
    use WeightFormat::*;
    match format {
        F32 | F16 | Bf16 => &[],
        Q8_0 | Q4_0 | Q5_0 | IQ4_NL | IQ4_XS => &[0],
        Q4_1 | Q5_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
    }
}

/// The format of a tensor's numbers, if models are computed from it.
pub fn computable(encoding: Encoding, tensor: &str) -> Result<WeightFormat, Cause> {
    encoding.weights().ok_or_else(|| Cause::UnknownType {
        field: format!("tensor {tensor}"),
        found: encoding.name().to_owned(),
        allowed: "F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL and IQ4_XS are computed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pairs_become_halves_and_back() {
        let file: Vec<u8> = vec![0, 10, 1, 11, 2, 12, 3, 13];
        let mut memory = Vec::new();
        halves(&file, 1, &mut memory);
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
            let mut blocks = vec![0u8; 2 * format.block_bytes()];
            let scale = format.block_bytes() + scale_offsets(format)[0];
            blocks[scale] = 1;
            assert_eq!(first_not_finite(format, &blocks), None, "a subnormal scale of {}", format.name());
            blocks[scale + 1] = 0x7e;
            assert_eq!(first_not_finite(format, &blocks), Some(format.block_len()), "{}", format.name());
        }
    }
}
