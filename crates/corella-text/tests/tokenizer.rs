//! Token for token equal to independent tokenizers, and lossless on any text.

mod common;

use common::shared;
use corella_text::tokenizer::{Tokenizer, TrainOptions};

#[test]
fn gpt2_ids_equal_tiktokens() {
    let ours = Tokenizer::gpt2();
    let theirs = tiktoken_rs::r50k_base_singleton();
    let mut texts = vec![
        "Hello, world! It's 2024; we'll see.\n\n\n  indented\ttabs \r\n end ".to_owned(),
        "<|endoftext|> stays text".to_owned(),
        "naïve café 漢字 теперь हिन्दी 👩‍👩‍👧‍👦 ½ ⅷ \u{a0}\u{3000}x".to_owned(),
        " ".repeat(1000) + "x" + &"\n".repeat(99),
        "ab".repeat(500),
    ];
    if let Some(path) = shared("text/tinyshakespeare/input.txt") {
        texts.push(std::fs::read_to_string(path).expect("UTF-8"));
    }
    if let Some(path) = shared("text/wikitext-2/valid.txt") {
        texts.push(std::fs::read_to_string(path).expect("UTF-8"));
    }
    for text in texts {
        assert!(
            ours.encode(&text) == theirs.encode_ordinary(&text),
            "{:?}…",
            text.chars().take(40).collect::<String>()
        );
        assert_eq!(ours.decode(&ours.encode(&text)), text);
    }
    assert_eq!((ours.vocab_size(), ours.end_of_text()), (50_257, 50_256));
}

#[test]
fn the_whole_of_tiny_shakespeare_has_the_published_number_of_tokens() {
    if let Some(path) = shared("text/tinyshakespeare/input.txt") {
        let text = std::fs::read_to_string(path).expect("UTF-8");
        assert_eq!(Tokenizer::gpt2().encode(&text).len(), 338_025);
    }
}

#[test]
fn no_text_has_fewer_tokens_than_its_bytes_say() {
    let gpt2 = Tokenizer::gpt2();
    // The longest token of GPT-2 has 128 bytes, and such a text comes near the bound.
    let longest = (0..50_257).map(|id| gpt2.token_bytes(id)).max_by_key(|bytes| bytes.len()).expect("tokens");
    assert_eq!((longest.len(), gpt2.fewest_tokens(1280), gpt2.fewest_tokens(1281)), (128, 10, 11));
    let small = Tokenizer::train(["abab"], 258, TrainOptions::default()).expect("large enough");
    for text in ["", "a", "ÿ漢👩", &String::from_utf8_lossy(longest).repeat(50), &"ab".repeat(3000)] {
        for tokenizer in [&gpt2, &small] {
            assert!(tokenizer.encode(text).len() >= tokenizer.fewest_tokens(text.len()), "{text:.20}");
        }
    }
}

#[test]
fn a_megabyte_of_one_letter_is_no_trap() {
    for letter in ["a", " "] {
        let text = letter.repeat(1_000_000);
        let tokenizer = Tokenizer::gpt2();
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    }
}

#[test]
fn a_trained_vocabulary_merges_the_most_frequent_pairs_and_loses_nothing() {
    let text = "low low low low low lower lower newest newest newest newest newest newest widest widest widest";
    let tokenizer = Tokenizer::train([text], 262, TrainOptions { single_digits: false }).expect("large enough");
    // Counted by hand: `es` and `st` occur 9 times, `we` 8. Of `es` and `st` the one with the greater first part goes first.
    let merged: Vec<&[u8]> = (257..262).map(|id| tokenizer.token_bytes(id)).collect();
    assert_eq!(merged[0], b"st");
    assert_eq!(merged[1], b"est");
    assert_eq!(tokenizer.decode(&tokenizer.encode("élan 12 ∑\0")), "élan 12 ∑\0");
    assert!(Tokenizer::train([text], 100, TrainOptions::default()).is_err());
}

