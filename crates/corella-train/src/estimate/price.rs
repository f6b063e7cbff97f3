//! What an hour of a machine costs. Prices are data: dated, sourced, and overridden by the user.

use serde::{Deserialize, Serialize};

use super::EstimateError;
use super::card::Machine;

/// A range of prices that was found somewhere at some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Card.
    pub card: String,
    /// Whose price.
    pub what: String,
    /// Dollars per card and hour, the least.
    pub low: f64,
    /// The most.
    pub high: f64,
    /// Year and month.
    pub date: String,
    /// Whether a plan takes it when nothing is said.
    #[serde(default)]
    pub default: bool,
}

/// A table of prices.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Its rows.
    pub price: Vec<Price>,
}

impl Prices {
    /// The table that comes with the program.
    pub fn built_in() -> Result<Prices, EstimateError> {
        Prices::parse(include_str!("../../data/prices.toml"), "prices.toml")
    }

    /// A table of the user's in the same format.
    pub fn parse(text: &str, what: &str) -> Result<Prices, EstimateError> {
        toml::from_str(text).map_err(|source| EstimateError::Table { what: what.to_owned(), source: Box::new(source) })
    }

    /// The default price of a card.
    pub fn default_of(&self, card: &str) -> Option<&Price> {
        self.price.iter().find(|p| p.card == card && p.default)
    }

    /// The least and the most that was found for a card.
    pub fn range(&self, card: &str) -> Option<(f64, f64)> {
        let rows = || self.price.iter().filter(|p| p.card == card);
        let low = rows().map(|p| p.low).min_by(f64::total_cmp)?;
        Some((low, rows().map(|p| p.high).max_by(f64::total_cmp)?))
    }

    /// Dollars per hour of the whole machine by the default price, and that price.
    pub fn of(&self, machine: &Machine) -> Option<(f64, &Price)> {
        let Machine::Cards { card, count } = machine else { return None };
        let price = self.default_of(&card.name)?;
        Some(((price.low + price.high) / 2.0 * f64::from(*count), price))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_dated_and_the_node_of_the_lesson_costs_24_dollars() {
        let prices = Prices::built_in().expect("readable");
        for price in &prices.price {
            assert!(price.low > 0.0 && price.low <= price.high && price.date.len() == 7, "{price:?}");
        }
        let node = Machine::parse("8xH100").expect("known");
        assert_eq!(prices.of(&node).map(|p| p.0), Some(24.0));
        let own = Prices::parse(
            "[[price]]\ncard='H100 SXM'\nwhat='mine'\nlow=1.0\nhigh=1.0\ndate='2026-11'\ndefault=true",
            "x",
        );
        assert_eq!(own.expect("readable").of(&node).map(|p| p.0), Some(8.0));
    }
}
