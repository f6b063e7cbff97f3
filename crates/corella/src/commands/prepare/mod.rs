//! `corella prepare`: text in, token shards out.

mod args;
mod console;

use std::fs;
use std::path::Path;
use std::time::Instant;

use corella_text::data::readers::SourceFile;
use corella_text::data::{
    DataError, DatasetInfo, Document, Report, Vocabulary, is_token_file, prepare, prepare_documents, prepare_tokens,
};
use corella_text::tiny_internet::{Corpus, CorpusOptions, World, facts};
use corella_train::console::grouped;

use crate::cli::Common;
use crate::commands::reader_flags::NAME_FIELD;
use crate::error::{Failure, Result};
use crate::inputs::{
    TINY_INTERNET, TINY_PAGES, VOCABULARY_BYTES, WORLD_SEED, fresh_pages, no_card, no_file, pages_as_documents,
    source_files, tokenizer_for,
};
use crate::machine::peak_memory;
use crate::output::deliver;
use crate::units::megabytes;
pub use args::PrepareArgs;
use console::Console;

/// Runs the command.
pub fn run(args: &PrepareArgs, common: &Common) -> Result<()> {
    no_card(common)?;
    let started = Instant::now();
    let threads =
        common.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let options = args.options(threads)?;
    let vocab_size = args.vocab_size()?;
    let dropped = args.dropped_languages();
    if !dropped.is_empty() {
        eprintln!(
            "note: the rules of Gopher count common English words: they drop the texts in {}",
            dropped.join(", ")
        );
    }
    let generated = args.sources.iter().any(|s| s == Path::new(TINY_INTERNET));
    args.check_pages(generated)?;
    if generated {
        return tiny_internet(args, vocab_size, common, started);
    }
    if common.seed.is_some() {
        return Err(Failure::usage("--seed is for the tiny internet: nothing of a text is left to chance")
            .hint("leave it out; which documents are for validation is decided by what they say"));
    }
    let files = outside(&args.out, args, common)?;
    if let Some(file) = files.iter().find(|f| fs::metadata(&f.path).is_ok_and(|meta| !meta.is_file())) {
        return Err(Failure::new(format!(
            "{} is no file: sources are read twice, and it gives its text once",
            file.name
        ))
        .hint("write the text into a file first, and prepare that"));
    }
    if files.iter().all(|f| is_token_file(&f.path)) {
        args.check_tokens()?;
        let tokenizer = match &args.tokenizer[..] {
            "own" => {
                return Err(Failure::usage("files of tokens need the vocabulary that they were made with")
                    .hint("name it with --tokenizer gpt2, or --tokenizer FILE"));
            }
            name => tokenizer_for(name, 0, &[])?,
        };
        let info = prepare_tokens(&files, &tokenizer, &args.out, options.shard_tokens, args.overwrite)?;
        return done(&info, None, args, common, started);
    }
    args.check_fields(&files)?;
    let vocabulary = match &args.tokenizer[..] {
        "own" => Vocabulary::Trained { size: vocab_size, sample_bytes: VOCABULARY_BYTES },
        name => Vocabulary::Given(tokenizer_for(name, 0, &[])?),
    };
    let mut console = Console::new(&files, common.json);
    let prepared = prepare(&files, &vocabulary, &args.out, &options, &mut console);
    console.end();
    let names_field = args.reader.field.is_some();
    let (info, report) = prepared.map_err(|error| match error {
        DataError::NoneLeft { read: 0, .. } if console.without_text && !names_field => {
            Failure::from(error).hint(NAME_FIELD)
        }
        other => other.into(),
    })?;
    if console::lacks_field(&report) && !names_field {
        eprintln!("hint: {NAME_FIELD}");
    }
    let left_out = console::left_out(&report);
    if left_out > 0 {
        eprintln!(
            "warning: {} sources were left out whole (files, members of archives or parts of a file that are not read)",
            grouped(left_out)
        );
    }
    done(&info, Some(&report), args, common, started)
}

