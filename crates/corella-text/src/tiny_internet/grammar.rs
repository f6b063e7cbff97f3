//! Is this a sentence of the tiny internet? The generator itself is the judge.
//!
//! Pages are written and their sentences reduced to shapes: names, numbers and the words that fill a slot become the
//! slot. A sentence is grammatical if its shape is one of these. A name that nobody has is still a name: the judge asks
//! for form, not for truth.

use std::collections::{HashMap, HashSet};

use super::pages::{SLOTS, validation};
use super::world::{WORD_SLOTS, World};

/// Pages to learn the shapes from: enough that hardly a shape of fresh pages is new.
const PAGES: usize = 20_000;
/// Seed of these pages; no corpus has it.
const SEED: u64 = 0x6772_616d;
/// What stands in a shape for every name.
const NAME: &str = "<name>";

/// Knows the shapes of all sentences.
pub struct Grammar {
    /// The word, in lower case, and its slot.
    slots: HashMap<&'static str, &'static str>,
    /// Phrases of several words and their slots.
    phrases: Vec<(&'static str, &'static str)>,
    /// Words that are neither names nor fill a slot.
    english: HashSet<String>,
    shapes: HashSet<String>,
}

impl Grammar {
    /// Learns the shapes of a world's sentences.
    pub fn new(world: &World) -> Grammar {
        let mut grammar =
            Grammar { slots: HashMap::new(), phrases: Vec::new(), english: HashSet::new(), shapes: HashSet::new() };
        for (slot, words) in SLOTS.iter().chain(&WORD_SLOTS) {
            for word in *words {
                if word.contains(' ') {
                    grammar.phrases.push((word, slot));
                } else {
                    grammar.slots.insert(word, slot);
                }
            }
        }
        let names: HashSet<String> = world.names().flat_map(|n| words_of(n).map(str::to_lowercase)).collect();
        let pages = validation(world, SEED, PAGES).documents;
        for page in &pages {
            let words = words_of(&page.text).map(str::to_lowercase);
            grammar.english.extend(words.filter(|w| !names.contains(w)));
        }
        for page in &pages {
            let shapes: Vec<String> = sentences(&page.text).iter().map(|s| grammar.shape(s)).collect();
            grammar.shapes.extend(shapes);
        }
        grammar
    }

    /// How many of the text's finished sentences are grammatical, and how many there are.
    pub fn judge(&self, text: &str) -> (usize, usize) {
        let found = sentences(text);
        (found.iter().filter(|s| self.shapes.contains(&self.shape(s))).count(), found.len())
    }

    fn shape(&self, sentence: &str) -> String {
        let mut text = sentence.to_lowercase();
        for (phrase, slot) in &self.phrases {
            if text.contains(phrase) {
                text = text.replace(phrase, slot);
            }
        }
        let mut shape = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let len = if first == '<' {
                rest.find('>').map_or(1, |i| i + 1)
            } else if first.is_alphanumeric() {
                rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len())
            } else {
                first.len_utf8()
            };
            let (word, after) = rest.split_at(len);
            shape += if word.bytes().all(|b| b.is_ascii_digit()) {
                "0"
            } else if let Some(slot) = self.slots.get(word) {
                slot
            } else if first.is_alphanumeric() && !self.english.contains(word) {
                NAME
            } else {
                word
            };
            rest = after;
        }
        shape
    }
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty())
}

/// The finished sentences of a text: every line but the last is one or several, the last only up to its last full stop.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut lines = text.split('\n').peekable();
    while let Some(mut line) = lines.next() {
        while let Some(end) = sentence_end(line) {
            found.push(line[..end].trim());
            line = &line[end..];
        }
        if lines.peek().is_some() {
            found.push(line.trim());
        }
    }
    found.retain(|s| !s.is_empty());
    found
}

/// Where the first sentence of the line ends: behind a full stop, its closing quote, and before a space or the end.
fn sentence_end(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    (0..bytes.len()).find_map(|i| {
        if !matches!(bytes[i], b'.' | b'!' | b'?') {
            return None;
        }
        let quoted = bytes.get(i + 1) == Some(&b'"');
        let end = i + 1 + usize::from(quoted);
        // A quotation that goes on in the sentence (`"…!" said Tom.`) does not end it, nor does the dot of `1. The tower`.
        let goes_on = line[end..].chars().nth(1).is_some_and(char::is_lowercase);
        let numbered = i > 0 && bytes[..i].iter().all(u8::is_ascii_digit);
        (matches!(bytes.get(end), None | Some(b' ')) && !(quoted && goes_on) && !numbered).then_some(end)
    })
}
