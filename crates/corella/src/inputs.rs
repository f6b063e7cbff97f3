//! What the user names, turned into what the libraries need: a data set, a tokenizer, a model with its tokenizer.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corella_model::AnyModel;
use corella_ops::cpu::{Cpu, CpuOptions};
pub use corella_text::data::is_prepared;
use corella_text::data::readers::{ReadOptions, SourceFile, expand, is_pattern};
use corella_text::data::{
    DataError, Dataset, Document, Origin, ProblemKind, TextCorpus, Unified, is_llm_c_shard, is_token_file,
    is_unfinished, tokens_of, unify,
};
use corella_text::tiny_internet::{Corpus, CorpusOptions, World, validation};
use corella_text::tokenizer::{Tokenizer, TrainOptions};
use corella_train::{checkpoint, folder};

use crate::cli::{Common, DeviceFlag};
use crate::error::{Failure, Result, of_path};
use crate::fetch::{fetch, fetch_model};
use crate::shape::ModelShape;
use crate::source_problems::SourceProblems;
use crate::terminal::in_shell;
use crate::tokenizers;

/// The name that stands for the embedded corpus.
pub const TINY_INTERNET: &str = "tiny-internet";
/// Seed of the one invented world that everybody shares.
pub const WORLD_SEED: u64 = 1;
/// Pages of the tiny internet when nothing else is said: about 3.9 million tokens of an own vocabulary of 2,048.
pub const TINY_PAGES: usize = 38_900;
/// Share of the documents kept for validation when text is tokenised on the spot.
const VAL_FRACTION: f64 = 0.05;
/// Most text, in bytes, that an own vocabulary is trained on: more hardly changes it.
pub const VOCABULARY_BYTES: usize = 20_000_000;

/// Refuses a card for a command that has nothing to compute there.
pub fn no_card(common: &Common) -> Result<()> {
    match common.device {
        DeviceFlag::Cuda(number) => Err(Failure::new(format!(
            "cuda:{number} cannot be used here: this command does not compute on a card"
        ))
        .hint("leave --device out, or give --device cpu; train, generate, serve, eval and bench take --device cuda")),
        _ => Ok(()),
    }
}

/// The backend for the flags that every command has.
pub fn backend(common: &Common) -> Result<Cpu> {
    no_card(common)?;
    processor(common)
}

/// The CPU backend, whatever device was asked for.
pub fn processor(common: &Common) -> Result<Cpu> {
    let (threads, rounding) = (common.threads.map(usize::from), common.activations.into());
    let cpu = Cpu::new(CpuOptions { threads, path: None, rounding })?;
    if cpu.rounding() != rounding {
        eprintln!("note: this processor has no instructions for BF16: activations stay exact");
    }
    Ok(cpu)
}

/// `own` (trained on `documents`), or what [`tokenizers::load`] reads.
pub fn tokenizer_for(name: &str, vocab_size: usize, documents: &[Document]) -> Result<Tokenizer> {
    match name {
        "own" => {
            let mut bytes = 0;
            let sample = documents.iter().map(|d| d.text.as_str()).take_while(|text| {
                let room = bytes < VOCABULARY_BYTES;
                bytes += text.len();
                room
            });
            Ok(Tokenizer::train(sample, vocab_size, TrainOptions::default())?)
        }
        name => tokenizers::load(name),
    }
}

/// What a person calls a file.
fn input_name(path: &Path) -> std::borrow::Cow<'_, str> {
    if path.as_os_str() == "-" { "standard input".into() } else { path.to_string_lossy() }
}

