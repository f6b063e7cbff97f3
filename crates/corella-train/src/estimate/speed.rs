//! How fast a run will be, from the card's data sheet and the model's shape: a roofline of four parts.
//!
//! ```text
//! seconds per token = products / (share · peak)                        on each card
//!                   + activation bytes / (0.9 · bandwidth)
//!                   + optimizer bytes / (0.9 · bandwidth) / tokens of the card's part of an update
//!                   + gradient bytes / link               / the same
//! ```
//!
//! Only `share` is fitted, one number per card (see data/cards.toml), and one factor for fp8. The rest is counted. The
//! predictions for the published runs stand in docs/plan.md; there each run is predicted with the shares that the *other*
//! runs give.

use super::card::Machine;
use super::workload::Workload;

/// Part of a card's memory bandwidth that large kernels reach.
const BANDWIDTH_SHARE: f64 = 0.9;
/// bf16 numbers that a block moves per row and channel, forward and backward: norms, residuals, GELU, attention, and what
/// the products read and write. Forward: norms 2 × 2, qkv 1 + 3, attention 3 + 1, projection 1 + 1, residuals 2 × 3, MLP
/// 1 + 4 + 4 + 4 + 4 + 1; backward twice that.
const BLOCK_TRAFFIC: f64 = 105.0;
/// Times that the logits are written or read as bf16: by the product, by the softmax and its gradient, by two products.
const LOGIT_TRAFFIC: f64 = 5.0;
/// Bytes of an AdamW update per parameter: gradient 2, moments 2 × (4 + 4), f32 copy 4 + 4, weight 2, and the norm's 4.
const OPTIMIZER_BYTES: f64 = 32.0;
/// What fp8 adds to the share of matrix products: the median over the published runs with it.
pub const FP8_GAIN: f64 = 1.31;

/// Seconds per token on each card that works: of the products at the full peak, and of everything else.
pub fn seconds_per_token(work: &Workload, machine: &Machine) -> (f64, f64) {
    let (card, cards) = (&machine.card, f64::from(machine.cards));
    let executed = 6.0 * work.matmul_params as f64 + 6.0 * (work.channels * work.span) as f64;
    let traffic = 2.0 * (BLOCK_TRAFFIC * (work.channels * work.layers) as f64 + LOGIT_TRAFFIC * work.vocab_size as f64);
    let bandwidth = BANDWIDTH_SHARE * card.bandwidth_tb_s * 1e12;
    let part = work.tokens_per_step as f64 / work.busy_cards(machine.cards);
    let optimizer = work.params as f64 * OPTIMIZER_BYTES / cards / bandwidth / part;
    // A ring sends every bf16 gradient and weight nearly twice.
    let gradients = 4.0 * work.params as f64 * (cards - 1.0) / cards / (card.link_gb_s * 1e9) / part;
    (executed / (card.tflops * 1e12), traffic / bandwidth + optimizer + gradients)
}

/// Model FLOPs utilisation that a well-made trainer reaches on the cards that have work, by the workload's own formula.
pub fn predicted_mfu(work: &Workload, machine: &Machine) -> f64 {
    mfu_at(work, machine, machine.card.share, FP8_GAIN)
}

/// The same for a given share and a given gain of fp8.
pub fn mfu_at(work: &Workload, machine: &Machine, share: f64, fp8_gain: f64) -> f64 {
    let (products, rest) = seconds_per_token(work, machine);
    let share = if work.fp8 { share * fp8_gain } else { share };
    work.flops_per_token() as f64 / (machine.card.tflops * 1e12) / (products / share + rest)
}
