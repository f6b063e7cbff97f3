//! Token for token equal to tiktoken, Hugging Face's tokenizers and SentencePiece: `fixtures/tokenizer/make.py` wrote
//! what they give.

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{gguf, load, shared};
use corella_text::tokenizer::{GgufVocab, Tokenizer};

/// Ids of every text of the fixture, and that decoding gives the text back where `lossless`.
fn equal_to(name: &str, tokenizer: &Tokenizer, lossless: impl Fn(&str) -> bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer/vectors.json");
    let mut file: HashMap<String, serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the fixture")).expect("JSON");
    let mut take = |key: &str| file.remove(key).expect("in the fixture");
    let texts: Vec<String> = serde_json::from_value(take("texts")).expect("texts");
    let expected: Vec<Vec<u32>> = serde_json::from_value(take(name)).expect("ids");
    assert!(texts.len() > 150 && texts.len() == expected.len());
    for (text, ids) in texts.iter().zip(&expected) {
        assert_eq!(&tokenizer.encode(text), ids, "{name}: {text:?}");
        if lossless(text) {
            assert_eq!(&tokenizer.decode(ids), text, "{name}");
        }
    }
}

fn always(_: &str) -> bool {
    true
}

/// Characters that a vocabulary cannot say, a space of another kind, and squeezed spaces do not come back.
fn plain(text: &str) -> bool {
    !text.contains('\u{2581}')
}

fn gguf_vocab(path: &str) -> Option<Tokenizer> {
    let bytes = std::fs::read(shared(path)?).expect("readable");
    Some(Tokenizer::from_gguf(&gguf::vocab(&bytes)).expect("a whole vocabulary"))
}

#[test]
fn gpt2_from_every_kind_of_file() {
    equal_to("gpt2", &Tokenizer::gpt2(), always);
    let files = ["gpt2/r50k_base.tiktoken", "gpt2/vocab.bpe", "gpt2/encoder.json"];
    for tokenizer in files.iter().filter_map(|file| load(&format!("tokenizers/{file}"))) {
        equal_to("gpt2", &tokenizer, always);
        assert_eq!(tokenizer.fingerprint(), Tokenizer::gpt2().fingerprint());
    }
    if let Some(tokenizer) = gguf_vocab("tokenizers/gguf/ggml-vocab-gpt-2.gguf") {
        equal_to("gpt2", &tokenizer, always);
        assert_eq!(tokenizer.fingerprint(), Tokenizer::gpt2().fingerprint());
    }
}

#[test]
fn gpt2_with_single_digits_as_small_models_have_it() {
    let mut json: serde_json::Value = serde_json::from_str(&Tokenizer::gpt2().to_json()).expect("JSON");
    let byte_level = json["pre_tokenizer"].take();
    let digits = serde_json::json!({"type": "Digits", "individual_digits": true});
    json["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [digits, byte_level]});
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).expect("a whole file");
    equal_to("hf_gpt2_digits", &tokenizer, always);
}

/// GPT-2's vocabulary as a GGUF file keeps it.
fn gpt2_in_gguf(pre: Option<&str>) -> GgufVocab {
    let json: serde_json::Value = serde_json::from_str(&Tokenizer::gpt2().to_json()).expect("JSON");
    let ids = json["model"]["vocab"].as_object().expect("an object");
    let mut tokens = vec![String::new(); ids.len()];
    ids.iter().for_each(|(name, id)| tokens[id.as_u64().expect("a number") as usize].clone_from(name));
    let merges: Vec<[String; 2]> = serde_json::from_value(json["model"]["merges"].clone()).expect("pairs");
    GgufVocab {
        model: "gpt2".to_owned(),
        pre: pre.map(str::to_owned),
        tokens,
        merges: Some(merges.iter().map(|pair| pair.join(" ")).collect()),
        eos: Some(50_256),
        ..GgufVocab::default()
    }
}

#[test]
fn a_gguf_file_that_names_no_pattern_is_split_as_llama_cpp_splits_it() {
    for pre in [Some("default"), None] {
        let tokenizer = Tokenizer::from_gguf(&gpt2_in_gguf(pre)).expect("a whole vocabulary");
        equal_to("llama_cpp_default", &tokenizer, always);
        assert_eq!(tokenizer.gguf_pre(), Some("default"));
        let again = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("its own file");
        equal_to("llama_cpp_default", &again, always);
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        assert_ne!(again.fingerprint(), Tokenizer::gpt2().fingerprint());
    }
}

