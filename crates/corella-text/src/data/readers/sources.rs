//! What the user names, turned into a list of files.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::DataError;

/// A file to read, and how it is called in reports and indexes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// How it is called.
    pub name: String,
}

impl SourceFile {
    /// A file that is called by its path.
    pub fn at(path: &Path) -> SourceFile {
        SourceFile { path: path.to_path_buf(), name: path.display().to_string() }
    }
}

/// The files that a path, a folder or a pattern (`*`, `?`, `[…]`, `**`) stands for, in the order of their names.
///
/// Hidden files below a folder are left out: version control and editors' leavings are not text of the user's. Links to
/// folders below a folder are not followed, so there is no way in circles.
pub fn expand(source: &Path) -> Result<Vec<SourceFile>, DataError> {
    let mut paths = Vec::new();
    let pattern = source.to_string_lossy();
    if source.exists() || !pattern.contains(['*', '?', '[']) {
        collect(source, &mut paths)?;
    } else {
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        let found = glob::glob_with(&pattern, options).map_err(|e| DataError::bad(source, e.to_string()))?;
        for path in found {
            let path = path.map_err(|e| DataError::Io { path: e.path().to_path_buf(), source: e.into() })?;
            collect(&path, &mut paths)?;
        }
        if paths.is_empty() {
            return Err(DataError::bad(source, "no file matches"));
        }
    }
    Ok(paths.iter().map(|p| SourceFile::at(p)).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let meta = fs::metadata(path).map_err(DataError::io(path))?;
    if !meta.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(DataError::io(path))?;
    let mut inside: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(DataError::io(path))?;
    inside.sort();
    inside.retain(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    for path in inside {
        let link = fs::symlink_metadata(&path).map_err(DataError::io(&path))?.is_symlink();
        if !(link && path.is_dir()) && path.exists() {
            collect(&path, files)?;
        }
    }
    Ok(())
}
