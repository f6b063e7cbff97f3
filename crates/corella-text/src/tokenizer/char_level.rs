//! BPE over characters, with bytes for those that are no token: SentencePiece's way (Kudo and Richardson, arXiv
//! 1808.06226), of Llama 1 and 2, TinyLlama and the small Llama checkpoints.
//!
//! A space is written `▁` (U+2581), and is a character like any other: the text is not split into words first. But where
//! no token holds two neighbouring characters side by side, no merge can cross between them; there the text is cut, and
//! words are looked up as in byte-level BPE.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};

use super::bpe::{Merge, Merges};
use super::cache::{Key, PieceCache};
use super::error::FormatError;

/// What stands for a space in the tokens.
pub const SPACE: char = '\u{2581}';

/// Whether a space is put in front of a text, so that its first word is written as the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// No.
    Never,
    /// In front of the text, and behind every special token in it.
    Always,
    /// In front of the text only.
    First,
}

/// What is done to a text before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalizer {
    /// Whether a space is put in front.
    pub prefix: Prefix,
    /// Whether a text that begins with a space gets no other (`Metaspace`).
    pub unless_space: bool,
    /// Whether spaces at the ends are dropped and those in a row become one.
    pub squeeze: bool,
}

impl Normalizer {
    pub fn apply<'a>(&self, text: &'a str, first: bool) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if self.squeeze {
            let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
            let mut squeezed = words.join(" ");
            // At the end SentencePiece takes U+2581 for the space that it writes so.
            squeezed.truncate(squeezed.trim_end_matches([' ', SPACE]).len());
            text = Cow::Owned(squeezed);
        }
        let prefix = match self.prefix {
            Prefix::Never => false,
            Prefix::Always => true,
            Prefix::First => first,
        };
        let has_one = self.unless_space && text.starts_with([' ', SPACE]);
        if prefix && !text.is_empty() && !has_one { Cow::Owned(format!(" {text}")) } else { text }
    }
}

/// What encodes, beside the vocabulary.
#[derive(Clone, Debug)]
pub struct CharLevel {
    /// Ids of single characters. Characters that are no token but part of one have ids behind the vocabulary.
    chars: FxHashMap<char, u32>,
    /// The character of each id behind the vocabulary.
    extra: Vec<char>,
    vocab_size: u32,
    merges: Merges,
    /// Merged pairs in the order of their ranks, as files list them; those with ids behind the vocabulary are not there.
    pub ordered: Vec<(u32, u32)>,
    byte_ids: Option<Box<[u32; 256]>>,
    unk: Option<u32>,
    pub fuse_unk: bool,
    pub normalizer: Normalizer,
    joins: Joins,
}

/// The tokens that take part in merges, as the file writes them, and what else a file says of them.
pub struct Pieces<'a> {
    /// Number of ids, all kinds of tokens included.
    pub vocab_size: usize,
    /// Ids of the ordinary tokens.
    pub ids: FxHashMap<&'a str, u32>,
    /// Ids of the 256 bytes, where the vocabulary has them.
    pub byte_ids: Option<[u32; 256]>,
    /// The id of what is neither a token nor written in bytes.
    pub unk: Option<u32>,
    /// Whether several of those in a row become one.
    pub fuse_unk: bool,
    /// What is done to a text first.
    pub normalizer: Normalizer,
}

impl<'a> Pieces<'a> {
    /// Merges in their order, as Hugging Face's files list them.
    pub fn with_merges(self, merges: &[(&str, &str)]) -> Result<CharLevel, FormatError> {
        let mut level = self.start();
        for (rank, (left, right)) in merges.iter().enumerate() {
            let merged = format!("{left}{right}");
            let id = |piece: &str| {
                self.ids.get(piece).copied().ok_or_else(|| FormatError::UnknownMerge {
                    merge: format!("{left} {right}"),
                    piece: piece.to_owned(),
                })
            };
            let (pair, id) = ((id(left)?, id(right)?), id(&merged)?);
            level.merges.insert(pair, Merge { rank: rank as u32, id });
            level.ordered.push(pair);
            level.joins.add(&merged);
        }
        Ok(level)
    }

