//! The same run on more or fewer cards.

use serde::Serialize;

use super::card::Machine;
use super::{EstimateError, Workload, hours, utilisation};

/// A machine and how long the run would take on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Cards.
    pub cards: u32,
    /// Hours.
    pub hours: f64,
    /// Sequences of an update for each card; below 1 some cards have none, and do nothing.
    pub sequences_per_card: f64,
}

/// One card, a node of 8, and the 100,000 of a large data centre; nothing of a processor. The time is that of the utilisation of one node on the cards
/// that have a sequence: they are counted as if they did not wait for each other, which is a lower bound.
pub fn scale(work: &Workload, machine: &Machine, mfu: Option<f64>) -> Result<Vec<Scale>, EstimateError> {
    let Machine::Cards { card, count } = machine else { return Ok(Vec::new()) };
    let some = |count| Machine::Cards { card: card.clone(), count };
    let node = some((*count).min(8));
    let mfu = utilisation(work, &node, mfu)?;
    let of = |cards: u32| {
        let hours = hours(work, &some(cards), mfu)?;
        Ok(Scale { cards, hours, sequences_per_card: work.sequences_per_step as f64 / f64::from(cards) })
    };
    [1, 8, 100_000].map(of).into_iter().collect()
}
