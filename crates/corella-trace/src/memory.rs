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

/// Windows every `stride` tokens. `log_probs[i]` is that of token i given all tokens before it.
pub fn windows(log_probs: &[f32], stride: usize) -> Vec<Window> {
    let last = log_probs.len().saturating_sub(WINDOW);
    (WINDOW..=last)
        .step_by(stride.max(1))
        .map(|start| Window { start, log_p: log_probs[start..start + WINDOW].iter().map(|l| f64::from(*l)).sum() })
        .collect()
}

/// Share of the windows above one half: the text's extraction rate.
pub fn extraction(windows: &[Window]) -> f64 {
    if windows.is_empty() {
        return 0.0;
    }
    windows.iter().filter(|w| w.p() > 0.5).count() as f64 / windows.len() as f64
}
