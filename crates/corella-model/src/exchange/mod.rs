//! Reading and writing the files of others: Hugging Face folders and GGUF, the same code for both families.
//!
//! What a family calls its tensors, how it lays out their rows, and how its shape is written down, it says by
//! [`Exchange`].

mod encode;
pub mod gguf;
pub mod hugging_face;
mod kept;

pub(crate) use encode::encode;
pub use kept::KeptAs;

use std::path::Path;

use corella_ops::WeightFormat;

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::formats::gguf::Value;
use crate::formats::sniff::Kind;
use crate::params::{ModelConfig, ParamSpec};
use crate::place::RowOrder;
use crate::special_ids::SpecialIds;

/// How a family stands in the files of others.
pub trait Exchange: ModelConfig {
    /// `model_type` of config.json, and `general.architecture` of GGUF, whose keys begin with it.
    const ARCHITECTURE: &'static str;
    /// The kind of file that holds this family alone.
    const OWN_FILE: Kind;
    /// The token embedding, which is the head too where both are tied.
    const EMBEDDING: Self::Tensor;
    /// The output head.
    const HEAD: Self::Tensor;
    /// What GGUF calls the tensor that is read but has no place in the table; see [`Exchange::gguf_extra`].
    const GGUF_EXTRA: Option<&'static str> = None;

    /// Whether the output head is the token embedding.
    fn tied(&self) -> bool;
    /// The same shape with an output head of its own.
    fn with_own_head(&self) -> Result<Self, ModelError>;

    /// Opens a file of the kind [`Exchange::OWN_FILE`].
    fn open_own_file(path: &Path) -> Result<Checkpoint<Self>, ModelError>;

    /// The shape that a config.json says; `path` is for the messages.
    fn from_json(text: &str, path: &Path) -> Result<(Self, SpecialIds), ModelError>;
    /// A config.json that `transformers` understands.
    fn to_json(&self, special: &SpecialIds, dtype: &str) -> Result<serde_json::Value, ModelError>;
    /// What `transformers` calls a tensor: first the name to write, then others that are read.
    fn hugging_face_names(&self, tensor: Self::Tensor, layer: Option<usize>) -> Vec<String>;
    /// How it lays out its rows.
    fn hugging_face_order(&self, tensor: Self::Tensor) -> RowOrder;

    /// The shape that GGUF's keys say.
    fn from_gguf(keys: &gguf::Keys<'_>) -> Result<Self, ModelError>;
    /// GGUF's keys for the shape, without `general.*`.
    fn gguf_keys(&self) -> Vec<(String, Value)>;
    /// What GGUF calls a tensor.
    fn gguf_name(tensor: Self::Tensor, layer: Option<usize>) -> String;
    /// How it lays out its rows.
    fn gguf_order(&self, tensor: Self::Tensor) -> RowOrder;
    /// The format that a row of the table takes in a file whose matrices are stored in `format`.
    fn gguf_format(spec: &ParamSpec<Self::Tensor>, format: WeightFormat) -> WeightFormat {
        if spec.vector { WeightFormat::F32 } else { format }
    }
    /// The values of [`Exchange::GGUF_EXTRA`], which follow from the shape alone.
    fn gguf_extra(&self) -> Option<Vec<f32>> {
        None
    }
}

/// Every part of every row, in the order of the table.
fn each_part<T>(table: &[ParamSpec<T>]) -> impl Iterator<Item = (usize, &ParamSpec<T>, usize)> {
    table.iter().enumerate().flat_map(|(row, spec)| (0..spec.parts.len()).map(move |part| (row, spec, part)))
}
