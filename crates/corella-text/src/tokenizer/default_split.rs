//! The split that llama.cpp makes where a GGUF file names no pattern (`tokenizer.ggml.pre` is `default` or missing).

use super::chars::{Class, class_at, is_punctuation, run_end, space_run};
use super::pretokenize::GPT2_PATTERN;

/// The patterns, each applied to the pieces that those before have left: its matches are pieces, and so is what stands between.
pub const PATTERNS: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"];

/// Where the piece that begins at byte `start`, with a character of this class and length, ends.
pub fn piece_end(text: &str, start: usize, (class, len): (Class, usize)) -> usize {
    match class {
        Class::Letter => run_end(text, start, Class::Letter),
        Class::Number => number_end(text, start, len),
        Class::Other => other_end(text, start),
        Class::Space => space_end(text, start),
    }
}

/// Whether the character at byte `at` is one of the first pattern's.
fn is_mark(text: &str, at: usize) -> bool {
    match text.as_bytes().get(at) {
        // All that ASCII has beside letters, digits and white space, less its controls.
        Some(byte) if byte.is_ascii() => byte.is_ascii_punctuation() && *byte != b'`',
        Some(_) => text.get(at..).and_then(|rest| rest.chars().next()).is_some_and(is_punctuation),
        None => false,
    }
}

/// Marks end where others of their class begin, and the other way round.
fn other_end(text: &str, start: usize) -> usize {
    let marks = is_mark(text, start);
    let mut end = start;
    while let Some((Class::Other, len)) = class_at(text, end)
        && is_mark(text, end) == marks
    {
        end += len;
    }
    end
}

/// Three digits of ASCII, or what stands before the next three of them in a number.
fn number_end(text: &str, start: usize, len: usize) -> usize {
    let three = |at: usize| text.as_bytes().get(at..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    if three(start) {
        return start + 3;
    }
    let mut end = start + len;
    while let Some((Class::Number, len)) = class_at(text, end)
        && !three(end)
    {
        end += len;
    }
    end
}

/// One space goes with the word behind it; marks and numbers have none, and to marks the white space before them is the end
/// of a text.
fn space_end(text: &str, start: usize) -> usize {
    if text.as_bytes()[start] == b' ' && !is_mark(text, start + 1) {
        match class_at(text, start + 1) {
            Some((Class::Letter, _)) => return run_end(text, start + 1, Class::Letter),
            Some((Class::Other, _)) => return other_end(text, start + 1),
            _ => {}
        }
    }
    let (end, last) = space_run(text, start);
    if end == text.len() || is_mark(text, end) || last == start { end } else { last }
}

#[cfg(test)]
mod tests {
    use super::super::pretokenize::Split;

    #[test]
    fn marks_numbers_and_words_are_cut_apart() {
        let pieces = |text| Split::LlamaCppDefault.pieces(text).collect::<Vec<&str>>();
        assert_eq!(pieces("it's  $4.50"), ["it", "'", "s", "  ", "$", "4", ".", "50"]);
        assert_eq!(
            pieces("a  12345 `x` ©¤ «é»"),
            ["a", " ", " ", "123", "45", " `", "x", "`", " ©¤", " ", "«", "é", "»"]
        );
        // Three digits are those of ASCII.
        assert_eq!(pieces("12٣4567"), ["12٣", "456", "7"]);
        assert_eq!(pieces("½\n\n b \n"), ["½", "\n\n", " b", " \n"]);
    }
}
