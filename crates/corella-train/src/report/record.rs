//! What a run folder says about its run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use corella_text::tokenizer::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rows::{Rows, Totals};
use crate::TrainError;
use crate::folder::{ENVIRONMENT, EVENTS, LOG, PLAN, SAMPLES};
use crate::heartbeat::{self, Heartbeat};
use crate::log::{Event, Sample};
use crate::plan::RunPlan;
use crate::step::StepParts;

/// A line of log.jsonl. A run writes several kinds: of an update, and of the validation before the first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Updates made.
    pub step: u64,
    /// Loss; none where it was not finite.
    pub loss: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Gradient norm.
    pub norm: Option<f64>,
    /// Milliseconds of the update.
    pub ms: Option<f64>,
    /// Where they went.
    pub parts: Option<StepParts>,
    /// Speed.
    pub tokens_per_second: Option<f64>,
    /// Part of the device's peak.
    pub mfu: Option<f64>,
    /// Tokens since the start.
    pub tokens_seen: u64,
    /// Tokens since the start by tokens of the data.
    pub epochs: Option<f64>,
    /// Why the update was left out.
    pub skipped: Option<String>,
    /// Validation loss.
    pub val_loss: Option<f64>,
    /// The same in bits per byte; absent in logs of earlier versions.
    pub val_bits_per_byte: Option<f64>,
    /// Scores of evaluations by name.
    pub scores: BTreeMap<String, f64>,
    /// Seconds in the run.
    pub elapsed: f64,
}

/// A run as its folder tells it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The folder.
    pub dir: PathBuf,
    /// The plan.
    pub plan: RunPlan,
    /// The log, one row per step; of a long one a few thousand rows (`rows.rs`).
    pub rows: Vec<Row>,
    /// What all of its rows are together.
    pub totals: Totals,
    /// What it wrote.
    pub samples: Vec<Sample>,
    /// What happened.
    pub events: Vec<Event>,
    /// How it is.
    pub heartbeat: Option<Heartbeat>,
    /// What it was made with.
    pub environment: BTreeMap<String, String>,
}

impl Record {
    /// Reads a run folder. Lines that are half written (the run may be going on) are left out.
    pub fn open(dir: &Path) -> Result<Record, TrainError> {
        let path = dir.join(PLAN);
        let plan = RunPlan::read(&path)?;
        let mut rows = Rows::default();
        each::<Row>(&dir.join(LOG), |row| rows.push(row));
        let (rows, totals) = rows.finish();
        let heartbeat = fs::read_to_string(dir.join(heartbeat::FILE)).ok();
        let environment = fs::read_to_string(dir.join(ENVIRONMENT)).ok();
        Ok(Record {
            plan,
            rows,
            totals,
            samples: lines(&dir.join(SAMPLES)),
            events: lines(&dir.join(EVENTS)),
            heartbeat: heartbeat.and_then(|text| serde_json::from_str(&text).ok()),
            environment: environment.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            dir: dir.to_path_buf(),
        })
    }

    /// Name of the folder.
    pub fn name(&self) -> String {
        let path = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Rows of updates.
    pub fn updates(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.step > 0)
    }

    /// Validation losses by tokens seen.
    pub fn validations(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.rows.iter().filter_map(|row| Some((row.tokens_seen as f64, row.val_loss?)))
    }

    /// The same in bits per byte of text.
    pub fn bits_per_byte(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.rows.iter().filter_map(|row| Some((row.tokens_seen as f64, row.val_bits_per_byte?)))
    }

    /// What tells its vocabulary from others: the tokenizer's fingerprint, or the size where there is no tokenizer.
    pub fn vocabulary(&self) -> String {
        let kept = Tokenizer::load(&self.dir.join("tokenizer.json")).ok();
        kept.map_or_else(|| self.plan.model.vocab_size.to_string(), |tokenizer| tokenizer.fingerprint())
    }

    /// Seconds of training so far.
    pub fn seconds(&self) -> f64 {
        self.rows.last().map_or(0.0, |row| row.elapsed)
    }
}

/// The lines of a file that can be read.
fn lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let mut found = Vec::new();
    each(path, |line| found.push(line));
    found
}

/// Calls `see` for every line that can be read; a byte that is not UTF-8 spoils no line but its own.
fn each<T: DeserializeOwned>(path: &Path, mut see: impl FnMut(T)) {
    let Ok(file) = File::open(path) else { return };
    let (mut file, mut line) = (BufReader::with_capacity(1 << 20, file), Vec::new());
    loop {
        line.clear();
        match file.read_until(b'\n', &mut line) {
            Ok(1..) => {}
            _ => return,
        }
        if let Ok(read) = serde_json::from_slice(&line) {
            see(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_utf8_takes_no_other_with_it() {
        let dir = std::env::temp_dir().join(format!("corella-record-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join(PLAN), include_str!("../../../../runs/gpt2-124m.toml")).expect("written");
        let log = b"{\"step\": 1, \"loss\": 3.5}\n\xff\xfe{\n{\"step\": 2, \"loss\": 2.5}\n{\"step\": 3, \"lo";
        fs::write(dir.join(LOG), log).expect("written");
        let record = Record::open(&dir).expect("a run");
        let losses: Vec<_> = record.updates().map(|row| (row.step, row.loss)).collect();
        assert_eq!(losses, [(1, Some(3.5)), (2, Some(2.5))]);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
