//! What a run folder says about its run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use corella_text::tokenizer::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rows::{Rows, Totals};
use crate::TrainError;
use crate::checkpoint;
use crate::folder::{self, ENVIRONMENT, EVENTS, LOG, PLAN, SAMPLES};
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
    /// What of the folder could not be read, in sentences.
    pub unreadable: Vec<String>,
}

impl Record {
    /// Reads a run folder. Lines that are half written (the run may be going on) are left out.
    pub fn open(dir: &Path) -> Result<Record, TrainError> {
        let path = dir.join(PLAN);
        let plan = RunPlan::read(&path)?;
        let (mut rows, mut unreadable) = (Rows::default(), Vec::new());
        each::<Row>(&dir.join(LOG), &mut unreadable, |row| rows.push(row));
        let (rows, totals) = rows.finish();
        Ok(Record {
            plan,
            rows,
            totals,
            samples: lines(&dir.join(SAMPLES), &mut unreadable),
            events: lines(&dir.join(EVENTS), &mut unreadable),
            heartbeat: document(&dir.join(heartbeat::FILE), &mut unreadable),
            environment: document(&dir.join(ENVIRONMENT), &mut unreadable).unwrap_or_default(),
            dir: dir.to_path_buf(),
            unreadable,
        })
    }

    /// Whether its log tells nothing of a run that has got as far as a checkpoint.
    pub fn has_lost_its_log(&self) -> bool {
        self.rows.is_empty() && checkpoint::any(&folder::checkpoints(&self.dir))
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
fn lines<T: DeserializeOwned>(path: &Path, unreadable: &mut Vec<String>) -> Vec<T> {
    let mut found = Vec::new();
    each(path, unreadable, |line| found.push(line));
    found
}

/// Calls `see` for every line that can be read; a byte that is not UTF-8 spoils no line but its own. The last one may be half
/// written. A file that is not there has no lines.
fn each<T: DeserializeOwned>(path: &Path, unreadable: &mut Vec<String>, mut see: impl FnMut(T)) {
    let mut broken = 0;
    let mut read = || -> std::io::Result<()> {
        let (mut file, mut line) = (BufReader::with_capacity(1 << 20, File::open(path)?), Vec::new());
        while file.read_until(b'\n', &mut line)? > 0 {
            match serde_json::from_slice(&line) {
                Ok(read) => see(read),
                Err(_) => broken += u64::from(line.ends_with(b"\n") && !line.trim_ascii().is_empty()),
            }
            line.clear();
        }
        Ok(())
    };
    told(path, read(), unreadable);
    if broken > 0 {
        let lines = if broken == 1 { "1 line".to_owned() } else { format!("{broken} lines") };
        unreadable.push(format!("{}: {lines} cannot be read and are left out", path.display()));
    }
}

/// A file that is one document; none where there is no such file.
fn document<T: DeserializeOwned>(path: &Path, unreadable: &mut Vec<String>) -> Option<T> {
    let mut found = None;
    let mut read = || -> std::io::Result<()> {
        found = Some(serde_json::from_slice(&fs::read(path)?)?);
        Ok(())
    };
    told(path, read(), unreadable);
    found
}

/// Notes what a file that is there could not be read for.
fn told(path: &Path, read: std::io::Result<()>, unreadable: &mut Vec<String>) {
    match read {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            unreadable.push(format!("{} cannot be read and is left out: {error}", path.display()));
        }
        _ => {}
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
        let [told] = &record.unreadable[..] else { panic!("{:?}", record.unreadable) };
        assert!(told.contains("log.jsonl: 1 line cannot be read"), "{told}");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