    /// Every token is merged from any two pieces that make it, the highest score first: SentencePiece's rule.
    pub fn with_scores(self, score: impl Fn(u32) -> f32) -> CharLevel {
        let mut level = self.start();
        let mut by_score: Vec<(&str, u32)> = self.ids.iter().map(|(text, id)| (*text, *id)).collect();
        by_score.sort_unstable_by(|a, b| score(b.1).total_cmp(&score(a.1)).then(a.1.cmp(&b.1)));
        for (text, _) in &by_score {
            level.joins.add(text);
            for c in text.chars() {
                let next = level.vocab_size + level.extra.len() as u32;
                if let std::collections::hash_map::Entry::Vacant(entry) = level.chars.entry(c) {
                    entry.insert(next);
                    level.extra.push(c);
                }
            }
        }
        let (mut rank, mut last) = (0, None);
        for (text, id) in by_score {
            // Tokens of one score have one rank: then the leftmost goes first.
            if last.is_some_and(|last| last != score(id)) {
                rank += 1;
            }
            last = Some(score(id));
            let mut halves: Vec<(u32, u32)> = text
                .char_indices()
                .skip(1)
                .filter_map(|(cut, _)| {
                    let (left, right) = text.split_at(cut);
                    Some((self.symbol(&level, left)?, self.symbol(&level, right)?))
                })
                .collect();
            halves.sort_unstable();
            for pair in halves {
                level.merges.insert(pair, Merge { rank, id });
                if pair.0.max(pair.1) < level.vocab_size {
                    level.ordered.push(pair);
                }
            }
        }
        level
    }

    /// The id of a piece: of a token, or of a single character that is none.
    fn symbol(&self, level: &CharLevel, piece: &str) -> Option<u32> {
        let single = || {
            let mut chars = piece.chars();
            let c = chars.next()?;
            if chars.next().is_some() { None } else { level.chars.get(&c).copied() }
        };
        self.ids.get(piece).copied().or_else(single)
    }

    fn start(&self) -> CharLevel {
        let single = |(text, id): (&&str, &u32)| {
            let mut chars = text.chars();
            let c = chars.next()?;
            chars.next().is_none().then_some((c, *id))
        };
        CharLevel {
            chars: self.ids.iter().filter_map(single).collect(),
            extra: Vec::new(),
            vocab_size: self.vocab_size as u32,
            merges: Merges::default(),
            ordered: Vec::new(),
            byte_ids: self.byte_ids.map(Box::new),
            unk: self.unk,
            fuse_unk: self.fuse_unk,
            normalizer: self.normalizer,
            joins: Joins::default(),
        }
    }
}

