//! Sources of text to a folder of token shards.
//!
//! Two passes over the sources, both in bounded memory and by all threads. The first ([`survey`]) reads, cleans, judges and
//! hashes every document and leaves a small record of each on disk; duplicates are found among the records
//! ([`super::duplicates`]). The second ([`shards`]) reads again and tokenises what is kept. What is decided, and in which
//! order it is written, depends on the sources and options alone: not on threads, memory or interruptions.

mod choice;
mod in_memory;
mod parallel;
mod report;
mod shards;
mod state;
mod stream;
mod survey;
mod token_files;
mod writer;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use in_memory::{prepare_documents, tokens_of};
pub use report::{Dropped, Example, Problems, Report, Tally};
pub(crate) use token_files::is_to_validate_on;
pub use token_files::{is_llm_c_shard, is_token_file, prepare_tokens};

use super::clean::{CleanOptions, clean};
use super::document::{Document, Flow, Problem};
use super::filters::FilterOptions;
use super::folder::{DATASET, is_prepared, read_info};
use super::readers::{ReadOptions, SourceFile};
use super::{DataError, duplicates};
use crate::tokenizer::{Tokenizer, TrainOptions, WordCounts};
use choice::Part;
use shards::{Fate, Verdict};
use state::{Folder, write_synced, write_tokenizer};
use stream::Item;
use survey::Survey;

/// How to prepare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareOptions {
    /// How sources are read.
    pub read: ReadOptions,
    /// How texts are cleaned.
    pub clean: CleanOptions,
    /// Which texts are dropped.
    pub filters: FilterOptions,
    /// Whether a text that stands there again is dropped.
    pub exact_duplicates: bool,
    /// The similarity (Jaccard, of five-word shingles) from which a text counts as standing there again.
    pub near_duplicates: Option<f64>,
    /// Share of the text kept for validation: documents, and where they are too few or too large, the end of one.
    pub val_fraction: f64,
    /// Most tokens of a shard.
    pub shard_tokens: usize,
    /// The first problem that loses or changes text is an error.
    pub strict: bool,
    /// A data set or a tokenizer that stands in the output folder is replaced; without it that is an error.
    #[serde(skip, default)]
    pub overwrite: bool,
    /// Threads that judge and tokenise.
    #[serde(skip, default)]
    pub threads: usize,
    /// Most bytes of memory that the process may hold, itself included.
    #[serde(skip, default)]
    pub memory: usize,
}

/// Documents between reader and writer may take this part of the ceiling; the rest is for the program, its tables, the
/// readers' buffers, and what the allocator keeps.
const IN_FLIGHT_PART: usize = 8;
/// Tables in which duplicates are sorted may take this part of it.
const TABLES_PART: usize = 4;
/// The ceiling must be this multiple of the longest document.
const DOCUMENTS: usize = 24;
/// The least ceiling, in bytes.
const LEAST_MEMORY: usize = 64 << 20;
/// What there must be beside a vocabulary, and what a token of it takes with its merges (some 400 bytes).
const BESIDE_VOCABULARY: usize = 32 << 20;
const TOKEN_BYTES: usize = 512;

impl PrepareOptions {
    /// Bytes for documents between reader and writer.
    fn in_flight(&self) -> usize {
        self.memory / IN_FLIGHT_PART
    }

    /// Checks that the ceiling leaves room for the largest document, and for a vocabulary of this size.
    fn check(&self, vocab_size: usize) -> Result<(), DataError> {
        let documents = self.read.max_document.saturating_mul(DOCUMENTS).max(LEAST_MEMORY);
        let vocabulary = vocab_size.saturating_mul(TOKEN_BYTES).saturating_add(BESIDE_VOCABULARY);
        let needed = documents.max(vocabulary);
        if self.memory < needed {
            let limit = if documents < vocabulary {
                format!("a vocabulary of {vocab_size}")
            } else {
                format!("documents of up to {} bytes", self.read.max_document)
            };
            return Err(DataError::Memory { given: self.memory, needed, limit });
        }
        Ok(())
    }
}

