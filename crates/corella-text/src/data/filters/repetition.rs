//! Gopher's rules against repetition: Rae et al. 2021 (arXiv 2112.11446), table A1.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Rejection, Rule, repeats, share};

/// Share of lines, and of paragraphs, that repeat an earlier one.
const PIECES: f64 = 0.30;
/// Share of the text inside such lines or paragraphs.
const TEXT: f64 = 0.20;
/// Words of a sequence, and the share of the text that all occurrences of the commonest one may cover. The commonest is the one
/// that stands there most often, not the one that covers most.
const COMMONEST: [(usize, f64); 3] = [(2, 0.20), (3, 0.18), (4, 0.16)];
/// Words of a sequence, and the share of the text that may lie in sequences that came before.
const REPEATED: [(usize, f64); 6] = [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)];

pub(super) fn check(text: &str) -> Option<Rejection> {
    for (what, r) in [("lines", repeats(text.lines())), ("paragraphs", repeats(text.split("\n\n")))] {
        let (pieces, bytes) = (share(r.lines, r.all_lines), share(r.bytes, r.all_bytes));
        if pieces > PIECES || bytes > TEXT {
            let found = format!("{:.0} % of the {what}, {:.0} % of the text in them", pieces * 100.0, bytes * 100.0);
            return Some(Rejection::new(Rule::DuplicateLines, found));
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let lengths: Vec<usize> = words.iter().map(|w| w.len()).collect();
    let all: usize = lengths.iter().sum();
    let hashes: Vec<u64> = words.iter().map(|w| twox_hash::XxHash3_64::oneshot(w.as_bytes())).collect();
    for (n, limit) in COMMONEST {
        // An n-gram is known by the position where it first stood.
        let mut counts: FxHashMap<u64, (usize, usize)> = FxHashMap::default();
        for (i, gram) in hashes.windows(n).enumerate() {
            counts.entry(combine(gram)).or_insert((0, i)).0 += 1;
        }
        // Of several that are as common, the longest.
        let length = |i: usize| lengths[i..i + n].iter().sum::<usize>();
        let top = counts
            .into_values()
            .filter(|(count, _)| *count > 1)
            .max_by_key(|(count, i)| (*count, length(*i), usize::MAX - i));
        if let Some((count, i)) = top {
            let covered = share(count * length(i), all);
            if covered > limit {
                let found =
                    format!("{count} times {:?}, {:.0} % of the text", words[i..i + n].join(" "), covered * 100.0);
                return Some(Rejection::new(Rule::DuplicateNgrams, found));
            }
        }
    }
    for (n, limit) in REPEATED {
        let (mut seen, mut covered, mut i) = (FxHashSet::default(), 0usize, 0usize);
        while i + n <= hashes.len() {
            // What a repeated sequence covers is not counted again by one that overlaps it.
            if seen.insert(combine(&hashes[i..i + n])) {
                i += 1;
            } else {
                covered += lengths[i..i + n].iter().sum::<usize>();
                i += n;
            }
        }
        if share(covered, all) > limit {
            let found = format!("{:.0} % of the text in repeated {n}-grams", share(covered, all) * 100.0);
            return Some(Rejection::new(Rule::DuplicateNgrams, found));
        }
    }
    None
}

/// One number for a sequence of hashes; the order counts.
fn combine(gram: &[u64]) -> u64 {
    gram.iter().fold(0, |h: u64, w| (h.rotate_left(23) ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
