//! The run folder: held by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::TrainError;

/// Name of the file that is locked; it holds the number of the process.
const LOCK: &str = "lock";

/// A run folder that this process holds. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct RunFolder {
    dir: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes the folder where it is missing, and takes its lock.
    pub fn open(dir: &Path) -> Result<RunFolder, TrainError> {
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
        Ok(RunFolder { dir: dir.to_path_buf(), _lock: file })
    }

    /// Whether the folder still stands where it was: a disk may be unmounted, a folder removed.
    pub fn is_there(&self) -> bool {
        self.dir.join(LOCK).is_file()
    }
}
