//! Whole rows of Parquet files as JSON.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::parquet::{Whole, claims_too_much, guarded};
use super::records::Take;
use crate::data::DataError;

/// Hands on the rows of a file as long as more are wanted.
pub(super) fn read<E: From<DataError>>(path: &Path, file: &File, take: Take<'_, E>) -> Result<(), E> {
    let bad = |what: String| E::from(DataError::bad(path, what));
    let reader = guarded(|| SerializedFileReader::new(Whole::of(file)?)).map_err(bad)?;
    for group in reader.metadata().row_groups() {
        if let Some(chunk) = group.columns().iter().find(|chunk| claims_too_much(chunk)) {
            return Err(bad(format!("a column claims {} bytes", chunk.uncompressed_size())));
        }
    }
    let mut rows = guarded(|| reader.get_row_iter(None)).map_err(bad)?;
    for number in 1.. {
        let Some(row) = guarded(|| rows.next().transpose()).map_err(bad)? else { break };
        let fields = row.get_column_iter().map(|(name, field)| (name.clone(), json(field)));
        if take(number, Value::Object(fields.collect()))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A field as JSON: texts, numbers, lists and structures. What JSON has no value for (bytes, times, maps) is null.
fn json(field: &Field) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.clone().into(),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        _ => Value::Null,
    }
}
