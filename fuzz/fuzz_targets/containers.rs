//! Formats that are read from their end: zip and Parquet.
#![no_main]

use corella_fuzz::Scratch;
use corella_text::data::TextCorpus;
use corella_text::data::readers::{ReadOptions, read_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let scratch = Scratch::default();
    let path = scratch.file("a", data);
    let options = ReadOptions { max_document: 4096, ..ReadOptions::default() };
    let mut corpus = TextCorpus::default();
    let _ = read_file(&path, "a", &options, &mut corpus);
    // The names of the columns are in the message; each is read.
    let columns = corpus.problems.iter().find_map(|p| p.what.split_once("there are: ").map(|(_, c)| c.to_owned()));
    for field in columns.unwrap_or_default().split(", ").take(4) {
        let options = ReadOptions { field: Some(field.to_owned()), ..options.clone() };
        let _ = read_file(&path, "a", &options, &mut corpus);
    }
    for document in &corpus.documents {
        assert!(document.text.len() <= 3 * options.max_document, "a document of {} bytes", document.text.len());
    }
});
