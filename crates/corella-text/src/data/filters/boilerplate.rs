//! Lines that belong to a page and not to its text: navigation, consent, copyright, calls to share and to subscribe.
//!
//! Only short lines are cut, and those with words of everyday language only where they do not end as sentences do, so that a
//! sentence about cookies stays; and a short line from its third occurrence on, which is a heading or a button and not what
//! the text says.

use rustc_hash::FxHashMap;

/// Longest line, in words, that may be cut.
const WORDS: usize = 12;
/// Occurrences of a line that stay.
const OCCURRENCES: u32 = 2;
/// Marks that no text of its own has in a short line.
const MARKS: [&str; 2] = ["©", "(c) 20"];
/// Phrases that belong to pages, in lower case.
const PHRASES: [&str; 12] = [
    "all rights reserved",
    "privacy policy",
    "terms of use",
    "terms of service",
    "terms and conditions",
    "skip to content",
    "skip to main",
    "back to top",
    "leave a comment",
    "leave a reply",
    "add to cart",
    "share this",
];
/// Phrases that sentences use, too.
const EVERYDAY: [&str; 17] = [
    "cookie",
    "cookies",
    "sign in",
    "sign up",
    "log in",
    "login",
    "subscribe",
    "newsletter",
    "newsletters",
    "share on",
    "follow us",
    "click here",
    "read more",
    "powered by",
    "javascript",
    "advertisement",
    "advertisements",
];

/// Which lines are cut.
pub(super) fn lines(text: &str) -> Vec<bool> {
    let mut seen: FxHashMap<&str, u32> = FxHashMap::default();
    text.split('\n')
        .map(|line| {
            let line = line.trim();
            if line.is_empty() || line.split_whitespace().take(WORDS + 1).count() > WORDS {
                return false;
            }
            let count = seen.entry(line).or_insert(0);
            *count += 1;
            let lower = line.to_lowercase();
            *count > OCCURRENCES
                || MARKS.iter().any(|m| lower.contains(m))
                || PHRASES.iter().any(|p| has(&lower, p))
                || (!is_sentence(line) && EVERYDAY.iter().any(|p| has(&lower, p)))
                // A row of links.
                || line.matches(" | ").count() >= 2
                || line.matches(" » ").count() >= 2
        })
        .collect()
}

/// Whether a phrase stands in a text as whole words.
fn has(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        !text[..at].ends_with(char::is_alphanumeric) && !text[at + phrase.len()..].starts_with(char::is_alphanumeric)
    })
}

fn is_sentence(line: &str) -> bool {
    line.trim_end_matches(['"', '\'', '”', '’', ')']).ends_with(['.', '!', '?']) && !line.ends_with("...")
}
