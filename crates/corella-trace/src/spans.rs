//! Spans of a text that stand word for word in the training data, after OLMoTrace (Liu et al., arXiv 2504.07096).

use std::ops::Range;

use crate::index::{Index, Occurrences};

/// Which spans are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanRules {
    /// Fewest tokens of a span.
    pub least: usize,
    /// A span is dropped if chance explains it: if the data are expected to hold more than this many copies of it when
    /// tokens follow each other independently, each as often as in the data.
    pub expected_by_chance: f64,
}

impl Default for SpanRules {
    fn default() -> Self {
        SpanRules { least: 6, expected_by_chance: 1e-3 }
    }
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSpan {
    /// Its tokens, as a range of the text.
    pub range: Range<usize>,
    /// Where it stands.
    pub found: Occurrences,
}

/// The maximal spans of `text`: none lies inside another, and none can be made longer to either side. A span never goes
/// beyond a `border` between documents.
pub fn spans(index: &Index, text: &[u32], border: u32, rules: SpanRules) -> Vec<TokenSpan> {
    let mut all: Vec<TokenSpan> = Vec::new();
    let mut end = 0;
    for start in 0..text.len() {
        let until_border = text[start..].iter().take_while(|t| **t != border).count();
        let longest = index.longest_match(&text[start..start + until_border]);
        // A match that ends where an earlier one ended is its tail.
        if longest < rules.least.max(1) || start + longest <= end {
            continue;
        }
        end = start + longest;
        let stretch = &text[start..end];
        if by_chance(index, stretch) <= rules.expected_by_chance {
            all.push(TokenSpan { range: start..end, found: index.find(stretch) });
        }
    }
    all
}

/// Expected copies of a stretch if tokens were independent: N · Π (count of token / N).
fn by_chance(index: &Index, stretch: &[u32]) -> f64 {
    let n = index.len() as f64;
    let log: f64 = stretch.iter().map(|t| (index.find(&[*t]).count().max(1) as f64 / n).ln()).sum();
    (n.ln() + log).exp()
}
