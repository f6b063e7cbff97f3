//! How fast a run will be, from the card's data sheet and the model's shape: a roofline of four parts.
//!
//! ```text
//! seconds per token = products / (share · peak)                        on each card, peak and share in the run's format
//!                   + activation bytes / (0.9 · bandwidth)
//!                   + optimizer bytes / (0.9 · bandwidth) / tokens of the card's part of an update
//!                   + gradient bytes / link               / the same
//! ```
//!
//! Only `share` is fitted, one number per card (see data/cards.toml), and one factor for fp8. The rest is counted. The
//! predictions for the published runs stand in docs/plan.md; there each run is predicted with the shares that the *other*
//! runs give.

use super::card::{Card, Machine};
use super::workload::Workload;

/// Part of a card's memory bandwidth that large kernels reach.
const BANDWIDTH_SHARE: f64 = 0.9;
/// Numbers that a block moves per row and channel, forward and backward: norms, residuals, GELU, attention, and what
/// the products read and write. Forward: norms 2 × 2, qkv 1 + 3, attention 3 + 1, projection 1 + 1, residuals 2 × 3, MLP
/// 1 + 4 + 4 + 4 + 4 + 1; backward twice that.
const BLOCK_TRAFFIC: f64 = 105.0;
/// Times that the logits are written or read: by the product, by the softmax and its gradient, by two products.
const LOGIT_TRAFFIC: f64 = 5.0;
/// Bytes of an AdamW update per parameter: gradient 2, moments 2 × (4 + 4), f32 copy 4 + 4, weight 2, and the norm's 4; in f32
/// as many, with a gradient of 4 and no copy beside the weight.
const OPTIMIZER_BYTES: f64 = 32.0;
/// What fp8 adds to the share of matrix products: the median over the published runs with it.
pub const FP8_GAIN: f64 = 1.31;

/// Seconds per token on each card that works: of the products at the full peak, and of everything else; `None` where the card's
/// peak in the format is not known.
pub fn seconds_per_token(work: &Workload, card: &Card, count: u32) -> Option<(f64, f64)> {
    let cards = f64::from(count);
    let peak = card.peak_tflops(work.dtype)? * 1e12;
    let bytes = work.dtype.bytes() as f64;
    let again = work.flops_again() as f64;
    let executed = 6.0 * work.matmul_params as f64 + 6.0 * (work.channels * work.span) as f64 + again;
    // Of the three passes that a block's numbers make, recomputing adds one.
    let passes = if work.recompute { 4.0 / 3.0 } else { 1.0 };
    let blocks = passes * BLOCK_TRAFFIC * (work.channels * work.layers) as f64;
    let traffic = bytes * (blocks + LOGIT_TRAFFIC * work.vocab_size as f64);
    let bandwidth = BANDWIDTH_SHARE * card.bandwidth_tb_s * 1e12;
    let part = work.tokens_per_step as f64 / work.busy_cards(count);
    let optimizer = work.params as f64 * OPTIMIZER_BYTES / cards / bandwidth / part;
    // A ring sends every gradient and weight nearly twice.
    let gradients = 2.0 * bytes * work.params as f64 * (cards - 1.0) / cards / (card.link_gb_s * 1e9) / part;
    Some((executed / peak, traffic / bandwidth + optimizer + gradients))
}

/// Model FLOPs utilisation that a well-made trainer reaches on the cards that have work, or this one on a processor, by the
/// workload's own formula; `None`
/// where the card's peak in the format is not known.
pub fn predicted_mfu(work: &Workload, machine: &Machine) -> Option<f64> {
    match machine {
        Machine::Cards { card, count } => mfu_at(work, card, *count, card.share_of_peak(work.dtype), FP8_GAIN),
        Machine::Processor { share, .. } => Some(share / work.computed()),
    }
}

/// The same of cards for a given share and a given gain of fp8.
pub fn mfu_at(work: &Workload, card: &Card, count: u32, share: f64, fp8_gain: f64) -> Option<f64> {
    let (products, rest) = seconds_per_token(work, card, count)?;
    let share = if work.fp8 { share * fp8_gain } else { share };
    let peak = card.peak_tflops(work.dtype)? * 1e12;
    Some(work.flops_per_token() as f64 / peak / (products / share + rest))
}

#[cfg(test)]
mod tests {
    use corella_model::Dtype;

    use super::*;
    use crate::estimate::{EstimateError, bill, published_runs};

    fn lesson() -> Workload {
        let runs = published_runs().expect("readable");
        runs.iter().find(|run| run.id == "llmc-124M-H100").and_then(|run| run.workload()).expect("a shape")
    }

    #[test]
    fn a_run_in_f32_is_planned_by_the_peak_of_f32() {
        let machine = Machine::parse("1xH200").expect("known");
        let (bf16, f32) = (lesson(), Workload { dtype: Dtype::F32, ..lesson() });
        let mfu = predicted_mfu(&f32, &machine).expect("a peak");
        assert!((0.6..0.76).contains(&mfu), "{mfu}");
        let hours = |work: &Workload| bill(work, &machine, None, None).expect("possible").hours;
        assert!(hours(&f32) > 8.0 * hours(&bf16), "{} and {} hours", hours(&f32), hours(&bf16));
        // At the same utilisation the hours are those of the peaks.
        let at = |work: &Workload| bill(work, &machine, Some(0.5), None).expect("possible").hours;
        assert!((at(&f32) / at(&bf16) - 989.0 / 67.0).abs() < 1e-9);
        let unknown = Machine::parse("8xH800").expect("known");
        assert!(matches!(bill(&f32, &unknown, Some(0.5), None), Err(EstimateError::NoPeak { .. })));
    }

    #[test]
    fn recomputing_costs_time_and_utilisation_and_no_operations_of_the_model() {
        let machine = Machine::parse("8xH100").expect("known");
        let (once, twice) = (lesson(), Workload { recompute: true, ..lesson() });
        let (cheap, dear) = (bill(&once, &machine, None, None), bill(&twice, &machine, None, None));
        let (cheap, dear) = (cheap.expect("possible"), dear.expect("possible"));
        let times = dear.hours / cheap.hours;
        assert!((1.15..1.334).contains(&times) && (times * dear.mfu / cheap.mfu - 1.0).abs() < 1e-9, "{times}");
        // What is computed again cannot come out of a peak that the model's own operations fill.
        assert!(matches!(bill(&twice, &machine, Some(0.9), None), Err(EstimateError::BadMfu(mfu)) if mfu > 1.0));
    }
}
