//! A GPT-2's weights on the host, and finding out what kind of file holds them.

use std::path::Path;

use super::config::Gpt2Config;
use super::{hugging_face, llmc};
use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, ModelFile};
use crate::{ModelError, SpecialIds};

/// Configuration and tensors, in the order of the parameter table and the layout of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Weights {
    /// The shape.
    pub config: Gpt2Config,
    /// Begin and end of a text.
    pub special: SpecialIds,
    /// One per row of the parameter table.
    pub tensors: Vec<Vec<f32>>,
}

/// Reads a Hugging Face folder or a llm.c file.
pub fn load(path: &Path) -> Result<Gpt2Weights, ModelError> {
    if path.is_dir() {
        return hugging_face::load(path);
    }
    let head = ModelFile::open(path)?.head(HEAD)?;
    match sniff(&head) {
        Kind::LlmC => llmc::load(path),
        Kind::Pickle => Err(Cause::PickleRefused.of(path).into()),
        kind => {
            let found = format!("{:?}", String::from_utf8_lossy(&head[..head.len().min(4)]));
            Err(Cause::BadMagic { expected: "model", found, looks_like: kind.describe() }.of(path).into())
        }
    }
}
