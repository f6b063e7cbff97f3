//! Losses and scores of known models, for a run to be seen beside.

use serde::Deserialize;

use super::reference::trains_on;
use crate::TrainError;
use crate::plan::RunPlan;

/// A height in a chart.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    of: Measure,
    name: String,
    value: f64,
    /// How paths of the data end, in whole names; for a loss.
    #[serde(default)]
    data: Vec<String>,
    #[serde(default)]
    vocab_size: usize,
}

/// What a level is a value of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Measure {
    Loss,
    HellaSwag,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    level: Vec<Level>,
}

fn levels(which: impl Fn(&Level) -> bool) -> Result<Vec<(String, f64)>, TrainError> {
    let table: Table = toml::from_str(include_str!("../../data/levels.toml"))
        .map_err(|e| TrainError::Plan { field: "levels.toml", what: e.to_string() })?;
    Ok(table.level.into_iter().filter(which).map(|level| (level.name, level.value)).collect())
}

/// Names and losses of models on the validation text and with the vocabulary of a plan.
pub fn losses(plan: &RunPlan) -> Result<Vec<(String, f64)>, TrainError> {
    levels(|level| level.of == Measure::Loss && trains_on(plan, &level.data, level.vocab_size))
}

/// Names and scores of models on HellaSwag.
pub fn hellaswag() -> Result<Vec<(String, f64)>, TrainError> {
    levels(|level| level.of == Measure::HellaSwag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_drawn_for_the_text_that_they_were_measured_on_alone() {
        let mut plan = RunPlan::from_toml(include_str!("../../../../runs/gpt2-1558m.toml")).expect("a plan");
        let mut of = |path: &str, vocab_size: usize| {
            (plan.data.path, plan.model.vocab_size) = (path.to_owned(), vocab_size);
            losses(&plan).expect("levels").into_iter().map(|(_, loss)| loss).collect::<Vec<_>>()
        };
        assert_eq!(of("data/fineweb-edu100B", 50257), [0.0; 0], "FineWeb-EDU's validation text is another");
        assert_eq!(of("data/fineweb10B", 50257), [3.424958, 3.28, 3.083089, 3.00058, 2.92, 2.831273]);
        assert_eq!(of("data/fineweb10B", 50304), [0.0; 0], "a loss is per token of a vocabulary");
        assert_eq!(of("data/openwebtext", 50257), [2.85]);
        let scores: Vec<f64> = hellaswag().expect("levels").into_iter().map(|(_, score)| score).collect();
        assert_eq!(scores, [0.25, 0.294463, 0.375224, 0.431986, 0.488946, 0.337, 0.436, 0.51, 0.547]);
    }
}
