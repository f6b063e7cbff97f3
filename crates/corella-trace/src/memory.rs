//! Scores of memorisation from log-probabilities alone: no sampling.

/// Tokens of a window, and of the prefix before it (Carlini et al., arXiv 2202.07646).
pub const WINDOW: usize = 50;

/// How likely the model writes 50 tokens of a text word for word, given the 50 before them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// First token of the window.
    pub start: usize,
    /// Natural logarithm of the product of the tokens' probabilities.
    pub log_p: f64,
}

impl Window {
    /// The probability p of the whole window; above 0.5 it counts as memorised (Cooper et al., arXiv 2505.12546).
    pub fn p(&self) -> f64 {
        self.log_p.exp()
    }
}

/// Where windows of a text of `tokens` tokens begin, one every `stride` tokens: each has its prefix in front of it.
pub fn starts(tokens: usize, stride: usize) -> impl Iterator<Item = usize> {
    (WINDOW..=tokens.saturating_sub(WINDOW)).step_by(stride.max(1))
}

/// The window that begins at token `start`, whose tokens have these log-probabilities given its prefix alone: with more of the
/// text in front, what is repeated in it would pass for what the model knows.
pub fn window(start: usize, log_probs: &[f32]) -> Window {
    Window { start, log_p: log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum() }
}

/// Share of the windows above one half: the text's extraction rate.
pub fn extraction(windows: &[Window]) -> f64 {
    if windows.is_empty() {
        return 0.0;
    }
    windows.iter().filter(|w| w.p() > 0.5).count() as f64 / windows.len() as f64
}