/// A file's text; `-` is standard input.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    let name = input_name(path);
    read.map_err(|e| of_path(path, e))?;
    if bytes.starts_with(b"%PDF-") {
        return Err(Failure::new(format!("{name}: PDF is not read"))
            .hint(format!("extract its text first: pdftotext {}", in_shell(&name))));
    }
    String::from_utf8(bytes).map_err(|e| {
        Failure::new(format!("{name}: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
            .hint("convert it first, for example with iconv -t UTF-8")
    })
}

/// A file's text as training reads texts: without a byte order mark, its lines ending in `\n`; whether it was so is said. `-` is
/// standard input.
pub fn read_as_trained(path: &Path) -> Result<String> {
    let text = read_text(path)?;
    Ok(unified(&text, &input_name(path)))
}

/// A text without a byte order mark, its lines ending in `\n`; whether it was so is said.
pub fn unified(text: &str, name: &str) -> String {
    let (unified, changed) = unify(text);
    if changed == Unified::default() {
        return unified.into_owned();
    }
    let mark = if changed.mark { "a byte order mark is left out" } else { "" };
    let ends = match changed.line_ends {
        0 => String::new(),
        1 => "one carriage return is read as the end of a line".to_owned(),
        n => format!("{n} carriage returns are read as ends of lines"),
    };
    let both = if mark.is_empty() || ends.is_empty() { "" } else { ", " };
    eprintln!("note: {name}: {mark}{both}{ends}, as in the texts of training");
    unified.into_owned()
}

/// How a field of another name is read by commands that have no flag for it.
pub const OTHER_FIELD: &str =
    "`corella prepare SOURCE --field NAME --out DIR` reads a field or column of any name; name DIR then";

/// The files that a source stands for: a file, a folder, a pattern, or a data set on the hub, which is fetched.
pub fn source_files(source: &Path, quiet: bool) -> Result<Vec<SourceFile>> {
    let name = source.to_string_lossy();
    if name.starts_with(corella_hub::PREFIX) {
        return fetch(&name, quiet);
    }
    if name == "-" {
        return Err(
            Failure::new("- (standard input) is no source of documents").hint("write the text into a file first")
        );
    }
    if is_missing(source) {
        return Err(missing(source, ""));
    }
    let mut files = expand(source)?;
    // A pipe would be waited for, and a device may never end: only where it is named it is meant.
    if files.len() != 1 || files[0].path != source {
        files.retain(|file| {
            let is_other = std::fs::metadata(&file.path).is_ok_and(|meta| !meta.is_file());
            if is_other {
                eprintln!("warning: {} is no file and is passed over", file.name);
            }
            !is_other
        });
    }
    Ok(files)
}

/// A source that is not there; `also` is what else could have been named.
fn missing(source: &Path, also: &str) -> Failure {
    Failure::new(format!("{} does not exist", source.display())).hint(format!(
        "give a file or a folder of text, JSON lines, Parquet or WARC (also packed), {also}hf://datasets/OWNER/NAME, or `tiny-internet`",
    ))
}

/// Whether a source is neither here nor elsewhere: no pattern, nothing of the hub, not the built-in one.
pub fn is_missing(source: &Path) -> bool {
    let name = source.to_string_lossy();
    let elsewhere = name.starts_with(corella_hub::PREFIX) || name == TINY_INTERNET || is_pattern(&name);
    !elsewhere && !source.exists()
}

/// Documents of a source, in any format that `corella prepare` reads. What lies in `out`, a folder below the source that the
/// program writes into, is no part of it.
pub fn documents(source: &Path, out: Option<&Path>) -> Result<Vec<Document>> {
    let files = text_files(source, out)?;
    let corpus = TextCorpus::read(&files, &ReadOptions::default()).map_err(|error| {
        let of_field = matches!(&error, DataError::HoldsNoText { problem: Some(problem), .. }
            if problem.kind == ProblemKind::NoText);
        if of_field { Failure::from(error).hint(OTHER_FIELD) } else { error.into() }
    })?;
    let mut problems = SourceProblems::default();
    corpus.problems.iter().for_each(|problem| problems.tell(problem));
    problems.end(corpus.documents.len(), OTHER_FIELD);
    Ok(corpus.documents)
}

/// The files that hold a source's texts, but for those in `out`.
pub fn text_files(source: &Path, out: Option<&Path>) -> Result<Vec<SourceFile>> {
    let mut files = source_files(source, false)?;
    if let Some(out) = out.and_then(|out| std::fs::canonicalize(out).ok())
        && std::fs::canonicalize(source).is_ok_and(|source| out.starts_with(source))
    {
        files.retain(|file| !std::fs::canonicalize(&file.path).is_ok_and(|file| file.starts_with(&out)));
    }
    if files.is_empty() {
        return Err(no_file(source));
    }
    Ok(files)
}

/// A folder without a file that is read.
pub fn no_file(source: &Path) -> Failure {
    Failure::new(format!("{} holds no file to read", source.display())).hint(
        "hidden files, prepared data and the folders of runs are passed over; name a folder that holds text, or a file",
    )
}

/// The data set that a user names: `tiny-internet`, a prepared folder, or text that is tokenised on the spot. `run` is the folder of
/// the run: below a folder of texts it is none of them.
pub fn dataset(source: &Path, tokenizer: &str, vocab_size: usize, seed: u64, run: &Path) -> Result<Dataset> {
    if source == Path::new(TINY_INTERNET) {
        let world = World::new(WORLD_SEED);
        let corpus = tiny_pages(&world, seed);
        return tiny_dataset(&world, &corpus, tokenizer, vocab_size);
    }
    if is_missing(source) {
        return Err(missing(source, "a folder written by `corella prepare`, "));
    }
    check_finished(source)?;
    if is_prepared(source) {
        return Ok(Dataset::open(source)?);
    }
    if holds_tokens(source) {
        if tokenizer == "own" {
            return Err(Failure::new(format!("{} holds tokens, but not which tokenizer made them", source.display()))
                .hint("name it with --tokenizer, for example --tokenizer gpt2"));
        }
        return Ok(Dataset::open_token_files(source, tokenizers::load(tokenizer)?)?);
    }
    let documents = documents(source, Some(run))?;
    let tokenizer = tokenizer_for(tokenizer, vocab_size, &documents)?;
    let (train, _, val, _) = tokens_of(&documents, &tokenizer, VAL_FRACTION);
    Ok(Dataset::from_parts(tokenizer, train, val))
}

/// Refuses a folder that `corella prepare` has begun and not finished: what lies in it is a part of the data, or other files.
pub fn check_finished(source: &Path) -> Result<()> {
    if !is_unfinished(source) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} is unfinished: `corella prepare` was interrupted or still works on it",
        source.display()
    ))
    .hint("run the same `corella prepare` again; it goes on where it stopped"))
}

