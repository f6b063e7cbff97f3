//! From files of text to batches of tokens.

mod clean;
mod corpus;
mod dataset;
mod document;
mod duplicates;
pub mod filters;
mod folder;
mod index;
mod llmc_order;
mod loader;
mod order;
mod prefetch;
mod prepare;
pub mod readers;
mod shard;
mod token_stream;

use std::path::{Path, PathBuf};

pub use clean::{CleanOptions, Unified, clean, unify};
pub use corpus::TextCorpus;
pub use dataset::Dataset;
pub use document::{Document, Flow, Origin, Problem, ProblemKind, Sink};
pub use duplicates::{Bands, LEAST_SIMILARITY, Signature, signature, text_hash};
pub use folder::{is_prepared, is_unfinished, read_info};
pub use index::{IndexEntry, read_index};
pub use loader::{Loader, LoaderOptions, LoaderState, Packing};
pub use order::Order;
pub use prepare::{
    DatasetInfo, Dropped, Example, PrepareOptions, PrepareReport, Problems, Report, Tally, Vocabulary, Watch,
    is_llm_c_shard, is_token_file, prepare, prepare_documents, prepare_tokens, tokens_of,
};
pub use shard::{read_shard, write_shard};
pub use token_stream::{Checksum, TokenStream};

use crate::tokenizer::TokenizerError;

/// What can be wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it claims to be.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Field, what was found, what is allowed.
        what: String,
    },
    /// A shard is not as it was written.
    #[error("{}: damaged: its checksum is {found:08x}, dataset.json says {noted:08x}", path.display())]
    Damaged {
        /// The shard.
        path: PathBuf,
        /// CRC-32 of the file.
        found: u32,
        /// That of the file as it was written.
        noted: u32,
    },
    /// Not enough tokens.
    #[error(
        "{tokens} tokens do not fill one sequence of {seq_len} and its target; give more text, a smaller vocabulary (--vocab-size) or a shorter sequence (--seq-len)"
    )]
    TooShort {
        /// What there is.
        tokens: u64,
        /// Length of a sequence.
        seq_len: usize,
    },
    /// A problem of the input, where none is allowed.
    #[error("{0}")]
    Problem(Problem),
    /// The ceiling of memory is too low.
    #[error("{given} bytes of memory are too few for {limit}: {needed} are needed")]
    Memory {
        /// The ceiling.
        given: usize,
        /// The least that would do.
        needed: usize,
        /// What needs it.
        limit: String,
    },
    /// The folder to write holds other things under the names to write.
    #[error("{} holds {name} already", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// One of them.
        name: String,
    },
    /// The sources hold no document.
    #[error("{}: holds no text{}", path.display(), first(.problem))]
    HoldsNoText {
        /// The first of them.
        path: PathBuf,
        /// The first thing that is wrong with them, if anything is.
        problem: Option<Box<Problem>>,
    },
    /// Nothing is left to write.
    #[error("{}: of {read} documents none is left{why}", path.display())]
    NoneLeft {
        /// The first source.
        path: PathBuf,
        /// Documents that were read.
        read: u64,
        /// Which rule dropped how many.
        why: String,
    },
    /// A folder of tokens was named where texts are read.
    #[error("{} was written by `corella prepare`: it holds tokens, and no texts to read", path.display())]
    Prepared {
        /// The folder.
        path: PathBuf,
    },
    /// A saved position belongs to other data.
    #[error("the saved position belongs to other data: {0}")]
    OtherData(String),
    /// The tokenizer could not be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

fn first(problem: &Option<Box<Problem>>) -> String {
    problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default()
}

impl DataError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataError {
        let path = path.to_path_buf();
        move |source| DataError::Io { path, source }
    }

    fn bad(path: &Path, what: impl Into<String>) -> DataError {
        DataError::Bad { path: path.to_path_buf(), what: what.into() }
    }
}
