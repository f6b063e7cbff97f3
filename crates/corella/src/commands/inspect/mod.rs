//! `corella inspect`: what a model file is: code, configuration, and one long list of numbers.

mod anatomy;
mod corpus;
mod files;
mod sums;

use clap::Args;
use std::path::{Path, PathBuf};

use corella_model::AnyModel;
use serde_json::Value;

use crate::cli::Common;
use crate::error::{Failure, Result};
use crate::inputs::{no_card, open_any};
use crate::output::deliver;
use crate::shape::{ModelShape, presets};
use crate::units::bytes;

use anatomy::Anatomy;
use corpus::Corpus;

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin, hf://owner/name, or, without any file, the
    /// name of a published shape: gpt2-124m … gpt2-1558m, llama-3.1-8b … llama-3.1-405b
    pub model: PathBuf,
    /// Size of the text that it was trained on, for the comparison with its own size, e.g. 15MB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub corpus_bytes: Option<usize>,
    /// Print every tensor, not only one block's
    #[arg(long)]
    pub all: bool,
}

/// Runs the command.
pub fn run(args: &InspectArgs, common: &Common) -> Result<()> {
    no_card(common)?;
    let preset = args.model.to_str().filter(|_| !args.model.exists()).and_then(ModelShape::preset);
    let anatomy = match preset {
        Some(shape) => Anatomy::of_preset(&shape, &args.model),
        None => {
            check_name(&args.model)?;
            let (model, at) = open_any(&args.model)?;
            Anatomy::of(&model, &at)
        }
    };
    let corpus = Corpus::of(&args.model, &anatomy, args.corpus_bytes.map(|bytes| bytes as u64));
    if common.json {
        return deliver(document(&anatomy, corpus.as_ref())?);
    }
    let mut lines = anatomy.lines(args.all);
    lines.extend(corpus.into_iter().flat_map(|corpus| corpus.lines()));
    deliver(lines.join("\n"))
}

/// Refuses what is neither a file, nor on the hub, nor the name of a published shape, with the names.
fn check_name(model: &Path) -> Result<()> {
    if model.exists() || model.to_str().is_some_and(|name| name.starts_with(corella_hub::PREFIX)) {
        return Ok(());
    }
    let names = presets().join(", ");
    Err(Failure::new(format!("{} does not exist, and no published shape has this name", model.display()))
        .hint(format!("name a model's file or folder, hf://owner/name, or a published shape: {names}")))
}

/// What `--json` prints.
fn document(anatomy: &Anatomy, corpus: Option<&Corpus>) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(anatomy)?;
    document["corpus"] = serde_json::to_value(corpus)?;
    Ok(document)
}

/// The same for a model that is open: `named` is the MODEL argument, `at` where its files were found.
pub fn document_of(model: &AnyModel, at: &Path, named: &Path) -> serde_json::Result<Value> {
    let anatomy = Anatomy::of(model, at);
    document(&anatomy, Corpus::of(named, &anatomy, None).as_ref())
}
