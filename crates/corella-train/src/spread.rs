//! How far values lie apart.

use serde::{Deserialize, Serialize};

/// Median of some values, and what nine in ten of them lie between.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// One value in twenty lies below.
    pub low: f64,
    /// Half of them lie below.
    pub median: f64,
    /// One value in twenty lies above.
    pub high: f64,
}

impl Spread {
    /// Of the finite ones among `values`; `None` where there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |part: f64| values[(part * last as f64).round() as usize];
        Some(Spread { low: at(0.05), median: at(0.5), high: at(0.95) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_leaves_out_one_in_twenty_at_either_end() {
        let shuffled = (0..101).map(|i| f64::from(i * 37 % 101)).chain([f64::NAN]);
        assert_eq!(Spread::of(shuffled), Some(Spread { low: 5.0, median: 50.0, high: 95.0 }));
        assert_eq!(Spread::of([3.0].into_iter()), Some(Spread { low: 3.0, median: 3.0, high: 3.0 }));
        assert_eq!(Spread::of([f64::NAN].into_iter()), None);
    }
}