#[test]
fn names_that_llama_cpp_gives_to_one_pattern_give_the_same_ids() {
    for (vectors, written, names) in [
        ("gpt2", "gpt-2", &["gpt-2", "mellum", "a.x-4.0"][..]),
        ("hf_gpt2_digits", "smollm", &["smollm", "starcoder", "refact", "minerva-7b"]),
    ] {
        for name in names {
            let tokenizer = Tokenizer::from_gguf(&gpt2_in_gguf(Some(name))).expect("a whole vocabulary");
            equal_to(vectors, &tokenizer, always);
            assert_eq!(tokenizer.gguf_pre(), Some(written));
        }
    }
    let kind = |name| Tokenizer::from_gguf(&gpt2_in_gguf(Some(name))).expect("a whole vocabulary").kind();
    for name in ["llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"] {
        assert_eq!(kind(name), kind("llama-bpe"));
    }
    assert_eq!(kind("megrez"), kind("qwen2"));
    assert_eq!(kind("llama-bpe").strip_prefix(&kind("smaug-bpe")), Some(", pieces that are tokens taken whole"));
    let refused = Tokenizer::from_gguf(&gpt2_in_gguf(Some("tekken"))).expect_err("another pattern").to_string();
    assert!(refused.starts_with("tokenizer.ggml.pre is tekken; the patterns of gpt-2, "), "{refused}");
}

#[test]
fn llama3_from_ranks_and_from_its_json() {
    let Some(tokenizer) = load("tokenizers/llama3/tokenizer.model") else { return };
    equal_to("llama3", &tokenizer, always);
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.start_of_text(), tokenizer.end_of_text()),
        (128_256, 128_000, 128_001)
    );
    assert_eq!(tokenizer.stop_ids(), [128_001, 128_008, 128_009]);
    let again = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("a whole file");
    equal_to("llama3", &again, always);
    assert_eq!(again.fingerprint(), tokenizer.fingerprint());
}

#[test]
fn llama3_cases_of_the_javascript_tokenizer() {
    let paths =
        (load("tokenizers/llama3/tokenizer.model"), shared("tokenizers/vectors/llama3-tokenizer-js/cases.json"));
    let (Some(tokenizer), Some(path)) = paths else { return };
    let file: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON");
    let cases = file["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 13);
    for case in cases {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).expect("ids");
        assert_eq!(tokenizer.encode(case["text"].as_str().expect("text")), ids);
    }
}

#[test]
fn small_llamas_of_sentencepiece_style() {
    let never = |_: &str| false;
    if let Some(tokenizer) = load("checkpoints/stories260K/tok512.bin") {
        equal_to("tok512", &tokenizer, plain);
        assert_eq!((tokenizer.start_of_text(), tokenizer.end_of_text(), tokenizer.vocab_size()), (1, 2, 512));
    }
    for file in ["tok105.model", "tok105.vocab"] {
        if let Some(tokenizer) = load(&format!("checkpoints/babyllama-tok105/{file}")) {
            equal_to("tok105", &tokenizer, never);
            // Prepared folders and checkpoints keep a vocabulary as tokenizer.json.
            let again = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("its own tokenizer.json");
            equal_to("tok105", &again, never);
            assert_eq!((tokenizer.start_of_text(), tokenizer.vocab_size()), (1, 105));
        }
    }
    for folder in ["TinyStories-656K-f32", "TinyStories-656K-bf16"] {
        if let Some(tokenizer) = load(&format!("checkpoints/{folder}")) {
            equal_to("hf_tinystories_656k", &tokenizer, never);
            // Named in tokenizer_config.json alone.
            let named = (tokenizer.start_of_text(), tokenizer.end_of_text(), tokenizer.roles().add_bos);
            assert_eq!(named, (1, 2, Some(true)));
        }
    }
    if let Some(tokenizer) = gguf_vocab("tokenizers/gguf/ggml-vocab-llama-spm.gguf") {
        equal_to("llama_spm", &tokenizer, plain);
        assert_eq!((tokenizer.start_of_text(), tokenizer.end_of_text(), tokenizer.vocab_size()), (1, 2, 32_000));
    }
}

/// A SentencePiece model with symbols of its user, as `fixtures/tokenizer/symbols.py` wrote it, and SentencePiece's ids.
#[derive(serde::Deserialize)]
struct Symbols {
    name: String,
    model: String,
    ids: Vec<(String, Vec<u32>)>,
}

impl Symbols {
    fn all() -> Vec<Symbols> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer/symbols.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("the fixture")).expect("JSON")
    }

    fn bytes(&self) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&self.model[at..at + 2], 16).expect("digits");
        (0..self.model.len()).step_by(2).map(digits).collect()
    }
}

