//! Training a vocabulary: merge the most frequent pair, again and again (Sennrich, Haddow and Birch, arXiv 1508.07909).
//!
//! Of pairs with the same count the greater one is merged, compared by the bytes of its left part, then of its right:
//! the rule of Stanford's CS336, whose vectors a test reproduces.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::byte_level::ByteLevel;
use super::error::TokenizerError;
use super::names::Later;
use super::pretokenize::Split;
use super::special::{Roles, Specials};
use super::vocab::{LONGEST_TOKEN, Vocab};
use super::{END_OF_TEXT, Level, Tokenizer};

/// Ids before the merges: the end of text, then the bytes.
const FIRST_MERGE: usize = 257;
/// Largest vocabulary.
const LARGEST: usize = 1_000_000;

/// How to train.
#[derive(Clone, Copy, Debug)]
pub struct TrainOptions {
    /// Every digit is a token of its own, so that numbers are written digit by digit.
    pub single_digits: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        TrainOptions { single_digits: true }
    }
}

/// How often each piece occurs: all that training needs of a text, of whatever length.
#[derive(Clone, Debug)]
pub struct WordCounts {
    split: Split,
    counts: FxHashMap<Box<str>, u64>,
}

impl WordCounts {
    /// Nothing counted yet.
    pub fn new(options: TrainOptions) -> Self {
        WordCounts { split: Split::Gpt2 { single_digits: options.single_digits }, counts: FxHashMap::default() }
    }

    /// Counts the pieces of a document.
    pub fn add(&mut self, doc: &str) {
        for piece in self.split.pieces(doc) {
            match self.counts.get_mut(piece) {
                Some(count) => *count += 1,
                None => drop(self.counts.insert(piece.into(), 1)),
            }
        }
    }

    /// Counts the pieces of many documents on several threads.
    pub fn add_all<T: AsRef<str> + Sync>(&mut self, docs: &[T], threads: usize) {
        let (next, counted) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            let mut counts = WordCounts { split: self.split, counts: FxHashMap::default() };
            while let Some(doc) = docs.get(next.fetch_add(1, Relaxed)) {
                counts.add(doc.as_ref());
            }
            counted.lock().unwrap_or_else(PoisonError::into_inner).push(counts);
        };
        std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
        for other in counted.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.merge(other);
        }
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: WordCounts) {
        for (piece, n) in other.counts {
            *self.counts.entry(piece).or_default() += n;
        }
    }

    /// Number of different pieces.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The vocabulary: the end of text is id 0, the bytes follow, then the merges in their order. Smaller than asked for
    /// where the text holds no more pairs. It depends on the counts alone, not on the order of documents or on threads.
    pub fn train(self, vocab_size: usize) -> Result<Tokenizer, TokenizerError> {
        if !(FIRST_MERGE..=LARGEST).contains(&vocab_size) {
            return Err(TokenizerError::VocabSize { asked: vocab_size });
        }
        let split = self.split;
        let Trained { tokens, ordered } = merge_pairs(self.counts, vocab_size);
        let vocab = Vocab::of(tokens.iter());
        let level = vocab.and_then(|vocab| {
            let level = ByteLevel::new(&vocab, |id| id != 0, ordered, split, false)?;
            let specials = Specials::new([(END_OF_TEXT.to_owned(), 0)]);
            // A model trained with it has seen every document behind this token, so other programs are to put it there too.
            let roles = Roles { bos: Some(0), add_bos: Some(true), ..Roles::default() };
            Tokenizer::new(vocab, Level::Bytes(level), specials, Specials::default(), Later::default(), roles)
        });
        level.map_err(TokenizerError::format("a trained vocabulary".as_ref()))
    }
}

/// What training finds.
struct Trained {
    /// The bytes of every token.
    tokens: Vec<Rc<[u8]>>,
    /// The merges in their order.
    ordered: Vec<(u32, u32)>,
}

fn merge_pairs(counts: FxHashMap<Box<str>, u64>, vocab_size: usize) -> Trained {
    let mut tokens: Vec<Rc<[u8]>> = vec![END_OF_TEXT.as_bytes().into()];
    tokens.extend((0..=255u8).map(|b| Rc::from([b])));
    let mut words: Vec<(Box<str>, u64)> = counts.into_iter().collect();
    words.sort_unstable();
    let mut text = Text::new(&words);
    drop(words);
    let mut pairs = Pairs::default();
    for at in 0..text.symbols.len() {
        if let Some(pair) = text.pair_at(at as u32) {
            pairs.add(pair, text.weight(at as u32), at as u32);
        }
    }
    pairs.offer_new(&tokens);
    let mut ordered = Vec::new();
    while tokens.len() < vocab_size {
        let Some(pair) = pairs.most_frequent() else { break };
        let id = tokens.len() as u32;
        let merged = [&tokens[pair.0 as usize][..], &tokens[pair.1 as usize]].concat();
        ordered.push(pair);
        tokens.push(merged.into());
        pairs.merge(pair, id, &mut text);
        pairs.offer_new(&tokens);
    }
    Trained { tokens, ordered }
}

