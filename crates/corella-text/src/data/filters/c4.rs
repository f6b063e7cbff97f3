//! C4's rules: Raffel et al. 2020 (JMLR 21, arXiv 1910.10683), section 2.2.
//!
//! The paper's list of bad words is not applied: it is not shipped, and it drops more than it names.

use super::{Rejection, Rule};

const WORDS_PER_LINE: usize = 5;
const SENTENCES: usize = 3;
/// A line must end like a sentence.
const ENDS: [char; 4] = ['.', '!', '?', '"'];
/// Lines with these are about the page's machinery, or its policies.
const PHRASES: [&str; 7] =
    ["javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// Which lines are cut.
pub(super) fn lines(text: &str) -> Vec<bool> {
    text.split('\n')
        .map(|line| {
            let line = line.trim();
            // Empty lines divide paragraphs and stay.
            if line.is_empty() {
                return false;
            }
            let ends = line.ends_with(ENDS) && !line.ends_with("...");
            let words = line.split_whitespace().take(WORDS_PER_LINE).count();
            if !ends || words < WORDS_PER_LINE {
                return true;
            }
            let lower = line.to_lowercase();
            PHRASES.iter().any(|p| lower.contains(p))
        })
        .collect()
}

/// Rules about the page.
pub(super) fn check(text: &str) -> Option<Rejection> {
    if text.contains('{') {
        return Some(Rejection::new(Rule::C4Brackets, "a curly bracket"));
    }
    if text.to_lowercase().contains("lorem ipsum") {
        return Some(Rejection::new(Rule::C4LoremIpsum, "lorem ipsum"));
    }
    // An end mark behind a letter, digit or quote, before white space or the end.
    let mut sentences = 0usize;
    for (i, mark) in text.char_indices().filter(|(_, c)| matches!(c, '.' | '!' | '?')) {
        let after = text[i + mark.len_utf8()..].chars().next();
        if after.is_none_or(|c| c.is_whitespace() || matches!(c, '"' | '”' | '\'' | ')')) {
            sentences += 1;
        }
    }
    (sentences < SENTENCES).then(|| Rejection::new(Rule::C4Sentences, format!("{sentences} sentences")))
}
