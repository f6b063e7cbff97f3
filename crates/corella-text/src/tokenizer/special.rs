//! Special tokens: their names, what they are for, and where they stand in a text that may hold them.

use rustc_hash::{FxHashMap, FxHashSet};

/// Names that mark the border between documents where a file does not say which token does.
const END_NAMES: [&str; 4] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<|end_story|>"];
/// Names that begin a text where a file does not say which token does.
const START_NAMES: [&str; 2] = ["<|begin_of_text|>", "<s>"];
/// Names of tokens that end a turn, beside the end of the text.
const TURN_NAMES: [&str; 4] = ["<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>"];

/// The special tokens of a vocabulary.
#[derive(Clone, Debug, Default)]
pub struct Specials {
    ids: FxHashMap<String, u32>,
    by_id: FxHashSet<u32>,
    /// Lengths of the names, the longest first.
    lengths: Vec<usize>,
    /// Bytes that a name begins with.
    first: Vec<u8>,
}

impl Specials {
    /// These names with their ids. Empty names are left out.
    pub fn new(named: impl IntoIterator<Item = (String, u32)>) -> Self {
        let ids: FxHashMap<String, u32> = named.into_iter().filter(|(name, _)| !name.is_empty()).collect();
        let mut lengths: Vec<usize> = ids.keys().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let mut first: Vec<u8> = ids.keys().filter_map(|name| name.bytes().next()).collect();
        first.sort_unstable();
        first.dedup();
        let by_id = ids.values().copied().collect();
        Specials { ids, by_id, lengths, first }
    }

    /// The id of a name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The name of an id.
    pub fn name(&self, id: u32) -> Option<&str> {
        if !self.has(id) {
            return None;
        }
        self.ids.iter().find(|(_, other)| **other == id).map(|(name, _)| name.as_str())
    }

    /// Whether an id is one of them.
    pub fn has(&self, id: u32) -> bool {
        self.by_id.contains(&id)
    }

    /// Bytes of the longest name.
    pub fn longest(&self) -> usize {
        self.lengths.first().copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Names and ids in the order of the ids.
    pub fn sorted(&self) -> Vec<(&str, u32)> {
        let mut all: Vec<(&str, u32)> = self.ids.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        all.sort_unstable_by_key(|(_, id)| *id);
        all
    }

    /// Hands on the tokens of a text and, in front of each and behind the last, the text there, which may be empty. Each part of
    /// the text is looked at once.
    pub fn cut<'t>(&self, text: &'t str, mut each: impl FnMut(Part<'t>)) {
        let mut rest = text;
        while let Some((start, end, id)) = self.find(rest) {
            each(Part::Text(&rest[..start]));
            each(Part::Token(id));
            rest = &rest[end..];
        }
        each(Part::Text(rest));
    }

    /// The first special token of the text: where it begins, where it ends, and its id. The longest name wins.
    fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        if self.is_empty() {
            return None;
        }
        let candidates = text.bytes().enumerate().filter(|(_, byte)| self.first.contains(byte));
        candidates.filter_map(|(start, _)| self.at(text, start)).next()
    }

    fn at(&self, text: &str, start: usize) -> Option<(usize, usize, u32)> {
        self.lengths.iter().find_map(|len| {
            let end = start.checked_add(*len)?;
            Some((start, end, self.id(text.get(start..end)?)?))
        })
    }
}

/// A part of a text in which tokens stand by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

/// What some of the special tokens are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Begins every text.
    pub bos: Option<u32>,
    /// Ends a text: the border between documents.
    pub eos: Option<u32>,
    /// Stands for what the vocabulary cannot say.
    pub unk: Option<u32>,
    /// Fills rows that are shorter than others.
    pub pad: Option<u32>,
    /// Whether the file wants `bos` in front of every text; `None` where it does not say.
    pub add_bos: Option<bool>,
}

impl Roles {
    /// Fills what the file did not say from the names in use.
    pub fn complete(mut self, specials: &Specials) -> Self {
        self.eos = self.eos.or_else(|| END_NAMES.iter().find_map(|name| specials.id(name)));
        self.bos = self.bos.or_else(|| START_NAMES.iter().find_map(|name| specials.id(name)));
        self
    }

    /// Ids that end what a model writes.
    pub fn stops(&self, specials: &Specials) -> Vec<u32> {
        let mut stops: Vec<u32> =
            self.eos.into_iter().chain(TURN_NAMES.iter().filter_map(|n| specials.id(n))).collect();
        stops.sort_unstable();
        stops.dedup();
        stops
    }
}
