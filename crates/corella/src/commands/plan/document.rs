//! What `plan` tells: one document, as JSON or as lines.

use corella_train::console::{duration, grouped, money};
use corella_train::estimate::{Bill, MemoryBytes, Scale};
use serde::Serialize;

use crate::training::lines::memory_line;
use crate::training::memory::DiskBytes;
use crate::units::{gib, size};

/// What `--json` prints.
#[derive(Serialize)]
pub struct Document {
    pub model: String,
    pub parameters: u64,
    pub formula: &'static str,
    pub flops_per_token: u64,
    /// Operations per token that recomputing adds; utilisation leaves them out.
    pub flops_again_per_token: u64,
    pub flops: f64,
    pub tokens: u64,
    /// Tokens of the prepared data that are to train on.
    pub data_tokens: Option<u64>,
    /// How often they are seen.
    pub epochs: Option<f64>,
    pub tokens_per_step: u64,
    pub sequences_per_step: u64,
    /// An update as an equation.
    pub update: String,
    pub steps: u64,
    pub micro_batch: usize,
    pub machine: String,
    pub cards: u32,
    /// Cards that have a sequence of each update.
    pub cards_with_work: u64,
    /// What the plan has and the program does not do yet.
    pub not_yet: Option<String>,
    /// What in the arrangement costs time or was changed.
    pub notes: Vec<Note>,
    /// Number format of the products that the peak is of.
    pub dtype: &'static str,
    pub peak_tflops: Option<f64>,
    pub peak_from: &'static str,
    pub mfu_from: &'static str,
    /// What time and money are, where the peak is known. A run that does not fit has no price.
    #[serde(flatten)]
    pub bill: Option<Bill>,
    /// Why there is none.
    pub no_bill: Option<String>,
    pub price_per_hour: Option<f64>,
    pub price_from: Option<String>,
    pub memory_bytes: MemoryBytes,
    pub memory_available: Option<u64>,
    pub fits: bool,
    /// What would make it fit.
    pub way_out: Option<String>,
    pub disk_bytes: DiskBytes,
    pub scale: Vec<Scale>,
}

/// Something to know about a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub what: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl From<String> for Note {
    fn from(what: String) -> Self {
        Note { what, hint: None }
    }
}

impl Serialize for Note {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.what)
    }
}

impl Document {
    /// What is printed for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{}: {} parameters", self.model, grouped(self.parameters))];
        lines.push(format!(
            "run: {} steps, {} tokens, {:.4e} FLOPs ({} = {} per token)",
            grouped(self.steps),
            grouped(self.tokens),
            self.flops,
            self.formula,
            grouped(self.flops_per_token)
        ));
        lines.push(format!("update: {}", self.update));
        if let (Some(there), Some(epochs)) = (self.data_tokens, self.epochs) {
            lines.push(format!("data: {} tokens to train on, seen {epochs:.2} times", grouped(there)));
        }
        lines.push(memory_line(self.memory_bytes));
        match self.memory_available {
            Some(available) if !self.fits => {
                lines.push(format!("DOES NOT FIT: {:.1} GiB are available", gib(available)));
                lines.extend(self.way_out.iter().map(|hint| format!("hint: {hint}")));
            }
            Some(available) => lines.push(format!("fits into {:.1} GiB", gib(available))),
            None => {}
        }
        let disk = self.disk_bytes;
        lines.push(match disk.checkpoints {
            1 => format!("disk: {} for one checkpoint", size(disk.total)),
            n => format!("disk: {} for at most {n} checkpoints of {}", size(disk.total), size(disk.checkpoint)),
        });
        if self.fits {
            lines.extend(self.costs());
        }
        lines.extend(self.not_yet.iter().map(|what| format!("note: {what}")));
        for note in &self.notes {
            lines.push(format!("note: {}", note.what));
            lines.extend(note.hint.iter().map(|hint| format!("hint: {hint}")));
        }
        lines
    }

    /// Hours, dollars, energy, and the hours on other numbers of cards.
    fn costs(&self) -> Vec<String> {
        let (Some(bill), Some(peak)) = (&self.bill, self.peak_tflops) else {
            let why = self.no_bill.as_deref().unwrap_or_default();
            return vec![
                format!("time: not planned, {why}"),
                "hint: --dtype bf16, or another card; nothing is planned by the peak of another format".to_owned(),
            ];
        };
        let mut lines = vec![format!(
            "time: {} ({:.2} hours) on {} ({} peak in {}, {}, at {:.1} % utilisation{}, {})",
            duration(bill.hours * 3600.0),
            bill.hours,
            self.machine,
            rate(peak),
            self.dtype,
            self.peak_from,
            100.0 * bill.mfu,
            if self.cards_with_work < u64::from(self.cards) { " of those that have work" } else { "" },
            self.mfu_from
        )];
        if self.flops_again_per_token > 0 {
            let more = 100.0 * self.flops_again_per_token as f64 / self.flops_per_token.max(1) as f64;
            lines.push(format!(
                "recompute: the blocks' forward pass twice, {more:.1} % more operations, which utilisation leaves out (with them {:.1} %)",
                bill.mfu * (100.0 + more)
            ));
        }
        if let (Some(dollars), Some(price), Some(from)) = (bill.dollars, self.price_per_hour, &self.price_from) {
            lines.push(format!(
                "price: {} = {:.2} hours × {} an hour ({from})",
                money(dollars),
                bill.hours,
                money(price)
            ));
        }
        if let Some(energy) = bill.energy_kwh {
            lines.push(format!("energy: at most {energy:.1} kWh"));
        }
        if bill.dollars.is_none() || bill.energy_kwh.is_none() {
            lines.push("dollars and energy of this machine: say --price (dollars an hour) and --watts".to_owned());
        }
        for scale in &self.scale {
            let some = format!(", with work for {} of them", grouped(self.sequences_per_step));
            let some = if scale.sequences_per_card < 1.0 { some } else { String::new() };
            let (cards, time) = (grouped(u64::from(scale.cards)), duration(scale.hours * 3600.0));
            lines.push(format!("on {cards:>7} of these cards: {time} at best{some}"));
        }
        lines
    }
}

/// Operations per second, from those in 10¹².
fn rate(tflops: f64) -> String {
    match tflops {
        few if few < 10.0 => format!("{} GFLOP/s", grouped((1e3 * few).round() as u64)),
        some if some < 1000.0 => format!("{some:.1} TFLOP/s"),
        many => format!("{} TFLOP/s", grouped(many.round() as u64)),
    }
}
