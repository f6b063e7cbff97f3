//! How the sequences of an update are dealt to cards.

use corella_train::estimate::Workload;

/// What it costs that sequences are dealt out whole: cards that have none, or fewer than others.
pub fn dealt(work: &Workload, cards: u32) -> Vec<String> {
    let (sequences, busy) = (work.sequences_per_step, work.busy_cards(cards));
    match sequences {
        n if n < u64::from(cards) => {
            vec![format!("an update has {n} sequences: {} of the {cards} cards have none", u64::from(cards) - n)]
        }
        n if busy < f64::from(cards) => {
            vec![format!("{n} sequences do not divide among {cards} cards, which are as fast as {busy:.1}")]
        }
        _ => Vec::new(),
    }
}

/// The largest micro-batch that is no more than planned, divides what falls to a card, and divides the update.
pub fn within(planned: usize, per_card: usize, sequences: usize) -> usize {
    let fits = |b: &usize| per_card.is_multiple_of(*b) && sequences.is_multiple_of(*b);
    if planned <= per_card && sequences.is_multiple_of(planned) {
        return planned;
    }
    (1..=planned.min(per_card)).rev().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_micro_batch_is_no_more_than_falls_to_a_card() {
        for (planned, per_card, sequences, fits) in [
            (64, 64, 512, 64),
            (64, 32, 512, 32),
            (64, 1, 512, 1),
            (32, 60, 480, 32),
            (64, 22, 512, 2),
            (8, 512, 512, 8),
        ] {
            assert_eq!(within(planned, per_card, sequences), fits, "{planned} of {per_card} of {sequences}");
        }
    }
}
