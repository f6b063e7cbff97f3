//! Where in a text, and in which order, the names of added tokens are looked for.
//!
//! Most are looked for in the text as it stands, and what lies between them is encoded. Some files want others looked for
//! later: in what lies between the first ones, after it was normalised, so that what was put in front of it counts as text.

use rustc_hash::FxHashSet;

use super::Level;
use super::special::Specials;

/// The tokens that are looked for later.
#[derive(Clone, Debug, Default)]
pub struct Later {
    ids: FxHashSet<u32>,
    by: By,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum By {
    /// What normalising makes of the name, the space in front included: `normalized` in a tokenizer.json.
    #[default]
    NormalName,
    /// The name itself: SentencePiece's user-defined symbols.
    Name,
}

impl Later {
    /// By what normalising makes of their names.
    pub fn normalized(ids: impl IntoIterator<Item = u32>) -> Later {
        Later { ids: ids.into_iter().collect(), by: By::NormalName }
    }

    /// By their names.
    pub fn symbols(added: &Specials) -> Later {
        Later { ids: added.sorted().into_iter().map(|(_, id)| id).collect(), by: By::Name }
    }

    /// Whether this token is looked for by what normalising makes of its name.
    pub fn is_normalized(&self, id: u32) -> bool {
        self.by == By::NormalName && self.ids.contains(&id)
    }

    /// Whether some are looked for by their names.
    pub fn has_symbols(&self) -> bool {
        self.by == By::Name && !self.ids.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The same without those that could as well be looked for at once: where nothing is done to a text before, and none of
    /// their names can overlap one of the others. Files that differ in nothing else are then equal.
    fn needed(self, level: &Level, all: &[(&str, u32)]) -> Later {
        let (later, at_once): (Vec<_>, Vec<_>) = all.iter().partition(|(_, id)| self.ids.contains(id));
        let apart = || !later.iter().any(|(late, _)| at_once.iter().any(|(name, _)| overlap(late, name)));
        if level.normalizes_before_names() || !apart() { self } else { Later::default() }
    }
}

/// Whether both names can stand in a text so that they share a part of it.
fn overlap(a: &str, b: &str) -> bool {
    let chained = |a: &str, b: &str| a.char_indices().any(|(at, _)| b.starts_with(&a[at..]));
    a.contains(b) || b.contains(a) || chained(a, b) || chained(b, a)
}

/// The names that are looked for.
#[derive(Clone, Debug)]
pub struct Names {
    /// In every text.
    pub always: Passes,
    /// Where special tokens may stand in the text.
    pub with_special: Passes,
    pub later: Later,
}

/// One set of names.
#[derive(Clone, Debug)]
pub struct Passes {
    /// In the text as it stands.
    pub at_once: Specials,
    /// In the normalised text between those.
    pub later: Specials,
}

impl Names {
    pub fn new(level: &Level, specials: &Specials, added: &Specials, later: Later) -> Names {
        let (always, all) = (added.sorted(), [specials.sorted(), added.sorted()].concat());
        let later = later.needed(level, &all);
        let passes = |names: &[(&str, u32)]| {
            let (late, at_once): (Vec<_>, Vec<_>) = names.iter().partition(|(_, id)| later.ids.contains(id));
            let written = |name: &str| match later.by {
                By::NormalName => level.normal_name(name),
                By::Name => level.written(name),
            };
            Passes {
                at_once: Specials::new(at_once.into_iter().map(|(name, id)| (name.to_owned(), id))),
                later: Specials::new(late.into_iter().map(|(name, id)| (written(name), id))),
            }
        };
        Names { always: passes(&always), with_special: passes(&all), later }
    }

    /// Bytes of the longest name that is looked for, as it is looked for.
    pub fn longest(&self) -> usize {
        self.with_special.at_once.longest().max(self.with_special.later.longest())
    }
}
