//! Splitting text into the pieces that BPE works on.

use unicode_general_category::{GeneralCategory, get_general_category};

/// How a text is split before the merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Every digit is a piece of its own.
    pub single_digits: bool,
}

impl Split {
    /// The pieces of a text, which together are the text.
    pub fn pieces(self, text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (piece, after) = rest.split_at(first_piece(rest, self.single_digits));
            rest = after;
            Some(piece)
        })
    }
}

fn is_letter(c: char) -> bool {
    use GeneralCategory::{LowercaseLetter, ModifierLetter, OtherLetter, TitlecaseLetter, UppercaseLetter};
    matches!(
        get_general_category(c),
        LowercaseLetter | ModifierLetter | OtherLetter | TitlecaseLetter | UppercaseLetter
    )
}

/// Kind of a character in GPT-2's pattern.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Letter,
    Number,
    Space,
    Other,
}

fn kind(c: char) -> Kind {
    if c.is_ascii() {
        return ASCII[c as usize];
    }
    if is_letter(c) {
        Kind::Letter
    } else if c.is_numeric() {
        Kind::Number
    } else if c.is_whitespace() {
        Kind::Space
    } else {
        Kind::Other
    }
}

/// Kinds of the ASCII characters; white space there is what Unicode calls so: tab to carriage return, and the space.
const ASCII: [Kind; 128] = {
    let mut kinds = [Kind::Other; 128];
    let mut c = 0;
    while c < 128 {
        let byte = c as u8;
        kinds[c] = if byte.is_ascii_alphabetic() {
            Kind::Letter
        } else if byte.is_ascii_digit() {
            Kind::Number
        } else if matches!(byte, 9..=13 | b' ') {
            Kind::Space
        } else {
            Kind::Other
        };
        c += 1;
    }
    kinds
};

/// Length in bytes of the first match of GPT-2's pattern, the alternatives in their order:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. With single digits, a number is cut
/// out of the text first: each of its digits is a piece, and what stands before it ends there as a text ends.
///
/// Reads no further than the piece and one character, so that a text of any length is split in linear time.
fn first_piece(text: &str, single_digits: bool) -> usize {
    let contractions = text.starts_with('\'');
    for contraction in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if contractions && text.starts_with(contraction) {
            return contraction.len();
        }
    }
    let skip = usize::from(text.starts_with(' '));
    if let Some(first) = text[skip..].chars().next() {
        let run = kind(first);
        if run == Kind::Number && single_digits {
            return if skip == 1 { 1 } else { first.len_utf8() };
        }
        if run != Kind::Space {
            return skip + run_length(&text[skip..], run);
        }
    }
    let spaces = run_length(text, Kind::Space);
    let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
    // A run of white space leaves its last character to the word that follows.
    let ends = text[spaces..].chars().next().is_none_or(|c| single_digits && kind(c) == Kind::Number);
    if ends || spaces == last { spaces } else { spaces - last }
}

fn run_length(text: &str, run: Kind) -> usize {
    let plain = text.bytes().position(|b| !b.is_ascii() || ASCII[b as usize] != run).unwrap_or(text.len());
    if text.as_bytes().get(plain).is_none_or(u8::is_ascii) {
        return plain;
    }
    text.char_indices().find(|(_, c)| kind(*c) != run).map_or(text.len(), |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, single_digits: bool) -> Vec<&str> {
        Split { single_digits }.pieces(text).collect()
    }

    #[test]
    fn words_take_one_space_and_contractions_stand_alone() {
        assert_eq!(
            split("I'm  here, it's 2024!\n\nOK ", false),
            ["I", "'m", " ", " here", ",", " it", "'s", " 2024", "!", "\n", "\n", "OK", " "]
        );
    }

    #[test]
    fn digits_stand_alone_when_asked() {
        assert_eq!(split("in  1984.", true), ["in", "  ", "1", "9", "8", "4", "."]);
        assert_eq!(split("a 1\n2 b", true), ["a", " ", "1", "\n", "2", " b"]);
    }
}
