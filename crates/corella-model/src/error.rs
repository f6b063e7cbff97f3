//! What can be wrong with a model, its configuration or its file.

use std::path::{Path, PathBuf};

use corella_ops::OpsError;

use crate::formats::FormatError;

/// What can be wrong with a model, its configuration or its file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A value of the configuration breaks a rule.
    #[error("bad configuration: {field} = {value}: {rule}")]
    BadConfig {
        /// Name of the value.
        field: &'static str,
        /// What was found.
        value: String,
        /// What is allowed.
        rule: String,
    },
    /// A weight does not fit into the format that is to be written.
    #[error("{tensor} holds {value}, which {format} cannot hold")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The weight.
        value: f32,
        /// Name of the format.
        format: &'static str,
    },
    /// A file is not what it claims to be.
    #[error("{}: {what}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Field, what was found, what is allowed.
        what: String,
    },
    /// A model file that cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The backend failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl ModelError {
    /// Wraps an I/O error with the path it happened at.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError {
        let path = path.to_path_buf();
        move |source| ModelError::Io { path, source }
    }

    /// A file that is not what it claims to be.
    pub fn bad(path: &Path, what: impl Into<String>) -> ModelError {
        ModelError::BadFile { path: path.to_path_buf(), what: what.into() }
    }
}
