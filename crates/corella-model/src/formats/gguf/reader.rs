//! Reading the header of a GGUF file, versions 2 and 3: metadata and the table of tensors, each checked.

use std::collections::HashMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::cursor::Cursor;
use super::value::{ARRAY, Array, Value};
use super::{Gguf, TensorInfo};
use crate::formats::encoding::Encoding;
use crate::formats::error::{Cause, FormatError};
use crate::formats::file::ModelFile;
use crate::formats::sniff::{HEAD, Kind, sniff};

/// A key-value takes at least a length, one byte of key, a type, and one byte.
const SMALLEST_PAIR: u64 = 8 + 1 + 4 + 1;
/// A tensor takes at least a name's length, a byte of name, dimensions, a type and an offset.
const SMALLEST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// Dimensions of a tensor, at most.
const MOST_DIMS: u32 = 4;
const LARGEST_ALIGNMENT: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Opens a file and checks its header.
pub fn open(path: &Path) -> Result<(ModelFile, Gguf), FormatError> {
    let file = ModelFile::open(path)?;
    let mut input = BufReader::with_capacity(1 << 16, file.file());
    input.seek(SeekFrom::Start(0)).map_err(|e| Cause::from(e).of(path))?;
    let gguf = parse(input, file.size(), path)?;
    Ok((file, gguf))
}

/// Reads the header from the first of `size` bytes; `path` is for the messages.
pub fn parse(input: impl Read, size: u64, path: &Path) -> Result<Gguf, FormatError> {
    let mut cursor = Cursor::new(input, size, path);
    let magic: [u8; 4] = cursor.bytes("magic")?;
    if &magic != b"GGUF" {
        return Err(wrong_magic(&mut cursor, magic));
    }
    let version = cursor.u32("version")?;
    if matches!(version.swap_bytes(), 1..=3) {
        return Err(Cause::UnsupportedEndianness.at(path, 4));
    }
    if !matches!(version, 2 | 3) {
        return Err(Cause::UnsupportedVersion { found: version.into(), supported: "versions 2 and 3" }.at(path, 4));
    }
    let tensors = cursor.count("tensor_count", SMALLEST_TENSOR)?;
    let pairs = cursor.count("metadata_kv_count", SMALLEST_PAIR)?;
    let metadata = read_metadata(&mut cursor, pairs)?;
    let alignment = alignment(&metadata, path)?;
    let tensors = read_tensors(&mut cursor, tensors)?;
    // At most 2^16 are added to an offset inside the file.
    let data_start = cursor.offset().next_multiple_of(alignment);
    let data = size.saturating_sub(data_start);
    let tensors = check_layout(tensors, data_start, data, alignment, path)?;
    Ok(Gguf { version, metadata, alignment, tensors })
}

fn wrong_magic<R: Read>(cursor: &mut Cursor<'_, R>, magic: [u8; 4]) -> FormatError {
    let mut head = magic.to_vec();
    while head.len() < HEAD
        && let Ok([byte]) = cursor.bytes::<1>("magic")
    {
        head.push(byte);
    }
    let cause = match sniff(&head) {
        Kind::Pickle => Cause::PickleRefused,
        Kind::Gguf => Cause::UnsupportedEndianness,
        kind => Cause::BadMagic {
            expected: "GGUF",
            found: format!("{:?}", String::from_utf8_lossy(&magic)),
            looks_like: kind.describe(),
        },
    };
    let mut error = cursor.error(cause);
    error.offset = Some(0);
    error
}

fn read_metadata<R: Read>(cursor: &mut Cursor<'_, R>, pairs: usize) -> Result<Vec<(String, Value)>, FormatError> {
    let mut metadata = Vec::new();
    let mut seen = HashMap::new();
    for _ in 0..pairs {
        let start = cursor.offset();
        let key = name(cursor, "metadata key", &mut seen, start)?;
        let id = cursor.u32(&key)?;
        let value = if id == ARRAY { Value::Array(read_array(cursor, &key)?) } else { read_value(cursor, id, &key)? };
        metadata.push((key, value));
    }
    Ok(metadata)
}

