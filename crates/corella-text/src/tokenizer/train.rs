//! Training a vocabulary: merge the most frequent pair, again and again (Sennrich, Haddow and Birch, arXiv 1508.07909).

use std::collections::{BTreeMap, BinaryHeap};

use rustc_hash::{FxHashMap, FxHashSet};

use super::pretokenize::Split;
use super::{END_OF_TEXT, Tokenizer, TokenizerError};

/// Ids before the merges: the end of text, then the bytes.
const FIRST_MERGE: usize = 257;

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

/// A distinct piece of the text.
struct Word {
    ids: Vec<u32>,
    count: u64,
}

/// See [`Tokenizer::train`]. The result may be smaller than asked for where the text holds no more pairs.
pub fn train<'a>(
    docs: impl IntoIterator<Item = &'a str>,
    vocab_size: usize,
    options: TrainOptions,
) -> Result<Tokenizer, TokenizerError> {
    if !(FIRST_MERGE..=1_000_000).contains(&vocab_size) {
        return Err(TokenizerError::VocabSize { asked: vocab_size });
    }
    let split = Split { single_digits: options.single_digits };
    let mut words = count_words(docs, split);
    let mut bytes: Vec<Vec<u8>> = vec![END_OF_TEXT.as_bytes().to_vec()];
    bytes.extend((0..=255u8).map(|b| vec![b]));
    let byte_ids: [u32; 256] = std::array::from_fn(|b| b as u32 + 1);
    let mut pairs = Pairs::count(&words);
    let mut ordered = Vec::new();
    while bytes.len() < vocab_size {
        let Some(pair) = pairs.most_frequent() else { break };
        let id = bytes.len() as u32;
        bytes.push([&bytes[pair.0 as usize][..], &bytes[pair.1 as usize]].concat());
        ordered.push(pair);
        pairs.merge(pair, id, &mut words);
    }
    Ok(Tokenizer::new(bytes, byte_ids, ordered, split, 0))
}

/// The distinct pieces, in the order of their bytes, so that the result does not depend on hashing.
fn count_words<'a>(docs: impl IntoIterator<Item = &'a str>, split: Split) -> Vec<Word> {
    let mut counts: FxHashMap<&str, u64> = FxHashMap::default();
    for doc in docs {
        for piece in split.pieces(doc) {
            *counts.entry(piece).or_default() += 1;
        }
    }
    let sorted: BTreeMap<&str, u64> = counts.into_iter().collect();
    sorted
        .into_iter()
        .map(|(piece, count)| Word { ids: piece.bytes().map(|b| u32::from(b) + 1).collect(), count })
        .collect()
}

/// How often each pair of neighbours occurs, and in which words.
struct Pairs {
    counts: FxHashMap<(u32, u32), u64>,
    words: FxHashMap<(u32, u32), FxHashSet<usize>>,
    /// Candidates by count; an entry whose count is no longer true is dropped when it comes up.
    heap: BinaryHeap<(u64, std::cmp::Reverse<(u32, u32)>)>,
}

impl Pairs {
    fn count(words: &[Word]) -> Self {
        let mut pairs = Pairs { counts: FxHashMap::default(), words: FxHashMap::default(), heap: BinaryHeap::new() };
        for (i, word) in words.iter().enumerate() {
            for pair in word.ids.windows(2) {
                let pair = (pair[0], pair[1]);
                *pairs.counts.entry(pair).or_default() += word.count;
                pairs.words.entry(pair).or_default().insert(i);
            }
        }
        pairs.heap = pairs.counts.iter().map(|(pair, n)| (*n, std::cmp::Reverse(*pair))).collect();
        pairs
    }

    /// The pair with the highest count, the lowest ids among equals.
    fn most_frequent(&mut self) -> Option<(u32, u32)> {
        while let Some((count, std::cmp::Reverse(pair))) = self.heap.pop() {
            if self.counts.get(&pair) == Some(&count) && count > 0 {
                return Some(pair);
            }
        }
        None
    }

    /// Replaces `pair` by `id` in every word that has it.
    fn merge(&mut self, pair: (u32, u32), id: u32, words: &mut [Word]) {
        let mut touched = FxHashSet::default();
        for index in self.words.remove(&pair).unwrap_or_default() {
            let word = &mut words[index];
            for old in word.ids.windows(2) {
                if let Some(count) = self.counts.get_mut(&(old[0], old[1])) {
                    *count -= word.count;
                    touched.insert((old[0], old[1]));
                }
            }
            let mut merged = Vec::with_capacity(word.ids.len());
            let mut i = 0;
            while i < word.ids.len() {
                if i + 1 < word.ids.len() && (word.ids[i], word.ids[i + 1]) == pair {
                    merged.push(id);
                    i += 2;
                } else {
                    merged.push(word.ids[i]);
                    i += 1;
                }
            }
            word.ids = merged;
            for new in word.ids.windows(2) {
                let new = (new[0], new[1]);
                *self.counts.entry(new).or_default() += word.count;
                self.words.entry(new).or_default().insert(index);
                touched.insert(new);
            }
        }
        for pair in touched {
            if let Some(count) = self.counts.get(&pair) {
                self.heap.push((*count, std::cmp::Reverse(pair)));
            }
        }
    }
}
