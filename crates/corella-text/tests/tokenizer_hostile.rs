//! Broken tokenizer files give the error that says what is wrong; hostile text is encoded in linear time.

mod common;

use common::{gguf, load, shared};
use corella_text::tokenizer::{FormatError, GgufVocab, Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// A small byte-level tokenizer.json: the 256 bytes, `ab`, and the end of text.
fn small() -> Value {
    let mut json: Value = serde_json::from_str(&Tokenizer::gpt2().to_json()).expect("JSON");
    let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
    vocab.retain(|_, id| id.as_u64().expect("a number") < 256);
    vocab.insert("ab".to_owned(), json!(256));
    json["model"]["merges"] = json!([["a", "b"]]);
    json["added_tokens"][0]["id"] = json!(257);
    json
}

fn error(json: &Value) -> FormatError {
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect_err("it is broken")
}

#[test]
fn the_small_file_is_whole() {
    let tokenizer = Tokenizer::from_bytes(small().to_string().as_bytes()).expect("whole");
    assert_eq!(tokenizer.encode("ab"), [256]);
    assert_eq!(tokenizer.end_of_text(), 257);
}

#[test]
fn a_merge_of_or_into_an_unknown_piece_is_refused() {
    for merge in [json!(["a", "zz"]), json!(["zz", "a"]), json!(["b", "a"]), json!("b a")] {
        let mut json = small();
        json["model"]["merges"] = json!([merge]);
        assert!(matches!(error(&json), FormatError::UnknownMerge { .. }), "{merge}");
    }
    let mut json = small();
    json["model"]["merges"] = json!(["ab"]);
    assert!(matches!(error(&json), FormatError::Syntax(_)));
}

#[test]
fn duplicate_pieces_and_ids_are_refused() {
    let mut json = small();
    json["model"]["vocab"]["b"] = json!(0);
    assert!(matches!(error(&json), FormatError::DuplicateToken { .. }));
    // A name that comes twice: a JSON value cannot hold that, the text can.
    let text = small().to_string().replace("\"ab\":256", "\"ab\":256,\"a\":256");
    assert!(matches!(Tokenizer::from_bytes(text.as_bytes()), Err(FormatError::DuplicateToken { .. })));
    let mut json = small();
    json["added_tokens"][0]["content"] = json!("a");
    assert!(matches!(error(&json), FormatError::DuplicateToken { .. }));
}

#[test]
fn ids_out_of_range_and_gaps_are_refused() {
    for id in [258u64, 1 << 31, u64::from(u32::MAX)] {
        let mut json = small();
        json["model"]["vocab"]["ab"] = json!(id);
        assert!(matches!(error(&json), FormatError::IdOutOfRange { .. }), "{id}");
    }
    for id in [json!(-1), json!(1u64 << 32), json!(0.5), json!("3")] {
        let mut json = small();
        json["model"]["vocab"]["ab"] = id.clone();
        assert!(matches!(error(&json), FormatError::Syntax(_)), "{id}");
    }
}

#[test]
fn missing_bytes_and_special_tokens_are_refused() {
    let mut json = small();
    json["model"]["vocab"].as_object_mut().expect("an object").remove("a");
    json["model"]["vocab"]["xx"] = json!(64);
    json["model"]["merges"] = json!([]);
    assert_eq!(error(&json), FormatError::MissingByte { byte: b'a' });
    let mut json = small();
    json["added_tokens"] = json!([]);
    assert!(matches!(error(&json), FormatError::MissingSpecial { .. }));
}

#[test]
fn very_long_pieces_are_refused() {
    let mut json = small();
    json["model"]["vocab"].as_object_mut().expect("an object").remove("ab");
    json["model"]["vocab"]["a".repeat(5000)] = json!(256);
    json["model"]["merges"] = json!([]);
    assert_eq!(error(&json), FormatError::TokenTooLong { id: 256, bytes: 5000, limit: 4096 });
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let cases = [
        ("/model/type", json!("Unigram")),
        ("/model/dropout", json!(0.1)),
        ("/model/end_of_word_suffix", json!("</w>")),
        ("/normalizer", json!({"type": "NFC"})),
        ("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": true})),
        ("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})),
        ("/pre_tokenizer", json!({"type": "Whitespace"})),
        ("/added_tokens/0/lstrip", json!(true)),
    ];
    for (at, value) in cases {
        let mut json = small();
        *json.pointer_mut(at).expect("a field") = value;
        assert!(matches!(error(&json), FormatError::Unsupported { .. }), "{at}");
    }
}

