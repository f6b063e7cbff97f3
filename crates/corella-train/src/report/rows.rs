//! The rows of a log that a page is drawn from: all of a short one, a bounded number of a long one.

use std::collections::VecDeque;

use super::record::Row;
use crate::spread::Spread;

/// Newest rows that are kept whole.
const NEWEST: usize = 1024;
/// Most rows that are kept of those before, and as many of those with something special in them.
const MOST: usize = 4096;

/// What all rows of updates are together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Updates.
    pub updates: u64,
    /// Those that were left out.
    pub skipped: u64,
    /// Milliseconds waited for data, of forward and backward passes, of norm and AdamW.
    pub parts: [f64; 4],
    /// Milliseconds of the longest update.
    pub longest: Option<f64>,
    /// Lowest validation loss, of the rows of no update too.
    pub best: Option<f64>,
    /// The spread of the updates' milliseconds; of the rows that are kept.
    pub ms: Option<Spread>,
    /// The spread of their utilisation; of the rows that are kept.
    pub mfu: Option<Spread>,
}

impl Totals {
    fn add(&mut self, row: &Row) {
        self.best = row.val_loss.into_iter().chain(self.best).min_by(f64::total_cmp);
        if row.step == 0 {
            return;
        }
        self.updates += 1;
        self.skipped += u64::from(row.skipped.is_some());
        if let Some(parts) = row.parts {
            let known = [parts.data_ms, parts.forward_ms, parts.backward_ms, parts.optimizer_ms];
            (0..4).for_each(|i| self.parts[i] += known[i]);
        }
        self.longest = row.ms.into_iter().chain(self.longest).max_by(f64::total_cmp);
    }
}

/// Takes rows in their order, and keeps so many that memory and time of a page do not grow with the run: the newest whole, of
/// those before every second, fourth, … of plain updates, and of those with a validation, scores or an update left out.
#[derive(Debug, Default)]
pub struct Rows {
    plain: Thinned,
    special: Thinned,
    newest: VecDeque<Row>,
    totals: Totals,
}

/// Every so many of the rows that came.
#[derive(Debug, Default)]
struct Thinned {
    rows: Vec<Row>,
    came: u64,
    halvings: u32,
}

impl Thinned {
    fn push(&mut self, row: Row) {
        if self.came.is_multiple_of(1 << self.halvings) {
            self.rows.push(row);
        }
        self.came += 1;
        if self.rows.len() > MOST {
            // The first stays.
            let mut i = 0;
            self.rows.retain(|_| {
                i += 1;
                i % 2 == 1
            });
            self.halvings += 1;
        }
    }
}

fn is_special(row: &Row) -> bool {
    row.val_loss.is_some() || row.skipped.is_some() || !row.scores.is_empty() || row.step == 0
}

impl Rows {
    /// The next row; one of the same step as the one before takes its place.
    pub fn push(&mut self, row: Row) {
        if self.newest.back().is_some_and(|last| last.step == row.step) {
            self.newest.pop_back();
        }
        self.newest.push_back(row);
        if self.newest.len() > NEWEST {
            self.settle();
        }
    }

    /// Takes the oldest of the newest to those before.
    fn settle(&mut self) {
        if let Some(old) = self.newest.pop_front() {
            self.totals.add(&old);
            if is_special(&old) { self.special.push(old) } else { self.plain.push(old) }
        }
    }

    /// The rows in their order, and what all are together.
    pub fn finish(mut self) -> (Vec<Row>, Totals) {
        self.newest.iter().for_each(|row| self.totals.add(row));
        // As close together everywhere, so that the newest do not count for more.
        let newest = || self.newest.iter().step_by(1 << self.plain.halvings);
        let old = if self.plain.rows.is_empty() { &self.special.rows } else { &self.plain.rows };
        let spread = |of: fn(&Row) -> Option<f64>| Spread::of(old.iter().chain(newest()).filter_map(of));
        (self.totals.ms, self.totals.mfu) = (spread(|row| row.ms), spread(|row| row.mfu));
        let mut rows = self.plain.rows;
        rows.extend(self.special.rows);
        rows.sort_by_key(|row| row.step);
        rows.extend(self.newest);
        (rows, self.totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::StepParts;

    fn row(step: u64) -> Row {
        let parts = Some(StepParts { forward_ms: 2.0, ..StepParts::default() });
        let val_loss = step.is_multiple_of(250).then_some(5.0 - step as f64 * 1e-6);
        let skipped = (step == 70_001).then(|| "loss spike".to_owned());
        Row {
            step,
            loss: Some(4.0),
            ms: Some(1.0 + (step == 9) as u8 as f64),
            parts,
            val_loss,
            skipped,
            ..Row::default()
        }
    }

    #[test]
    fn a_long_log_is_kept_in_a_few_thousand_rows_and_counted_whole() {
        let steps = 286_102;
        let mut rows = Rows::default();
        (0..=steps).for_each(|step| rows.push(row(step)));
        let (rows, totals) = rows.finish();
        assert!((3_000..=2 * MOST + NEWEST).contains(&rows.len()), "{}", rows.len());
        assert!(rows.windows(2).all(|w| w[0].step < w[1].step));
        assert_eq!((rows[0].step, rows[rows.len() - 1].step), (0, steps));
        let newest: Vec<u64> = rows[rows.len() - NEWEST..].iter().map(|row| row.step).collect();
        assert!(newest.into_iter().eq(steps + 1 - NEWEST as u64..=steps), "the newest are all there");
        assert_eq!(
            rows.iter().filter(|row| row.val_loss.is_some()).count(),
            286_102 / 250 + 1,
            "each validation is there"
        );
        assert!(rows.iter().any(|row| row.skipped.is_some()));
        assert_eq!((totals.updates, totals.skipped, totals.longest), (steps, 1, Some(2.0)));
        assert_eq!((totals.parts[1], totals.best), (2.0 * steps as f64, Some(5.0 - 286_000.0 * 1e-6)));
    }

    #[test]
    fn a_short_log_is_kept_whole_and_a_step_that_comes_twice_once() {
        let mut rows = Rows::default();
        (0..2000).for_each(|step| rows.push(row(step)));
        rows.push(Row { loss: Some(1.0), ..row(1999) });
        let (rows, totals) = rows.finish();
        assert_eq!((rows.len(), totals.updates, rows[1999].loss), (2000, 1999, Some(1.0)));
    }
}
