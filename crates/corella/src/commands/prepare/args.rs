//! What the user can type behind `corella prepare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use corella_text::data::filters::{FilterOptions, known_language};
use corella_text::data::readers::{ReadOptions, SourceFile};
use corella_text::data::{CleanOptions, LEAST_SIMILARITY, PrepareOptions};

use crate::commands::reader_flags::ReaderFlags;
use crate::error::{Failure, Result};
use crate::units::bytes;

/// Share of the documents kept for validation, where none is given.
const VAL_FRACTION: f64 = 0.05;
/// Tokens of an own vocabulary, where no number is given.
const VOCAB_SIZE: usize = 2048;
/// The language of the words that Gopher's rules count.
const ENGLISH: &str = "eng";
/// From which similarity texts count as nearly the same, where none is given.
const SIMILARITY: f64 = 0.7;

/// Flags of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// Files, folders or patterns of text, JSON lines, Parquet, WARC or WET, also in gzip, zstd, zip or tar; files of tokens
    /// (llm.c, nanoGPT); `hf://datasets/OWNER/NAME[/PATTERN]`; or `tiny-internet`
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// `gpt2`, `own` (trained on the text), or a tokenizer.json
    #[arg(long, default_value = "own")]
    pub tokenizer: String,
    /// Size of an own vocabulary [default: 2048]
    #[arg(long)]
    pub vocab_size: Option<usize>,
    /// Share of the documents kept for validation [default: 0.05]
    #[arg(long)]
    pub val_fraction: Option<f64>,
    /// Pages of the tiny internet, beside its 1,533 planted ones and 1,000 for validation [default: 38900]
    #[arg(long)]
    pub pages: Option<usize>,
    /// Folder to write
    #[arg(long)]
    pub out: PathBuf,
    /// Replace a data set or a tokenizer that stands in --out
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub reader: ReaderFlags,
    /// Longest document; a longer text is cut at line ends
    #[arg(long, default_value = "16MiB", value_parser = bytes)]
    pub max_document: usize,
    /// Compose characters (Unicode NFC)
    #[arg(long)]
    pub nfc: bool,
    /// Rules for documents and lines (several, with commas)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub filter: Vec<FilterSet>,
    /// Keep these languages only (ISO 639-3: eng,deu,…)
    #[arg(long, value_delimiter = ',')]
    pub language: Vec<String>,
    /// Drop documents with fewer bytes
    #[arg(long, default_value_t = 0)]
    pub min_bytes: usize,
    /// Drop documents with more bytes
    #[arg(long)]
    pub max_bytes: Option<usize>,
    /// Which texts that stand there again are dropped [default: exact]
    #[arg(long, value_enum)]
    pub duplicates: Option<Duplicates>,
    /// Similarity (Jaccard, of five-word sequences) from which texts count as nearly the same [default: 0.7]
    #[arg(long)]
    pub similarity: Option<f64>,
    /// Most tokens of a shard
    #[arg(long, default_value_t = 100_000_000, value_parser = shard_tokens)]
    pub shard_tokens: usize,
    /// Most memory that the process may hold, the program included
    #[arg(long, default_value = "1GiB", value_parser = bytes)]
    pub memory: usize,
    /// End at the first problem of the input instead of reporting it
    #[arg(long)]
    pub strict: bool,
}

/// Rules that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FilterSet {
    /// Gopher's quality rules: words, symbols, bullets, stop words
    Gopher,
    /// Gopher's rules against repetition
    Repetition,
    /// C4's rules: lines that are sentences, pages that have three
    C4,
    /// FineWeb's rules: lists, short lines, repeated lines
    Fineweb,
    /// Cut lines of navigation, consent, copyright
    Boilerplate,
    /// All of these
    Web,
}

/// Which duplicates are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Duplicates {
    /// None
    Keep,
    /// The same text but for case and white space
    Exact,
    /// These, and nearly the same text (MinHash)
    Near,
}

