//! Tokenizer files of every kind: tokenizer.json, ranks, SentencePiece's and llama2.c's binaries, the vocabulary of a GGUF
//! file, vocab.bpe beside encoder.json, tokenizer_config.json beside tokenizer.json.
#![no_main]

use std::path::Path;

use corella_fuzz::{Scratch, parts};
use corella_model::formats::gguf;
use corella_text::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/corella/src/gguf_vocab.rs"]
mod gguf_vocab;

/// What must hold of every vocabulary that was read.
fn exercise(tokenizer: &Tokenizer) {
    let size = tokenizer.vocab_size();
    for text in ["", "Hello, world 123\n", " é漢\u{200d}👧  \u{2581}\u{2581}<s>\0"] {
        for ids in [tokenizer.encode(text), tokenizer.encode_with_special(text)] {
            assert!(ids.iter().all(|id| (*id as usize) < size), "an id outside the vocabulary of {size}");
            let decoded = tokenizer.decode(&ids);
            assert!(!tokenizer.kind().starts_with("byte-level") || decoded == text, "{decoded:?} came of {text:?}");
        }
    }
    let _ = tokenizer.decode(&[0, u32::MAX, tokenizer.end_of_text(), tokenizer.start_of_text()]);
    // What is written of it can be read.
    let scratch = Scratch::default();
    scratch.file("tokenizer.json", tokenizer.to_json().as_bytes());
    scratch.file("tokenizer_config.json", tokenizer.to_config_json().as_bytes());
    match Tokenizer::load(scratch.folder()) {
        Ok(again) => assert_eq!(again.end_of_text(), tokenizer.end_of_text()),
        Err(error) => panic!("its own tokenizer.json: {error}"),
    }
}

fn from_folder(files: &[(&str, &[u8])], load: &str) -> Option<Tokenizer> {
    let scratch = Scratch::default();
    files.iter().for_each(|(name, bytes)| drop(scratch.file(name, bytes)));
    Tokenizer::load(&scratch.folder().join(load)).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let [first, second] = parts(data);
    let tokenizer = match kind % 5 {
        0 => Tokenizer::from_bytes(data).ok(),
        1 => {
            let header = gguf::parse(data, data.len() as u64, Path::new("a.gguf")).ok();
            header.and_then(|header| gguf_vocab::tokenizer(&header, Path::new("a.gguf"))).and_then(Result::ok)
        }
        2 => from_folder(&[("vocab.bpe", first), ("encoder.json", second)], "vocab.bpe"),
        3 => from_folder(&[("tokenizer_config.json", first), ("tokenizer.json", second)], ""),
        _ => from_folder(&[("a.vocab", data)], "a.vocab"),
    };
    tokenizer.iter().for_each(exercise);
});
