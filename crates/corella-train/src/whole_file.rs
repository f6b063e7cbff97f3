//! Small files of a run folder that are replaced whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use corella_model::formats::atomic::AtomicFile;

use crate::TrainError;

/// Puts `text` in the place of a file. One that says the same already is left alone: a resumed run needs no room for it.
pub fn replace(path: &Path, text: &str) -> Result<(), TrainError> {
    if fs::read(path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let write = || -> std::io::Result<()> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    };
    write().map_err(TrainError::io(path))
}