/// The files of the sources but those in --out: what an earlier run wrote there is no source. One that is named is an error.
fn outside(out: &Path, args: &PrepareArgs, common: &Common) -> Result<Vec<SourceFile>> {
    let absolute = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let out = absolute(out);
    let (mut files, mut left_out): (Vec<SourceFile>, usize) = (Vec::new(), 0);
    for source in &args.sources {
        if source.is_file() && absolute(source).starts_with(&out) {
            return Err(Failure::usage(format!(
                "{} lies in --out {}, where it would be among what is written",
                source.display(),
                args.out.display()
            ))
            .hint("write into another folder, or move the text out of this one"));
        }
        let found = source_files(source, common.json)?;
        let before = files.len() + found.len();
        files.extend(found.into_iter().filter(|file| !absolute(&file.path).starts_with(&out)));
        left_out += before - files.len();
    }
    if files.is_empty() && left_out > 0 {
        return Err(Failure::new(format!("there is nothing to read: every file lies in --out {}", args.out.display()))
            .hint("write into a folder beside the texts, not around them"));
    }
    if let Some(source) = args.sources.first().filter(|_| files.is_empty()) {
        return Err(no_file(source));
    }
    if left_out > 0 {
        eprintln!("note: {left_out} files that lie in --out {} are left out", args.out.display());
    }
    Ok(files)
}

/// All pages are trained on, so that the fact list counts what a model sees; validation is a fresh stream of pages.
fn tiny_internet(args: &PrepareArgs, vocab_size: usize, common: &Common, started: Instant) -> Result<()> {
    if args.sources.len() > 1 {
        return Err(Failure::usage("tiny-internet stands alone: its fact list counts every page of the folder")
            .hint("prepare the other texts into a folder of their own"));
    }
    let world = World::new(WORLD_SEED);
    let corpus =
        Corpus::generate(&world, CorpusOptions { seed: common.seed(), documents: args.pages.unwrap_or(TINY_PAGES) });
    let pages: Vec<Document> = pages_as_documents(&corpus).collect();
    let fresh: Vec<Document> = pages_as_documents(&fresh_pages(&world)).collect();
    let tokenizer = tokenizer_for(&args.tokenizer, vocab_size, &pages)?;
    let info = prepare_documents(&pages, &fresh, &tokenizer, &args.out, args.shard_tokens, args.overwrite)?;
    let list = serde_json::to_string_pretty(&facts(&world, &corpus))?;
    let path = args.out.join("facts.json");
    fs::write(&path, list).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    done(&info, None, args, common, started)
}

/// Tells what was written.
fn done(
    info: &DatasetInfo,
    report: Option<&Report>,
    args: &PrepareArgs,
    common: &Common,
    started: Instant,
) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    if common.json {
        let mut json = serde_json::to_value(info)?;
        json["report"] = serde_json::to_value(report)?;
        json["seconds"] = seconds.into();
        json["peak_memory_bytes"] = peak_memory().into();
        return deliver(json);
    }
    let mut text = report.map(console::summary).unwrap_or_default();
    for (name, part) in [("train", info.train), ("val", info.val)] {
        text += &format!(
            "{name:9} {} documents, {} tokens, {}\n",
            grouped(part.documents),
            grouped(part.tokens),
            megabytes(part.bytes)
        );
    }
    if args.tokenizer == "own" {
        let asked = args.vocab_size()?;
        let fewer = match asked.checked_sub(info.vocab_size).filter(|n| *n > 0) {
            Some(fewer) => format!("; the text holds no more pairs: {} fewer than asked for", grouped(fewer as u64)),
            None => String::new(),
        };
        text += &format!("vocabulary of {} tokens{fewer}\n", grouped(info.vocab_size as u64));
    }
    let memory = peak_memory().map(|b| format!(", at most {} of memory", megabytes(b)));
    text += &format!("wrote {} in {seconds:.1} s{}\n", args.out.display(), memory.unwrap_or_default());
    text += &format!("train on it with: corella train --data {}", args.out.display());
    deliver(text)
}
