//! `corella prepare`: text in, token shards out.

use std::fs;
use std::path::Path;

use corella_text::data::{DatasetInfo, Document, PrepareOptions, prepare};
use corella_text::tiny_internet::{Corpus, CorpusOptions, World, facts};

use crate::cli::{Common, PrepareArgs};
use crate::error::{Failure, Result};
use crate::inputs::{TINY_INTERNET, WORLD_SEED, documents, fresh_pages, pages_as_documents, tokenizer_for};

/// Tokens per shard, as in the public token sets.
const SHARD_TOKENS: usize = 100_000_000;

/// Runs the command.
pub fn run(args: &PrepareArgs, common: &Common) -> Result<()> {
    if !(0.0..1.0).contains(&args.val_fraction) {
        return Err(Failure::usage(format!("--val-fraction {} is not in 0 .. 1", args.val_fraction)));
    }
    if args.sources.iter().any(|s| s == Path::new(TINY_INTERNET)) {
        return tiny_internet(args, common);
    }
    let mut all = Vec::new();
    for source in &args.sources {
        all.extend(documents(source)?);
    }
    let tokenizer = tokenizer_for(&args.tokenizer, args.vocab_size, &all)?;
    let options = PrepareOptions { val_fraction: args.val_fraction, shard_tokens: SHARD_TOKENS };
    report(&prepare(&all, &[], &tokenizer, &args.out, options)?, args, common)
}

/// All pages are trained on, so that the fact list counts what a model sees; validation is a fresh stream of pages.
fn tiny_internet(args: &PrepareArgs, common: &Common) -> Result<()> {
    if args.sources.len() > 1 {
        return Err(Failure::usage("tiny-internet stands alone: its fact list counts every page of the folder")
            .hint("prepare the other texts into a folder of their own"));
    }
    let world = World::new(WORLD_SEED);
    let corpus = Corpus::generate(&world, CorpusOptions { seed: common.seed, documents: args.pages });
    let pages: Vec<Document> = pages_as_documents(&corpus).collect();
    let fresh: Vec<Document> = pages_as_documents(&fresh_pages(&world)).collect();
    let tokenizer = tokenizer_for(&args.tokenizer, args.vocab_size, &pages)?;
    let options = PrepareOptions { val_fraction: 0.0, shard_tokens: SHARD_TOKENS };
    let info = prepare(&pages, &fresh, &tokenizer, &args.out, options)?;
    let list = serde_json::to_string_pretty(&facts(&world, &corpus))?;
    let path = args.out.join("facts.json");
    fs::write(&path, list).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    report(&info, args, common)
}

fn report(info: &DatasetInfo, args: &PrepareArgs, common: &Common) -> Result<()> {
    let json = serde_json::to_string(info)?;
    if common.json {
        println!("{json}");
    } else {
        println!("wrote {}: {json}", args.out.display());
    }
    Ok(())
}
