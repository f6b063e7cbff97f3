//! What the hub said that a commit holds, kept in the cache.
//!
//! A folder of fetched files does not tell whether more were wanted: after an interrupted download it would pass for the
//! whole. With the hub's list beside it, the same files are chosen without a network as with one, and one that is missing or
//! cut short is seen.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::cache::{RepoCache, stays_inside};
use crate::{HubError, RemoteFile};

#[derive(Serialize, Deserialize)]
struct Record {
    files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    size: Option<u64>,
}

/// Keeps the hub's list of a commit's files.
pub(crate) fn write(cache: &RepoCache, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
    let path = path(cache, commit);
    let files = files.iter().map(|f| Entry { path: f.path.clone(), size: f.size }).collect();
    let text = serde_json::to_vec(&Record { files }).map_err(|e| HubError::io(&path)(e.into()))?;
    cache.replace(&path, &text)
}

/// The hub's list of a commit's files, if it was kept.
pub(crate) fn read(cache: &RepoCache, commit: &str) -> Option<Vec<RemoteFile>> {
    let record: Record = serde_json::from_slice(&fs::read(path(cache, commit)).ok()?).ok()?;
    let files = record.files.into_iter().map(|f| RemoteFile { path: f.path, size: f.size });
    files.map(|f| stays_inside(&f.path).then_some(f)).collect()
}

fn path(cache: &RepoCache, commit: &str) -> std::path::PathBuf {
    cache.own().join("files").join(format!("{commit}.json"))
}
