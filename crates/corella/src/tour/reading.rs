//! How much of the corpus a model has read, and what may be said of it.

use serde_json::{Value, json};

/// Tokens below which most of what the tour measures is not there yet; at twice as many it is.
const TOO_FEW: u64 = 2_000_000;

/// Tokens that were read, and tokens of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Read.
    pub tokens: u64,
    /// There.
    pub corpus: u64,
}

impl Reading {
    /// As tour.json keeps it.
    pub fn json(self) -> Value {
        json!({"tokens": self.tokens, "corpus_tokens": self.corpus})
    }

    /// What tour.json says, if it does.
    pub fn of(tour: &Value) -> Option<Reading> {
        let number = |key: &str| tour["read"][key].as_u64();
        Some(Reading { tokens: number("tokens")?, corpus: number("corpus_tokens")? })
    }

    /// How often each page was read, on average.
    fn times(self) -> f64 {
        self.tokens as f64 / self.corpus.max(1) as f64
    }

    /// What stands before figures that depend on how often something was read: nothing where that is as often as it stands
    /// in the corpus.
    pub fn note(self) -> Option<String> {
        let times = self.times();
        if (0.95..1.05).contains(&times) {
            return None;
        }
        Some(format!(
            "It read {} tokens, the corpus has {}: what stands there 100 times was read about {:.0} times.",
            amount(self.tokens),
            amount(self.corpus),
            100.0 * times
        ))
    }

    /// A warning where so little was read that the effects are not to be expected.
    pub fn too_little(self) -> Option<String> {
        (self.tokens < TOO_FEW).then(|| {
            format!(
                "It read {} tokens; most effects come between 2 and 4 million, so they may be missing here.",
                amount(self.tokens)
            )
        })
    }
}

/// `507904`, `3.9 million`.
fn amount(tokens: u64) -> String {
    if tokens < 1_000_000 { tokens.to_string() } else { format!("{:.1} million", tokens as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_reading_is_said_to_be_one_and_a_whole_one_is_not() {
        let of = |tokens| Reading { tokens, corpus: 3_900_000 };
        let short = of(507_000);
        assert!(
            short.note().is_some_and(|note| note.contains("read 507000 tokens, the corpus has 3.9 million")
                && note.contains("about 13 times"))
        );
        assert!(short.too_little().is_some());
        assert_eq!((of(3_899_392).note(), of(3_899_392).too_little()), (None, None));
        let long = of(39_000_000);
        assert!(long.note().is_some_and(|note| note.contains("about 1000 times")) && long.too_little().is_none());
        assert_eq!(Reading::of(&json!({"read": short.json()})), Some(short));
        assert_eq!(Reading::of(&json!({"val_loss": 1.0})), None);
    }
}
