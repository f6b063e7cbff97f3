//! Files of tokens (llm.c's, nanoGPT's), their indexes, and the folder of a data set.
#![no_main]

use std::sync::LazyLock;

use corella_fuzz::{Scratch, parts};
use corella_text::data::readers::SourceFile;
use corella_text::data::{Dataset, TokenStream, is_token_file, prepare_tokens, read_index, read_shard};
use corella_text::tokenizer::Tokenizer;
use libfuzzer_sys::fuzz_target;

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);

/// The tokens that both readers of shards give are the same.
fn tokens(scratch: &Scratch, data: &[u8], vocab_size: usize) {
    let path = scratch.file("train_000000.bin", data);
    let whole = read_shard(&path, vocab_size);
    let stream = TokenStream::open(std::slice::from_ref(&path), vocab_size).and_then(|stream| stream.to_vec());
    if let Ok(whole) = whole {
        assert_eq!(whole, stream.expect("the stream reads what is read whole"));
    }
    if is_token_file(&path) {
        let _ = prepare_tokens(&[SourceFile::at(&path)], &GPT2, &scratch.folder().join("out"), 1000, true);
    }
}

/// An index whose checksum is right, so that what it guards is reached.
fn index(scratch: &Scratch, data: &[u8]) {
    let mut data = data.to_vec();
    if data.len() >= 64 {
        let crc = crc32fast::hash(&data[64..]);
        data[32..36].copy_from_slice(&crc.to_le_bytes());
    }
    let path = scratch.file("train_000000.idx", &data);
    if let Ok(entries) = read_index(&path, 1000) {
        assert!(entries.iter().all(|entry| entry.start < 1000));
    }
}

fn dataset(scratch: &Scratch, data: &[u8]) {
    let [info, tokenizer, shard] = parts(data);
    scratch.file("dataset.json", info);
    scratch.file("tokenizer.json", tokenizer);
    scratch.file("train_000000.bin", shard);
    if let Ok(dataset) = Dataset::open(scratch.folder()) {
        let _ = dataset.train.documents(dataset.tokenizer.end_of_text());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let scratch = Scratch::default();
    match kind % 4 {
        0 => tokens(&scratch, data, 50_257),
        1 => tokens(&scratch, data, 128_256),
        2 => index(&scratch, data),
        _ => dataset(&scratch, data),
    }
});
