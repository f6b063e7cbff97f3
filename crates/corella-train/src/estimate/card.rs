//! Accelerators and machines made of them.

use corella_model::Dtype;
use serde::Deserialize;

use super::{EstimateError, HOST_OVERHEAD};

/// Part of the peak that products in f32 reach: 51.1 of 67 TFLOP/s on an H200, alone (docs/measurements/nvidia-h200.json). No
/// published run was made in f32, so nothing is fitted.
const F32_SHARE: f64 = 0.76;

/// An accelerator.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Shorter names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Dense peak of products in bf16, in 10¹² operations per second.
    pub tflops: f64,
    /// Peak of products in f32, where it is known.
    #[serde(default)]
    pub f32_tflops: Option<f64>,
    /// Memory, in 10⁹ bytes.
    pub memory_gb: f64,
    /// Memory bandwidth, in 10¹² bytes per second.
    pub bandwidth_tb_s: f64,
    /// Bytes that a ring of such cards moves per card, in 10⁹ per second.
    pub link_gb_s: f64,
    /// Power limit.
    #[serde(default)]
    pub watts: Option<f64>,
    /// Part of the peak that products in bf16 reach inside a training step.
    #[serde(default)]
    pub share: f64,
    /// Card whose share stands in for its own.
    #[serde(default)]
    pub share_of: Option<String>,
    /// Figures that were not checked against a source.
    #[serde(default)]
    pub unverified: Vec<String>,
}

impl Card {
    /// Peak of products in a format, in 10¹² operations per second, where it is known.
    pub fn peak_tflops(&self, dtype: Dtype) -> Option<f64> {
        match dtype {
            Dtype::F32 => self.f32_tflops,
            Dtype::Bf16 => Some(self.tflops),
        }
    }

    /// Part of that peak that products reach inside a training step.
    pub fn share_of_peak(&self, dtype: Dtype) -> f64 {
        match dtype {
            Dtype::F32 => F32_SHARE,
            Dtype::Bf16 => self.share,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    card: Vec<Card>,
}

/// All cards, each with a share.
pub fn cards() -> Result<Vec<Card>, EstimateError> {
    let table: Table = toml::from_str(include_str!("../../data/cards.toml"))
        .map_err(|source| EstimateError::Table { what: "cards.toml".to_owned(), source: Box::new(source) })?;
    let mut cards = table.card;
    let own: Vec<(String, f64)> = cards.iter().map(|card| (card.name.clone(), card.share)).collect();
    for card in &mut cards {
        if let Some(other) = &card.share_of {
            card.share = own.iter().find(|(name, _)| name == other).map_or(0.0, |(_, share)| *share);
        }
    }
    Ok(cards)
}

/// The card of a name, whatever its case, spaces and dashes, with or without the GB behind its memory.
pub fn card(name: &str) -> Result<Card, EstimateError> {
    let cards = cards()?;
    let asked = plain(name);
    let is = |card: &&Card| std::iter::once(&card.name).chain(&card.aliases).any(|known| plain(known) == asked);
    cards.iter().find(is).cloned().ok_or_else(|| {
        let names = |card: &Card| match card.aliases.is_empty() {
            true => card.name.clone(),
            false => format!("{} ({})", card.name, card.aliases.join(", ")),
        };
        EstimateError::UnknownCard {
            asked: name.to_owned(),
            known: cards.iter().map(names).collect::<Vec<_>>().join(", "),
        }
    })
}

/// Letters and digits of a name alone, so that `RTX4090`, `rtx 4090` and `RTX-4090` are one, as `A100-80GB` and `A100-80` are.
fn plain(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect();
    name.strip_suffix("gb").map(str::to_owned).unwrap_or(name)
}

/// What trains a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Machine {
    /// Cards of a kind, together.
    Cards {
        /// Their kind.
        card: Card,
        /// How many.
        count: u32,
    },
    /// A processor.
    Processor {
        /// Its name.
        name: String,
        /// The format of the products that it was looked at for.
        dtype: Dtype,
        /// Peak of these products, in 10¹² operations per second.
        tflops: f64,
        /// Part of that which updates of the model reach, with what is computed again.
        share: f64,
    },
}

impl Machine {
    /// `8xH100`, or the name alone for one.
    pub fn parse(text: &str) -> Result<Machine, EstimateError> {
        let (count, name) = match text.split_once(['x', 'X', '×']) {
            Some((count, name)) if count.chars().all(|c| c.is_ascii_digit()) && !count.is_empty() => (count, name),
            _ => ("1", text),
        };
        let bad = || EstimateError::BadMachine(text.to_owned());
        let count: u32 = count.parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(bad)?;
        if name.trim().is_empty() {
            return Err(bad());
        }
        Ok(Machine::Cards { card: card(name.trim())?, count })
    }