/// Each kind of name was looked for in all of the rest of the text behind every name of the other kind.
#[test]
fn many_names_of_one_kind_are_no_trap_where_there_is_another_kind() {
    let mut json = small();
    let token = |id: u32, content: &str, special: bool| {
        json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    };
    json["added_tokens"] = json!([token(257, "<|endoftext|>", true), token(258, "foo", false)]);
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).expect("whole");
    let seconds = |rounds: usize, text: &str| {
        let begin = std::time::Instant::now();
        (0..rounds).for_each(|_| assert_eq!(tokenizer.encode_with_special(text).len(), text.len() / 2));
        begin.elapsed().as_secs_f64()
    };
    // The same bytes as one text and as two hundred; with the square of the length it would be 200 times as long.
    let (one, many) = ("foo ".repeat(100_000), "foo ".repeat(500));
    let short = seconds(200, &many);
    assert!(seconds(1, &one) < 30.0 * short.max(0.002), "{short} s in short texts");
}

#[test]
fn a_vocabulary_larger_than_the_model_is_refused_and_padding_is_allowed() {
    let tokenizer = Tokenizer::gpt2();
    assert_eq!(tokenizer.padding_in(50_304).expect("fits"), 47);
    assert!(matches!(tokenizer.padding_in(50_256), Err(TokenizerError::Mismatch { tokenizer: 50_257, model: 50_256 })));
}

