//! Classes of characters that the splitting patterns tell apart.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Class of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    /// Everything else.
    Other,
}

/// Classes of the ASCII characters; white space there is what Unicode calls so: tab to carriage return, and the space.
const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut c = 0;
    while c < 128 {
        let byte = c as u8;
        classes[c] = if byte.is_ascii_alphabetic() {
            Class::Letter
        } else if byte.is_ascii_digit() {
            Class::Number
        } else if matches!(byte, 9..=13 | b' ') {
            Class::Space
        } else {
            Class::Other
        };
        c += 1;
    }
    classes
};

fn class(c: char) -> Class {
    use GeneralCategory::{
        DecimalNumber, LetterNumber, LowercaseLetter, ModifierLetter, OtherLetter, OtherNumber, TitlecaseLetter,
        UppercaseLetter,
    };
    match get_general_category(c) {
        LowercaseLetter | ModifierLetter | OtherLetter | TitlecaseLetter | UppercaseLetter => Class::Letter,
        // From the same table, whose Unicode is that of the reference: the standard library's may be newer.
        DecimalNumber | LetterNumber | OtherNumber => Class::Number,
        _ if c.is_whitespace() => Class::Space,
        _ => Class::Other,
    }
}

/// Class and length in bytes of the character at byte `at`, if the text goes on there.
#[inline]
pub fn class_at(text: &str, at: usize) -> Option<(Class, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte < 128 {
        return Some((ASCII[byte as usize], 1));
    }
    let c = text.get(at..)?.chars().next()?;
    Some((class(c), c.len_utf8()))
}

/// Where the run of characters of one class that begins at byte `at` ends.
#[inline]
pub fn run_end(text: &str, mut at: usize, run: Class) -> usize {
    let bytes = text.as_bytes();
    loop {
        while let Some(byte) = bytes.get(at)
            && *byte < 128
            && ASCII[*byte as usize] == run
        {
            at += 1;
        }
        // The end, another class, or a character of several bytes.
        match class_at(text, at) {
            Some((class, len)) if len > 1 && class == run => at += len,
            _ => return at,
        }
    }
}

/// End of the white space that begins at `start`, and where its last character begins.
pub fn space_run(text: &str, start: usize) -> (usize, usize) {
    let end = run_end(text, start, Class::Space);
    let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
    (end, end - last)
}

/// `\p{P}`
pub fn is_punctuation(c: char) -> bool {
    use GeneralCategory::{
        ClosePunctuation, ConnectorPunctuation, DashPunctuation, FinalPunctuation, InitialPunctuation, OpenPunctuation,
        OtherPunctuation,
    };
    matches!(
        get_general_category(c),
        ClosePunctuation
            | ConnectorPunctuation
            | DashPunctuation
            | FinalPunctuation
            | InitialPunctuation
            | OpenPunctuation
            | OtherPunctuation
    )
}
