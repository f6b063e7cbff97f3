//! Folders, watchers and novels for the tests of preparation.
#![allow(dead_code)] // Each test file uses a part of it.

use std::path::{Path, PathBuf};

use corella_text::data::readers::{ReadOptions, SourceFile, read_file};
use corella_text::data::{PrepareOptions, Problem, Report, TextCorpus, Watch};

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("corella-prepare-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> SourceFile {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("written");
        // The folder differs from run to run, its name must not.
        SourceFile { path, name: name.to_owned() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Witness {
    pub problems: Vec<Problem>,
    pub surveyed: u64,
}

impl Watch for Witness {
    fn surveyed(&mut self, documents: u64, _: u64) {
        self.surveyed = documents;
    }
    fn file_done(&mut self, _: u64) {}
    fn problem(&mut self, problem: &Problem) {
        self.problems.push(problem.clone());
    }
    fn begins_tokens(&mut self, _: &Report) {}
    fn tokenised(&mut self, _: u64, _: u64) {}
    fn goes_on(&mut self, _: u64) {}
}

pub fn options() -> PrepareOptions {
    PrepareOptions {
        read: ReadOptions { max_document: 1 << 20, ..ReadOptions::default() },
        clean: Default::default(),
        filters: Default::default(),
        exact_duplicates: true,
        near_duplicates: None,
        val_fraction: 0.1,
        shard_tokens: 5000,
        strict: false,
        overwrite: false,
        threads: 2,
        memory: 64 << 20,
    }
}

/// Every file of a folder with its content.
pub fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&p).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

/// The novels of the shared test data; `None`, and a note, where they are absent.
pub fn novels() -> Option<TextCorpus> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/text/english_novels/novels.tar.zst");
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    let mut corpus = TextCorpus::default();
    let _ = read_file(&path, "novels.tar.zst", &ReadOptions::default(), &mut corpus);
    Some(corpus)
}
