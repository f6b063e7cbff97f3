//! What an interrupted run leaves behind so that the next one goes on: a folder `.prepare` inside the output.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::super::DataError;
use super::super::folder::{DATASET, PARTIAL, WORK, is_of_part};
use super::writer::PartState;
use crate::tokenizer::Tokenizer;

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The pass it is in.
    pub stage: Stage,
}

/// The two passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Reading and judging; so many documents have a record.
    Survey {
        /// Documents with a record.
        documents: u64,
    },
    /// Tokenising.
    Shards {
        /// Documents of the complete survey.
        documents: u64,
        /// What is written, if anything.
        done: Option<Box<ShardsDone>>,
    },
}

/// What the second pass has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardsDone {
    /// Documents that were taken in.
    pub documents: u64,
    /// The part to train on.
    pub train: PartState,
    /// The part to validate on.
    pub val: PartState,
}

/// The working folder. Only one process works in it.
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Opens the working folder for a plan. One that was left by another plan is emptied; so is what that plan wrote, as it
    /// was never finished. Anything else that stands where the output would be is replaced with `overwrite` only: it may be
    /// a data set that took days, or a model's folder with its tokenizer.
    pub(super) fn open(out: &Path, plan: &str, overwrite: bool) -> Result<Folder, DataError> {
        let path = out.join(WORK);
        fs::create_dir_all(&path).map_err(DataError::io(&path))?;
        let lock = path.join("lock");
        let file = File::create(&lock).map_err(DataError::io(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::bad(out, "in use by another process")),
            Err(TryLockError::Error(e)) => return Err(DataError::io(&lock)(e)),
        }
        let folder = Folder { path, _lock: file };
        let before = fs::read_to_string(folder.file("plan.json")).ok();
        if before.as_deref() != Some(plan) {
            let found = outputs(out)?;
            let finished = found.iter().find(|path| path.ends_with(DATASET));
            if let Some(path) = finished.or(found.first().filter(|_| before.is_none()))
                && !overwrite
            {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // Without a plan the folder is new, or was being removed.
                if before.is_none() {
                    folder.remove()?;
                }
                return Err(DataError::Occupied { path: out.to_path_buf(), name });
            }
            // The plan goes first: without it the rest counts for nothing.
            ["plan.json", "progress.json", "survey.bin"].iter().try_for_each(|name| folder.remove_file(name))?;
            clear(found)?;
            write_synced(&folder.file("plan.json"), plan)?;
        }
        Ok(folder)
    }

    /// Opens the working folder for work that begins anew after an interruption.
    pub(super) fn open_anew(out: &Path, overwrite: bool) -> Result<Folder, DataError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Folder::open(out, &format!("\"begun by {} at {}\"", std::process::id(), now.as_nanos()), overwrite)
    }

    /// A file of the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a file of the folder that may be there.
    fn remove_file(&self, name: &str) -> Result<(), DataError> {
        match fs::remove_file(self.file(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::io(&self.file(name))(e)),
            _ => Ok(()),
        }
    }

    /// What was noted last.
    pub(super) fn progress(&self) -> Result<Progress, DataError> {
        let path = self.file("progress.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| DataError::bad(&path, e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Ok(Progress { stage: Stage::Survey { documents: 0 } })
            }
            Err(e) => Err(DataError::io(&path)(e)),
        }
    }

    /// Notes how far the run is.
    pub(super) fn note(&self, progress: &Progress) -> Result<(), DataError> {
        let path = self.file("progress.json");
        let text = serde_json::to_string(progress).map_err(|e| DataError::bad(&path, e.to_string()))?;
        write_synced(&path, &text)
    }

    /// Removes the folder: the run is complete. The plan goes first: without it the rest counts for nothing.
    pub(super) fn remove(self) -> Result<(), DataError> {
        self.remove_file("plan.json")?;
        fs::remove_dir_all(&self.path).map_err(DataError::io(&self.path))
    }
}

/// What stands in a folder under the names that a run writes.
fn outputs(out: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(out).map_err(DataError::io(out))? {
        let entry = entry.map_err(DataError::io(out))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let shard = is_of_part(&name) && [".bin", ".idx", PARTIAL].iter().any(|e| name.ends_with(e));
        if shard
            || matches!(&name[..], DATASET | "report.json" | "sources.txt" | "tokenizer.json" | "tokenizer_config.json")
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes outputs; first of all what makes a folder count as finished.
fn clear(mut found: Vec<PathBuf>) -> Result<(), DataError> {
    found.sort_by_key(|path| !path.ends_with(DATASET));
    found.iter().try_for_each(|path| fs::remove_file(path).map_err(DataError::io(path)))
}

/// Writes a small file under a temporary name, syncs and renames it.
pub(super) fn write_synced(path: &Path, text: &str) -> Result<(), DataError> {
    let temporary = path.with_extension("new");
    let all = || -> std::io::Result<()> {
        let mut out = File::create(&temporary)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, path)
    };
    all().map_err(DataError::io(path))
}

/// Writes a folder's tokenizer in the same way.
pub(super) fn write_tokenizer(dir: &Path, tokenizer: &Tokenizer) -> Result<(), DataError> {
    tokenizer.files().iter().try_for_each(|(name, text)| write_synced(&dir.join(name), text))
}