/// Marks the end of a word, and a symbol that was merged into the one before it.
const NONE: u32 = u32::MAX;

/// The different words of the corpus, one behind another, each symbol linked to its neighbours in the word.
struct Text {
    symbols: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Word of each symbol.
    word: Vec<u32>,
    /// How often each word occurs.
    counts: Vec<u64>,
}

impl Text {
    fn new(words: &[(Box<str>, u64)]) -> Self {
        let mut text = Text {
            symbols: Vec::new(),
            next: Vec::new(),
            previous: Vec::new(),
            word: Vec::new(),
            counts: words.iter().map(|(_, count)| *count).collect(),
        };
        for (index, (word, _)) in words.iter().enumerate() {
            let (start, len) = (text.symbols.len(), word.len());
            for (i, byte) in word.bytes().enumerate() {
                text.symbols.push(u32::from(byte) + 1);
                text.previous.push(if i == 0 { NONE } else { (start + i - 1) as u32 });
                text.next.push(if i + 1 == len { NONE } else { (start + i + 1) as u32 });
                text.word.push(index as u32);
            }
        }
        text
    }

    /// The symbol at a place and the next one of the word.
    fn pair_at(&self, at: u32) -> Option<(u32, u32)> {
        let next = self.next[at as usize];
        (next != NONE).then(|| (self.symbols[at as usize], self.symbols[next as usize]))
    }

    fn weight(&self, at: u32) -> u64 {
        self.counts[self.word[at as usize] as usize]
    }

    /// Puts `id` where the pair at `at` stands. The second symbol's place is left behind.
    fn replace(&mut self, at: u32, id: u32) {
        let gone = self.next[at as usize];
        let after = self.next[gone as usize];
        self.symbols[at as usize] = id;
        self.symbols[gone as usize] = NONE;
        self.next[gone as usize] = NONE;
        self.next[at as usize] = after;
        if after != NONE {
            self.previous[after as usize] = at;
        }
    }
}

/// How often each pair of neighbours occurs, and where.
#[derive(Default)]
struct Pairs {
    stats: FxHashMap<(u32, u32), Stat>,
    /// Pairs that came into being since they were last offered.
    new: Vec<(u32, u32)>,
    heap: BinaryHeap<Candidate>,
}

#[derive(Default)]
struct Stat {
    count: u64,
    /// Where the pair begins, or began.
    places: Vec<u32>,
}

/// A pair with the count that it had when it was put on the heap: since then it can only have become less.
struct Candidate {
    count: u64,
    pair: (u32, u32),
    bytes: (Rc<[u8]>, Rc<[u8]>),
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.count.cmp(&other.count).then_with(|| self.bytes.cmp(&other.bytes)).then_with(|| self.pair.cmp(&other.pair))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl Pairs {
    fn add(&mut self, pair: (u32, u32), weight: u64, place: u32) {
        let stat = self.stats.entry(pair).or_default();
        if stat.places.is_empty() {
            self.new.push(pair);
        }
        stat.count += weight;
        stat.places.push(place);
    }

    fn subtract(&mut self, pair: (u32, u32), weight: u64) {
        if let Some(stat) = self.stats.get_mut(&pair) {
            stat.count -= weight;
        }
    }

    /// Puts the new pairs on the heap, but for those that would make too long a token.
    fn offer_new(&mut self, tokens: &[Rc<[u8]>]) {
        for pair in self.new.drain(..) {
            let count = self.stats.get(&pair).map_or(0, |stat| stat.count);
            let len = tokens[pair.0 as usize].len() + tokens[pair.1 as usize].len();
            if count > 0 && len <= LONGEST_TOKEN {
                let bytes = (Rc::clone(&tokens[pair.0 as usize]), Rc::clone(&tokens[pair.1 as usize]));
                self.heap.push(Candidate { count, pair, bytes });
            }
        }
    }

    /// The pair with the highest count, the greatest bytes among equals.
    fn most_frequent(&mut self) -> Option<(u32, u32)> {
        while let Some(mut top) = self.heap.pop() {
            let count = self.stats.get(&top.pair).map_or(0, |stat| stat.count);
            if count == top.count {
                return Some(top.pair);
            }
            if count > 0 {
                top.count = count;
                self.heap.push(top);
            }
        }
        None
    }

    /// Replaces `pair` by `id` wherever it stands, from left to right. The work is that of the places alone, however long
    /// their words are.
    fn merge(&mut self, pair: (u32, u32), id: u32, text: &mut Text) {
        let mut places = self.stats.remove(&pair).unwrap_or_default().places;
        places.sort_unstable();
        for at in places {
            if text.pair_at(at) != Some(pair) {
                continue;
            }
            let weight = text.weight(at);
            let before = text.previous[at as usize];
            if before != NONE {
                self.subtract((text.symbols[before as usize], pair.0), weight);
            }
            if let Some((_, after)) = text.pair_at(text.next[at as usize]) {
                self.subtract((pair.1, after), weight);
            }
            text.replace(at, id);
            if before != NONE {
                self.add((text.symbols[before as usize], id), weight, before);
            }
            if let Some(new) = text.pair_at(at) {
                self.add(new, weight, at);
            }
        }
    }
}
