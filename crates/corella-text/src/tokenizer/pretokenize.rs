//! Splitting text into the pieces that BPE works on.

use super::chars::{Class, class_at, run_end, space_run};
use super::default_split;

/// How a text is split before the merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// GPT-2's pattern, [`GPT2_PATTERN`].
    Gpt2 {
        /// A number is cut out of the text first: each of its digits is a piece, and what stands before it ends there as
        /// a text ends. (`Digits` with `individual_digits` before `ByteLevel` in Hugging Face's files.)
        single_digits: bool,
    },
    /// Llama 3's pattern, [`LLAMA3_PATTERN`].
    Llama3 {
        /// Most digits of a piece: 3, or 1 as Qwen has it.
        digits: u8,
    },
    /// What llama.cpp takes where a file names no pattern: four of them one after the other, [`default_split::PATTERNS`].
    LlamaCppDefault,
}

/// GPT-2's pattern (openai/gpt-2, `encoder.py`).
pub const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's pattern (meta-llama/llama-models, `tokenizer.py`).
pub const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Llama 3's pattern with single digits (Qwen 2 and 2.5).
const QWEN2_PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Split {
    /// The split that patterns ask for, each applied to the pieces of those before, where it is one that is computed here.
    pub fn of_patterns(patterns: &[&str]) -> Option<Split> {
        let all = [Split::Llama3 { digits: 3 }, Split::Llama3 { digits: 1 }, Split::LlamaCppDefault];
        all.into_iter().find(|split| split.patterns() == patterns)
    }

    /// The patterns to write into a file, of those that are no pre-tokenizer of their own there.
    pub fn patterns(self) -> &'static [&'static str] {
        match self {
            Split::Gpt2 { .. } => &[],
            Split::Llama3 { digits: 1 } => &[QWEN2_PATTERN],
            Split::Llama3 { .. } => &[LLAMA3_PATTERN],
            Split::LlamaCppDefault => &default_split::PATTERNS,
        }
    }

    /// Whose rule it is, as people know it: text is split as …
    pub fn in_words(self) -> &'static str {
        match self {
            Split::Gpt2 { single_digits: false } => "GPT-2 splits it",
            Split::Gpt2 { single_digits: true } => "GPT-2 splits it, each digit a piece",
            Split::Llama3 { digits: 1 } => "Qwen 2 splits it (Llama 3's rule, each digit a piece)",
            Split::Llama3 { .. } => "Llama 3 splits it",
            Split::LlamaCppDefault => "llama.cpp splits it where a file names no rule",
        }
    }

    /// The pieces of a text, which together are the text.
    pub fn pieces(self, text: &str) -> impl Iterator<Item = &str> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = self.piece_end(text, start)?;
            let piece = &text[start..end];
            start = end;
            Some(piece)
        })
    }

    /// Where the piece that begins at byte `start` ends; `None` at the end of the text.
    ///
    /// Reads no further than the piece, the white space behind it, and one character, so that a text of any length is
    /// split in linear time.
    #[inline]
    pub fn piece_end(self, text: &str, start: usize) -> Option<usize> {
        let first = class_at(text, start)?;
        Some(match self {
            Split::Gpt2 { single_digits } => gpt2(text, start, first, single_digits),
            Split::Llama3 { digits } => llama3(text, start, first, digits),
            Split::LlamaCppDefault => default_split::piece_end(text, start, first),
        })
    }
}

