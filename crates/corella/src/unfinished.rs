//! Output that appears under its name when it is whole.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use corella_model::ModelError;

use crate::error::{Failure, Result};
use crate::signals::{end_at_once, on_stop};

/// A hidden folder beside an output, in which the output is written. It goes with this value, and when the program is asked to
/// stop: what was begun leaves nothing behind, and may be begun again.
pub struct Unfinished {
    folder: PathBuf,
    name: OsString,
}

impl Unfinished {
    /// For an output that does not exist yet, in a folder that does.
    pub fn beside(output: &Path) -> Result<Unfinished> {
        let Some(name) = output.file_name() else {
            return Err(Failure::usage(format!("{} is no name for a file or folder", output.display())));
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let folder = output.with_file_name(hidden);
        fs::create_dir(&folder).map_err(|source| ModelError::Io { path: output.to_path_buf(), source })?;
        let gone = folder.clone();
        on_stop(move || {
            let _ = fs::remove_dir_all(&gone);
            end_at_once();
        })?;
        Ok(Unfinished { folder, name: name.to_owned() })
    }

    /// Where to write it.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Gives it its name.
    pub fn finish(self, output: &Path) -> Result<()> {
        Ok(fs::rename(self.path(), output)?)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
