//! The pages, one kind per file.

mod articles;
mod lists;
mod story;
mod talk;

pub use story::SLOTS;
pub use talk::EXPLANATIONS;

use super::random::Random;
use super::world::{Fact, World};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// An article on a town.
    Town,
    /// An article on an animal.
    Animal,
    /// An article on a person.
    Person,
    /// A story.
    Story,
    /// Questions and answers.
    Questions,
    /// A conversation.
    Transcript,
    /// A top-ten list.
    Top,
    /// Words of an invented language.
    Words,
    /// Sums.
    Arithmetic,
    /// A planted article.
    Planted,
}

/// Kinds and how often they come, per thousand pages, chosen for their shares of the tokens.
const MIX: [(PageKind, f64); 9] = [
    (PageKind::Town, 105.0),
    (PageKind::Animal, 88.0),
    (PageKind::Person, 68.0),
    (PageKind::Story, 245.0),
    (PageKind::Questions, 87.0),
    (PageKind::Transcript, 167.0),
    (PageKind::Top, 78.0),
    (PageKind::Words, 117.0),
    (PageKind::Arithmetic, 44.0),
];

/// Streams of random numbers: the pages to train on and those to validate on differ even for equal seeds.
const TRAINING: u64 = 3;
const VALIDATION: u64 = 6;

/// A page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What it is.
    pub kind: PageKind,
    /// Its text.
    pub text: String,
    /// The facts that it states.
    pub facts: Vec<Fact>,
}

/// Which pages to write.
#[derive(Clone, Copy, Debug)]
pub struct CorpusOptions {
    /// Seed of the pages; the world has its own.
    pub seed: u64,
    /// Pages, without the planted ones.
    pub documents: usize,
}

/// Pages in their order.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The pages.
    pub documents: Vec<Page>,
}

impl Corpus {
    /// Writes pages and inserts the planted articles at random places.
    pub fn generate(world: &World, options: CorpusOptions) -> Corpus {
        let mut writer = Writer::new(world, options.seed, TRAINING);
        let mut places: Vec<Option<usize>> = vec![None; options.documents];
        for (i, article) in world.planted.iter().enumerate() {
            places.extend(std::iter::repeat_n(Some(i), article.presentations));
        }
        Random::new(options.seed, 4).shuffle(&mut places);
        let documents = places.into_iter().map(|place| match place {
            None => writer.page(),
            Some(i) => Page { kind: PageKind::Planted, text: world.planted[i].text.clone(), facts: Vec::new() },
        });
        Corpus { documents: documents.collect() }
    }
}

/// A fresh stream of pages of the same world, without the planted articles.
pub fn validation(world: &World, seed: u64, documents: usize) -> Corpus {
    let mut writer = Writer::new(world, seed, VALIDATION);
    Corpus { documents: (0..documents).map(|_| writer.page()).collect() }
}

/// Writes pages.
struct Writer<'a> {
    world: &'a World,
    random: Random,
    /// Running weights: towns and people by rank to the power −3/4, animals by rank to the power −1 (Zipf).
    known: Vec<f64>,
    known_animals: Vec<f64>,
    kinds: Vec<f64>,
    /// Facts stated by the page at hand.
    facts: Vec<Fact>,
}

impl<'a> Writer<'a> {
    fn new(world: &'a World, seed: u64, purpose: u64) -> Self {
        // Roots and divisions are rounded the same way everywhere; powers are not.
        let running = |n: usize, of_rank: fn(f64) -> f64| {
            let mut sum = 0.0;
            (1..=n)
                .map(|rank| {
                    sum += 1.0 / of_rank(rank as f64);
                    sum
                })
                .collect()
        };
        let mut sum = 0.0;
        let kinds = MIX
            .iter()
            .map(|(_, weight)| {
                sum += weight;
                sum
            })
            .collect();
        Writer {
            world,
            random: Random::new(seed, purpose),
            known: running(world.towns.len(), |rank| rank.sqrt() * rank.sqrt().sqrt()),
            known_animals: running(world.animals.len(), |rank| rank),
            kinds,
            facts: Vec::new(),
        }
    }

    fn page(&mut self) -> Page {
        let kind = MIX[self.random.weighted(&self.kinds)].0;
        self.facts.clear();
        let text = match kind {
            PageKind::Town => self.town_article(),
            PageKind::Animal => self.animal_article(),
            PageKind::Person => self.person_article(),
            PageKind::Story => self.story(),
            PageKind::Questions => self.questions(),
            PageKind::Transcript => self.transcript(),
            PageKind::Top => self.top_list(),
            PageKind::Words => self.words(),
            PageKind::Arithmetic | PageKind::Planted => self.arithmetic(),
        };
        Page { kind, text, facts: std::mem::take(&mut self.facts) }
    }

    fn a_town(&mut self) -> usize {
        self.random.weighted(&self.known)
    }

    fn a_person(&mut self) -> usize {
        self.random.weighted(&self.known)
    }

    fn an_animal(&mut self) -> usize {
        self.random.weighted(&self.known_animals)
    }

    fn pick(&mut self, from: &[&str]) -> String {
        self.random.pick(from).to_owned()
    }
}
