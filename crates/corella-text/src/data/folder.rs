//! The layout of a prepared folder: the names in it, and what they say of how far it is.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::{DataError, DatasetInfo};

/// Written last: a folder without it is unfinished.
pub(super) const DATASET: &str = "dataset.json";
/// The folder in which a run that is not done keeps what it needs.
pub(super) const WORK: &str = ".prepare";
/// What the names of the shards to train on, and of those to validate on, begin with.
pub(super) const TRAIN: &str = "train_";
pub(super) const VAL: &str = "val_";
/// The end of the name of what is being written.
pub(super) const PARTIAL: &str = ".partial";

/// Whether [`super::prepare`] has written this folder and finished it.
pub fn is_prepared(dir: &Path) -> bool {
    dir.join(DATASET).is_file()
}

/// Whether [`super::prepare`] has begun this folder and not finished it: what lies in it is a part of the data, or other files.
pub fn is_unfinished(dir: &Path) -> bool {
    let entries = || fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let half_written = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.ends_with(PARTIAL) && is_of_part(&name)
    };
    !is_prepared(dir) && (dir.join(WORK).is_dir() || entries().any(|name| half_written(&name)))
}

/// What a finished folder says of itself.
pub fn read_info(dir: &Path) -> Result<DatasetInfo, DataError> {
    let path = dir.join(DATASET);
    let text = fs::read_to_string(&path).map_err(DataError::io(&path))?;
    serde_json::from_str(&text).map_err(|e| DataError::bad(&path, e.to_string()))
}

/// Whether there is no text to read in a folder: it is finished or being written.
pub(super) fn is_own_folder(dir: &Path) -> bool {
    dir.join(WORK).is_dir() || (is_prepared(dir) && read_info(dir).is_ok())
}

/// Whether a name is that of a shard, or of what goes with one.
pub(super) fn is_of_part(name: &str) -> bool {
    name.starts_with(TRAIN) || name.starts_with(VAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_unfinished_until_the_last_file_is_there() {
        let dir = std::env::temp_dir().join(format!("corella-layout-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("made");
        let state = || (is_prepared(&dir), is_unfinished(&dir), is_own_folder(&dir));
        assert_eq!(state(), (false, false, false));
        fs::write(dir.join("other.partial"), "").expect("written");
        assert_eq!(state(), (false, false, false));
        fs::write(dir.join("val_000000.bin.partial"), "").expect("written");
        assert_eq!(state(), (false, true, false));
        fs::create_dir(dir.join(WORK)).expect("made");
        assert_eq!(state(), (false, true, true));
        fs::remove_dir(dir.join(WORK)).expect("removed");
        fs::write(dir.join(DATASET), "{}").expect("written");
        assert_eq!(state(), (true, false, false), "somebody else's dataset.json");
        fs::remove_dir_all(&dir).expect("removed");
    }
}