    /// `8 × H100 SXM`.
    pub fn name(&self) -> String {
        match self.count() {
            1 => self.kind().to_owned(),
            count => format!("{count} × {}", self.kind()),
        }
    }

    /// Name of one of its cards, or of the processor.
    pub fn kind(&self) -> &str {
        match self {
            Machine::Cards { card, .. } => &card.name,
            Machine::Processor { name, .. } => name,
        }
    }

    /// Its cards; a processor is one.
    pub fn count(&self) -> u32 {
        match self {
            Machine::Cards { count, .. } => *count,
            Machine::Processor { .. } => 1,
        }
    }

    /// Peak of a card or of the processor in a format, in 10¹² operations per second, where it is known.
    pub fn peak_tflops(&self, dtype: Dtype) -> Option<f64> {
        match self {
            Machine::Cards { card, .. } => card.peak_tflops(dtype),
            Machine::Processor { dtype: of, tflops, .. } => (*of == dtype).then_some(*tflops),
        }
    }

    /// Watts of all cards at their power limit with the machine around them, where the limit is known.
    pub fn watts(&self) -> Option<f64> {
        match self {
            Machine::Cards { card, count } => card.watts.map(|watts| watts * f64::from(*count) * HOST_OVERHEAD),
            Machine::Processor { .. } => None,
        }
    }

    /// Operations per second of all of it together in a format, where they are known.
    pub fn peak_flops(&self, dtype: Dtype) -> Option<f64> {
        self.peak_tflops(dtype).map(|tflops| tflops * 1e12 * f64::from(self.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_as_people_write_them() {
        assert_eq!(Machine::parse("8xH100").expect("known").name(), "8 × H100 SXM");
        assert_eq!(Machine::parse("4x rtx 4090").expect("known").count(), 4);
        assert_eq!(Machine::parse("a100").expect("known").name(), "A100-80 SXM");
        for (asked, name) in [
            ("8xA100-80GB", "8 × A100-80 SXM"),
            ("RTX4090", "RTX 4090"),
            ("2xH100-80", "2 × H100 SXM"),
            ("a100-40gb", "A100-40"),
            ("h100sxm", "H100 SXM"),
        ] {
            assert_eq!(Machine::parse(asked).expect(asked).name(), name);
        }
        let unknown = card("A10").expect_err("no peak that all agree on").to_string();
        for card in cards().expect("readable") {
            for name in card.aliases.iter().chain([&card.name]) {
                assert!(unknown.contains(name.as_str()), "{name}: {unknown}");
            }
        }
        assert!(matches!(Machine::parse("8xT1000"), Err(EstimateError::UnknownCard { .. })));
        for wrong in ["", "0xH100", "9999999xH100", "8x"] {
            assert!(Machine::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_card_has_a_share_and_a_power() {
        for card in cards().expect("readable") {
            assert!(card.share > 0.3 && card.share < 1.0 && card.watts.is_some(), "{card:?}");
            // Multiply-adds outside the tensor cores: a half of their bf16 at most.
            assert!(card.f32_tflops.is_none_or(|f32| f32 > 10.0 && f32 <= card.tflops / 1.9), "{card:?}");
        }
    }
}
