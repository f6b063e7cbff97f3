//! Formats that are read from their end: zip and Parquet; and indexes of shards.
#![no_main]

use corella_text::data::readers::{ReadOptions, read_file};
use corella_text::data::{TextCorpus, read_index};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("corella-fuzz-{}", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file");
    let options = ReadOptions { max_document: 4096, ..ReadOptions::default() };
    let mut corpus = TextCorpus::default();
    let _ = read_file(&path, "a", &options, &mut corpus);
    // The names of the columns are in the message; each is read.
    let columns = corpus.problems.iter().find_map(|p| p.what.split_once("there are: ").map(|(_, c)| c.to_owned()));
    for field in columns.unwrap_or_default().split(", ").take(4) {
        let options = ReadOptions { field: Some(field.to_owned()), ..options.clone() };
        let _ = read_file(&path, "a", &options, &mut corpus);
    }
    let _ = read_index(&path, 1000);
});
