//! What a run shows of itself: report.html, comparisons, and files for TensorBoard.

mod axis;
mod chart;
mod compare;
mod levels;
mod page;
mod record;
mod reference;
mod rows;
pub mod tensorboard;
mod timeline;

use std::path::{Path, PathBuf};

pub use compare::{OTHER_VOCABULARY, Summary, comparison, differences, one_vocabulary, summaries};
pub use page::page;
pub use record::{Record, Row};
pub use reference::{Curve, Shape, Standing, Verdict, curves, judge};
pub use rows::Totals;

use crate::TrainError;
use crate::folder::REPORT;

/// Writes report.html into a run folder, from what the folder holds. It is replaced whole.
pub fn write(dir: &Path) -> Result<PathBuf, TrainError> {
    let html = page(&Record::open(dir)?)?;
    let path = dir.join(REPORT);
    replace(&path, &html)?;
    Ok(path)
}

/// How the newest validation loss of a run stands beside the curve that judges its shape, where there is one.
pub fn standing(record: &Record) -> Result<Option<Standing>, TrainError> {
    Ok(page::standing(record, &curves()?))
}

/// Replaces a file whole, so that a browser never sees half of one.
pub fn replace(path: &Path, text: &str) -> Result<(), TrainError> {
    crate::whole_file::replace(path, text)
}