#[test]
fn broken_rank_files_and_binary_files_are_refused() {
    let parse = |bytes: &[u8]| Tokenizer::from_bytes(bytes).expect_err("it is broken");
    assert_eq!(parse(b""), FormatError::UnknownKind);
    assert_eq!(parse(b"\x80\x04\x95pickle"), FormatError::UnknownKind);
    assert!(matches!(parse(b"IQ== 0\nIg== 2\n"), FormatError::IdOutOfRange { .. }));
    assert!(matches!(parse(b"IQ== 0\nIg==\n"), FormatError::Syntax(_)));
    assert!(matches!(parse(b"IQ== 0\n!! 1\n"), FormatError::Syntax(_)));
    assert!(matches!(parse(b"IQ== 0\nIg== 1\n"), FormatError::Unsupported { .. }));
    // llama2.c: a file that ends inside a token, and a token of 2 GB.
    let head = [&7u32.to_le_bytes()[..], &0f32.to_le_bytes(), &5u32.to_le_bytes(), b"<unk>"].concat();
    let with = |rest: &[u8]| [&head[..], rest].concat();
    assert!(matches!(parse(&with(&[0; 5])), FormatError::Truncated { .. }));
    assert!(matches!(parse(&with(&[0, 0, 0, 0, 9, 0, 0, 0, b'a'])), FormatError::Truncated { .. }));
    assert!(matches!(parse(&with(&[0, 0, 0, 0, 255, 255, 255, 127])), FormatError::TokenTooLong { .. }));
    // SentencePiece: a length beyond the file, a number that never ends.
    assert!(matches!(parse(b"\x0a\x05\x0a\x7fabc"), FormatError::Truncated { .. }));
    assert!(matches!(parse(b"\x0a\x0d\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), FormatError::Syntax(_)));
    assert!(matches!(parse(b"\x0a\x03\x0a\x01a\x12\x02\x18\x01"), FormatError::Unsupported { .. }));
}

#[test]
fn broken_gguf_vocabularies_are_refused() {
    let bytes: Vec<String> = (0..256).map(|b| format!("<0x{b:02X}>")).collect();
    let tokens = [vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()], bytes, vec!["a".to_owned()]].concat();
    let types: Vec<i32> = [vec![2, 3, 3], vec![6; 256], vec![1]].concat();
    let whole = GgufVocab {
        model: "llama".to_owned(),
        scores: Some(vec![0.0; tokens.len()]),
        token_types: Some(types),
        tokens,
        eos: Some(2),
        ..GgufVocab::default()
    };
    assert_eq!(Tokenizer::from_gguf(&whole).expect("whole").encode("a"), [35, 259]);
    // Without kinds the end of a text is still no text, and what is written of the vocabulary can be read.
    let untyped = Tokenizer::from_gguf(&GgufVocab { token_types: None, ..whole.clone() }).expect("kinds are optional");
    let again = Tokenizer::from_bytes(untyped.to_json().as_bytes()).expect("its own file");
    assert_eq!((untyped.end_of_text(), again.end_of_text()), (2, 2));
    // A name that nobody knows is named by the file beside it.
    let mut odd = whole.clone();
    odd.tokens[2] = "<fin>".to_owned();
    let odd = Tokenizer::from_gguf(&odd).expect("a name is a name");
    let dir = std::env::temp_dir().join(format!("corella-odd-end-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temporary folder");
    std::fs::write(dir.join("tokenizer.json"), odd.to_json()).expect("written");
    std::fs::write(dir.join("tokenizer_config.json"), odd.to_config_json()).expect("written");
    let again = Tokenizer::load(&dir);
    std::fs::remove_dir_all(&dir).expect("removed");
    assert_eq!(again.expect("its own files").end_of_text(), 2);
    let error = |change: &dyn Fn(&mut GgufVocab)| {
        let mut broken = whole.clone();
        change(&mut broken);
        Tokenizer::from_gguf(&broken).expect_err("it is broken")
    };
    assert!(matches!(error(&|v| v.scores = Some(vec![0.0; 3])), FormatError::LengthMismatch { found: 3, .. }));
    assert!(matches!(error(&|v| v.token_types = Some(vec![])), FormatError::LengthMismatch { found: 0, .. }));
    assert!(matches!(error(&|v| v.scores = None), FormatError::LengthMismatch { .. }));
    assert!(matches!(error(&|v| v.eos = Some(100_000)), FormatError::IdOutOfRange { .. }));
    assert!(matches!(
        error(&|v| v.tokens[2] = "<s>".to_owned()),
        FormatError::DuplicateToken { first: 1, second: 2, .. }
    ));
    assert!(matches!(error(&|v| v.model = "bert".to_owned()), FormatError::Unsupported { .. }));
    assert!(matches!(error(&|v| v.tokens[3] = "x".to_owned()), FormatError::MissingByte { byte: 0 }));
    assert!(matches!(
        error(&|v| (v.model, v.pre) = ("gpt2".to_owned(), Some("unheard".to_owned()))),
        FormatError::Unsupported { .. }
    ));
    let duplicate = |v: &mut GgufVocab| {
        v.tokens.push("a".to_owned());
        v.scores.as_mut().expect("there").push(0.0);
        v.token_types.as_mut().expect("there").push(1);
    };
    assert!(matches!(error(&duplicate), FormatError::DuplicateToken { .. }));
}

#[test]
fn special_tokens_are_text_unless_allowed() {
    let tokenizer = Tokenizer::gpt2();
    let text = "a<|endoftext|>b<|endoftext|>";
    assert!(!tokenizer.encode(text).contains(&50_256));
    assert_eq!(tokenizer.encode_with_special(text), [64, 50_256, 65, 50_256]);
    assert_eq!(tokenizer.decode(&tokenizer.encode_with_special(text)), text);
    if let Some(tokenizer) = load("tokenizers/llama3/tokenizer.model") {
        let text = "<|begin_of_text|>Hi<|eot_id|><|eot_id|";
        assert!(tokenizer.encode(text).iter().all(|id| *id < 128_000));
        let ids = tokenizer.encode_with_special(text);
        assert_eq!((ids[0], ids[2], ids.iter().filter(|id| **id >= 128_000).count()), (128_000, 128_009, 2));
        assert_eq!(tokenizer.decode(&ids), text);
    }
    if let Some(tokenizer) = load("checkpoints/stories260K/tok512.bin") {
        let text = "<s>Once upon<s> a";
        assert!(tokenizer.encode(text).iter().all(|id| *id > 2));
        let ids = tokenizer.encode_with_special(text);
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 2);
        assert_eq!(tokenizer.decode(&ids), text);
    }
}

/// Every vocabulary of the shared data, GPT-2's always.
fn vocabularies() -> Vec<Tokenizer> {
    let files = [
        "tokenizers/llama3/tokenizer.model",
        "checkpoints/stories260K/tok512.bin",
        "checkpoints/babyllama-tok105/tok105.model",
        "checkpoints/TinyStories-656K-f32",
    ];
    let spm = shared("tokenizers/gguf/ggml-vocab-llama-spm.gguf").map(|path| {
        let bytes = std::fs::read(path).expect("readable");
        Tokenizer::from_gguf(&gguf::vocab(&bytes)).expect("a whole vocabulary")
    });
    std::iter::once(Tokenizer::gpt2()).chain(files.iter().filter_map(|file| load(file))).chain(spm).collect()
}

/// A quadratic way would take hours here, and a recursive one would run out of stack.
#[test]
fn a_million_of_anything_is_no_trap() {
    let n = 1_000_000;
    let mut state = 7u32;
    let mut draw = |from: &[char]| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        from[(state >> 16) as usize % from.len()]
    };
    let mixed: String = (0..n).map(|_| draw(&['a', 'b', ' ', '\n', '1', '.', 'é', '漢', '\''])).collect();
    let letters: String = (0..n).map(|_| draw(&['a', 'e', 't', 'h'])).collect();
    let texts = ["a".repeat(n), " ".repeat(n), "7".repeat(n), "\n ".repeat(n / 2), "<|".repeat(n / 2), letters, mixed];
    for tokenizer in vocabularies() {
        for text in &texts {
            let ids = tokenizer.encode(text);
            assert!(ids.len() <= 4 * n + 4);
            assert!(tokenizer.encode_with_special(text).len() <= 4 * n + 4);
        }
    }
}

/// Bytes of ids given out one by one.
fn one_by_one(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u8> {
    (0..ids.len()).flat_map(|i| tokenizer.token_bytes_after(&ids[..i], ids[i])).copied().collect()
}

#[test]
fn tokens_one_by_one_say_what_all_of_them_say_together() {
    let mut state = 3u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below as u32
    };
    for tokenizer in vocabularies() {
        let specials: Vec<u32> = tokenizer.special_tokens().iter().map(|(_, id)| *id).collect();
        for text in [" a👩‍👧é漢z  b", "word", "", "  two"] {
            let ids = tokenizer.encode(text);
            for front in [&[][..], &specials[..1], &specials] {
                let ids = [front, &ids, &specials[..1], &ids].concat();
                let shown = one_by_one(&tokenizer, &ids);
                assert_eq!(String::from_utf8_lossy(&shown), tokenizer.decode(&ids), "{} {text:?}", tokenizer.kind());
            }
        }
        for _ in 0..300 {
            let ids: Vec<u32> = (0..draw(40)).map(|_| draw(tokenizer.vocab_size() + 3)).collect();
            assert_eq!(String::from_utf8_lossy(&one_by_one(&tokenizer, &ids)), tokenizer.decode(&ids), "{ids:?}");
        }
    }
}

#[test]
fn the_space_that_encoding_adds_is_not_part_of_what_follows_a_bos() {
    let Some(tokenizer) = load("checkpoints/stories260K/tok512.bin") else { return };
    let once = tokenizer.encode("Once")[0];
    assert_eq!(tokenizer.token_bytes(once), b" Once");
    assert_eq!(tokenizer.token_bytes_after(&[tokenizer.start_of_text()], once), b"Once");
    assert_eq!(tokenizer.token_bytes_after(&[], once), b"Once");
    assert_eq!(tokenizer.token_bytes_after(&tokenizer.encode("a"), once), b" Once");
}