impl CharLevel {
    /// Appends the ids of a normalised text.
    pub fn encode(&self, text: &str, cache: &mut PieceCache, out: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let begin = out.len();
        let mut symbols = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let end = self.joins.piece_end(text, start);
            let key = Key::of(bytes, start, end);
            if let Some(ids) = key.and_then(|key| cache.get(key)) {
                out.extend_from_slice(ids);
            } else {
                let first = out.len();
                symbols.clear();
                self.symbols(&text[start..end], &mut symbols);
                self.merges.apply(symbols.iter().copied(), out);
                if !self.extra.is_empty() {
                    self.spell_out(first, out);
                }
                if let Some(key) = key {
                    cache.put(key, &out[first..]);
                }
            }
            start = end;
        }
        if let Some(unk) = self.unk.filter(|_| self.fuse_unk) {
            fuse(begin, unk, out);
        }
    }

    /// Whether each character of a text has a token or a part of one.
    pub fn keeps_all(&self) -> bool {
        let unknown = self.byte_ids.is_some() || (self.unk.is_some() && !self.fuse_unk);
        unknown && !self.normalizer.squeeze
    }

    /// The ids that merging starts from.
    fn symbols(&self, piece: &str, to: &mut Vec<u32>) {
        for c in piece.chars() {
            match self.chars.get(&written_char(c)) {
                Some(id) => to.push(*id),
                None => self.fall_back(c, to),
            }
        }
    }

    /// A character that is no token: its bytes, else the unknown token, else nothing.
    fn fall_back(&self, c: char, to: &mut Vec<u32>) {
        match &self.byte_ids {
            Some(ids) => to.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|b| ids[b as usize])),
            None => to.extend(self.unk),
        }
    }

    /// Replaces the ids behind the vocabulary, from `first` on, that no merge took.
    fn spell_out(&self, first: usize, out: &mut Vec<u32>) {
        if out[first..].iter().all(|id| *id < self.vocab_size) {
            return;
        }
        let merged = out.split_off(first);
        for id in merged {
            match id.checked_sub(self.vocab_size).and_then(|i| self.extra.get(i as usize)) {
                Some(c) => self.fall_back(*c, out),
                None => out.push(id),
            }
        }
    }

    /// The rank of a pair that merges.
    pub fn rank(&self, (left, right): (u32, u32)) -> u32 {
        self.merges.get(left, right).rank
    }

    /// Whether the same is done to a text, and the same pairs make the same tokens in the same order. The order of pairs that
    /// make one token is not compared.
    pub fn same_rule(&self, other: &CharLevel) -> bool {
        let rest = |level: &CharLevel| {
            let mut extra = level.extra.clone();
            extra.sort_unstable();
            (level.normalizer, level.byte_ids.clone(), level.unk, level.fuse_unk, level.chars.clone(), extra)
        };
        rest(self) == rest(other) && self.merges.len() == other.merges.len() && self.order() == other.order()
    }

    /// For each token, in the order of merging, the pairs that make it. One whose pairs are not ranked side by side stands
    /// there more than once.
    fn order(&self) -> Vec<(u32, Vec<(u32, u32)>)> {
        let mut order: Vec<(u32, Vec<(u32, u32)>)> = Vec::new();
        for pair in &self.ordered {
            let id = self.merges.get(pair.0, pair.1).id;
            match order.last_mut() {
                Some((last, pairs)) if *last == id => pairs.push(*pair),
                _ => order.push((id, vec![*pair])),
            }
        }
        order.iter_mut().for_each(|(_, pairs)| pairs.sort_unstable());
        order
    }

    /// The unknown token.
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// Ids of the bytes, where the vocabulary has them.
    pub fn byte_ids(&self) -> Option<&[u32; 256]> {
        self.byte_ids.as_deref()
    }

    /// Pairs that merge.
    pub fn merge_count(&self) -> usize {
        self.merges.len()
    }
}

/// Drops repeated `unk` from `begin` on.
fn fuse(begin: usize, unk: u32, out: &mut Vec<u32>) {
    let mut kept = begin;
    for i in begin..out.len() {
        if out[i] == unk && kept > begin && out[kept - 1] == unk {
            continue;
        }
        out[kept] = out[i];
        kept += 1;
    }
    out.truncate(kept);
}

fn written_char(c: char) -> char {
    if c == ' ' { SPACE } else { c }
}

/// A text with its spaces as tokens write them.
pub fn written(text: &str) -> String {
    text.replace(' ', SPACE.encode_utf8(&mut [0; 4]))
}

/// Pairs of characters that stand side by side in some token.
#[derive(Clone, Debug, Default)]
struct Joins {
    /// Among ASCII characters and the space: bit `right` of row `left`.
    ascii: Vec<u128>,
    others: FxHashSet<(char, char)>,
}

impl Joins {
    fn add(&mut self, token: &str) {
        self.ascii.resize(128, 0);
        for (left, right) in token.chars().zip(token.chars().skip(1)) {
            let plain = |c: char| if c == SPACE { ' ' } else { c };
            match (plain(left), plain(right)) {
                (left, right) if left.is_ascii() && right.is_ascii() => self.ascii[left as usize] |= 1 << right as u32,
                pair => {
                    self.others.insert(pair);
                }
            }
        }
    }

    fn joined(&self, left: char, right: char) -> bool {
        if left.is_ascii() && right.is_ascii() {
            self.ascii.get(left as usize).is_some_and(|row| row >> right as u32 & 1 == 1)
        } else {
            self.others.contains(&(left, right))
        }
    }

    /// End of the piece that begins at byte `start`: where no token joins the next two characters.
    fn piece_end(&self, text: &str, start: usize) -> usize {
        let plain = |c: char| if c == SPACE { ' ' } else { c };
        let mut chars = text[start..].char_indices().map(|(at, c)| (at, plain(c)));
        let Some((_, mut last)) = chars.next() else { return start };
        for (at, c) in chars {
            if !self.joined(last, c) {
                return start + at;
            }
            last = c;
        }
        text.len()
    }
}
