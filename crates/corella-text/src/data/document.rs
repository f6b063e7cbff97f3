//! What readers hand on: documents, and what was wrong where.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from.
    pub origin: Origin,
    /// Its text.
    pub text: String,
}

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// File, with `!` before the name of a member of an archive.
    pub source: Arc<str>,
    /// Number in the source, from 0: of the text between separators, the line, the row, or the WARC record.
    pub record: u64,
    /// Byte in the source, after decompression; for Parquet, the row group.
    pub offset: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, record {}, offset {}", self.source, self.record, self.offset)
    }
}

/// Kinds of trouble with input. None of them ends the reading of other sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The file system or the medium refused.
    Unreadable,
    /// The source ends in the middle, or its compression is damaged: what comes after is lost.
    Damaged,
    /// Bytes that are not UTF-8; they became the replacement character.
    BadUtf8,
    /// A record that is not what its format says; it was left out.
    BadRecord,
    /// A record without the text field or column.
    NoText,
    /// A record above the limit; it was left out.
    TooLarge,
    /// Data that expand beyond all proportion: the rest of the source was left out.
    Bomb,
    /// Neither text nor a known format.
    NotText,
    /// A known format that is not read.
    Unsupported,
    /// A text above the limit; it was cut into several documents at line ends.
    Cut,
    /// A known format that was taken as plain text.
    Raw,
}

impl ProblemKind {
    /// Whether nothing was lost or changed, so that even a strict reader goes on.
    pub fn harmless(self) -> bool {
        matches!(self, ProblemKind::Cut | ProblemKind::Raw)
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProblemKind::Unreadable => "unreadable",
            ProblemKind::Damaged => "damaged",
            ProblemKind::BadUtf8 => "bad UTF-8",
            ProblemKind::BadRecord => "bad record",
            ProblemKind::NoText => "no text",
            ProblemKind::TooLarge => "too large",
            ProblemKind::Bomb => "expands beyond proportion",
            ProblemKind::NotText => "not text",
            ProblemKind::Unsupported => "not supported",
            ProblemKind::Cut => "cut",
            ProblemKind::Raw => "taken as plain text",
        })
    }
}

/// Something wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Where.
    pub origin: Origin,
    /// What was found, and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.kind, self.what, self.origin)
    }
}

/// Whether the reader is to go on.
pub type Flow = ControlFlow<()>;

/// Takes what readers find, in the order of the input.
pub trait Sink {
    /// A document, which may be empty.
    fn document(&mut self, document: Document) -> Flow;
    /// Something wrong.
    fn problem(&mut self, problem: Problem) -> Flow;
}