/// Where the vocabulary comes from.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// A tokenizer that is there.
    Given(Tokenizer),
    /// One that is trained on what is kept.
    Trained {
        /// Its size.
        size: usize,
        /// Most bytes of text to train on.
        sample_bytes: usize,
    },
}

/// Size of a part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// Documents.
    pub documents: u64,
    /// Tokens, the end-of-text tokens included.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// What `dataset.json` says of a prepared folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// The part to train on.
    pub train: PrepareReport,
    /// The part to validate on.
    pub val: PrepareReport,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Checksum of the tokenizer.
    pub tokenizer: String,
    /// Names and CRC-32 checksums of the shards.
    pub shards: Vec<(String, u32)>,
    /// Names and CRC-32 checksums of their indexes ([`super::read_index`]).
    #[serde(default)]
    pub indexes: Vec<(String, u32)>,
}

/// Is told how the work goes on.
pub trait Watch {
    /// So many documents and bytes of text have been surveyed.
    fn surveyed(&mut self, documents: u64, bytes: u64);
    /// A file of this size was surveyed to its end.
    fn file_done(&mut self, bytes: u64);
    /// Something is wrong with the input.
    fn problem(&mut self, problem: &Problem);
    /// The survey is complete; so many documents will be tokenised.
    fn begins_tokens(&mut self, report: &Report);
    /// A document was written.
    fn tokenised(&mut self, bytes: u64, tokens: u64);
    /// The work goes on behind so many documents that an earlier run did.
    fn goes_on(&mut self, documents: u64);
}

/// Sources and options.
struct Job<'a> {
    files: &'a [SourceFile],
    options: &'a PrepareOptions,
}

/// Prepares the sources into the folder `out`. If an earlier run with the same sources and options was interrupted, goes on
/// behind what it did. Writes shards, indexes, `sources.txt`, `report.json`, `tokenizer.json` and, last, `dataset.json`: a
/// folder without it is unfinished.
pub fn prepare(
    files: &[SourceFile],
    vocabulary: &Vocabulary,
    out: &Path,
    options: &PrepareOptions,
    watch: &mut dyn Watch,
) -> Result<(DatasetInfo, Report), DataError> {
    options.check(match vocabulary {
        Vocabulary::Given(tokenizer) => tokenizer.vocab_size(),
        Vocabulary::Trained { size, .. } => *size,
    })?;
    let job = Job { files, options };
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    let folder = Folder::open(out, &plan(&job, vocabulary, out)?, options.overwrite)?;
    // Of another plan it would be gone by now: this one's work was done, but for its own folder.
    if is_prepared(out) {
        let done = (read_info(out)?, read_json(&out.join("report.json"))?);
        folder.remove()?;
        return Ok(done);
    }
    let mut survey = Survey::take(&job, &folder, watch)?;
    let found = if options.exact_duplicates || options.near_duplicates.is_some() {
        let documents = survey.documents;
        duplicates::find(&mut survey, documents, options.near_duplicates, options.memory / TABLES_PART)?
    } else {
        duplicates::Found::default()
    };
    let mut report = Report::default();
    let fate = Fate::decide(&job, &survey, found, &mut report)?;
    watch.begins_tokens(&report);
    if fate.kept == 0 {
        let path = files.first().map_or(out, |f| &f.path);
        let dropped: Vec<String> = report.dropped.iter().map(|(r, d)| format!("{r} {}", d.tally.documents)).collect();
        let why = if dropped.is_empty() { String::new() } else { format!(" ({})", dropped.join(", ")) };
        return Err(DataError::NoneLeft { path: path.to_path_buf(), read: report.read.documents, why });
    }
    let tokenizer = tokenizer(&job, vocabulary, &survey, &fate, out)?;
    let (train, val) = shards::write(&job, &folder, &survey, &fate, &tokenizer, out, &mut report, watch)?;
    let path = out.join("report.json");
    let text = serde_json::to_string_pretty(&report).map_err(|e| DataError::bad(&path, e.to_string()))?;
    write_synced(&path, &text)?;
    let info = finish(out, &tokenizer, train, val)?;
    drop(survey);
    folder.remove()?;
    Ok((info, report))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let text = fs::read_to_string(path).map_err(DataError::io(path))?;
    serde_json::from_str(&text).map_err(|e| DataError::bad(path, e.to_string()))
}

