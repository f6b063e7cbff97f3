//! Writing a safetensors file: the header first, then the tensors in their order.

use std::path::Path;

use crate::formats::encoding::Encoding;
use crate::formats::error::FormatError;
use crate::formats::tensors_file::TensorsFile;

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

/// Begins a file with these tensors. Panics if one is stored in blocks, which the format cannot.
pub fn create(path: &Path, tensors: &[NewTensor]) -> Result<TensorsFile, FormatError> {
    let header = header(tensors);
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.as_bytes());
    let sizes = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes() as u64));
    TensorsFile::create(path, &start, sizes.collect(), 1)
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
