//! What several test files need.
#![allow(dead_code)] // Each test file uses a part of it.

pub mod gguf;

use std::path::PathBuf;

use corella_text::tokenizer::Tokenizer;

/// A file of the shared test data, or `None` with a note where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not here", path.display());
    None
}

/// A vocabulary of the shared test data.
pub fn load(path: &str) -> Option<Tokenizer> {
    shared(path).map(|path| Tokenizer::load(&path).expect("a whole tokenizer"))
}
