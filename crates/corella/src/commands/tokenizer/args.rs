//! Flags of `corella tokenizer`.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Subcommand};

use crate::commands::reader_flags::ReaderFlags;
use crate::units::bytes;

/// What `tokenizer` does.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Train a byte-level BPE vocabulary on text
    Train(TokenizerTrainArgs),
    /// Turn text into ids
    Encode(EncodeArgs),
    /// Turn ids into text
    Decode(DecodeArgs),
    /// Say what a vocabulary is, and show what it makes of a text
    Inspect(InspectTokenizerArgs),
    /// Measure how fast a text becomes ids; the last line is one JSON document
    Bench(TokenizerBenchArgs),
}

/// Flags of `tokenizer train`.
#[derive(Debug, Args)]
pub struct TokenizerTrainArgs {
    /// Text: files, folders or patterns, in any format that `prepare` reads
    #[arg(required = true)]
    pub sources: Vec<PathBuf>,
    /// Tokens, the 256 bytes and the end of text included
    #[arg(long, default_value_t = 32_768)]
    pub vocab_size: usize,
    /// Let a token hold several digits, as GPT-2's do
    #[arg(long)]
    pub number_words: bool,
    #[command(flatten)]
    pub reader: ReaderFlags,
    /// Most text to count, from the beginnings of all files; more hardly changes the vocabulary
    #[arg(long, default_value = "256MiB", value_parser = bytes)]
    pub sample: usize,
    /// File to write
    #[arg(long, default_value = "tokenizer.json")]
    pub out: PathBuf,
}

/// Flags of `tokenizer encode`.
#[derive(Debug, Args)]
pub struct EncodeArgs {
    /// The text [default: standard input]
    #[arg(group = "input", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// A file with the text (`-`: standard input)
    #[arg(long, group = "input")]
    pub file: Option<PathBuf>,
    /// `gpt2`, a tokenizer file, a .gguf, or a model's folder
    #[arg(long, default_value = "gpt2")]
    pub tokenizer: String,
    /// Recognise the names of special tokens in the text
    #[arg(long)]
    pub special: bool,
    /// Put the token that begins a text in front
    #[arg(long)]
    pub bos: bool,
    /// Every line is a JSON string, a text of its own; one list of ids for each
    #[arg(long, conflicts_with = "out")]
    pub json_lines: bool,
    /// Write the ids as a llm.c token shard
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Flags of `tokenizer decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// The ids [default: standard input]
    #[arg(group = "input")]
    pub ids: Vec<String>,
    /// A file with the ids (`-`: standard input)
    #[arg(long, group = "input")]
    pub file: Option<PathBuf>,
    /// `gpt2`, a tokenizer file, a .gguf, or a model's folder
    #[arg(long, default_value = "gpt2")]
    pub tokenizer: String,
}

/// Flags of `tokenizer inspect`.
#[derive(Debug, Args)]
pub struct InspectTokenizerArgs {
    /// `gpt2`, a tokenizer file, a .gguf, or a model's folder
    #[arg(default_value = "gpt2")]
    pub tokenizer: String,
    /// A text to cut into tokens
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
}

/// Flags of `tokenizer bench`.
#[derive(Debug, Args)]
pub struct TokenizerBenchArgs {
    /// The text to encode
    #[arg(long)]
    pub text: PathBuf,
    /// `gpt2`, a tokenizer file, a .gguf, or a model's folder
    #[arg(long, default_value = "gpt2")]
    pub tokenizer: String,
    /// Repetitions; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000).map(usize::from))]
    pub repeat: usize,
}
