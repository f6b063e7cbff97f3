//! safetensors: a JSON header with names, types, shapes and ranges, then the bytes of the tensors.
//!
//! Layout (github.com/huggingface/safetensors): a 64-bit length, the header, the data. Everything that the header says
//! is checked against the file before a tensor is read.

mod header;
mod shards;
mod writer;

pub use header::{SafeTensor, TensorType, parse};
pub use shards::{Placed, Shards};
pub use writer::{NewTensor, Writer};

use std::collections::BTreeMap;
use std::path::Path;

use super::error::FormatError;
use super::file::ModelFile;

/// An open file whose header has been checked.
#[derive(Debug)]
pub struct SafeTensors {
    /// The file.
    pub file: ModelFile,
    /// Its tensors by name.
    pub tensors: BTreeMap<String, SafeTensor>,
}

impl SafeTensors {
    /// Opens a file and checks its header: sizes, types, and that the ranges tile the data.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = ModelFile::open(path)?;
        let tensors = parse(file.file(), file.size(), path)?;
        Ok(SafeTensors { file, tensors })
    }
}
