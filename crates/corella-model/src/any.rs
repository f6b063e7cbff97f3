//! A model of either family, found by what its files say.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::gguf::ARCHITECTURE;
use crate::formats::gguf::{self, Value};
use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, ModelFile};
use crate::gpt2::Gpt2Config;
use crate::llama::LlamaConfig;
use crate::params::ModelConfig;
use crate::place::Place;
use crate::special_ids::SpecialIds;

/// Llama 3's end of a message and end of a turn.
const LLAMA3_TURN_ENDS: [u32; 2] = [128_008, 128_009];

/// A model that is open for reading; its tensors are read one by one when it is loaded.
#[derive(Debug)]
pub enum AnyModel {
    /// GPT-2.
    Gpt2(Box<Checkpoint<Gpt2Config>>),
    /// Llama.
    Llama(Box<Checkpoint<LlamaConfig>>),
}

impl AnyModel {
    /// Opens a Hugging Face folder, a GGUF file, or an llm.c or llama2.c file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let kind = if path.is_dir() { None } else { Some(sniff(&ModelFile::open(path)?.head(HEAD)?)) };
        let llama = match kind {
            None => model_type(path)?.as_deref() == Some("llama"),
            Some(Kind::Gguf) => {
                let (_, header) = gguf::open(path)?;
                header.get(ARCHITECTURE).and_then(Value::as_str) != Some("gpt2")
            }
            Some(kind) => kind == Kind::PerhapsLlama2C,
        };
        Ok(match llama {
            true => AnyModel::Llama(Box::new(Checkpoint::open(path)?)),
            false => AnyModel::Gpt2(Box::new(Checkpoint::open(path)?)),
        })
    }

    fn config(&self) -> (usize, usize, usize) {
        fn of<C: ModelConfig>(c: &C) -> (usize, usize, usize) {
            (c.vocab_size(), c.context_len(), c.parameter_count())
        }
        match self {
            AnyModel::Gpt2(checkpoint) => of(&checkpoint.config),
            AnyModel::Llama(checkpoint) => of(&checkpoint.config),
        }
    }

    /// V, the tokens that can be predicted.
    pub fn vocab_size(&self) -> usize {
        self.config().0
    }

    /// Most tokens of a sequence.
    pub fn context_len(&self) -> usize {
        self.config().1
    }

    /// Number of parameters, a tied head counted once.
    pub fn parameter_count(&self) -> usize {
        self.config().2
    }

    /// For each tensor of the files, in the order of the parameter table: its block, if it belongs to one, and its place.
    pub fn tensors(&self) -> Vec<(Option<usize>, &Place)> {
        fn of<C: ModelConfig>(checkpoint: &Checkpoint<C>) -> Vec<(Option<usize>, &Place)> {
            let table = checkpoint.config.table();
            let rows = table.iter().zip(&checkpoint.places);
            rows.flat_map(|(spec, places)| places.iter().map(|place| (spec.layer, place))).collect()
        }
        match self {
            AnyModel::Gpt2(checkpoint) => of(checkpoint),
            AnyModel::Llama(checkpoint) => of(checkpoint),
        }
    }

    /// Whether the files are those of a model that was tuned to follow instructions: a template for conversations comes with
    /// it, or it ends a text with the end of a turn too. A base model knows neither.
    pub fn is_instruct(&self) -> bool {
        match self {
            AnyModel::Gpt2(_) => self.chat_template().is_some(),
            AnyModel::Llama(checkpoint) => {
                self.chat_template().is_some() || checkpoint.special.eos.iter().any(|id| LLAMA3_TURN_ENDS.contains(id))
            }
        }
    }

    /// The template for conversations that comes with the model. It is kept, and never executed.
    pub fn chat_template(&self) -> Option<&str> {
        match self {
            AnyModel::Gpt2(checkpoint) => checkpoint.chat_template.as_deref(),
            AnyModel::Llama(checkpoint) => checkpoint.chat_template.as_deref(),
        }
    }

    /// Begin and end of a text, as far as the model's own files name them.
    pub fn special(&self) -> SpecialIds {
        match self {
            AnyModel::Gpt2(checkpoint) => checkpoint.special.clone(),
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
