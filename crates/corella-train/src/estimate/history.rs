//! The bill for GPT-2's quality since 2019, and what made it smaller: data, hardware, software.
//!
//! dollars = operations / (peak × utilisation) × price, so a fall of the bill is a product of three factors:
//!
//! - hardware: dollars per operation of peak,
//! - data: what better text saves: tokens for the same quality with the same model, or hours before and after a change of
//!   text alone; 1 where the text is the same, however many tokens were enough,
//! - software: the rest: utilisation, architecture, optimizer.
//!
//! Where the split rests on an estimate, `note` says so.

use serde::Serialize;

use super::card::card;
use super::published::published_runs;
use super::{EstimateError, PublishedRun};

/// Peak of a TPU v3 chip in bf16, in 10¹² operations per second (Google's data sheet).
const TPU_V3_TFLOPS: f64 = 123.0;
/// Tokens of OpenAI's run: never published, an estimate (see the chapter's "roughly 100 billion").
const TOKENS_2019: f64 = 100e9;
/// Hours before and after the change to better text, all else equal (nanochat runs 3 and 4).
const DATA_CHANGE: (&str, &str) = ("nanochat-run3", "nanochat-run4");

/// One fall of the bill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was cheaper.
    pub from: String,
    /// Than what.
    pub to: String,
    /// Dollars before.
    pub dollars_from: f64,
    /// Dollars after.
    pub dollars_to: f64,
    /// By what factor better text made it cheaper.
    pub data: f64,
    /// By what factor cheaper operations did.
    pub hardware: f64,
    /// The rest.
    pub software: f64,
    /// What the split rests on.
    pub note: &'static str,
}

/// The falls from 2019 to now, and all of them together.
pub fn history() -> Result<Vec<Step>, EstimateError> {
    let runs = published_runs()?;
    let run = |id: &str| runs.iter().find(|r| r.id == id);
    let price_of_peak = |r: &PublishedRun| -> Option<f64> {
        let tflops = if r.card == "TPU v3" { TPU_V3_TFLOPS } else { card(&r.card).ok()?.tflops };
        Some(r.price_per_hour? / (tflops * f64::from(r.cards)))
    };
    let better_text = match (run(DATA_CHANGE.0), run(DATA_CHANGE.1)) {
        (Some(before), Some(after)) => before.hours / after.hours,
        _ => 1.0,
    };
    let tokens_2024 = run("llmc-1558M-H100").and_then(|r| r.tokens).unwrap_or(1) as f64;
    let plan = [
        (
            "openai-gpt2-2019",
            "llmc-1558M-H100",
            TOKENS_2019 / tokens_2024,
            "tokens of 2019 are an estimate (100 B); what they are off moves between data and software",
        ),
        ("llmc-1558M-H100", "nanochat-run1", 1.0, "both on FineWeb-EDU: architecture, optimizer and kernels"),
        (
            "nanochat-run1",
            "nanochat-run6",
            better_text,
            "data: hours before and after the change to ClimbMix; same cards, same price",
        ),
    ];
    let mut steps = Vec::new();
    for (from, to, data, note) in plan {
        if let (Some(a), Some(b)) = (run(from), run(to))
            && let (Some(dollars_from), Some(dollars_to)) = (a.dollars, b.dollars)
            && let (Some(before), Some(after)) = (price_of_peak(a), price_of_peak(b))
        {
            let hardware = before / after;
            let software = dollars_from / dollars_to / data / hardware;
            let (from, to) = (from.to_owned(), to.to_owned());
            steps.push(Step { from, to, dollars_from, dollars_to, data, hardware, software, note });
        }
    }
    if let (Some(first), Some(last)) = (steps.first().cloned(), steps.last().cloned()) {
        let product = |of: fn(&Step) -> f64| steps.iter().map(of).product();
        let (data, hardware, software) = (product(|s| s.data), product(|s| s.hardware), product(|s| s.software));
        let (dollars_from, dollars_to) = (first.dollars_from, last.dollars_to);
        let note = "the product of the three";
        steps.push(Step { from: first.from, to: last.to, dollars_from, dollars_to, data, hardware, software, note });
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factors_multiply_to_the_fall_of_the_bill() {
        let steps = history().expect("readable");
        let bills: Vec<f64> = steps[..3].iter().map(|s| s.dollars_from).chain([steps[2].dollars_to]).collect();
        assert_eq!(bills, [43_008.0, 672.0, 73.0, 39.6]);
        for step in &steps {
            let fall = step.dollars_from / step.dollars_to;
            assert!((step.data * step.hardware * step.software / fall - 1.0).abs() < 1e-9, "{step:?}");
            assert!(step.data >= 1.0 && step.hardware >= 0.99 && step.software >= 1.0, "{step:?}");
        }
        assert!((steps[3].dollars_from / steps[3].dollars_to - 1086.0).abs() < 1.0);
    }
}