/// Whether this is a file of tokens (llm.c's or nanoGPT's), or a folder of such files that was not prepared here.
///
/// llm.c's begin with a number of their own. nanoGPT's have nothing but their ending, as many other files have: a folder is one of
/// tokens where they have nanoGPT's name, or where nothing else lies in it.
fn holds_tokens(source: &Path) -> bool {
    if source.is_file() {
        return is_token_file(source);
    }
    let entries = std::fs::read_dir(source).into_iter().flatten().flatten().map(|entry| entry.path());
    let shown: Vec<PathBuf> = entries
        .filter(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")))
        .collect();
    let is_bin = |path: &&PathBuf| path.is_file() && path.extension().is_some_and(|e| e == "bin");
    let bins: Vec<&PathBuf> = shown.iter().filter(is_bin).collect();
    let named = |path: &&&PathBuf| path.file_name().is_some_and(|name| name == "train.bin");
    bins.iter().any(|path| is_llm_c_shard(path))
        || bins.iter().any(|path| named(&path))
        || (!bins.is_empty() && bins.len() == shown.len())
}

/// The pages of the tiny internet to train on, where no other number of them is asked for.
pub fn tiny_pages(world: &World, seed: u64) -> Corpus {
    Corpus::generate(world, CorpusOptions { seed, documents: TINY_PAGES })
}

/// The tiny internet with its own vocabulary; validation is a fresh stream of the same world, without planted pages.
pub fn tiny_dataset(world: &World, corpus: &Corpus, tokenizer: &str, vocab_size: usize) -> Result<Dataset> {
    let documents: Vec<Document> = pages_as_documents(corpus).collect();
    let tokenizer = tokenizer_for(tokenizer, vocab_size, &documents)?;
    let (train, ..) = tokens_of(&documents, &tokenizer, 0.0);
    let fresh: Vec<Document> = pages_as_documents(&fresh_pages(world)).collect();
    let (val, ..) = tokens_of(&fresh, &tokenizer, 0.0);
    Ok(Dataset::from_parts(tokenizer, train, val))
}

/// The pages to validate on.
pub fn fresh_pages(world: &World) -> Corpus {
    validation(world, 999, 1000)
}

/// The pages of the tiny internet as documents, in their order.
pub fn pages_as_documents(corpus: &Corpus) -> impl Iterator<Item = Document> + '_ {
    let source: Arc<str> = TINY_INTERNET.into();
    corpus.documents.iter().zip(0..).map(move |(page, record)| {
        let origin = Origin { source: Arc::clone(&source), record, offset: 0 };
        Document { origin, text: page.text.clone() }
    })
}

/// Most tensors that are named where some are left out.
const LEFT_OUT_SHOWN: usize = 4;

