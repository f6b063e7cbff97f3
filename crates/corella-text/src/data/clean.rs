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

/// The text without byte order mark, with lines ending in `\n`, without white space around it.
pub fn clean(text: &str, options: CleanOptions) -> Cow<'_, str> {
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace()).trim_end();
    let text = if memchr::memchr(b'\r', text.as_bytes()).is_some() {
        Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    };
    if options.nfc && !text.is_ascii() && is_nfc_quick(text.chars()) != IsNormalized::Yes {
        return Cow::Owned(text.nfc().collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{CleanOptions, clean};

    #[test]
    fn mark_line_ends_and_margins_go_and_nothing_else() {
        let plain = CleanOptions::default();
        assert_eq!(clean("\u{feff} a\r\nb\rc\r\n\r\n", plain), "a\nb\nc");
        assert_eq!(["\u{feff}", " \u{feff}\n\u{feff} \n"].map(|text| clean(text, plain)), ["", ""]);
        assert_eq!(clean("e\u{301}\u{feff}x", plain), "e\u{301}\u{feff}x");
        assert_eq!(clean("e\u{301} ﬁ", CleanOptions { nfc: true }), "é ﬁ");
    }
}
