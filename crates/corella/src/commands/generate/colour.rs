//! Tokens coloured by probability.

use std::io::IsTerminal;

/// The end of a colour.
const RESET: &str = "\x1b[0m";

/// Probabilities from which each colour holds, with its number in the terminal's palette of 256.
const STEPS: [(f32, u8, &str); 5] =
    [(0.9, 34, "≥ 90 %"), (0.5, 112, "≥ 50 %"), (0.2, 220, "≥ 20 %"), (0.05, 208, "≥ 5 %"), (0.0, 196, "below")];

/// Whether standard output shows colours.
pub fn shown() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
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
    use super::by_probability;

    #[test]
    fn likelier_tokens_are_greener() {
        let colour = |p: f32| by_probability("x", p.ln());
        assert_eq!(colour(0.95), "\x1b[38;5;34mx\x1b[0m");
        assert_eq!(colour(0.5), "\x1b[38;5;112mx\x1b[0m");
        assert_eq!(colour(0.01), "\x1b[38;5;196mx\x1b[0m");
        assert_eq!(by_probability("x", f32::NEG_INFINITY), "\x1b[38;5;196mx\x1b[0m");
        assert_eq!(by_probability("x", f32::NAN), "\x1b[38;5;196mx\x1b[0m");
    }
}
