//! Tokens coloured by probability.

use std::ffi::OsStr;
use std::io::IsTerminal;

/// The end of a colour.
const RESET: &str = "\x1b[0m";

/// Probabilities from which each colour holds, with its number in the terminal's palette of 256.
const STEPS: [(f32, u8, &str); 5] =
    [(0.9, 34, "≥ 90 %"), (0.5, 112, "≥ 50 %"), (0.2, 220, "≥ 20 %"), (0.05, 208, "≥ 5 %"), (0.0, 196, "below")];

/// Whether standard output shows colours.
pub fn shown() -> bool {
    std::io::stdout().is_terminal()
        && wanted(std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref())
}

/// Whether a terminal is to show them: an empty NO_COLOR says nothing (no-color.org), and a dumb terminal shows none.
fn wanted(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// `text` in the colour of a token with this log-probability.
pub fn by_probability(text: &str, logprob: f32) -> String {
    let p = logprob.exp();
    let (_, colour, _) = STEPS.iter().find(|(from, ..)| p >= *from).unwrap_or(&STEPS[STEPS.len() - 1]);
    format!("\x1b[38;5;{colour}m{text}{RESET}")
}

/// What the colours mean.
pub fn legend() -> String {
    let steps = STEPS.iter().map(|(_, colour, name)| format!("\x1b[38;5;{colour}m{name}{RESET}"));
    format!("probability of a token: {}", steps.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::{by_probability, wanted};

    #[test]
    fn likelier_tokens_are_greener() {
        let colour = |p: f32| by_probability("x", p.ln());
        assert_eq!(colour(0.95), "\x1b[38;5;34mx\x1b[0m");
        assert_eq!(colour(0.5), "\x1b[38;5;112mx\x1b[0m");
        assert_eq!(colour(0.01), "\x1b[38;5;196mx\x1b[0m");
        assert_eq!(by_probability("x", f32::NEG_INFINITY), "\x1b[38;5;196mx\x1b[0m");
        assert_eq!(by_probability("x", f32::NAN), "\x1b[38;5;196mx\x1b[0m");
    }
    #[test]
    fn no_color_and_a_dumb_terminal_turn_colours_off() {
        let wanted =
            |no_color: Option<&str>, term: Option<&str>| wanted(no_color.map(AsRef::as_ref), term.map(AsRef::as_ref));
        assert!(wanted(None, None) && wanted(Some(""), Some("xterm")));
        assert!(!wanted(Some("0"), Some("xterm")) && !wanted(None, Some("dumb")));
    }
}
