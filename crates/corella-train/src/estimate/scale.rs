//! The same run on more or fewer cards.

use serde::Serialize;

use super::card::Machine;
use super::{EstimateError, Workload, predicted_mfu};

/// A machine and how long the run would take on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Cards.
    pub cards: u32,
    /// Hours.
    pub hours: f64,
    /// Sequences of an update for each card; below 1 a sequence would have to be split.
    pub sequences_per_card: f64,
}

/// One card, a node of 8, and the 100,000 of a large data centre. The time is that of the utilisation of one node: more
/// cards are counted as if they did not wait for each other, which is a lower bound.
pub fn scale(work: &Workload, machine: &Machine, mfu: Option<f64>, seq_len: u64) -> Result<Vec<Scale>, EstimateError> {
    let node = Machine { card: machine.card.clone(), cards: machine.cards.min(8) };
    let mfu = mfu.unwrap_or_else(|| predicted_mfu(work, &node));
    if !(mfu > 0.0 && mfu <= 1.0) {
        return Err(EstimateError::BadMfu(mfu));
    }
    let sequences = work.tokens_per_step as f64 / seq_len.max(1) as f64;
    let of = |cards: u32| {
        let peak = Machine { card: machine.card.clone(), cards }.peak_flops();
        let hours = work.flops() as f64 / (peak * mfu) / 3600.0;
        Scale { cards, hours, sequences_per_card: sequences / f64::from(cards) }
    };
    Ok([1, 8, 100_000].map(of).to_vec())
}
