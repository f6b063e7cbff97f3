//! Writing a safetensors file: the header first, then the tensors in their order.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::formats::atomic::AtomicFile;
use crate::formats::encoding::Encoding;
use crate::formats::error::{Cause, FormatError};

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Dimensions, the slowest first.
    pub shape: Vec<usize>,
    /// F32, F16 or BF16.
    pub encoding: Encoding,
}

impl NewTensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.encoding.block_bytes() as usize
    }
}

/// A file being written under a temporary name; it gets its own when [`Writer::finish`] has seen every tensor.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    out: BufWriter<AtomicFile>,
    tensors: Vec<NewTensor>,
    next: usize,
}

impl Writer {
    /// Writes the header of a file with these tensors. Panics if one is stored in blocks, which the format cannot.
    pub fn create(path: &Path, tensors: Vec<NewTensor>) -> Result<Self, FormatError> {
        let header = header(&tensors);
        let start = || -> std::io::Result<_> {
            let mut out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(header.as_bytes())?;
            Ok(out)
        };
        let out = start().map_err(|e| Cause::from(e).of(path))?;
        Ok(Writer { path: path.to_path_buf(), out, tensors, next: 0 })
    }

    /// Appends the data of the next tensor. Panics if it has another size than the header says.
    pub fn tensor(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let tensor = &self.tensors[self.next];
        assert_eq!(bytes.len(), tensor.bytes(), "data of {}", tensor.name);
        self.next += 1;
        self.out.write_all(bytes).map_err(|e| Cause::from(e).of(&self.path))
    }

    /// Appends the values of the next tensor, which is an F32 one.
    pub fn f32_tensor(&mut self, values: &[f32]) -> Result<(), FormatError> {
        self.tensor(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// Syncs the file and gives it its name. Panics if a tensor is missing.
    pub fn finish(self) -> Result<(), FormatError> {
        assert_eq!(self.next, self.tensors.len(), "every tensor is written");
        let path = self.path;
        self.out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(AtomicFile::commit)
            .map_err(|e| Cause::from(e).of(&path))
    }
}

fn header(tensors: &[NewTensor]) -> String {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        assert_eq!(tensor.encoding.block_len(), 1, "{} in {}", tensor.name, tensor.encoding);
        let end = offset + tensor.bytes();
        let entry = serde_json::json!({"dtype": tensor.encoding.name(), "shape": tensor.shape,
            "data_offsets": [offset, end]});
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // Padded with spaces, so that the tensors are aligned.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    header
}
