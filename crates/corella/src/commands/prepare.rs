//! `corella prepare`: text in, token shards out.

use std::fs;
use std::path::Path;

use corella_text::data::{DatasetInfo, PrepareOptions, prepare};
use corella_text::tiny_internet::{Corpus, CorpusOptions, World, facts};

use crate::cli::{Common, PrepareArgs};
use crate::error::{Failure, Result};
use crate::inputs::{TINY_INTERNET, WORLD_SEED, documents, pages_as_documents, tokenizer_for};

/// Tokens per shard, as in the public token sets.
const SHARD_TOKENS: usize = 100_000_000;

/// Runs the command.
pub fn run(args: &PrepareArgs, common: &Common) -> Result<()> {
    if !(0.0..1.0).contains(&args.val_fraction) {
        return Err(Failure::usage(format!("--val-fraction {} is not in 0 .. 1", args.val_fraction)));
    }
    let mut all = Vec::new();
    let mut tiny = None;
    for source in &args.sources {
        if source == Path::new(TINY_INTERNET) {
            let world = World::new(WORLD_SEED);
            let corpus = Corpus::generate(&world, CorpusOptions { seed: common.seed, documents: args.pages });
            all.extend(pages_as_documents(&corpus));
            tiny = Some((world, corpus));
        } else {
            all.extend(documents(source)?);
        }
    }
    let tokenizer = tokenizer_for(&args.tokenizer, args.vocab_size, &all)?;
    let info = prepare(
        &all,
        &tokenizer,
        &args.out,
        PrepareOptions { val_fraction: args.val_fraction, shard_tokens: SHARD_TOKENS },
    )?;
    if let Some((world, corpus)) = tiny {
        let list = serde_json::to_string_pretty(&facts(&world, &corpus))?;
        let path = args.out.join("facts.json");
        fs::write(&path, list).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    }
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
