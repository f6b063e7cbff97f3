//! A model of either family, found by what its files say.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::Exchange;
use crate::exchange::gguf::ARCHITECTURE;
use crate::formats::gguf::{self, Value};
use crate::formats::sniff::{HEAD, Kind, sniff};
use crate::formats::{Cause, ModelFile};
use crate::gpt2::Gpt2Config;
use crate::llama::LlamaConfig;
use crate::params::ModelConfig;
use crate::place::Place;
use crate::role::Role;
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
            None => is_llama(path)?,
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

    /// For each tensor of the files, in the order of the parameter table: its block, if it belongs to one, what it is for, and
    /// its place.
    pub fn tensors(&self) -> Vec<(Option<usize>, Role, &Place)> {
        fn of<C: ModelConfig>(checkpoint: &Checkpoint<C>) -> Vec<(Option<usize>, Role, &Place)> {
            let table = checkpoint.config.table();
            let rows = table.iter().zip(&checkpoint.places);
            rows.flat_map(|(spec, places)| {
                let parts = spec.parts.iter().zip(places);
                parts.map(|(part, place)| (spec.layer, C::role(part.tensor), place))
            })
            .collect()
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

    /// Tensors of the files that are no part of the model.
    pub fn left_out(&self) -> &[String] {
        match self {
            AnyModel::Gpt2(checkpoint) => &checkpoint.left_out,
            AnyModel::Llama(checkpoint) => &checkpoint.left_out,
        }
    }

    /// Bytes of the files that hold the weights.
    pub fn file_bytes(&self) -> u64 {
        let files = match self {
            AnyModel::Gpt2(checkpoint) => &checkpoint.files,
            AnyModel::Llama(checkpoint) => &checkpoint.files,
        };
        files.iter().map(ModelFile::size).sum()
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

/// Whether a folder holds a Llama; else it holds a GPT-2. Where config.json does not name the family, a field that only one has
/// tells it.
fn is_llama(dir: &Path) -> Result<bool, ModelError> {
    #[derive(Deserialize)]
    struct Config {
        model_type: Option<String>,
        hidden_size: Option<IgnoredAny>,
        n_layer: Option<IgnoredAny>,
    }
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    if text.trim().is_empty() {
        return Err(Cause::Empty.of(&path).into());
    }
    let config: Config = serde_json::from_str(&text).map_err(|e| Cause::of_config(&e).of(&path))?;
    let field = "model_type".to_owned();
    match (config.model_type.as_deref(), config.hidden_size, config.n_layer) {
        (Some(LlamaConfig::ARCHITECTURE), ..) | (None, Some(_), _) => Ok(true),
        (Some(Gpt2Config::ARCHITECTURE), ..) | (None, None, Some(_)) => Ok(false),
        (None, None, None) => Err(Cause::MissingKey { key: field }.of(&path).into()),
        (Some(found), ..) => {
            let (found, allowed) = (found.to_owned(), "llama and gpt2 are computed".to_owned());
            Err(Cause::Unsupported { field, found, allowed }.of(&path).into())
        }
    }
}