/// A model of either family: of a run folder its newest checkpoint, a Hugging Face folder, or a model file; and where it
/// was found.
pub fn open_any(path: &Path) -> Result<(AnyModel, PathBuf)> {
    let folder = match path.to_str().filter(|name| name.starts_with(corella_hub::PREFIX)) {
        Some(name) => fetch_model(name)?,
        None => model_folder(path)?,
    };
    let model = AnyModel::open(&folder)?;
    if model.is_instruct() {
        eprintln!(
            "warning: this model was tuned to follow instructions; text is continued as it is, without a chat template"
        );
    }
    let left_out = model.left_out();
    if !left_out.is_empty() {
        let names: Vec<String> = left_out.iter().take(LEFT_OUT_SHOWN).map(|n| n.escape_debug().to_string()).collect();
        let more = if left_out.len() > LEFT_OUT_SHOWN { ", …" } else { "" };
        eprintln!(
            "warning: tensors that this model does not have are left out ({}): {}{more}",
            left_out.len(),
            names.join(", ")
        );
    }
    Ok((model, folder))
}

/// A folder that is taken for a model, and what it is instead.
fn no_model(dir: &Path) -> Failure {
    if let Err(error) = std::fs::read_dir(dir) {
        return of_path(dir, error);
    }
    let failure =
        Failure::new(format!("{} is a folder, but no model: it has no config.json and no checkpoints", dir.display()));
    if is_prepared(dir) {
        return failure.hint(format!("it holds tokens to train on: corella train --data {}", dir.display()));
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_model = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        path.join("config.json").is_file()
            || folder::checkpoints(path).is_dir()
            || matches!(ending, Some("gguf" | "bin"))
    };
    let mut inside: Vec<String> = entries.filter(is_model).map(|path| path.display().to_string()).collect();
    inside.sort();
    inside.truncate(5);
    match inside.is_empty() {
        true => failure.hint("MODEL is a run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin"),
        false => failure.hint(format!("name what is in it: {}", inside.join(", "))),
    }
}

/// The name of a published shape, taken for a model.
fn no_weights(name: &str) -> Failure {
    let failure = Failure::new(format!("{name} is a shape without weights, and nothing here has this name"));
    match ModelShape::published(name) {
        Some(weights) => failure.hint(format!(
            "{}{weights} has the published weights; `corella inspect {name}` shows the shape",
            corella_hub::PREFIX
        )),
        None => failure.hint(format!("`corella inspect {name}` shows the shape")),
    }
}

/// The folder or file that holds the weights: of a run folder, its newest checkpoint.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        if let Some(name) = path.to_str().filter(|name| ModelShape::preset(name).is_some()) {
            return Err(no_weights(name));
        }
        return Err(Failure::new(format!("{} does not exist", path.display())).hint(
            "MODEL is a run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin, or hf://owner/name",
        ));
    }
    // A pipe would be waited for, for ever where nobody writes; and a model is read in more than one place.
    if !path.is_dir() && !path.is_file() {
        return Err(Failure::new(format!("{} is neither a file nor a folder", path.display()))
            .hint("a model is read in many places, so no pipe or device can hold it: write it into a file first"));
    }
    let checkpoints = folder::checkpoints(path);
    if !checkpoints.is_dir() {
        if path.is_dir() && !path.join("config.json").exists() {
            return Err(no_model(path));
        }
        return Ok(path.to_path_buf());
    }
    let newest = checkpoint::latest(&checkpoints)?;
    newest.map(|found| found.path).ok_or_else(|| {
        Failure::new(format!("{} has no finished checkpoint yet", path.display()))
            .hint("train with --checkpoint-every N, or wait for the end of the run")
    })
}

/// The vocabulary that a run began with: that of its folder, or of its newest checkpoint where the folder's is damaged.
pub fn kept_tokenizer(run: &Path) -> Result<Option<(PathBuf, Tokenizer)>> {
    let kept = run.join("tokenizer.json");
    if kept.is_file() {
        match Tokenizer::load(&kept) {
            Ok(tokenizer) => return Ok(Some((kept, tokenizer))),
            Err(error) => eprintln!("warning: {error}; the tokenizer of the last checkpoint is taken"),
        }
    }
    let newest = checkpoint::latest(&folder::checkpoints(run))?;
    let path = newest.map(|found| found.path.join("tokenizer.json")).filter(|path| path.is_file());
    Ok(path.map(|path| Tokenizer::load(&path).map(|tokenizer| (path, tokenizer))).transpose()?)
}
