//! What the targets share: a folder for formats that are read from files, and inputs cut into several files.

use std::path::{Path, PathBuf};

/// A folder in memory (where the system has one) that only this process writes.
pub struct Scratch(PathBuf);

impl Default for Scratch {
    fn default() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = parent.join(format!("corella-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        Scratch(folder)
    }
}

impl Scratch {
    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Writes a file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Cuts an input into `N` files: in front of each but the last stands its length in two bytes.
pub fn parts<const N: usize>(mut data: &[u8]) -> [&[u8]; N] {
    let mut parts = [&[][..]; N];
    for part in parts.iter_mut().take(N - 1) {
        let Some((len, rest)) = data.split_first_chunk::<2>() else { break };
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        (*part, data) = rest.split_at(len);
    }
    parts[N - 1] = data;
    parts
}
