//! How the sequences of an update are dealt to cards.

use corella_train::console::grouped;
use corella_train::estimate::{Machine, Workload};

/// What it costs that sequences are dealt out whole, cards that have none or fewer than others, and what to do about it.
pub fn dealt(work: &Workload, machine: &Machine, seq_len: usize) -> Option<(String, String)> {
    let (sequences, cards) = (work.sequences_per_step, u64::from(machine.count()));
    let (busy, name) = (work.busy_cards(machine.count()), machine.kind());
    if sequences < cards {
        let what = format!(
            "an update has {} sequences: {} of the {} cards have none",
            grouped(sequences),
            grouped(cards - sequences),
            grouped(cards)
        );
        let batch = cards * seq_len as u64;
        return Some((
            what,
            format!(
                "--batch-tokens {batch} gives each a sequence; --gpu \"{sequences}x{name}\" takes as long for less"
            ),
        ));
    }
    (busy < f64::from(machine.count())).then(|| {
        let even = (1..=cards).rev().find(|n| sequences.is_multiple_of(*n)).unwrap_or(1);
        let what = format!(
            "{} sequences do not divide among {cards} cards, which are as fast as {busy:.1}",
            grouped(sequences)
        );
        let batch = sequences.next_multiple_of(cards) * seq_len as u64;
        (what, format!("--batch-tokens {batch} divides among them, as this update does among {even}"))
    })
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