impl PrepareArgs {
    /// A flag about texts from outside that is given.
    fn of_texts(&self) -> Option<&'static str> {
        let given = [
            ("--filter", !self.filter.is_empty()),
            ("--language", !self.language.is_empty()),
            ("--duplicates", self.duplicates.is_some()),
            ("--similarity", self.similarity.is_some()),
            ("--val-fraction", self.val_fraction.is_some()),
            ("--min-bytes", self.min_bytes > 0),
            ("--max-bytes", self.max_bytes.is_some()),
            ("--nfc", self.nfc),
            ("--field", self.reader.field.is_some()),
        ];
        given.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
    }

    /// Refuses what the tiny internet, which is generated, has no use for, or what only that has.
    pub fn check_pages(&self, tiny_internet: bool) -> Result<()> {
        match (self.of_texts(), self.pages) {
            (Some(flag), _) if tiny_internet => {
                Err(Failure::usage(format!("{flag} is for texts, and the tiny internet is generated"))
                    .hint("leave it out; --pages says how much is generated"))
            }
            (_, Some(_)) if !tiny_internet => Err(Failure::usage("--pages is for the tiny internet")
                .hint("leave it out, or prepare `tiny-internet` alone")),
            _ => Ok(()),
        }
    }

    /// Whether a rule judges that only English texts can meet.
    fn of_english(&self) -> bool {
        self.filter.contains(&FilterSet::Gopher) || self.filter.contains(&FilterSet::Web)
    }

    /// The languages that are asked for and that the rules will drop all the same.
    pub fn dropped_languages(&self) -> Vec<&str> {
        let others = self.language.iter().map(String::as_str).filter(|code| *code != ENGLISH);
        others.filter(|_| self.of_english()).collect()
    }

    /// The size of an own vocabulary; refused where the vocabulary is given and has its size.
    pub fn vocab_size(&self) -> Result<usize> {
        match self.vocab_size {
            Some(size) if self.tokenizer != "own" => Err(Failure::usage(format!(
                "--vocab-size {size} is for a vocabulary that is trained on the text, and --tokenizer {} is given",
                self.tokenizer
            ))
            .hint("leave one of the two out")),
            size => Ok(size.unwrap_or(VOCAB_SIZE)),
        }
    }

    /// Refuses flags about texts, of which files of tokens have none.
    pub fn check_tokens(&self) -> Result<()> {
        match self.of_texts() {
            None => Ok(()),
            Some(flag) => Err(Failure::usage(format!("{flag} is for texts, and these are files of tokens")).hint(
                "leave it out: tokens are taken as they are, and files with `val` or `test` in their names are for validation",
            )),
        }
    }

    /// Refuses --field where every source is a text by its name: such files are never read as anything else, unless they are
    /// packed or are archives. Of other sources only reading tells.
    pub fn check_fields(&self, files: &[SourceFile]) -> Result<()> {
        let is_text = |file: &SourceFile| {
            let ending = file.path.extension().unwrap_or_default().to_ascii_lowercase();
            ["txt", "md", "text"].iter().any(|text| ending == *text)
        };
        if self.reader.field.is_some() && files.iter().all(is_text) {
            return Err(Failure::usage("--field is for JSON lines and Parquet, and all of these are texts")
                .hint("leave it out; --separator says what stands between the documents of a text"));
        }
        Ok(())
    }

    /// The options for the library.
    pub fn options(&self, threads: usize) -> Result<PrepareOptions> {
        let val_fraction = self.val_fraction.unwrap_or(VAL_FRACTION);
        if !(0.0..1.0).contains(&val_fraction) {
            return Err(Failure::usage(format!("--val-fraction {val_fraction} is not in 0 .. 1"))
                .hint("the part of the texts that is kept for validation, for example 0.01"));
        }
        let duplicates = self.duplicates.unwrap_or(Duplicates::Exact);
        if self.similarity.is_some() && duplicates != Duplicates::Near {
            return Err(Failure::usage("--similarity is for texts that are nearly the same")
                .hint("add --duplicates near, or leave --similarity out"));
        }
        let similarity = self.similarity.unwrap_or(SIMILARITY);
        if !(LEAST_SIMILARITY..=1.0).contains(&similarity) {
            return Err(Failure::usage(format!("--similarity {similarity} is not in {LEAST_SIMILARITY} .. 1"))
                .hint("1 is equal; 0.7 to 0.8 are usual; what is less alike cannot be found reliably"));
        }
        if let Some(most) = self.max_bytes.filter(|most| *most < self.min_bytes) {
            return Err(Failure::usage(format!(
                "no document has at least {} bytes (--min-bytes) and at most {most} (--max-bytes)",
                self.min_bytes
            ))
            .hint("make --max-bytes the larger of the two, or leave one out"));
        }
        if self.max_document < 1024 {
            return Err(Failure::usage(format!("--max-document {} is below 1 KiB", self.max_document))
                .hint("for example --max-document 64MiB"));
        }
        for code in &self.language {
            known_language(code).map_err(|e| Failure::usage(e.to_string()))?;
        }
        if self.of_english() && !self.language.is_empty() && !self.language.iter().any(|code| code == ENGLISH) {
            return Err(Failure::usage(format!(
                "the rules of Gopher count common English words, so of texts in {} nothing would be left",
                self.language.join(", ")
            ))
            .hint("leave gopher and web out: --filter repetition,c4,fineweb,boilerplate"));
        }
        let has = |set| self.filter.contains(&set) || self.filter.contains(&FilterSet::Web);
        Ok(PrepareOptions {
            read: ReadOptions {
                max_document: self.max_document,
                // The window of a decompressor may take an eighth of the memory; zstd's own limits are 10 and 31.
                zstd_window_log: (self.memory / 8).max(1).ilog2().clamp(10, 31),
                ..self.reader.options()
            },
            clean: CleanOptions { nfc: self.nfc },
            filters: FilterOptions {
                min_bytes: self.min_bytes,
                max_bytes: self.max_bytes,
                languages: self.language.clone(),
                gopher: has(FilterSet::Gopher),
                repetition: has(FilterSet::Repetition),
                c4: has(FilterSet::C4),
                fineweb: has(FilterSet::Fineweb),
                boilerplate: has(FilterSet::Boilerplate),
            },
            exact_duplicates: duplicates != Duplicates::Keep,
            near_duplicates: (duplicates == Duplicates::Near).then_some(similarity),
            val_fraction,
            shard_tokens: self.shard_tokens,
            strict: self.strict,
            overwrite: self.overwrite,
            threads,
            memory: self.memory,
        })
    }
}

fn shard_tokens(text: &str) -> std::result::Result<usize, String> {
    let n: usize = text.replace('_', "").parse().map_err(|e| format!("{e}"))?;
    if (1..=i32::MAX as usize).contains(&n) { Ok(n) } else { Err("not in 1 .. 2,147,483,647".to_owned()) }
}
