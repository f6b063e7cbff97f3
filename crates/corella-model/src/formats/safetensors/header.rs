//! The header of a safetensors file.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Number;

use crate::formats::encoding::Encoding;
use crate::formats::error::{Cause, FormatError};
use crate::formats::sniff::{HEAD, Kind, sniff};

/// Longest header that is read, as in the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;
/// Most tensors of a file. The largest models have a few thousand.
const MOST_TENSORS: usize = 100_000;
/// Bytes before the header.
const LENGTH: u64 = 8;

/// A number format of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// One that models are computed from: F32, F16 or BF16.
    Weights(Encoding),
    /// Another one, with its name.
    Other(&'static str),
}

/// Every type of the format, with the bytes of one number.
const TYPES: [(&str, TensorType, u64); 15] = [
    ("F32", TensorType::Weights(Encoding::F32), 4),
    ("F16", TensorType::Weights(Encoding::F16), 2),
    ("BF16", TensorType::Weights(Encoding::BF16), 2),
    ("F64", TensorType::Other("F64"), 8),
    ("I64", TensorType::Other("I64"), 8),
    ("U64", TensorType::Other("U64"), 8),
    ("I32", TensorType::Other("I32"), 4),
    ("U32", TensorType::Other("U32"), 4),
    ("I16", TensorType::Other("I16"), 2),
    ("U16", TensorType::Other("U16"), 2),
    ("I8", TensorType::Other("I8"), 1),
    ("U8", TensorType::Other("U8"), 1),
    ("BOOL", TensorType::Other("BOOL"), 1),
    ("F8_E4M3", TensorType::Other("F8_E4M3"), 1),
    ("F8_E5M2", TensorType::Other("F8_E5M2"), 1),
];

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeTensor {
    /// How its numbers are stored.
    pub dtype: TensorType,
    /// Dimensions, the slowest first, as in torch.
    pub shape: Vec<u64>,
    /// First byte in the file.
    pub begin: u64,
    /// Bytes it takes.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<Number>,
    data_offsets: (Number, Number),
}

/// Reads the header from the first of `size` bytes; `path` is for the messages.
pub fn parse(mut input: impl Read, size: u64, path: &Path) -> Result<BTreeMap<String, SafeTensor>, FormatError> {
    let io = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Cause::FileChanged.of(path),
        _ => Cause::from(e).of(path),
    };
    if size < LENGTH {
        return Err(Cause::Truncated { field: "the length of the header".to_owned() }.at(path, size));
    }
    let mut length = [0; LENGTH as usize];
    input.read_exact(&mut length).map_err(io)?;
    let found = u64::from_le_bytes(length);
    let allowed = LONGEST_HEADER.min(size - LENGTH);
    if found > allowed {
        let mut head = length.to_vec();
        // Only for the message: a read that fails here leaves the head shorter.
        let _ = input.take(HEAD as u64 - LENGTH).read_to_end(&mut head);
        return Err(match sniff(&head) {
            Kind::Pickle => Cause::PickleRefused.of(path),
            Kind::SafeTensors | Kind::PerhapsLlama2C | Kind::Unknown => {
                Cause::HeaderTooLarge { found, allowed }.at(path, 0)
            }
            kind => {
                let found = format!("{:?}", String::from_utf8_lossy(&length[..4]));
                Cause::BadMagic { expected: "safetensors", found, looks_like: kind.describe() }.at(path, 0)
            }
        });
    }
    let mut header = vec![0; found as usize];
    input.read_exact(&mut header).map_err(io)?;
    let text = std::str::from_utf8(&header).map_err(|_| Cause::HeaderNotUtf8.at(path, LENGTH))?;
    let entries = read_entries(text).map_err(|cause| cause.at(path, LENGTH))?;
    let data_start = LENGTH + found;
    check_layout(entries, data_start, size - data_start).map_err(|cause| cause.of(path))
}

/// The header's entries in their order, so that a name that stands twice is seen, which a plain map would hide.
fn read_entries(header: &str) -> Result<Vec<(String, Entry)>, Cause> {
    struct Entries<'a>(&'a Cell<bool>);
    impl<'de> serde::de::Visitor<'de> for Entries<'_> {
        type Value = Vec<(String, Entry)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object of tensors")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                if name == "__metadata__" {
                    map.next_value::<BTreeMap<String, String>>()?;
                } else {
                    entries.push((name, map.next_value::<Entry>()?));
                }
                if entries.len() > MOST_TENSORS {
                    self.0.set(true);
                    return Err(serde::de::Error::custom("too many tensors"));
                }
            }
            Ok(entries)
        }
    }
    let too_many = Cell::new(false);
    let mut json = serde_json::Deserializer::from_str(header);
    serde::Deserializer::deserialize_map(&mut json, Entries(&too_many))
        .and_then(|entries| json.end().map(|()| entries))
        .map_err(|e| match too_many.get() {
            true => Cause::TooManyTensors { allowed: MOST_TENSORS },
            false => Cause::BadJson { why: e.to_string() },
        })
}

/// A whole number from 0 on.
fn whole(number: &Number, tensor: &str, field: &'static str) -> Result<u64, Cause> {
    let bad = || Cause::BadOffset { tensor: tensor.to_owned(), field, found: number.to_string() };
    number.as_u64().ok_or_else(bad)
}

/// Each range has the size that type and shape give, and together they cover the data without holes or overlap.
fn check_layout(
    entries: Vec<(String, Entry)>,
    data_start: u64,
    data: u64,
) -> Result<BTreeMap<String, SafeTensor>, Cause> {
    let mut tensors = BTreeMap::new();
    for (tensor, entry) in entries {
        let Some((_, dtype, width)) = TYPES.into_iter().find(|row| row.0 == entry.dtype) else {
            let allowed = "F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8 to I64, U8 to U64 and BOOL are known";
            return Err(Cause::UnknownType { field: format!("tensor {tensor}"), found: entry.dtype, allowed });
        };
        let shape = entry.shape.iter().map(|d| whole(d, &tensor, "shape")).collect::<Result<Vec<_>, _>>()?;
        let begin = whole(&entry.data_offsets.0, &tensor, "data_offsets")?;
        let end = whole(&entry.data_offsets.1, &tensor, "data_offsets")?;
        let Some(expected) = shape.iter().try_fold(width, |size, d| size.checked_mul(*d)) else {
            return Err(Cause::SizeOverflow { tensor, dims: shape });
        };
        if end < begin || end > data {
            return Err(Cause::TensorOutOfBounds { tensor, begin, end, data });
        }
        if expected != end - begin {
            return Err(Cause::SizeMismatch { tensor, dims: shape, expected, found: end - begin });
        }
        let place = SafeTensor { dtype, shape, begin: data_start + begin, bytes: end - begin };
        if tensors.insert(tensor.clone(), place).is_some() {
            return Err(Cause::DuplicateName { name: tensor, first: None });
        }
    }
    let mut order: Vec<(&String, &SafeTensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| (t.begin, t.bytes));
    let mut covered = data_start;
    let mut first: Option<&String> = None;
    for (name, tensor) in order {
        if tensor.begin != covered {
            return Err(Cause::BadLayout {
                first: first.cloned(),
                second: name.clone(),
                found: tensor.begin - data_start,
                expected: covered - data_start,
            });
        }
        covered += tensor.bytes;
        first = Some(name);
    }
    let trailing = data_start + data - covered;
    if trailing > 0 { Err(Cause::TrailingData { bytes: trailing }) } else { Ok(tensors) }
}
