//! Rules that decide which documents are worth learning from, and which lines of them.
//!
//! Every rule can be switched on by itself; the thresholds are those of the papers named in each file. A document that is
//! dropped names the first rule that it broke, and what was found.

mod boilerplate;
mod c4;
mod fineweb;
mod gopher;
mod language;
mod repetition;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use language::{UnknownLanguage, known_language};

/// Which rules apply. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterOptions {
    /// Shortest document, in bytes of what is left of it.
    pub min_bytes: usize,
    /// Longest document; `None` is no limit.
    pub max_bytes: Option<usize>,
    /// Languages (ISO 639-3) to keep; empty keeps all.
    pub languages: Vec<String>,
    /// Gopher's rules of quality.
    pub gopher: bool,
    /// Gopher's rules against repetition.
    pub repetition: bool,
    /// C4's rules for lines and pages.
    pub c4: bool,
    /// FineWeb's rules for lists and fragments.
    pub fineweb: bool,
    /// Drops lines that belong to the page and not to its text.
    pub boilerplate: bool,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a document was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Rule {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Rule {
            /// Every rule, in the order of their numbers.
            pub const ALL: &[Rule] = &[$(Rule::$name),*];

            /// The rule's name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// Nothing is left of it.
    Empty = "empty",
    /// Shorter than `min_bytes`.
    TooShort = "too-short",
    /// Longer than `max_bytes`.
    TooLong = "too-long",
    /// In another language.
    Language = "language",
    /// Number of words (Gopher).
    GopherWords = "gopher-words",
    /// Mean length of the words (Gopher).
    GopherWordLength = "gopher-word-length",
    /// Hash signs and ellipses (Gopher).
    GopherSymbols = "gopher-symbols",
    /// Lines that begin with a bullet (Gopher).
    GopherBullets = "gopher-bullets",
    /// Lines that end with an ellipsis (Gopher).
    GopherEllipsis = "gopher-ellipsis",
    /// Words without a letter (Gopher).
    GopherLetters = "gopher-letters",
    /// Too few of the commonest English words (Gopher).
    GopherStopWords = "gopher-stop-words",
    /// Lines or paragraphs that stand there twice (Gopher).
    DuplicateLines = "duplicate-lines",
    /// Word sequences that come again and again (Gopher).
    DuplicateNgrams = "duplicate-ngrams",
    /// Too few sentences left (C4).
    C4Sentences = "c4-sentences",
    /// A curly bracket: code (C4).
    C4Brackets = "c4-brackets",
    /// Filler text of page designers (C4).
    C4LoremIpsum = "c4-lorem-ipsum",
    /// Too few lines end as sentences do (FineWeb).
    FinewebPunctuation = "fineweb-punctuation",
    /// Too many short lines (FineWeb).
    FinewebShortLines = "fineweb-short-lines",
    /// Too much text in lines that stand there twice (FineWeb).
    FinewebDuplicates = "fineweb-duplicates",
    /// The same text, but for case and white space, stands earlier in the corpus.
    ExactDuplicate = "exact-duplicate",
    /// Nearly the same text stands earlier in the corpus.
    NearDuplicate = "near-duplicate",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule that was broken, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The rule.
    pub rule: Rule,
    /// What was found.
    pub found: String,
}

impl Rejection {
    fn new(rule: Rule, found: impl fmt::Display) -> Rejection {
        Rejection { rule, found: found.to_string() }
    }
}

/// What the rules say of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement<'t> {
    /// What is left of the text.
    pub text: Cow<'t, str>,
    /// Lines that were taken out of it.
    pub lines_cut: u32,
    /// Why it is dropped, if it is.
    pub rejection: Option<Rejection>,
}

impl FilterOptions {
    /// Applies the rules to a cleaned text: first those about the whole, then those that take lines out, then those about
    /// what is left.
    pub fn judge<'t>(&self, text: &'t str) -> Judgement<'t> {
        if text.trim().is_empty() {
            let rejection = Some(Rejection::new(Rule::Empty, "no text"));
            return Judgement { text: Cow::Borrowed(text), lines_cut: 0, rejection };
        }
        // The cheapest first; what one drops the next need not see.
        let rejection = (!self.languages.is_empty())
            .then(|| language::check(text, &self.languages))
            .flatten()
            .or_else(|| self.gopher.then(|| gopher::check(text)).flatten())
            .or_else(|| self.repetition.then(|| repetition::check(text)).flatten());
        if rejection.is_some() {
            return Judgement { text: Cow::Borrowed(text), lines_cut: 0, rejection };
        }
        let (left, lines_cut) = self.cut(text);
        let rejection = left
            .trim()
            .is_empty()
            .then(|| Rejection::new(Rule::Empty, format!("nothing is left, {lines_cut} lines were cut")))
            .or_else(|| self.c4.then(|| c4::check(&left)).flatten())
            .or_else(|| self.fineweb.then(|| fineweb::check(&left)).flatten())
            .or_else(|| self.length(&left));
        Judgement { text: left, lines_cut, rejection }
    }

    /// Takes out the lines that the rules for lines name, and C4's citation marks: what is left, and how many lines they were.
    pub fn cut<'t>(&self, text: &'t str) -> (Cow<'t, str>, u32) {
        let mut left = if self.c4 { c4::without_marks(text) } else { Cow::Borrowed(text) };
        let mut lines_cut = 0;
        for (applies, is_cut) in [
            (self.boilerplate, boilerplate::lines as fn(&str) -> Vec<bool>),
            (self.c4, c4::lines as fn(&str) -> Vec<bool>),
        ] {
            if applies {
                let cut = is_cut(&left);
                let count = cut.iter().filter(|c| **c).count();
                if count > 0 {
                    lines_cut += u32::try_from(count).unwrap_or(u32::MAX);
                    left = Cow::Owned(without(&left, &cut));
                }
            }
        }
        (left, lines_cut)
    }

    fn length(&self, text: &str) -> Option<Rejection> {
        let found = || format!("{} bytes", text.len());
        if text.len() < self.min_bytes {
            return Some(Rejection::new(Rule::TooShort, found()));
        }
        self.max_bytes.filter(|max| text.len() > *max).map(|_| Rejection::new(Rule::TooLong, found()))
    }
}

/// The text without the lines that are marked.
fn without(text: &str, cut: &[bool]) -> String {
    let mut left = String::with_capacity(text.len());
    for (line, _) in text.split('\n').zip(cut).filter(|(_, cut)| !**cut) {
        left.push_str(line);
        left.push('\n');
    }
    left.trim().to_owned()
}

/// A share of a whole, 0 of nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Numbers of lines, and of bytes in lines, that repeat an earlier line; and of all lines and bytes.
struct Repeats {
    lines: usize,
    bytes: usize,
    all_lines: usize,
    all_bytes: usize,
}

fn repeats<'t>(pieces: impl Iterator<Item = &'t str>) -> Repeats {
    let mut seen = rustc_hash::FxHashSet::default();
    let mut r = Repeats { lines: 0, bytes: 0, all_lines: 0, all_bytes: 0 };
    for piece in pieces.map(str::trim).filter(|p| !p.is_empty()) {
        r.all_lines += 1;
        r.all_bytes += piece.len();
        if !seen.insert(piece) {
            r.lines += 1;
            r.bytes += piece.len();
        }
    }
    r
}
