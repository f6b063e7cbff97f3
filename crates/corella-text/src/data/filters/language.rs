//! The language of a document.

use whatlang::Lang;

use super::{Rejection, Rule};

/// Bytes that are looked at: more does not make the answer surer.
const SAMPLE: usize = 4096;

/// A code that names no known language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} is no known language (ISO 639-3); known are {known}")]
pub struct UnknownLanguage {
    code: String,
    known: String,
}

/// Checks a code such as `eng` or `deu`.
pub fn known_language(code: &str) -> Result<(), UnknownLanguage> {
    match Lang::from_code(code) {
        Some(_) => Ok(()),
        None => {
            let known: Vec<&str> = Lang::all().iter().map(|l| l.code()).collect();
            Err(UnknownLanguage { code: code.to_owned(), known: known.join(" ") })
        }
    }
}

/// Looks at the middle of the text, where navigation and headings are rarer.
pub(super) fn check(text: &str, languages: &[String]) -> Option<Rejection> {
    let start = text.floor_char_boundary(text.len().saturating_sub(SAMPLE) / 2);
    let end = text.floor_char_boundary((start + SAMPLE).min(text.len()));
    match whatlang::detect(&text[start..end]) {
        Some(info) if languages.iter().any(|l| l == info.lang().code()) => None,
        Some(info) => Some(Rejection::new(
            Rule::Language,
            format!("{} (confidence {:.2})", info.lang().code(), info.confidence()),
        )),
        None => Some(Rejection::new(Rule::Language, "no language")),
    }
}