#[test]
fn the_json_form_gives_the_same_ids() {
    let text = "In 1984 the town of Brael, the old harbour and 12 boats. ".repeat(20);
    let trained = Tokenizer::train([&text[..]], 400, TrainOptions::default()).expect("large enough");
    let dir = std::env::temp_dir().join(format!("corella-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    for tokenizer in [trained, Tokenizer::gpt2()] {
        std::fs::write(dir.join("tokenizer.json"), tokenizer.to_json()).expect("written");
        let loaded = Tokenizer::load(&dir).expect("read back");
        assert_eq!(loaded.encode(&text), tokenizer.encode(&text));
        assert_eq!(loaded.fingerprint(), tokenizer.fingerprint());
    }
    std::fs::write(dir.join("tokenizer.json"), "{\"model\": {}}").expect("written");
    assert!(Tokenizer::load(&dir).is_err());
    std::fs::remove_dir_all(&dir).expect("removed");
}

/// What a folder holds, in files by their names.
fn folder(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("corella-text-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    files.iter().for_each(|(name, text)| std::fs::write(dir.join(name), text).expect("written"));
    dir
}

#[test]
fn the_end_of_a_text_is_found_by_whatever_names_it() {
    let own = Tokenizer::train(["a few words"], 260, TrainOptions::default()).expect("trained");
    let renamed = own.to_json().replace("<|endoftext|>", "[EOS]");
    let end = own.end_of_text().to_string();
    let (map, ids) = (r#"{"eos_token": {"content": "[EOS]"}}"#, format!(r#"{{"eos_token_id": [7, {end}]}}"#));
    let wrong = r#"{"eos_token": "[other]"}"#;
    let load = |name: &str, more: &[(&str, &str)]| {
        let dir = folder(name, &[&[("tokenizer.json", &renamed[..])], more].concat());
        let loaded = Tokenizer::load(&dir);
        std::fs::remove_dir_all(dir).expect("removed");
        loaded
    };
    assert!(load("no-end", &[]).expect_err("nothing says it").to_string().contains("no end-of-text token"));
    let by_map = load("by-map", &[("special_tokens_map.json", map), ("tokenizer_config.json", "{}")]).expect("named");
    // Of the model's ids the one counts that is a special token.
    let by_model = load("by-model", &[("config.json", &ids)]).expect("named");
    for found in [by_map, by_model] {
        assert_eq!((found.end_of_text(), found.stop_ids()), (own.end_of_text(), &[own.end_of_text()][..]));
        assert_eq!(found.encode("a few words"), own.encode("a few words"));
    }
    // tokenizer_config.json counts most.
    let both = [("tokenizer_config.json", map), ("special_tokens_map.json", wrong)];
    assert!(load("both", &both).is_ok());
    assert!(load("unknown", &[("special_tokens_map.json", wrong)]).is_err());
}

#[test]
fn whether_bos_stands_in_front_makes_no_other_fingerprint() {
    let own = Tokenizer::train(["the same words again and again"], 270, TrainOptions::default()).expect("large enough");
    let whole = own.to_json();
    let mut file: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(file["post_processor"]["single"][0]["SpecialToken"]["id"], own.special_tokens()[0].0);
    file["post_processor"] = serde_json::Value::Null;
    let silent = Tokenizer::from_bytes(file.to_string().as_bytes()).expect("read");
    assert_ne!(silent.to_json(), whole, "it is kept in the file");
    assert_eq!(silent.fingerprint(), own.fingerprint());
    // As dataset.json had it: the checksum of the whole file.
    let earlier = format!("{:08x}", crc32fast::hash(whole.as_bytes()));
    assert!(own.has_fingerprint(&earlier) && earlier != own.fingerprint());
    let other = Tokenizer::train(["other words now and then"], 270, TrainOptions::default()).expect("large enough");
    assert!(other.fingerprint() != own.fingerprint() && !other.has_fingerprint(&own.fingerprint()));
}
