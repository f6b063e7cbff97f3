//! GGUF, the file format of llama.cpp: typed metadata, a table of tensors, and their data, in one file.
//!
//! Layout (github.com/ggml-org/ggml, docs/gguf.md), all little-endian: magic, version, number of tensors, number of
//! key-values; the key-values; the table (name, dimensions with the fastest first, type, offset); padding to the
//! alignment; the data of the tensors, each padded to the alignment.

mod cursor;
mod reader;
mod shards;
mod value;
mod writer;

pub use reader::{open, parse};
pub use shards::Shards;
pub use value::{Array, Value};
pub use writer::{NewTensor, create};

use super::encoding::Encoding;

/// The header of a file, checked: every tensor lies inside the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Keys and values, in the order of the file; no key stands twice.
    pub metadata: Vec<(String, Value)>,
    /// Alignment of the data section and of each tensor.
    pub alignment: u64,
    /// The tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
}

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Dimensions with the fastest first: a matrix (out, in) has `[in, out]`.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub encoding: Encoding,
    /// First byte in the file.
    pub begin: u64,
    /// Bytes it takes.
    pub bytes: u64,
}

impl Gguf {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }
}
