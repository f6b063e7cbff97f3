//! Weights in another number format.

use corella_ops::WeightFormat;
use corella_ops::quant::{dequantize_row, quantize_row};

use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::Source;

/// The bytes of a part in a format: as they are where it has this format, else rounded from their values.
pub fn encode<C: ModelConfig>(
    source: &dyn Source<C>,
    row: usize,
    part: usize,
    cols: usize,
    format: WeightFormat,
) -> Result<Vec<u8>, ModelError> {
    let (from, mut out) = (source.format(row, part), Vec::new());
    if from == format {
        source.read_rows(row, part, &mut |_, bytes| out.extend_from_slice(bytes))?;
        return Ok(out);
    }
    let row_bytes = cols / from.block_len() * from.block_bytes();
    let (mut values, mut written) = (vec![0.0; cols], true);
    source.read_rows(row, part, &mut |_, bytes| {
        for row in bytes.chunks_exact(row_bytes) {
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
