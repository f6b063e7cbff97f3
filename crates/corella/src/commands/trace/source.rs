//! What a run's training data look like from outside: enough to know that they are those that were indexed, without reading them.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use corella_train::RunPlan;

use crate::inputs::{TINY_INTERNET, is_prepared, text_files};

/// The mark of data of which none can be taken: no data have it.
pub const UNKNOWN: u64 = 0;

/// Tells data from others: by the plan's words for them, the run's tokenizer, and name, size and time of every file. None where
/// they are elsewhere, or cannot be looked at.
pub fn mark(run: &Path, plan: &RunPlan) -> Option<u64> {
    let (data, path) = (&plan.data, Path::new(&plan.data.path));
    let mut mark = Mark::new();
    mark.add(format!("{}\n{}\n{} {}", data.path, data.tokenizer, plan.model.vocab_size, plan.train.seed).as_bytes());
    mark.add(&std::fs::read(run.join("tokenizer.json")).ok()?);
    if data.path != TINY_INTERNET {
        for file in files(path, run)? {
            let about: Metadata = std::fs::metadata(&file).ok()?;
            let time = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            mark.add(file.as_os_str().as_encoded_bytes());
            mark.add(format!("{} {}", about.len(), time.as_nanos()).as_bytes());
        }
    }
    Some(mark.0).filter(|mark| *mark != UNKNOWN)
}

/// The files of a run's data, in the order of their names.
fn files(source: &Path, run: &Path) -> Option<Vec<PathBuf>> {
    if source.to_string_lossy().starts_with(corella_hub::PREFIX) {
        return None;
    }
    let mut files = Vec::new();
    if source.is_dir() {
        // Files of tokens are no texts.
        for entry in std::fs::read_dir(source).ok()? {
            files.push(entry.ok()?.path());
        }
    }
    if !is_prepared(source) {
        files.extend(text_files(source, Some(run)).ok()?.into_iter().map(|file| file.path));
    }
    files.retain(|file| file.is_file());
    files.sort();
    files.dedup();
    Some(files)
}

/// FNV-1a.
struct Mark(u64);

impl Mark {
    fn new() -> Mark {
        Mark(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part, and where it ends.
    fn add(&mut self, part: &[u8]) {
        let length = (part.len() as u64).to_le_bytes();
        for byte in part.iter().chain(&length) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
