//! The run folder: the names of its files, and that one process at a time holds it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::checkpoint;
use crate::plan::RunPlan;

/// Name of the file that is locked; it holds the number of the process.
const LOCK: &str = "lock";
/// The resolved plan.
pub const PLAN: &str = "run.toml";
/// One object per update.
pub const LOG: &str = "log.jsonl";
/// What the model wrote in between.
pub const SAMPLES: &str = "samples.jsonl";
/// What happened besides.
pub const EVENTS: &str = "events.jsonl";
/// What the run was made with: program, machine, system.
pub const ENVIRONMENT: &str = "environment.json";
/// The page that shows the run.
pub const REPORT: &str = "report.html";
/// The folder of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";

/// What a run writes, or what would make another model of the folder: none of it may lie there before, unless it is a run.
const TAKEN: [&str; 8] =
    [LOG, SAMPLES, EVENTS, ENVIRONMENT, REPORT, "tokenizer.json", "tokenizer_config.json", "config.json"];

/// Whether a run was begun in this folder.
pub fn is_run(dir: &Path) -> bool {
    dir.join(PLAN).is_file()
}

/// The plan of the run in this folder, where there is one that can be read.
pub fn plan(dir: &Path) -> Option<RunPlan> {
    fs::read_to_string(dir.join(PLAN)).ok().and_then(|text| RunPlan::from_toml(&text).ok())
}

/// Where the checkpoints of a run lie.
pub fn checkpoints(dir: &Path) -> PathBuf {
    dir.join(CHECKPOINTS)
}

/// Refuses a folder that is no run but holds files that a run would replace, or take for its own. One that is missing, empty,
/// or a run that was begun is fine, and so are files of other names.
pub fn check(dir: &Path) -> Result<(), TrainError> {
    if plan(dir).is_some() || checkpoint::any(&checkpoints(dir)) {
        return Ok(());
    }
    // A run that was killed as it began left files without a line.
    let holds = |name: &&str| {
        let path = dir.join(name);
        fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() > 0)
    };
    // A file in its place is not replaced: no checkpoint can be written as long as it is there.
    let folder = || fs::read_dir(checkpoints(dir)).is_ok_and(|mut entries| entries.next().is_some());
    let folder = [CHECKPOINTS].into_iter().filter(|_| folder());
    match [PLAN].iter().chain(&TAKEN).copied().filter(holds).chain(folder).next() {
        Some(name) => Err(TrainError::OtherFiles { path: dir.to_path_buf(), name: name.to_owned() }),
        None => Ok(()),
    }
}

/// A run folder that this process holds. The lock goes with the process, however it ends.
#[derive(Debug)]
pub(crate) struct RunFolder {
    dir: PathBuf,
    lock: File,
}

impl RunFolder {
    /// Makes the folder where it is missing, and takes its lock. A folder of other files is refused ([`check`]).
    pub fn open(dir: &Path) -> Result<RunFolder, TrainError> {
        check(dir)?;
        fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        let path = dir.join(LOCK);
        let options = || OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path);
        let mut file = options().map_err(TrainError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // A number that cannot be read is only missing from the message.
                let _ = file.read_to_string(&mut text);
                return Err(TrainError::Locked { path: dir.to_path_buf(), holder: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(TrainError::Io { path, source }),
        }
        let pid = std::process::id().to_string();
        file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())).map_err(TrainError::io(&path))?;
        Ok(RunFolder { dir: dir.to_path_buf(), lock: file })
    }

    /// Whether the folder still stands where it was: a disk may be unmounted, a folder removed, and another process may have
    /// made one of the same name.
    pub fn is_there(&self) -> bool {
        fs::metadata(self.dir.join(LOCK)).is_ok_and(|found| self.lock.metadata().is_ok_and(|held| same(&found, &held)))
    }
}

/// Whether two files are one.
#[cfg(unix)]
pub(crate) fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
pub(crate) fn same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    a.is_file() && b.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_same_name_that_another_process_made_is_not_ours() {
        let dir = std::env::temp_dir().join(format!("corella-folder-{}", std::process::id()));
        let held = RunFolder::open(&dir).expect("made");
        assert!(held.is_there());
        fs::remove_dir_all(&dir).expect("removed");
        assert!(!held.is_there());
        let other = RunFolder::open(&dir).expect("made anew");
        assert!(other.is_there() && !held.is_there());
        assert!(matches!(RunFolder::open(&dir), Err(TrainError::Locked { .. })));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
