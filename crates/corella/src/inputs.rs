//! What the user names, turned into what the libraries need: a data set, a tokenizer, a model with its tokenizer.

use std::path::{Path, PathBuf};

use corella_model::gpt2::{Gpt2Weights, load_gpt2};
use corella_ops::cpu::{Cpu, CpuOptions};
use corella_text::data::{Dataset, Document, read_documents};
use corella_text::tokenizer::{Tokenizer, TrainOptions};

use crate::cli::Common;
use crate::error::{Failure, Result};

/// The name that stands for the embedded corpus.
pub const TINY_INTERNET: &str = "tiny-internet";
/// Seed of the one invented world that everybody shares.
pub const WORLD_SEED: u64 = 1;
/// Most text, in bytes, that an own vocabulary is trained on: more hardly changes it.
const VOCABULARY_BYTES: usize = 20_000_000;

/// The backend for the flags that every command has.
pub fn backend(common: &Common) -> Result<Cpu> {
    Ok(Cpu::new(CpuOptions { threads: common.threads.map(usize::from), path: None })?)
}

/// `gpt2`, `own` (trained on `documents`), or a file or folder with a tokenizer.json.
pub fn tokenizer_for(name: &str, vocab_size: usize, documents: &[Document]) -> Result<Tokenizer> {
    match name {
        "gpt2" => Ok(Tokenizer::gpt2()),
        "own" => {
            let mut bytes = 0;
            let sample = documents.iter().map(|d| d.text.as_str()).take_while(|text| {
                let room = bytes < VOCABULARY_BYTES;
                bytes += text.len();
                room
            });
            Ok(Tokenizer::train(sample, vocab_size, TrainOptions::default())?)
        }
        path => Ok(Tokenizer::load(Path::new(path))?),
    }
}

/// Documents of a text file or folder.
pub fn documents(source: &Path) -> Result<Vec<Document>> {
    if !source.exists() {
        return Err(Failure::new(format!("{} does not exist", source.display()))
            .hint("give a text file, a folder of text files, a folder written by `corella prepare`, or `tiny-internet`"));
    }
    Ok(read_documents(source)?)
}

/// Whether a folder was written by `corella prepare`.
pub fn is_prepared(source: &Path) -> bool {
    source.join("dataset.json").is_file()
}

/// Opens a prepared folder.
pub fn open_dataset(dir: &Path) -> Result<Dataset> {
    Ok(Dataset::open(dir)?)
}

/// Weights and tokenizer of a MODEL argument.
pub struct Model {
    /// Configuration and tensors.
    pub weights: Gpt2Weights,
    /// Turns text into its ids and back.
    pub tokenizer: Tokenizer,
}

/// Weights of a run folder (its newest checkpoint), a Hugging Face folder, or a llm.c file, and where they were found.
pub fn open_weights(path: &Path) -> Result<(Gpt2Weights, PathBuf)> {
    let folder = model_folder(path)?;
    Ok((load_gpt2(&folder)?, folder))
}

/// Opens weights and tokenizer of a MODEL argument.
///
/// The tokenizer is the one named, else the one beside the weights, else GPT-2's where the vocabulary has its size.
pub fn open_model(path: &Path, tokenizer: Option<&str>) -> Result<Model> {
    let (weights, folder) = open_weights(path)?;
    let vocab_size = weights.config.vocab_size();
    let tokenizer = match tokenizer {
        Some(name) => tokenizer_for(name, 0, &[])?,
        None if folder.join("tokenizer.json").is_file() => Tokenizer::load(&folder)?,
        None if vocab_size == Tokenizer::gpt2().vocab_size() => Tokenizer::gpt2(),
        None => {
            return Err(Failure::new(format!("{} has no tokenizer.json", folder.display()))
                .hint("name the tokenizer with --tokenizer FILE"));
        }
    };
    if tokenizer.vocab_size() > vocab_size {
        return Err(Failure::new(format!(
            "the tokenizer has {} tokens but the model only {vocab_size}",
            tokenizer.vocab_size()
        ))
        .hint("use the tokenizer that the model was trained with"));
    }
    Ok(Model { weights, tokenizer })
}

/// The folder or file that holds the weights: of a run folder, its newest checkpoint.
fn model_folder(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        return Err(Failure::new(format!("{} does not exist", path.display()))
            .hint("MODEL is a run folder, a Hugging Face folder, or a llm.c .bin"));
    }
    let checkpoints = path.join("checkpoints");
    if !checkpoints.is_dir() {
        return Ok(path.to_path_buf());
    }
    corella_train::checkpoint::latest(&checkpoints)?.ok_or_else(|| {
        Failure::new(format!("{} has no finished checkpoint yet", path.display()))
            .hint("train with --checkpoint-every N, or wait for the end of the run")
    })
}
