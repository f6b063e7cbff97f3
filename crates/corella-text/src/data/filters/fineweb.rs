//! FineWeb's own rules: Penedo et al. 2024 (arXiv 2406.17557), section 3.5.

use super::{Rejection, Rule, repeats, share};

/// Share of the lines that must end with a mark.
const ENDED_LINES: f64 = 0.12;
/// Share of the text inside lines that stand there twice.
const DUPLICATE_TEXT: f64 = 0.1;
/// Share of the lines shorter than this many characters.
const SHORT_LINES: f64 = 0.67;
const SHORT: usize = 30;
const ENDS: [char; 12] = ['.', '!', '?', '"', '\'', '”', '’', '…', ':', ';', ',', ')'];

pub(super) fn check(text: &str) -> Option<Rejection> {
    let (mut lines, mut ended, mut short) = (0usize, 0usize, 0usize);
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        lines += 1;
        ended += usize::from(line.ends_with(ENDS));
        short += usize::from(line.chars().take(SHORT).count() < SHORT);
    }
    if share(ended, lines) <= ENDED_LINES {
        return Some(Rejection::new(Rule::FinewebPunctuation, format!("{ended} of {lines} lines end with a mark")));
    }
    if share(short, lines) >= SHORT_LINES {
        return Some(Rejection::new(Rule::FinewebShortLines, format!("{short} of {lines} lines are short")));
    }
    let r = repeats(text.lines());
    let twice = share(r.bytes, r.all_bytes);
    (twice >= DUPLICATE_TEXT).then(|| {
        Rejection::new(Rule::FinewebDuplicates, format!("{:.0} % of the text in repeated lines", twice * 100.0))
    })
}
