//! Weights in another number format.

use corella_ops::WeightFormat;
use corella_ops::quant::{dequantize_row, quantize_row};

use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::{Source, each_piece, row_bytes};

/// The bytes of a part in a format: as they are where it has this format, else rounded from their values.
pub fn encode<C: ModelConfig>(
    source: &dyn Source<C>,
    row: usize,
    part: usize,
    cols: usize,
    format: WeightFormat,
) -> Result<Vec<u8>, ModelError> {
    let (from, rows, mut out) = (source.format(row, part), source.config().table()[row].parts[part].rows, Vec::new());
    let read = |first: usize, bytes: &mut [u8]| source.read_rows(row, part, first, bytes);
    let from_row = row_bytes(from, cols);
    let (mut values, mut written) = (vec![0.0; cols], true);
    each_piece(rows, from_row, &read, |bytes| {
        if from == format {
            return out.extend_from_slice(bytes);
        }
        for row in bytes.chunks_exact(from_row) {
            dequantize_row(from, row, &mut values);
            written &= quantize_row(format, &values, &mut out);
        }
    })?;
    if written {
        return Ok(out);
    }
    Err(ModelError::BadConfig {
        field: "format",
        value: format.name().to_owned(),
        rule: "F32, F16, BF16, Q8_0 and Q4_0 are written".to_owned(),
    })
}
