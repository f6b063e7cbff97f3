//! The list of facts that goes with a corpus.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pages::Corpus;
use super::world::{Fact, Language, Relation, World};

/// A fact with the number of pages that state it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FactRow {
    /// Of whom.
    pub subject: String,
    /// What.
    pub relation: Relation,
    /// The truth.
    pub object: String,
    /// Pages of the corpus that state it.
    pub mentions: usize,
    /// Which fact it is.
    #[serde(skip)]
    pub fact: Fact,
}

/// A planted article with the number of its presentations, counted in the corpus.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planted {
    /// Pages of the corpus with exactly this text.
    pub presentations: usize,
    /// The text.
    pub text: String,
}

/// Everything that is known about a corpus.
#[derive(Clone, Debug, Serialize)]
pub struct FactList {
    /// Facts, those of a subject together.
    pub facts: Vec<FactRow>,
    /// Planted articles.
    pub planted: Vec<Planted>,
    /// The languages.
    pub languages: Vec<Language>,
    /// Words of the first language that stand in no list.
    pub held_out: Vec<&'static str>,
}

/// Counts what the pages of a corpus state.
pub fn facts(world: &World, corpus: &Corpus) -> FactList {
    let mut mentions: BTreeMap<Fact, usize> = BTreeMap::new();
    for page in &corpus.documents {
        let mut stated = page.facts.clone();
        stated.sort();
        stated.dedup();
        for fact in stated {
            *mentions.entry(fact).or_default() += 1;
        }
    }
    let rows = mentions.into_iter().map(|(fact, mentions)| FactRow {
        subject: world.subject(fact).to_owned(),
        relation: fact.relation,
        object: world.object(fact),
        mentions,
        fact,
    });
    let count = |text: &str| corpus.documents.iter().filter(|page| page.text == text).count();
    FactList {
        facts: rows.collect(),
        planted: world
            .planted
            .iter()
            .map(|p| Planted { presentations: count(&p.text), text: p.text.clone() })
            .collect(),
        languages: world.languages.clone(),
        held_out: world.held_out.clone(),
    }
}
