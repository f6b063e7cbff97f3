//! What the tests of runs share: folders that go with a test, and the lines of their files.

pub mod small_run;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A place for a folder that goes with the test.
pub struct Folder(PathBuf);

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn folder(name: &str) -> Folder {
    let dir = std::env::temp_dir().join(format!("corella-{name}-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("removed");
    }
    Folder(dir)
}

/// The objects of a file of JSON lines.
pub fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file of lines");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