/// A key or tensor name: not empty, and not seen before.
fn name<R: Read>(
    cursor: &mut Cursor<'_, R>,
    field: &'static str,
    seen: &mut HashMap<String, u64>,
    start: u64,
) -> Result<String, FormatError> {
    let name = cursor.text(field)?;
    let here = |mut e: FormatError| {
        e.offset = Some(start);
        e
    };
    if name.is_empty() {
        return Err(here(cursor.error(Cause::EmptyKey { field })));
    }
    if let Some(first) = seen.insert(name.clone(), start) {
        return Err(here(cursor.error(Cause::DuplicateName { name, first: Some(first) })));
    }
    Ok(name)
}

fn read_value<R: Read>(cursor: &mut Cursor<'_, R>, id: u32, key: &str) -> Result<Value, FormatError> {
    Ok(match id {
        0 => Value::U8(u8::from_le_bytes(cursor.bytes(key)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.bytes(key)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.bytes(key)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.bytes(key)?)),
        4 => Value::U32(cursor.u32(key)?),
        5 => Value::I32(i32::from_le_bytes(cursor.bytes(key)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.bytes(key)?)),
        7 => Value::Bool(cursor.bytes::<1>(key)? != [0]),
        8 => Value::String(cursor.text(key)?),
        10 => Value::U64(cursor.u64(key)?),
        11 => Value::I64(i64::from_le_bytes(cursor.bytes(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.bytes(key)?)),
        other => return Err(cursor.error(unknown_value_type(key, other))),
    })
}

fn unknown_value_type(key: &str, found: u32) -> Cause {
    Cause::UnknownType { field: format!("key {key}"), found: found.to_string(), allowed: "types 0 to 12 are read" }
}

fn read_array<R: Read>(cursor: &mut Cursor<'_, R>, key: &str) -> Result<Array, FormatError> {
    let id = cursor.u32(key)?;
    let smallest = match id {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        ARRAY => return Err(cursor.error(Cause::NestingTooDeep { key: key.to_owned() })),
        other => return Err(cursor.error(unknown_value_type(key, other))),
    };
    let n = match cursor.count("array length", smallest) {
        Err(FormatError { path, offset, cause: Cause::CountTooLarge { found, allowed, .. } }) => {
            let cause = Cause::LengthBeyondFile { field: format!("array {key}"), found, allowed };
            return Err(FormatError { path, offset, cause });
        }
        other => other?,
    };
    fn all<R: Read, T>(
        cursor: &mut Cursor<'_, R>,
        n: usize,
        one: impl Fn(&mut Cursor<'_, R>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        (0..n).map(|_| one(cursor)).collect()
    }
    Ok(match id {
        0 => Array::U8(all(cursor, n, |c| c.bytes(key).map(u8::from_le_bytes))?),
        1 => Array::I8(all(cursor, n, |c| c.bytes(key).map(i8::from_le_bytes))?),
        2 => Array::U16(all(cursor, n, |c| c.bytes(key).map(u16::from_le_bytes))?),
        3 => Array::I16(all(cursor, n, |c| c.bytes(key).map(i16::from_le_bytes))?),
        4 => Array::U32(all(cursor, n, |c| c.u32(key))?),
        5 => Array::I32(all(cursor, n, |c| c.bytes(key).map(i32::from_le_bytes))?),
        6 => Array::F32(all(cursor, n, |c| c.bytes(key).map(f32::from_le_bytes))?),
        7 => Array::Bool(all(cursor, n, |c| c.bytes::<1>(key).map(|b| b != [0]))?),
        10 => Array::U64(all(cursor, n, |c| c.u64(key))?),
        11 => Array::I64(all(cursor, n, |c| c.bytes(key).map(i64::from_le_bytes))?),
        12 => Array::F64(all(cursor, n, |c| c.bytes(key).map(f64::from_le_bytes))?),
        _ => Array::String(all(cursor, n, |c| c.text(key))?),
    })
}

fn alignment(metadata: &[(String, Value)], path: &Path) -> Result<u64, FormatError> {
    let Some((_, value)) = metadata.iter().find(|(key, _)| key == "general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match value {
        Value::U32(n) if n.is_power_of_two() && u64::from(*n) <= LARGEST_ALIGNMENT => Ok((*n).into()),
        Value::U32(n) => Err(Cause::BadAlignment { found: n.to_string() }.of(path)),
        other => Err(Cause::BadAlignment { found: other.kind().to_owned() }.of(path)),
    }
}

/// A row of the table as it stands, before its place is checked.
struct RawTensor {
    name: String,
    dims: Vec<u64>,
    encoding: Encoding,
    offset: u64,
    bytes: u64,
}

fn read_tensors<R: Read>(cursor: &mut Cursor<'_, R>, count: usize) -> Result<Vec<RawTensor>, FormatError> {
    let mut tensors = Vec::new();
    let mut seen = HashMap::new();
    for _ in 0..count {
        let start = cursor.offset();
        let tensor = name(cursor, "tensor name", &mut seen, start)?;
        let n_dims = cursor.u32("number of dimensions")?;
        if n_dims == 0 || n_dims > MOST_DIMS {
            return Err(cursor.error(Cause::TooManyDims { tensor, found: n_dims }));
        }
        let dims = (0..n_dims).map(|_| cursor.u64("dimension")).collect::<Result<Vec<_>, _>>()?;
        if dims.contains(&0) {
            return Err(cursor.error(Cause::ZeroDim { tensor, dims }));
        }
        let id = cursor.u32("tensor type")?;
        let Some(encoding) = Encoding::from_id(id) else {
            let found = (id as i32).to_string();
            let allowed = "the types of ggml from F32 = 0 to MXFP4 = 39 are known";
            return Err(cursor.error(Cause::UnknownType { field: format!("tensor {tensor}"), found, allowed }));
        };
        if !dims[0].is_multiple_of(encoding.block_len()) {
            let (row, block) = (dims[0], encoding.block_len());
            return Err(cursor.error(Cause::RaggedRow { tensor, row, encoding: encoding.name(), block }));
        }
        let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|n| *n <= i64::MAX as u64);
        let Some(bytes) = elements.and_then(|n| encoding.bytes(n)).filter(|n| *n <= i64::MAX as u64) else {
            return Err(cursor.error(Cause::SizeOverflow { tensor, dims }));
        };
        let offset = cursor.u64("tensor offset")?;
        tensors.push(RawTensor { name: tensor, dims, encoding, offset, bytes });
    }
    Ok(tensors)
}

/// The tensors lie in the data one after the other, in the order of the table, each at the next aligned place.
fn check_layout(
    raw: Vec<RawTensor>,
    data_start: u64,
    data: u64,
    alignment: u64,
    path: &Path,
) -> Result<Vec<TensorInfo>, FormatError> {
    let mut expected = 0u64;
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(raw.len());
    for t in raw {
        let end = t.offset.checked_add(t.bytes);
        if end.is_none_or(|end| end > data) {
            let end = end.unwrap_or(u64::MAX);
            return Err(Cause::TensorOutOfBounds { tensor: t.name, begin: t.offset, end, data }.of(path));
        }
        if t.offset != expected {
            let first = tensors.last().map(|f| f.name.clone());
            return Err(Cause::BadLayout { first, second: t.name, found: t.offset, expected }.of(path));
        }
        // Inside the file, so far from the largest number.
        expected = (t.offset + t.bytes).next_multiple_of(alignment);
        tensors.push(TensorInfo {
            name: t.name,
            dims: t.dims,
            encoding: t.encoding,
            begin: data_start + t.offset,
            bytes: t.bytes,
        });
    }
    Ok(tensors)
}