#[test]
fn symbols_are_cut_out_of_a_text_that_was_normalised_once() {
    let all = Symbols::all();
    assert_eq!(all.len(), 3);
    for case in all {
        let tokenizer = Tokenizer::from_bytes(&case.bytes()).expect("a whole model");
        let again = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("its own tokenizer.json");
        assert_eq!(tokenizer.fingerprint(), again.fingerprint());
        assert!(case.ids.len() > 70);
        let gguf = tokenizer.to_gguf();
        assert!(gguf.is_none_or(|gguf| gguf.tokens[3..7] == ["foo", "foobar", "<sep>", "▁▁"]));
        for (text, ids) in &case.ids {
            for tokenizer in [&tokenizer, &again] {
                assert_eq!(&tokenizer.encode(text), ids, "{}: {text:?}", case.name);
                assert_eq!(&tokenizer.encode_with_special(text), ids, "{}: {text:?}", case.name);
            }
            // What the vocabulary cannot say, what is squeezed, and U+2581 itself do not come back.
            if case.name != "squeezed" && plain(text) && !text.contains('x') {
                assert_eq!(&tokenizer.decode(ids), text, "{}", case.name);
            }
        }
    }
}

#[test]
fn a_model_that_writes_spaces_behind_words_is_refused() {
    let whole = Symbols::all()[0].bytes();
    // A trainer's specification of its own is merged with the one before.
    let suffix = |value: u8| [&whole[..], &[0x12, 5, 0x18, 2, 0xc0, 0x01, value]].concat();
    assert!(Tokenizer::from_bytes(&suffix(0)).is_ok());
    let refused = Tokenizer::from_bytes(&suffix(1)).expect_err("another rule").to_string();
    assert!(refused.starts_with("treat_whitespace_as_suffix is true"), "{refused}");
}

/// A GGUF file keeps scores, not merges: what it says must be what the vocabulary said, or it is not written.
#[test]
fn vocabularies_of_characters_go_through_gguf_where_scores_give_their_merges() {
    let back = |tokenizer: &Tokenizer| {
        let vocab = tokenizer.to_gguf()?;
        Some(Tokenizer::from_gguf(&vocab).expect("what was written can be read"))
    };
    let kept = [
        ("llama_spm", gguf_vocab("tokenizers/gguf/ggml-vocab-llama-spm.gguf")),
        ("tok512", load("checkpoints/stories260K/tok512.bin")),
    ];
    for (name, tokenizer) in kept {
        let Some(tokenizer) = tokenizer else { continue };
        equal_to(name, &back(&tokenizer).expect("scores"), plain);
        // The same vocabulary with merges, as converters write it for `transformers`.
        let merges = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("its own tokenizer.json");
        equal_to(name, &back(&merges).expect("scores that give the merges"), plain);
    }
    // Trained with merges: a pair that is no merge makes a token all the same.
    if let Some(tokenizer) = load("checkpoints/TinyStories-656K-f32") {
        assert!(tokenizer.to_gguf().is_none());
    }
    assert!(Tokenizer::gpt2().to_gguf().is_none(), "it keeps its merges");
}

#[test]
fn whole_corpora_have_the_published_ids() {
    let paths =
        [shared("text/tinyshakespeare/input.txt"), shared("tokenizers/vectors/tinyshakespeare_token_counts.json")];
    let [Some(text), Some(counts)] = paths else { return };
    let text = std::fs::read_to_string(text).expect("UTF-8");
    let counts: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(counts).expect("readable")).expect("JSON");
    let vocabularies = [("gpt2", Some(Tokenizer::gpt2())), ("llama3", load("tokenizers/llama3/tokenizer.model"))];
    for (name, tokenizer) in vocabularies {
        let Some(tokenizer) = tokenizer else { continue };
        let ids = tokenizer.encode(&text);
        assert_eq!(ids.len() as u64, counts[name]["n"].as_u64().expect("a number"));
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), counts[name]["sha256_u32le"].as_str().expect("a hash"));
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

/// Numbers and hashes of what tiktoken 0.14 gives with `allowed_special="all"`.
#[test]
fn cs336s_texts_with_their_special_tokens_are_tiktokens() {
    let texts = [
        ("address.txt", 320, 0, "334d3ac47f6dbfc3407445e06a8e78b9b2f7bb6cda01ba486f304801667ae793"),
        ("corpus.en", 30_854, 0, "e82f99efacc033a355e810015a90244134d9922516542814e89892b1265183b7"),
        ("german.txt", 190, 0, "27787d8c1251798a71452652f905aa173a25a4d3e9407f24c0c2635efc363c4e"),
        ("tinystories_sample.txt", 923, 5, "25ece714a391fa427aaa56abe78b85aebf8048356d507ebbfa626ef5f2847f9a"),
    ];
    let tokenizer = Tokenizer::gpt2();
    for (name, tokens, specials, hash) in texts {
        let Some(path) = shared(&format!("tokenizers/vectors/cs336/fixtures/{name}")) else { return };
        let text = std::fs::read_to_string(path).expect("UTF-8");
        let ids = tokenizer.encode_with_special(&text);
        assert_eq!((ids.len(), ids.iter().filter(|id| **id == 50_256).count()), (tokens, specials), "{name}");
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), hash, "{name}");
        assert_eq!(tokenizer.decode(&ids), text);
        assert!(!tokenizer.encode(&text).contains(&50_256));
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
