//! C4's rules: Raffel et al. 2020 (JMLR 21, arXiv 1910.10683), section 2.2.
//!
//! The paper's list of bad words is not applied: it is not shipped, and it drops more than it names. Nor is what it does
//! against spans of three sentences that stand in several pages; duplicates are looked for among whole texts. Words of a line
//! and sentences of a page are counted as the paper says (5 and 3); datatrove's filter asks for 3 and 5, and cuts lines with a
//! word of more than 1000 characters.

use std::borrow::Cow;

use super::{Rejection, Rule};

const WORDS_PER_LINE: usize = 5;
const SENTENCES: usize = 3;
/// A line must end like a sentence.
const ENDS: [char; 4] = ['.', '!', '?', '"'];
/// Lines with these are about the page's machinery, or its policies.
const PHRASES: [&str; 7] =
    ["javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// The text without Wikipedia's marks: `[1]`, `[edit]`, `[citation needed]`.
pub(super) fn without_marks(text: &str) -> Cow<'_, str> {
    let is_mark = |m: &str| m.bytes().all(|b| b.is_ascii_digit()) || m == "edit" || m == "citation needed";
    let (mut out, mut kept) = (String::new(), 0);
    for (open, _) in text.match_indices('[') {
        let inside = &text[open + 1..];
        let end = inside.bytes().position(|b| b == b']' || !(b.is_ascii_alphanumeric() || b == b' '));
        if let Some(end) = end.filter(|end| inside[*end..].starts_with(']') && is_mark(&inside[..*end])) {
            out.push_str(&text[kept..open]);
            kept = open + 1 + end + 1;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

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