/// The first match of [`GPT2_PATTERN`], the alternatives in their order.
fn gpt2(text: &str, start: usize, (class, len): (Class, usize), single_digits: bool) -> usize {
    let bytes = text.as_bytes();
    if bytes[start] == b'\'' {
        let length = match bytes.get(start + 1..).unwrap_or_default() {
            [b's' | b't' | b'm' | b'd', ..] => 2,
            [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => 3,
            _ => 0,
        };
        if length > 0 {
            return start + length;
        }
    }
    // ` ?` and a run of letters, numbers or others.
    let (run, at) = match (bytes[start], class_at(text, start + 1)) {
        (b' ', Some((next, _))) => (next, start + 1),
        _ => (class, start),
    };
    if run == Class::Number && single_digits {
        return if at > start { at } else { start + len };
    }
    if run != Class::Space {
        return run_end(text, at, run);
    }
    let (end, last) = space_run(text, start);
    // A run of white space leaves its last character to the word that follows.
    let ends = class_at(text, end).is_none_or(|(class, _)| single_digits && class == Class::Number);
    if ends || last == start { end } else { last }
}

/// The first match of [`LLAMA3_PATTERN`], the alternatives in their order.
fn llama3(text: &str, start: usize, (class, len): (Class, usize), digits: u8) -> usize {
    let bytes = text.as_bytes();
    if bytes[start] == b'\''
        && let Some(end) = contraction(bytes, start)
    {
        return end;
    }
    // `[^\r\n\p{L}\p{N}]?\p{L}+`
    if class == Class::Letter {
        return run_end(text, start, Class::Letter);
    }
    let next = class_at(text, start + len);
    if class != Class::Number && !is_line_end(bytes[start]) && matches!(next, Some((Class::Letter, _))) {
        return run_end(text, start + len, Class::Letter);
    }
    // `\p{N}{1,3}`
    if class == Class::Number {
        let mut end = start + len;
        for _ in 1..digits {
            match class_at(text, end) {
                Some((Class::Number, len)) => end += len,
                _ => break,
            }
        }
        return end;
    }
    // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    let others = match (class, bytes[start], next) {
        (Class::Other, ..) => Some(start),
        (_, b' ', Some((Class::Other, _))) => Some(start + 1),
        _ => None,
    };
    if let Some(at) = others {
        let end = run_end(text, at, Class::Other);
        return end + bytes[end..].iter().take_while(|b| is_line_end(**b)).count();
    }
    // `\s*[\r\n]+`: up to the last line end of the white space.
    let (end, last) = space_run(text, start);
    if let Some(line_end) = bytes[start..end].iter().rposition(|b| is_line_end(*b)) {
        return start + line_end + 1;
    }
    // `\s+(?!\S)|\s+`
    if end == text.len() || last == start { end } else { last }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; the long s (U+017F) is an s to a pattern that ignores case.
fn contraction(bytes: &[u8], start: usize) -> Option<usize> {
    let length = match bytes.get(start + 1..)? {
        [b's' | b't' | b'm' | b'd' | b'S' | b'T' | b'M' | b'D', ..] => 2,
        [b'r' | b'v' | b'R' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => 3,
        [0xc5, 0xbf, ..] => 3,
        _ => return None,
    };
    Some(start + length)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, split: Split) -> Vec<&str> {
        split.pieces(text).collect()
    }

    const GPT2: Split = Split::Gpt2 { single_digits: false };
    const DIGITS: Split = Split::Gpt2 { single_digits: true };
    const LLAMA3: Split = Split::Llama3 { digits: 3 };

    #[test]
    fn words_take_one_space_and_contractions_stand_alone() {
        assert_eq!(
            split("I'm  here, it's 2024!\n\nOK ", GPT2),
            ["I", "'m", " ", " here", ",", " it", "'s", " 2024", "!", "\n", "\n", "OK", " "]
        );
    }

    #[test]
    fn digits_stand_alone_when_asked() {
        assert_eq!(split("in  1984.", DIGITS), ["in", "  ", "1", "9", "8", "4", "."]);
        assert_eq!(split("a 1\n2 b", DIGITS), ["a", " ", "1", "\n", "2", " b"]);
    }

    #[test]
    fn llama3_takes_three_digits_line_ends_and_contractions_of_any_case() {
        assert_eq!(split("IT'S 20245!\r\n\n  x", LLAMA3), ["IT", "'S", " ", "202", "45", "!\r\n\n", " ", " x"]);
        assert_eq!(split("\tif (a) \n \n b", LLAMA3), ["\tif", " (", "a", ")", " \n \n", " b"]);
        assert_eq!(split("a12", Split::Llama3 { digits: 1 }), ["a", "1", "2"]);
    }

    /// The regular expressions themselves, on random text of the characters that matter. The crate has no look-ahead:
    /// `\s+(?!\S)` is what a run of white space is, less its last character where something follows.
    #[test]
    fn pieces_are_the_matches_of_the_patterns() {
        let alphabet: Vec<char> = "aZſsTvell'' \t\r\n\u{a0}\u{2003}019٣½.,!-—é漢\u{301}👩\u{200d}".chars().collect();
        let mut state = 7u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        for (which, pattern) in [(GPT2, GPT2_PATTERN), (LLAMA3, LLAMA3_PATTERN)] {
            let (before, after) = pattern.split_once(r"|\s+(?!\S)").expect("both have it");
            let plain = regex::Regex::new(&format!("^(?:{before}{after})")).expect("valid");
            let own = regex::Regex::new(&format!("^(?:{before})")).expect("valid");
            for _ in 0..20_000 {
                let text: String = (0..random(12) + 1).map(|_| alphabet[random(alphabet.len())]).collect();
                let (mut rest, mut expected) = (&text[..], Vec::new());
                while !rest.is_empty() {
                    let mut end = plain.find(rest).expect("every character matches").end();
                    let is_run = own.find(rest).is_none();
                    let last = rest[..end].chars().next_back().map_or(0, char::len_utf8);
                    if is_run && end < rest.len() && end > last {
                        end -= last;
                    }
                    expected.push(&rest[..end]);
                    rest = &rest[end..];
                }
                assert_eq!(split(&text, which), expected, "{text:?}");
            }
        }
    }
}
