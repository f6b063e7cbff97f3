//! safetensors: a JSON header with names, types, shapes and ranges, then the bytes of the tensors.
//!
//! Everything that the header says is checked against the file before a tensor is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{bf16_to_f32, f16_to_f32};
use crate::ModelError;

/// Longest header that is read, as in the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// An open file whose header has been checked.
#[derive(Debug)]
pub struct SafeTensors {
    path: PathBuf,
    file: File,
    data_start: u64,
    entries: BTreeMap<String, Entry>,
}

impl SafeTensors {
    /// Opens a file and checks its header: sizes, types, and that the ranges tile the data.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        let size = file.metadata().map_err(ModelError::io(path))?.len();
        let mut word = [0; 8];
        file.read_exact(&mut word)
            .map_err(|_| ModelError::bad(path, format!("{size} bytes are too short for a header")))?;
        let header_len = u64::from_le_bytes(word);
        if header_len > LONGEST_HEADER || header_len > size - 8 {
            let why = format!("header of {header_len} bytes in a file of {size} (at most {LONGEST_HEADER})");
            return Err(ModelError::bad(path, why));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(ModelError::io(path))?;
        let header = std::str::from_utf8(&header).map_err(|_| ModelError::bad(path, "the header is not UTF-8"))?;
        let entries = parse_header(header).map_err(|e| ModelError::bad(path, e))?;
        check_layout(&entries, size - 8 - header_len).map_err(|e| ModelError::bad(path, e))?;
        Ok(SafeTensors { path: path.to_path_buf(), file, data_start: 8 + header_len, entries })
    }

    /// Names in the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.entries.get(name)?.shape.iter().map(|d| *d as usize).collect())
    }

    /// Values of a tensor stored as F32, F16 or BF16, as f32.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(ModelError::bad(&self.path, format!("tensor {name} is missing")));
        };
        let [begin, end] = entry.data_offsets;
        let mut bytes = vec![0; (end - begin) as usize];
        self.file
            .seek(SeekFrom::Start(self.data_start + begin))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(ModelError::io(&self.path))?;
        let pairs = |to: fn(u16) -> f32| bytes.chunks_exact(2).map(|b| to(u16::from_le_bytes([b[0], b[1]]))).collect();
        match entry.dtype.as_str() {
            "F32" => Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            "F16" => Ok(pairs(f16_to_f32)),
            "BF16" => Ok(pairs(bf16_to_f32)),
            other => {
                Err(ModelError::bad(&self.path, format!("tensor {name} has type {other}; F32, F16 and BF16 are read")))
            }
        }
    }
}

/// The header's entries; a name that stands twice is an error, which a plain map would hide.
fn parse_header(header: &str) -> Result<BTreeMap<String, Entry>, String> {
    struct Unique;
    impl<'de> serde::de::Visitor<'de> for Unique {
        type Value = BTreeMap<String, Entry>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object of tensors")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if name == "__metadata__" {
                    map.next_value::<BTreeMap<String, String>>()?;
                } else if let Some(_twice) = entries.insert(name.clone(), map.next_value::<Entry>()?) {
                    return Err(serde::de::Error::custom(format!("tensor {name} stands twice")));
                }
            }
            Ok(entries)
        }
    }
    let mut json = serde_json::Deserializer::from_str(header);
    serde::Deserializer::deserialize_map(&mut json, Unique)
        .and_then(|entries| json.end().map(|()| entries))
        .map_err(|e| format!("bad header: {e}"))
}

/// Each range has the size that type and shape give, and together they cover the data without holes or overlap.
fn check_layout(entries: &BTreeMap<String, Entry>, data: u64) -> Result<(), String> {
    let mut ranges = Vec::new();
    for (name, entry) in entries {
        let width: u64 = match entry.dtype.as_str() {
            "F64" | "I64" | "U64" => 8,
            "F32" | "I32" | "U32" => 4,
            "F16" | "BF16" | "I16" | "U16" => 2,
            "BOOL" | "I8" | "U8" | "F8_E4M3" | "F8_E5M2" => 1,
            other => return Err(format!("tensor {name} has unknown type {other}")),
        };
        let bytes = entry.shape.iter().try_fold(width, |size, d| size.checked_mul(*d));
        let [begin, end] = entry.data_offsets;
        if end < begin || end > data {
            return Err(format!("tensor {name} lies at {begin}..{end}, outside the {data} bytes of data"));
        }
        if bytes != Some(end - begin) {
            return Err(format!("tensor {name} of shape {:?} does not fill {begin}..{end}", entry.shape));
        }
        ranges.push((begin, end, name));
    }
    ranges.sort();
    let mut covered = 0;
    for (begin, end, name) in ranges {
        if begin != covered {
            return Err(format!("tensor {name} begins at {begin} instead of {covered}"));
        }
        covered = end;
    }
    if covered == data { Ok(()) } else { Err(format!("{} bytes after the last tensor", data - covered)) }
}

/// Writes f32 tensors, in the order given, and syncs the file.
pub fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<(), ModelError> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!({"format": "pt"}));
    let mut offset = 0;
    for (name, shape, values) in tensors {
        let end = offset + values.len() * 4;
        header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // Padded with spaces, so that the tensors are aligned.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        for (_, _, values) in tensors {
            for value in values {
                out.write_all(&value.to_le_bytes())?;
            }
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(ModelError::io(path))
}
