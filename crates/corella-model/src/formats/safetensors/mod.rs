//! safetensors: a JSON header with names, types, shapes and ranges, then the bytes of the tensors.
//!
//! Layout (github.com/huggingface/safetensors): a 64-bit length, the header, the data. Everything that the header says
//! is checked against the file before a tensor is read.

mod header;
mod shards;
mod writer;

pub use header::{SafeTensor, TensorType, parse};
pub use shards::{Placed, SINGLE, Shards};
pub use writer::{NewTensor, create};

use std::collections::BTreeMap;
use std::path::Path;

use corella_ops::quant::half::{bf16_to_f32, f16_to_f32};

use super::{Cause, Encoding, FormatError, ModelFile};

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

    /// Values of a tensor of the expected shape, stored as F32, F16 or BF16, as f32.
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, FormatError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| Cause::MissingTensor { tensor: name.to_owned() }.of(self.file.path()))?;
        tensor.read_f32(&self.file, name, expected)
    }
}

impl SafeTensor {
    /// Values of this tensor, called `name`, from the file that it lies in.
    fn read_f32(&self, file: &ModelFile, name: &str, expected: &[usize]) -> Result<Vec<f32>, FormatError> {
        let expected: Vec<u64> = expected.iter().map(|d| *d as u64).collect();
        if self.shape != expected {
            let cause = Cause::WrongShape { tensor: name.to_owned(), found: self.shape.clone(), expected };
            return Err(cause.of(file.path()));
        }
        let mut bytes = vec![0; self.bytes as usize];
        file.read_at(self.begin, &mut bytes)?;
        let pairs = |to: fn(u16) -> f32| bytes.chunks_exact(2).map(|b| to(u16::from_le_bytes([b[0], b[1]]))).collect();
        Ok(match self.dtype {
            TensorType::Weights(Encoding::BF16) => pairs(bf16_to_f32),
            TensorType::Weights(Encoding::F16) => pairs(f16_to_f32),
            TensorType::Weights(_) => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            TensorType::Other(found) => {
                let (field, allowed) = (format!("tensor {name}"), "F32, F16 and BF16 are computed");
                return Err(Cause::UnknownType { field, found: found.to_owned(), allowed }.of(file.path()));
            }
        })
    }
}
