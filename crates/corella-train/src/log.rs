//! log.jsonl and samples.jsonl: one object per line, appended and flushed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A text written during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Updates made before.
    pub step: u64,
    /// What it continues.
    pub prompt: String,
    /// What the model added.
    pub text: String,
    /// Seed of the draw.
    pub seed: u64,
}

/// A file of JSON lines that each carry a `step`.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Opens the file for appending, after dropping every line beyond `step`: a resumed run writes those again.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        if let Ok(text) = fs::read_to_string(path) {
            let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64();
            let kept: String =
                text.lines().filter(|l| of(l).is_some_and(|s| s <= step)).map(|l| format!("{l}\n")).collect();
            if kept != text {
                let temporary = path.with_extension("jsonl.partial");
                fs::write(&temporary, kept).map_err(TrainError::io(&temporary))?;
                fs::rename(&temporary, path).map_err(TrainError::io(path))?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(TrainError::io(path))?;
        Ok(JsonLines { path: path.to_path_buf(), file })
    }

    /// Appends one object.
    pub fn write(&mut self, object: &impl Serialize) -> Result<(), TrainError> {
        let mut line =
            serde_json::to_vec(object).map_err(|e| TrainError::Plan { field: "log", what: e.to_string() })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(TrainError::io(&self.path))
    }
}
