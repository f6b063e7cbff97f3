//! What was read, kept and dropped, and why, with examples: `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::document::{Origin, Problem, ProblemKind};
use super::super::filters::Rule;

/// Examples that are kept of each rule and of each kind of problem.
pub(super) const EXAMPLES: usize = 3;
/// Characters of an example's text.
const EXCERPT: usize = 200;

/// Documents and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, bytes: u64) {
        self.documents += 1;
        self.bytes += bytes;
    }
}

/// A place and what was found there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// File, and member of an archive.
    pub source: String,
    /// Record in the source.
    pub record: u64,
    /// Byte in the source.
    pub offset: u64,
    /// What was found.
    pub found: String,
    /// The beginning of the text.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub text: String,
}

impl Example {
    pub(super) fn new(origin: &Origin, found: impl Into<String>, text: &str) -> Example {
        Example {
            source: origin.source.to_string(),
            record: origin.record,
            offset: origin.offset,
            found: found.into(),
            text: text.chars().take(EXCERPT).collect(),
        }
    }
}

/// What a rule dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// Some of it.
    pub examples: Vec<Example>,
}

/// Problems of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    /// How many.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// What was read, kept and dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the readers found.
    pub read: Tally,
    /// What was written, after cleaning and cutting.
    pub kept: Tally,
    /// Lines cut out of kept documents.
    pub lines_cut: u64,
    /// What was dropped, by rule.
    pub dropped: BTreeMap<Rule, Dropped>,
    /// What was wrong with the input, by kind.
    pub problems: BTreeMap<ProblemKind, Problems>,
}

impl Report {
    pub(super) fn problem(&mut self, problem: &Problem) {
        let problems = self.problems.entry(problem.kind).or_default();
        problems.count += 1;
        if problems.examples.len() < EXAMPLES {
            problems.examples.push(Example::new(&problem.origin, problem.what.clone(), ""));
        }
    }
}
