//! The tiny internet: pages of an invented world whose every fact is known.
//!
//! Seeded and deterministic, with nothing to download. It is the default corpus and the test bed: what a model recites,
//! recalls, translates or makes up can be compared with the world that the pages were written from.

mod facts;
mod grammar;
mod pages;
mod probes;
mod random;
mod world;

pub use facts::{FactList, FactRow, Planted, facts};
pub use grammar::Grammar;
pub use pages::{Corpus, CorpusOptions, Page, PageKind, validation};
pub use probes::{FewShot, Probes, Question, Recall, probes};
pub use world::{Animal, Fact, Language, Person, PlantedArticle, Relation, Town, World};
