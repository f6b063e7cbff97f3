//! The cache on disk, laid out as `huggingface_hub` lays it out:
//! `datasets--OWNER--NAME/{blobs/ETAG, snapshots/COMMIT/PATH → blob, refs/REVISION}`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::{HubError, HubName};

/// The part of the cache that belongs to one repository.
pub(crate) struct RepoCache {
    root: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, name: &HubName) -> RepoCache {
        RepoCache { root: cache.join(format!("{}--{}", name.kind().plural(), name.id().replace('/', "--"))) }
    }

    /// Folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where the content with this checksum lies or will lie.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// The commit that a revision named when it was last asked for.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|c| is_commit(c))
    }

    /// Remembers what a revision names.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        create_parent(&path)?;
        fs::write(&path, commit).map_err(HubError::io(&path))
    }

    /// Makes a blob appear under its name in the commit's folder.
    pub(crate) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(HubError::io(&path))?;
        }
        #[cfg(unix)]
        {
            let mut target = PathBuf::new();
            (0..Path::new(file).components().count() + 1).for_each(|_| target.push(".."));
            target.push("blobs");
            target.push(blob.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&target, &path).map_err(HubError::io(&path))?;
        }
        // Where links need rights, `huggingface_hub` keeps the file itself in the snapshot.
        #[cfg(not(unix))]
        fs::rename(blob, &path).map_err(HubError::io(&path))?;
        Ok(path)
    }

    /// The files of a commit that the cache holds, with their sizes, by name.
    pub(crate) fn files(&self, commit: &str) -> Vec<(String, u64)> {
        let root = self.snapshot(commit);
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()) {
                match (fs::metadata(&path), path.strip_prefix(&root).ok().and_then(Path::to_str)) {
                    (Ok(meta), _) if meta.is_dir() => folders.push(path),
                    (Ok(meta), Some(name)) => found.push((name.to_owned(), meta.len())),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }
}

pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io(parent))
}

/// A full commit hash.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a file name out of a listing stays inside the folder that it is joined to.
pub(crate) fn stays_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains(['\\', '\0', ':'])
        && Path::new(file).components().all(|c| matches!(c, Component::Normal(_)))
}
