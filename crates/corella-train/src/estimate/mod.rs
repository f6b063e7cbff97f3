//! What a run costs before it is made: operations, memory, hours, dollars, energy. Checked against published runs.

mod card;
mod history;
mod memory;
mod price;
mod processor;
mod published;
mod scale;
mod speed;
mod workload;

use corella_model::Dtype;
use serde::Serialize;

pub use card::{Card, Machine, card, cards};
pub use history::{Step as HistoryStep, history};
pub use memory::{MemoryBytes, gpu_memory, largest_micro_batch};
pub use price::{Price, Prices};
pub use processor::ProcessorPeaks;
pub use published::{Check, PublishedRun, published_runs};
pub use scale::{Scale, scale};
pub use speed::{FP8_GAIN, predicted_mfu};
pub use workload::{Formula, Workload};

/// Where the machine's power goes beside its cards (processors, memory, fans, supplies): DGX H100, 10.2 kW for 8 × 700 W.
const HOST_OVERHEAD: f64 = 1.8;

/// What cannot be estimated.
#[derive(Debug, thiserror::Error)]
pub enum EstimateError {
    /// Not in the table of cards.
    #[error("no card is called {asked}; known are {known}")]
    UnknownCard {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// Not a number of cards and a name.
    #[error("{0} is not a machine: give a number of cards and their name, as in 8xH100")]
    BadMachine(String),
    /// More than the card can do, or nothing.
    #[error("a utilisation of {0:.2} is impossible: it must be above 0 and at most 1")]
    BadMfu(f64),
    /// The data sheet says no peak for the format.
    #[error("the peak of {card} in {} is not known", dtype.name())]
    NoPeak {
        /// Which card.
        card: String,
        /// Which format.
        dtype: Dtype,
    },
    /// A table that cannot be read.
    #[error("{what}: {source}")]
    Table {
        /// Which one.
        what: String,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
}

/// Time, money and energy of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bill {
    /// Hours of the machine.
    pub hours: f64,
    /// Model FLOPs utilisation: the part of the peak that the formula's operations take on the cards that have work.
    pub mfu: f64,
    /// Dollars, where a price is known.
    pub dollars: Option<f64>,
    /// Energy, where the power is known.
    pub energy_kwh: Option<f64>,
}

/// Hours of a workload at a utilisation of the cards that have work.
fn hours(work: &Workload, machine: &Machine, mfu: f64) -> Result<f64, EstimateError> {
    let peak = machine.peak_tflops(work.dtype).ok_or_else(|| no_peak(work, machine))?;
    Ok(work.flops() as f64 / (peak * 1e12 * work.busy_cards(machine.count()) * mfu) / 3600.0)
}

fn no_peak(work: &Workload, machine: &Machine) -> EstimateError {
    EstimateError::NoPeak { card: machine.kind().to_owned(), dtype: work.dtype }
}

/// The utilisation that is given, or else predicted from card and shape. With what is computed again it is still no more than
/// the peak.
fn utilisation(work: &Workload, machine: &Machine, mfu: Option<f64>) -> Result<f64, EstimateError> {
    let mfu = mfu.or_else(|| predicted_mfu(work, machine)).ok_or_else(|| no_peak(work, machine))?;
    let busy = mfu * work.computed();
    if mfu > 0.0 && busy <= 1.0 { Ok(mfu) } else { Err(EstimateError::BadMfu(busy)) }
}

/// The bill of a workload on a machine at a utilisation (`None`: predicted from card and shape) and a price per hour of
/// the whole machine. Cards that have no sequence of an update make nothing faster, and are paid for.
pub fn bill(work: &Workload, machine: &Machine, mfu: Option<f64>, price: Option<f64>) -> Result<Bill, EstimateError> {
    let mfu = utilisation(work, machine, mfu)?;
    let hours = hours(work, machine, mfu)?;
    Ok(Bill {
        hours,
        mfu,
        dollars: price.map(|price| price * hours),
        energy_kwh: machine.watts().map(|watts| watts * hours / 1000.0),
    })
}
