//! Lines that belong to a page and not to its text: navigation, consent, copyright, calls to share and to subscribe.
//!
//! Only short lines are cut, so that a sentence about cookies stays; and a short line from its third occurrence on, which
//! is a heading or a button and not what the text says.

use rustc_hash::FxHashMap;

/// Longest line, in words, that may be cut.
const WORDS: usize = 12;
/// Occurrences of a line that stay.
const OCCURRENCES: u32 = 2;
const PHRASES: [&str; 28] = [
    "all rights reserved",
    "©",
    "(c) 20",
    "privacy policy",
    "terms of use",
    "terms of service",
    "terms and conditions",
    "cookie",
    "sign in",
    "sign up",
    "log in",
    "login",
    "subscribe",
    "newsletter",
    "share this",
    "share on",
    "follow us",
    "click here",
    "read more",
    "skip to content",
    "skip to main",
    "back to top",
    "leave a comment",
    "leave a reply",
    "add to cart",
    "powered by",
    "javascript",
    "advertisement",
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
                || PHRASES.iter().any(|p| lower.contains(p))
                // A row of links.
                || line.matches(" | ").count() >= 2
                || line.matches(" » ").count() >= 2
        })
        .collect()
}