/// Writes `dataset.json`.
fn finish(
    out: &Path,
    tokenizer: &Tokenizer,
    train: writer::PartState,
    val: writer::PartState,
) -> Result<DatasetInfo, DataError> {
    let info = DatasetInfo {
        train: train.size,
        val: val.size,
        vocab_size: tokenizer.vocab_size(),
        tokenizer: tokenizer.fingerprint(),
        shards: [train.shards, val.shards].concat(),
        indexes: [train.indexes, val.indexes].concat(),
    };
    let path = out.join(DATASET);
    let text = serde_json::to_string_pretty(&info).map_err(|e| DataError::bad(&path, e.to_string()))?;
    write_synced(&path, &text)?;
    Ok(info)
}

/// Everything that decides what is written: two runs with the same plan write the same bytes.
fn plan(job: &Job<'_>, vocabulary: &Vocabulary, out: &Path) -> Result<String, DataError> {
    #[derive(Serialize)]
    struct Plan<'a> {
        version: u32,
        options: &'a PrepareOptions,
        tokenizer: String,
        /// Name, size and time of change of each source.
        sources: Vec<(&'a str, u64, u128)>,
    }
    fn source(file: &SourceFile) -> (&str, u64, u128) {
        let meta = fs::metadata(&file.path).ok();
        let changed = meta.as_ref().and_then(|m| m.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok());
        (&file.name[..], meta.map_or(0, |m| m.len()), changed.map_or(0, |c| c.as_nanos()))
    }
    let plan = Plan {
        version: 3,
        options: job.options,
        tokenizer: match vocabulary {
            Vocabulary::Given(tokenizer) => tokenizer.fingerprint(),
            Vocabulary::Trained { size, sample_bytes } => format!("trained, {size} tokens, {sample_bytes} bytes"),
        },
        sources: job.files.iter().map(source).collect(),
    };
    serde_json::to_string_pretty(&plan).map_err(|e| DataError::bad(out, e.to_string()))
}

/// The tokenizer: the one given, the one that an interrupted run trained, or a new one. It is written into the folder.
fn tokenizer(
    job: &Job<'_>,
    vocabulary: &Vocabulary,
    survey: &Survey,
    fate: &Fate,
    out: &Path,
) -> Result<Tokenizer, DataError> {
    let path = out.join("tokenizer.json");
    let tokenizer = match vocabulary {
        Vocabulary::Given(tokenizer) => tokenizer.clone(),
        Vocabulary::Trained { .. } if path.is_file() => Tokenizer::load(&path)?,
        Vocabulary::Trained { size, sample_bytes } => sample(job, survey, fate, *sample_bytes)?.train(*size)?,
    };
    write_tokenizer(out, &tokenizer)?;
    Ok(tokenizer)
}

/// The words of the first documents of the part to train on.
fn sample(job: &Job<'_>, survey: &Survey, fate: &Fate, bytes: usize) -> Result<WordCounts, DataError> {
    let (mut records, mut number, mut taken) = (survey.records()?, 0, 0);
    let (mut words, mut failure) = (WordCounts::new(TrainOptions::default()), None);
    let _ = stream::read_all(job, &mut |item| {
        let Item::Document(Document { text, .. }) = item else { return Flow::Continue(()) };
        let record = match records.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Flow::Break(()),
            Err(e) => {
                failure = Some(e);
                return Flow::Break(());
            }
        };
        let verdict = fate.of(number, &record);
        number += 1;
        if matches!(verdict, Verdict::Keep(Part::Train | Part::Split(_))) {
            let cleaned = clean(&text, job.options.clean);
            let text = job.options.filters.cut(&cleaned).0;
            taken += text.len();
            words.add(&text);
        }
        if taken >= bytes { Flow::Break(()) } else { Flow::Continue(()) }
    });
    failure.map_or(Ok(words), Err)
}
