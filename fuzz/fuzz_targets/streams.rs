//! Formats that are read as a stream: text, JSON lines, WARC, gzip, zstd, tar, and these inside each other.
#![no_main]

use corella_text::data::TextCorpus;
use corella_text::data::readers::{ReadOptions, read_bytes};
use libfuzzer_sys::fuzz_target;

/// Endings that change how content is taken.
const NAMES: [&str; 4] = ["a", "a.txt", "a.jsonl", "a.json.gz"];

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let options = ReadOptions { max_document: 4096, zstd_window_log: 20, ..ReadOptions::default() };
    let mut corpus = TextCorpus::default();
    let _ = read_bytes(data, NAMES[usize::from(*first) % NAMES.len()], &options, &mut corpus);
    for document in &corpus.documents {
        // Replacement characters are three bytes for one.
        assert!(document.text.len() <= 3 * options.max_document, "a document of {} bytes", document.text.len());
    }
});
