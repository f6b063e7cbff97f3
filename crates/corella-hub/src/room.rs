//! Room on disk, asked for before gigabytes are fetched in vain.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::RepoCache;
use crate::{HubError, RemoteFile};

/// Refuses to begin what cannot be stored. Files whose size the hub does not say, and systems that do not tell what is free,
/// are left to the disk.
pub(crate) fn check(cache: &RepoCache, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
    let blobs = blobs(cache);
    // What another commit brought is linked, and what was begun is gone on with. Which blob is which only the download asks;
    // sizes are enough for a sum.
    let begun: u64 = blobs.iter().filter(|(name, _)| name.ends_with(".incomplete")).map(|(_, size)| size).sum();
    let needed: u64 = files
        .iter()
        .filter(|file| !cache.holds(commit, file))
        .filter_map(|file| file.size)
        .filter(|wanted| !blobs.iter().any(|(name, size)| size == wanted && !name.ends_with(".incomplete")))
        .fold(0, u64::saturating_add)
        .saturating_sub(begun);
    match free_disk(cache.folder()) {
        Some((there, free)) if needed > free => Err(HubError::NoRoom { folder: there, needed, free }),
        _ => Ok(()),
    }
}

/// Names and sizes of the contents that the cache has, whole or begun.
fn blobs(cache: &RepoCache) -> Vec<(String, u64)> {
    let entries = fs::read_dir(cache.blobs()).into_iter().flatten().flatten();
    entries.filter_map(|e| Some((e.file_name().into_string().ok()?, e.metadata().ok()?.len()))).collect()
}

/// The folder above `path` that is there, or itself, and the bytes that may still be written to it; `None` where the system does not say.
pub fn free_disk(path: &Path) -> Option<(PathBuf, u64)> {
    let whole = std::path::absolute(path).ok()?;
    let there = whole.ancestors().find(|folder| folder.exists())?;
    Some((there.to_path_buf(), free(there)?))
}

#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    // Some network and virtual file systems count nothing.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
