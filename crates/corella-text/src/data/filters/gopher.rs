//! Gopher's rules of quality: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1.

use super::{Rejection, Rule, share};

const WORDS: std::ops::RangeInclusive<usize> = 50..=100_000;
const MEAN_WORD_LENGTH: std::ops::RangeInclusive<f64> = 3.0..=10.0;
/// Hash signs, or ellipses, for each word.
const SYMBOLS_PER_WORD: f64 = 0.1;
const BULLET_LINES: f64 = 0.9;
const ELLIPSIS_LINES: f64 = 0.3;
/// Share of the words that must hold a letter.
const WORDS_WITH_LETTER: f64 = 0.8;
/// Of these, at least two must occur: a text of sentences can hardly do without.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];
const BULLETS: [char; 7] = ['•', '‣', '▪', '●', '◦', '-', '*'];

pub(super) fn check(text: &str) -> Option<Rejection> {
    let (mut words, mut chars, mut with_letter, mut stop_words) = (0usize, 0usize, 0usize, 0u8);
    for word in text.split_whitespace() {
        words += 1;
        chars += word.chars().count();
        with_letter += usize::from(word.chars().any(char::is_alphabetic));
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        if let Some(i) = STOP_WORDS.iter().position(|s| bare.eq_ignore_ascii_case(s)) {
            stop_words |= 1 << i;
        }
    }
    if !WORDS.contains(&words) {
        return Some(Rejection::new(Rule::GopherWords, format!("{words} words")));
    }
    let mean = share(chars, words);
    if !MEAN_WORD_LENGTH.contains(&mean) {
        return Some(Rejection::new(Rule::GopherWordLength, format!("words of {mean:.1} characters on average")));
    }
    let hashes = text.matches('#').count();
    let ellipses = text.matches('…').count() + text.matches("...").count();
    if share(hashes.max(ellipses), words) > SYMBOLS_PER_WORD {
        let found = format!("{hashes} hash signs and {ellipses} ellipses in {words} words");
        return Some(Rejection::new(Rule::GopherSymbols, found));
    }
    let (mut lines, mut bullets, mut cut_off) = (0usize, 0usize, 0usize);
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        lines += 1;
        bullets += usize::from(line.starts_with(BULLETS));
        cut_off += usize::from(line.ends_with('…') || line.ends_with("..."));
    }
    if share(bullets, lines) > BULLET_LINES {
        return Some(Rejection::new(Rule::GopherBullets, format!("{bullets} of {lines} lines begin with a bullet")));
    }
    if share(cut_off, lines) > ELLIPSIS_LINES {
        return Some(Rejection::new(Rule::GopherEllipsis, format!("{cut_off} of {lines} lines end with an ellipsis")));
    }
    if share(with_letter, words) < WORDS_WITH_LETTER {
        return Some(Rejection::new(Rule::GopherLetters, format!("{with_letter} of {words} words hold a letter")));
    }
    if stop_words.count_ones() < 2 {
        let found = format!("{} of the words {}", stop_words.count_ones(), STOP_WORDS.join(", "));
        return Some(Rejection::new(Rule::GopherStopWords, found));
    }
    None
}
