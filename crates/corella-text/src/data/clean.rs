//! Cleaning that changes no word: byte order mark, line ends, and, on request, Unicode's composed form.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// How to clean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanOptions {
    /// Composes characters (Unicode's form NFC), so that `é` is one character however it was typed.
    pub nfc: bool,
}

/// What [`unify`] changed of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unified {
    /// It began with a byte order mark.
    pub mark: bool,
    /// Ends of lines that had a carriage return.
    pub line_ends: usize,
}

/// The text without byte order mark, with lines ending in `\n`: what [`clean`] makes of a text that is a stretch of one, white
/// space around it included.
pub fn unify(text: &str) -> (Cow<'_, str>, Unified) {
    let bare = text.trim_start_matches('\u{feff}');
    let line_ends = memchr::memchr_iter(b'\r', bare.as_bytes()).count();
    (line_feeds(bare), Unified { mark: bare.len() < text.len(), line_ends })
}

/// The text with lines ending in `\n`.
fn line_feeds(text: &str) -> Cow<'_, str> {
    match memchr::memchr(b'\r', text.as_bytes()) {
        Some(_) => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        None => Cow::Borrowed(text),
    }
}

/// The text without byte order mark, with lines ending in `\n`, without white space around it.
pub fn clean(text: &str, options: CleanOptions) -> Cow<'_, str> {
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace()).trim_end();
    let text = line_feeds(text);
    if options.nfc && !text.is_ascii() && is_nfc_quick(text.chars()) != IsNormalized::Yes {
        return Cow::Owned(text.nfc().collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{CleanOptions, Unified, clean, unify};

    #[test]
    fn mark_line_ends_and_margins_go_and_nothing_else() {
        let plain = CleanOptions::default();
        assert_eq!(clean("\u{feff} a\r\nb\rc\r\n\r\n", plain), "a\nb\nc");
        assert_eq!(["\u{feff}", " \u{feff}\n\u{feff} \n"].map(|text| clean(text, plain)), ["", ""]);
        assert_eq!(clean("e\u{301}\u{feff}x", plain), "e\u{301}\u{feff}x");
        assert_eq!(clean("e\u{301} ﬁ", CleanOptions { nfc: true }), "é ﬁ");
    }

    #[test]
    fn a_stretch_of_a_text_keeps_its_margins() {
        let (text, changed) = unify("\u{feff} a\r\nb\rc\r\n\r\n");
        assert_eq!((text.as_ref(), changed), (" a\nb\nc\n\n", Unified { mark: true, line_ends: 4 }));
        assert_eq!(unify("a\n\u{feff}b "), ("a\n\u{feff}b ".into(), Unified::default()));
    }
}
