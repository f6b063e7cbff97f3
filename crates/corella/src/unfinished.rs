//! Output that appears under its name when it is whole, and takes no other file's place.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result, of_path};
use crate::signals::{end_at_once, on_stop};

/// How the name of a hidden folder ends.
const ENDING: &str = ".partial";

/// A hidden folder beside an output, in which the output is written. It goes with this value, and when the program is asked to
/// stop: what was begun leaves nothing behind, and may be begun again. Where the program was killed it stays, until the next
/// output of this name is begun.
pub struct Unfinished {
    folder: PathBuf,
    name: OsString,
    /// Held as long as somebody writes here.
    _lock: File,
}

impl Unfinished {
    /// For an output that does not exist yet; the folder that it is to lie in is made.
    pub fn beside(output: &Path) -> Result<Unfinished> {
        let Some(name) = output.file_name() else {
            return Err(Failure::usage(format!("{} is no name for a file or folder", output.display()))
                .hint("give a name that is not taken"));
        };
        // A link that leads nowhere is something too.
        if output.symlink_metadata().is_ok() {
            return Err(taken(output));
        }
        let failed = |error| of_path(output, error);
        if let Some(parent) = output.parent() {
            if parent.exists() && !parent.is_dir() {
                return Err(Failure::new(format!("{}: {} is no folder", output.display(), parent.display()))
                    .hint("name another path"));
            }
            fs::create_dir_all(parent).map_err(failed)?;
        }
        remove_abandoned(output, name);
        let mut hidden = beginning(name);
        hidden.push(format!("{}{ENDING}", std::process::id()));
        let folder = output.with_file_name(hidden);
        let gone = folder.clone();
        on_stop(move || {
            let _ = fs::remove_dir_all(&gone);
            end_at_once();
        })?;
        let lock = locked(&folder, name).map_err(|source| {
            let _ = fs::remove_dir_all(&folder);
            failed(source)
        })?;
        Ok(Unfinished { folder, name: name.to_owned(), _lock: lock })
    }

    /// Where to write it.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Gives it its name, unless something has that name by now.
    pub fn finish(self, output: &Path) -> Result<()> {
        let written = self.path();
        // To rename would replace a file that another program made meanwhile; a second name is only given where it is free.
        let named = if written.is_file() { fs::hard_link(&written, output) } else { fs::rename(&written, output) };
        match named {
            Err(error) if is_taken(&error) => Err(taken(output)),
            // Not every file system gives a file two names.
            Err(_) if written.is_file() && output.symlink_metadata().is_err() => Ok(fs::rename(written, output)?),
            other => Ok(other?),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What stands in front of the number of a process in the name of a hidden folder.
fn beginning(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden
}

/// The file that is locked as long as an output is written; its name is not that of the output.
fn lock_of(folder: &Path, name: &OsStr) -> PathBuf {
    let mut lock = name.to_owned();
    lock.push(".lock");
    folder.join(lock)
}

/// Makes the hidden folder, and locks it.
fn locked(folder: &Path, name: &OsStr) -> io::Result<File> {
    let place = lock_of(folder, name);
    loop {
        fs::create_dir(folder)?;
        let lock = File::create(&place)?;
        lock.lock()?;
        // Between the last two another program may have taken the folder for abandoned, and locked and removed it.
        if place.exists() {
            return Ok(lock);
        }
    }
}

/// Removes what killed programs left of this output. A folder whose lock is held, or is not there yet, is in use. What cannot be
/// removed is in nobody's way.
fn remove_abandoned(output: &Path, name: &OsStr) {
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beginning = beginning(name);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let hidden = entry.file_name();
        let process = hidden.as_encoded_bytes().strip_prefix(beginning.as_encoded_bytes());
        let process = process.and_then(|rest| rest.strip_suffix(ENDING.as_bytes()));
        if !process.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        let Ok(lock) = File::open(lock_of(&entry.path(), name)) else { continue };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory)
}

fn taken(output: &Path) -> Failure {
    Failure::new(format!("{} exists already", output.display()))
        .hint("give a name that is not taken; nothing is overwritten")
}
