//! What can be wrong with a tokenizer or its file.

use std::path::{Path, PathBuf};

/// A tokenizer that could not be read, trained or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's content is not a tokenizer that can be used.
    #[error("{}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A vocabulary of this size cannot be trained.
    #[error(
        "a vocabulary of {asked} tokens: at least 257 are needed (256 bytes and the end of text), at most 1,000,000"
    )]
    VocabSize {
        /// What was asked for.
        asked: usize,
    },
    /// The tokenizer has more tokens than the model has rows.
    #[error("the tokenizer has {tokenizer} tokens but the model only {model}")]
    Mismatch {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
}

impl TokenizerError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TokenizerError {
        let path = path.to_path_buf();
        move |source| TokenizerError::Io { path, source }
    }

    pub(super) fn format(path: &Path) -> impl FnOnce(FormatError) -> TokenizerError {
        let path = path.to_path_buf();
        move |source| TokenizerError::Format { path, source }
    }
}

/// What is wrong with the content of a tokenizer file, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// None of the kinds of file that are read.
    #[error(
        "not a tokenizer: a Hugging Face tokenizer.json, tiktoken ranks, vocab.bpe beside encoder.json, a SentencePiece .model or .vocab, or a llama2.c .bin is read"
    )]
    UnknownKind,
    /// The text is not what its syntax asks for.
    #[error("{0}")]
    Syntax(String),
    /// A part that is understood but not computed here.
    #[error("{part} is {found}; {allowed}")]
    Unsupported {
        /// The field.
        part: &'static str,
        /// Its value.
        found: String,
        /// What can be computed.
        allowed: &'static str,
    },
    /// The file ends inside a field.
    #[error("the file ends at byte {offset} inside {field}")]
    Truncated {
        /// Where the field begins.
        offset: usize,
        /// The field.
        field: &'static str,
    },
    /// Ids must be 0 .. the number of tokens.
    #[error("token {token:?} has id {id}, outside the vocabulary of {size}")]
    IdOutOfRange {
        /// The token's text.
        token: String,
        /// Its id.
        id: u64,
        /// Number of tokens.
        size: usize,
    },
    /// An id that no token has.
    #[error("no token has id {id}, of a vocabulary of {size}")]
    MissingId {
        /// The id.
        id: usize,
        /// Number of tokens.
        size: usize,
    },
    /// Two ids for one token, or two tokens for one id.
    #[error("token {token:?} (id {second}) is there already (id {first})")]
    DuplicateToken {
        /// The token's text.
        token: String,
        /// Id of the first.
        first: u32,
        /// Id of the second.
        second: u32,
    },
    /// A merge of, or into, a piece that is no token.
    #[error("merge {merge:?}: {piece:?} is not a token")]
    UnknownMerge {
        /// The merge as it is written.
        merge: String,
        /// The piece.
        piece: String,
    },
    /// Byte-level text needs a token for every byte.
    #[error("byte {byte} has no token")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A special token that the format needs is not there.
    #[error("there is no {name} token")]
    MissingSpecial {
        /// Which.
        name: String,
    },
    /// Tokens of this length do not occur in any vocabulary in use.
    #[error("token {id} is {bytes} bytes long, at most {limit} are allowed")]
    TokenTooLong {
        /// Its id.
        id: usize,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// More tokens than any vocabulary in use.
    #[error("{found} tokens, at most {limit} are allowed")]
    TooManyTokens {
        /// What the file says.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Lists that must have one entry for every token.
    #[error("{field} has {found} entries for {size} tokens")]
    LengthMismatch {
        /// The list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// Number of tokens.
        size: usize,
    },
}
