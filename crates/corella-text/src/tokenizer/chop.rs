//! The cuts that Meta's reference makes before it encodes (meta-llama/llama-models, `tokenizer.py`).

/// Most characters that are encoded at once.
const PIECE: usize = 400_000;
/// Most characters in a row that are all white space, or all not.
const RUN: usize = 25_000;

/// White space as Python's `str.isspace` has it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The text in parts of at most 400,000 characters, and those cut again after 25,000 characters in a row that are all
/// white space or all not.
pub fn chop(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let (mut in_piece, mut run, mut run_is_space) = (0, 0, false);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut cut = rest.len();
        for (at, c) in rest.char_indices() {
            if in_piece == PIECE {
                (in_piece, run) = (0, 0);
                if at > 0 {
                    cut = at;
                    break;
                }
            }
            if run > 0 && run_is_space == is_space(c) {
                run += 1;
            } else {
                (run, run_is_space) = (1, is_space(c));
            }
            if run > RUN {
                run = 0;
                cut = at;
                break;
            }
            in_piece += 1;
        }
        let (part, after) = rest.split_at(cut);
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<usize> {
        let parts: Vec<&str> = chop(text).collect();
        assert_eq!(parts.concat(), text);
        parts.iter().map(|part| part.chars().count()).collect()
    }

    #[test]
    fn runs_and_pieces_are_cut_where_the_reference_cuts() {
        assert_eq!(lengths(&"a".repeat(60_000)), [25_000, 25_000, 10_000]);
        assert_eq!(lengths(&(" ".repeat(25_000) + &"é".repeat(25_001))), [50_000, 1]);
        assert_eq!(lengths(&"ab ".repeat(300_000)), [400_000, 400_000, 100_000]);
        // A run goes on from zero in the next piece.
        let text = "a ".repeat(195_000) + &"b".repeat(40_000);
        assert_eq!(lengths(&text), [400_000, 25_000, 5_000]);
        assert_eq!(lengths(""), [0usize; 0]);
    }
}
