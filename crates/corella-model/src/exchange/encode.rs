//! Weights in another number format.

use corella_ops::WeightFormat;
use corella_ops::quant::{dequantize_row, fits, quantize_row};

use crate::ModelError;
use crate::formats::FormatError;
use crate::params::ModelConfig;
use crate::place::RowOrder;
use crate::source::{Source, each_piece, row_bytes};

/// Where pieces of a tensor's data go.
pub type Write<'a> = dyn FnMut(&[u8]) -> Result<(), FormatError> + 'a;

/// Writes a part in a format, in the order of a file. Only a part whose rows change places is held in memory whole.
pub fn encode_ordered<C: ModelConfig>(
    source: &dyn Source<C>,
    (row, part, cols): (usize, usize, usize),
    format: WeightFormat,
    order: RowOrder,
    write: &mut Write<'_>,
) -> Result<(), ModelError> {
    if order == RowOrder::AsStored {
        return encode(source, (row, part, cols), format, write);
    }
    let mut whole = Vec::new();
    encode(source, (row, part, cols), format, &mut |bytes| {
        whole.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(write(&order.to_file(whole, format, cols))?)
}

/// Writes a part in a format piece by piece: as its bytes are where it has this format, else rounded from their values. A value
/// that the format cannot hold is an error.
pub fn encode<C: ModelConfig>(
    source: &dyn Source<C>,
    (row, part, cols): (usize, usize, usize),
    format: WeightFormat,
    write: &mut Write<'_>,
) -> Result<(), ModelError> {
    let (from, rows) = (source.format(row, part), source.config().table()[row].parts[part].rows);
    let read = |first: usize, bytes: &mut [u8]| source.read_rows(row, part, first, bytes);
    let from_row = row_bytes(from, cols);
    let (mut values, mut encoded) = (vec![0.0; cols], Vec::new());
    let (mut known, mut outcome, mut too_large) = (true, Ok(()), None);
    each_piece(rows, from_row, &read, |bytes| {
        if !known || outcome.is_err() || too_large.is_some() {
            return;
        }
        if from == format {
            outcome = write(bytes);
            return;
        }
        encoded.clear();
        for row in bytes.chunks_exact(from_row) {
            dequantize_row(from, row, &mut values);
            known &= quantize_row(format, &values, &mut encoded);
            if known && !fits(format, &values) {
                too_large = too_large.or(values.iter().copied().reduce(|a, b| if b.abs() > a.abs() { b } else { a }));
            }
        }
        if known && too_large.is_none() {
            outcome = write(&encoded);
        }
    })?;
    outcome?;
    if let Some(value) = too_large {
        let tensor = source.config().table()[row].name.clone();
        return Err(ModelError::TooLarge { tensor, value, format: format.name() });
    }
    if known {
        return Ok(());
    }
    Err(ModelError::BadConfig {
        field: "format",
        value: format.name().to_owned(),
        rule: "F32, F16, BF16, Q8_0 and Q4_0 are written".to_owned(),
    })
}
