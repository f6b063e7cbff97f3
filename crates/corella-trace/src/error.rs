//! What can be wrong with an index.

use std::path::{Path, PathBuf};

/// An index that cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not an index, or is damaged.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What was found and what is allowed.
        what: String,
    },
    /// The index belongs to other tokens.
    #[error("{}: the index was made of other tokens than the data give now; make it again", path.display())]
    OtherTokens {
        /// The file.
        path: PathBuf,
    },
    /// More tokens than positions of 31 bits can name.
    #[error("{0} tokens: an index holds at most 2147483647; index the shards one by one")]
    TooMany(usize),
    /// The suffix array could not be made.
    #[error("sorting the suffixes failed: {0}")]
    Sort(String),
}

impl TraceError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TraceError {
        let path = path.to_path_buf();
        |source| TraceError::Io { path, source }
    }
}
