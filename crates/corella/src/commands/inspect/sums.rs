//! Sums over the list of parameters: of each part of the model, of each block, of each number format.

use corella_model::ModelPart;
use serde::Serialize;

use super::anatomy::TensorRow;

/// Parameters and bytes of some tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Numbers.
    pub parameters: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Sum {
    /// Of the tensors that `wanted` takes.
    pub fn of(tensors: &[TensorRow], wanted: impl Fn(&TensorRow) -> bool) -> Sum {
        tensors.iter().filter(|tensor| wanted(tensor)).fold(Sum::default(), |sum, tensor| Sum {
            parameters: sum.parameters + tensor.parameters,
            bytes: sum.bytes + tensor.bytes,
        })
    }
}

/// A part of the model, or of one block.
#[derive(Debug, Serialize)]
pub struct PartRow {
    /// Which.
    pub part: ModelPart,
    /// Its size.
    #[serde(flatten)]
    pub sum: Sum,
}

/// One of the model's blocks.
#[derive(Debug, Serialize)]
pub struct LayerRow {
    /// Its size.
    #[serde(flatten)]
    pub sum: Sum,
    /// Its parts.
    pub parts: Vec<PartRow>,
}

/// A number format.
#[derive(Debug, Serialize)]
pub struct FormatRow {
    /// Its name.
    pub dtype: &'static str,
    /// What is stored in it.
    #[serde(flatten)]
    pub sum: Sum,
}

/// The parts that have tensors, in the order of a token's way.
pub fn parts(tensors: &[TensorRow]) -> Vec<PartRow> {
    let all = ModelPart::ALL.map(|part| PartRow { part, sum: Sum::of(tensors, |t| t.part == part) });
    all.into_iter().filter(|row| row.sum.parameters > 0).collect()
}

/// Every block. Its tensors stand together in the list.
pub fn layers(tensors: &[TensorRow]) -> Vec<LayerRow> {
    let blocks = tensors.chunk_by(|a, b| a.layer == b.layer).filter(|block| block[0].layer.is_some());
    blocks.map(|block| LayerRow { sum: Sum::of(block, |_| true), parts: parts(block) }).collect()
}

/// Every number format, that of the most parameters first.
pub fn formats(tensors: &[TensorRow]) -> Vec<FormatRow> {
    let mut rows: Vec<FormatRow> = Vec::new();
    for tensor in tensors {
        if rows.iter().all(|row| row.dtype != tensor.dtype) {
            rows.push(FormatRow { dtype: tensor.dtype, sum: Sum::of(tensors, |t| t.dtype == tensor.dtype) });
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.sum.parameters));
    rows
}
