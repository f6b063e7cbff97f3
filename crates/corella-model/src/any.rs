//! A model of either family, found by what its files say.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, ModelFile};
use crate::gpt2::{Gpt2Weights, load_gpt2};
use crate::llama::LlamaCheckpoint;
use crate::{ModelError, SpecialIds};

/// Llama 3's end of a message and end of a turn.
const LLAMA3_TURN_ENDS: [u32; 2] = [128_008, 128_009];

/// A model that is open for reading.
#[derive(Debug)]
pub enum AnyModel {
    /// GPT-2, read whole.
    Gpt2(Gpt2Weights),
    /// Llama, read tensor by tensor when it is loaded.
    Llama(Box<LlamaCheckpoint>),
}

impl AnyModel {
    /// Opens a Hugging Face folder, a GGUF file, or an llm.c or llama2.c file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let llama = if path.is_dir() {
            model_type(path)?.as_deref() == Some("llama")
        } else {
            let head = ModelFile::open(path)?.head(HEAD)?;
            matches!(sniff(&head), Kind::Gguf | Kind::PerhapsLlama2C)
        };
        if llama {
            Ok(AnyModel::Llama(Box::new(LlamaCheckpoint::open(path)?)))
        } else {
            Ok(AnyModel::Gpt2(load_gpt2(path)?))
        }
    }

    /// V, the tokens that can be predicted.
    pub fn vocab_size(&self) -> usize {
        match self {
            AnyModel::Gpt2(weights) => weights.config.vocab_size(),
            AnyModel::Llama(checkpoint) => checkpoint.config.vocab_size,
        }
    }

    /// Most tokens of a sequence.
    pub fn context_len(&self) -> usize {
        match self {
            AnyModel::Gpt2(weights) => weights.config.seq_len(),
            AnyModel::Llama(checkpoint) => checkpoint.config.context_len,
        }
    }

    /// Number of parameters, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        match self {
            AnyModel::Gpt2(weights) => weights.config.parameter_count(),
            AnyModel::Llama(checkpoint) => checkpoint.config.parameter_count(),
        }
    }

    /// Whether the files are those of a model that was tuned to follow instructions: it ends a text with the end of a
    /// turn too, which a base model does not know.
    pub fn is_instruct(&self) -> bool {
        match self {
            AnyModel::Gpt2(_) => false,
            AnyModel::Llama(checkpoint) => checkpoint.special.eos.iter().any(|id| LLAMA3_TURN_ENDS.contains(id)),
        }
    }

    /// Begin and end of a text, as far as the model's own files name them.
    pub fn special(&self) -> SpecialIds {
        match self {
            AnyModel::Gpt2(weights) => weights.special.clone(),
            AnyModel::Llama(checkpoint) => checkpoint.special.clone(),
        }
    }
}

/// `model_type` of a folder's config.json.
fn model_type(dir: &Path) -> Result<Option<String>, ModelError> {
    #[derive(Deserialize)]
    struct Config {
        model_type: Option<String>,
    }
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    let config: Config = serde_json::from_str(&text).map_err(|e| Cause::BadJson { why: e.to_string() }.of(&path))?;
    Ok(config.model_type)
}
