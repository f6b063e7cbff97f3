//! Writing a GGUF file, version 3: the header first, then the tensors in their order.

use std::path::Path;

use super::value::{Array, Value};
use crate::formats::encoding::Encoding;
use crate::formats::error::FormatError;
use crate::formats::tensors_file::TensorsFile;

const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Dimensions with the fastest first, none of them 0.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub encoding: Encoding,
}

impl NewTensor {
    /// Bytes that its data takes.
    fn bytes(&self) -> u64 {
        // What is written was held in memory, so it can be counted.
        self.encoding.bytes(self.dims.iter().product()).unwrap_or(u64::MAX)
    }
}

/// Begins a file with this metadata and these tensors.
pub fn create(path: &Path, metadata: &[(String, Value)], tensors: &[NewTensor]) -> Result<TensorsFile, FormatError> {
    let header = header(metadata, tensors);
    let sizes = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes()));
    TensorsFile::create(path, &header, sizes.collect(), ALIGNMENT)
}

fn header(metadata: &[(String, Value)], tensors: &[NewTensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut out, key);
        out.extend(value.type_id().to_le_bytes());
        put_value(&mut out, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend((tensor.encoding as u32).to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push((*v).into()),
        Value::String(v) => put_text(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(array) => {
            out.extend(array.element_id().to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            put_array(out, array);
        }
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|x| out.push((*x).into())),
        Array::String(v) => v.iter().for_each(|x| put_text(out, x)),
        Array::U64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
    }
}
