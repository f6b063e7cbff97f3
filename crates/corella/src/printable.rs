//! Control characters in a text that a terminal shows: whoever wrote the prompt, or what a model was trained on, does not command
//! the terminal.

use std::borrow::Cow;
use std::io::IsTerminal;

/// What is shown instead of a control character; `None` of a character that is shown as it is.
pub fn picture(c: char) -> Option<char> {
    match u32::from(c) {
        // Unicode has a picture of each that ASCII has.
        code @ ..0x20 => char::from_u32(0x2400 + code),
        0x7f => Some('\u{2421}'),
        0x80..0xa0 => Some(char::REPLACEMENT_CHARACTER),
        _ => None,
    }
}

/// A text as a terminal may show it: of control characters only the end of a line and the tabulator stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let shown = |c: char| if matches!(c, '\n' | '\t') { c } else { picture(c).unwrap_or(c) };
    if text.chars().all(|c| shown(c) == c) { text.into() } else { text.chars().map(shown).collect() }
}

/// A text as standard output takes it: a terminal shows it, a pipe or a file gets it as it is.
pub fn for_output(text: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { visible(text) } else { text.into() }
}

/// The same on one line.
pub fn line_for_output(text: &str) -> String {
    for_output(&text.replace('\n', " ⏎ ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_and_tabulators_stay() {
        assert_eq!(visible("a\tb\nc é 日"), "a\tb\nc é 日");
        assert_eq!(visible("\u{1b}[2J\u{1b}]0;title\u{7}\r\u{8}\u{7f}\u{0}"), "␛[2J␛]0;title␇␍␈␡␀");
        // CSI in one character.
        assert_eq!(visible("\u{9b}31m"), "\u{fffd}31m");
        assert!((0..0x11_0000).filter_map(char::from_u32).all(|c| c.is_control() == picture(c).is_some()));
    }
}
