//! The cache on disk, laid out as `huggingface_hub` lays it out:
//! `datasets--OWNER--NAME/{blobs/ETAG, snapshots/COMMIT/PATH → blob, refs/REVISION}`.
//!
//! Beside it lies `.corella`, which other tools pass over: what the hub said that a commit holds (see [`crate::record`]), and
//! which commit a revision named when it was asked last. `refs` names it only when what was wanted of it is there.
//!
//! Other processes read and write here at the same time, so whatever appears under a name is whole when it appears.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{HubError, HubName, RemoteFile};

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

    /// Where everything of the repository lies or will lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.root
    }

    /// Folder of the contents.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where the content with this checksum lies or will lie.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.blobs().join(etag)
    }

    /// Where what is ours alone lies.
    pub(crate) fn own(&self) -> PathBuf {
        self.root.join(".corella")
    }

    /// The commits that a revision may stand for without asking the hub: the one that was fetched last, then the one that the
    /// hub named last.
    pub(crate) fn commits_of(&self, revision: &str) -> Vec<String> {
        if is_commit(revision) {
            return vec![revision.to_owned()];
        }
        let files = [self.reference(revision), self.named(revision)];
        let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
        let mut commits: Vec<String> = texts.map(|text| text.trim().to_owned()).filter(|c| is_commit(c)).collect();
        commits.dedup();
        commits
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    fn named(&self, revision: &str) -> PathBuf {
        self.own().join("named").join(revision)
    }

    /// Remembers the commit of a revision that was fetched.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        self.replace(&self.reference(revision), commit.as_bytes())
    }

    /// Remembers the commit that the hub names, nothing of it being fetched yet.
    pub(crate) fn remember_named(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        self.replace(&self.named(revision), commit.as_bytes())
    }

    /// Gives a file this content unless it has it: another process finds the old content or the new one, never a part.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), HubError> {
        if fs::read(path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        create_parent(path)?;
        let spare = self.spare()?;
        fs::write(&spare, content).map_err(HubError::io(&spare))?;
        moved(&spare, path)
    }

    /// A name that nobody else uses, on the same disk as all of the repository.
    fn spare(&self) -> Result<PathBuf, HubError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.own().join(format!("{}-{next}.tmp", std::process::id()));
        create_parent(&path)?;
        // One that a killed process with the same number left.
        let _ = fs::remove_file(&path);
        Ok(path)
    }

    /// Makes a blob appear under its name in the commit's folder.
    pub(crate) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        #[cfg(unix)]
        {
            let mut target = PathBuf::new();
            (0..Path::new(file).components().count() + 1).for_each(|_| target.push(".."));
            target.push("blobs");
            target.push(blob.file_name().unwrap_or_default());
            // Two processes may do this at once, and a third may be reading the file.
            let spare = self.spare()?;
            std::os::unix::fs::symlink(&target, &spare).map_err(HubError::io(&spare))?;
            moved(&spare, &path)?;
        }
        // Where links need rights, `huggingface_hub` keeps the file itself in the snapshot.
        #[cfg(not(unix))]
        moved(blob, &path)?;
        Ok(path)
    }

    /// Whether the cache holds a file of a commit, in its full size where that is known.
    pub(crate) fn holds(&self, commit: &str, file: &RemoteFile) -> bool {
        is_whole(&self.snapshot(commit).join(&file.path), file.size)
    }

    /// The files of a commit that the cache holds, with their sizes, by name.
    pub(crate) fn files(&self, commit: &str) -> Vec<RemoteFile> {
        let root = self.snapshot(commit);
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()) {
                match (fs::metadata(&path), path.strip_prefix(&root).ok().and_then(Path::to_str)) {
                    (Ok(meta), _) if meta.is_dir() => folders.push(path),
                    (Ok(meta), Some(name)) => {
                        found.push(RemoteFile { path: name.to_owned(), size: Some(meta.len()) });
                    }
                    _ => {}
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

/// Whether a file is there, and has the size that is known of it.
pub(crate) fn is_whole(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| size == meta.len()))
}

/// Renames, and leaves nothing behind where that fails.
fn moved(from: &Path, to: &Path) -> Result<(), HubError> {
    fs::rename(from, to).map_err(|error| {
        let _ = fs::remove_file(from);
        HubError::io(to)(error)
    })
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

#[cfg(test)]
mod tests {
    use super::RepoCache;
    use std::path::PathBuf;

    /// A cache in a folder of its own.
    fn cache(name: &str) -> (PathBuf, RepoCache) {
        let folder = std::env::temp_dir().join(format!("corella-hub-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let cache = RepoCache::new(&folder, &"hf://o/n".parse().expect("a name"));
        (folder, cache)
    }

    #[test]
    fn many_may_link_one_file_at_once() {
        let (folder, cache) = cache("link");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let blob = cache.blob("etag");
        std::fs::create_dir_all(blob.parent().expect("a folder")).expect("made");
        std::fs::write(&blob, "text").expect("written");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let path = cache.link(commit, "a/b.txt", &blob).expect("linked");
                        if cfg!(unix) {
                            assert_eq!(std::fs::read_to_string(path).expect("never missing"), "text");
                        }
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(cache.own()).expect("a folder").count(), 0, "nothing is left behind");
        let _ = std::fs::remove_dir_all(folder);
    }

    #[cfg(unix)]
    #[test]
    fn a_reference_is_replaced_whole_and_only_by_another() {
        use std::os::unix::fs::MetadataExt;
        let (folder, cache) = cache("reference");
        let (old, new) = ("0".repeat(40), "1".repeat(40));
        cache.remember("main", &old).expect("written");
        let path = cache.reference("main");
        let reader = std::fs::File::open(&path).expect("readable");
        let number = |path: &std::path::Path| std::fs::metadata(path).expect("there").ino();
        let first = number(&path);
        cache.remember("main", &old).expect("the same");
        assert_eq!(number(&path), first, "what is right is not written again");
        cache.remember("main", &new).expect("another");
        assert_eq!(cache.commits_of("main"), [new]);
        // Who has opened the old file reads all of it.
        assert_eq!(std::io::read_to_string(reader).expect("readable"), old);
        let _ = std::fs::remove_dir_all(folder);
    }
}
