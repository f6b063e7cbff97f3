//! Trained vocabularies: equal to the vectors of Stanford's CS336, and the same on any number of threads.

mod common;

use common::shared;
use corella_text::tokenizer::{Tokenizer, TrainOptions, WordCounts};

const PLAIN: TrainOptions = TrainOptions { single_digits: false };

#[test]
fn the_vocabulary_of_cs336s_corpus_is_the_reference() {
    let folder = "tokenizers/vectors/cs336/fixtures";
    let file = |name: &str| shared(&format!("{folder}/{name}")).map(|p| std::fs::read_to_string(p).expect("UTF-8"));
    let files = ["corpus.en", "train-bpe-reference-merges.txt", "train-bpe-reference-vocab.json"].map(file);
    let [Some(corpus), Some(merges), Some(vocab)] = files else { return };
    let trained = Tokenizer::train(corpus.split("<|endoftext|>"), 500, PLAIN).expect("large enough");
    let json: serde_json::Value = serde_json::from_str(&trained.to_json()).expect("JSON");
    let ours: Vec<String> = json["model"]["merges"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().expect("text"), pair[1].as_str().expect("text")))
        .collect();
    assert_eq!(ours, merges.lines().collect::<Vec<_>>());
    let names = |value: &serde_json::Value| {
        let mut names: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        names.sort();
        names
    };
    let vocab: serde_json::Value = serde_json::from_str(&vocab).expect("JSON");
    assert_eq!(names(&json["model"]["vocab"]), names(&vocab));
}

#[test]
fn threads_and_the_order_of_documents_change_nothing() {
    let docs: Vec<String> = (0..300)
        .map(|i| format!("Page {i}: the harbour of Brael has {} boats; naïve {}", i * 7 % 91, "ab".repeat(i % 9)))
        .collect();
    let reference = Tokenizer::train(docs.iter().map(String::as_str), 600, TrainOptions::default()).expect("trained");
    for threads in [1, 2, 5] {
        let mut counts = WordCounts::new(TrainOptions::default());
        let backwards: Vec<&String> = docs.iter().rev().collect();
        counts.add_all(&backwards, threads);
        assert_eq!(counts.train(600).expect("trained").to_json(), reference.to_json());
    }
}

/// Every merge in it must not walk the whole word: with a walk this takes minutes.
#[test]
fn a_megabyte_without_a_space_is_no_trap() {
    let mut state = 1u32;
    let letters: String = (0..1_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b"ACGT"[(state >> 30) as usize])
        })
        .collect();
    let tokenizer = Tokenizer::train([&letters[..], &"a".repeat(1_000_000)], 4_000, PLAIN).expect("trained");
    assert_eq!(tokenizer.vocab_size(), 4_000);
    assert_eq!(tokenizer.decode(&tokenizer.encode(&letters)), letters);
}

#[test]
fn too_little_text_gives_a_smaller_vocabulary_and_sizes_have_limits() {
    let tokenizer = Tokenizer::train(["abab"], 1_000, PLAIN).expect("trained");
    assert_eq!(tokenizer.vocab_size(), 257 + 2);
    assert_eq!(tokenizer.encode("abab"), [258]);
    for size in [0, 256, 1_000_001] {
        assert!(Tokenizer::train(["abab"], size, PLAIN).is_err());
    }
}
