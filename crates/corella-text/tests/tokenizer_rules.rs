//! Rules of tokenizer files that the published vocabularies use little. Expected ids are those that Hugging Face's tokenizers
//! 0.23.3 gives for the same files.

use corella_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

fn added(tokens: &[(u32, &str, bool)]) -> Value {
    let token = |(id, content, special): &(u32, &str, bool)| {
        json!({
            "id": id, "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    tokens.iter().map(token).collect()
}

fn read(file: &Value) -> Tokenizer {
    Tokenizer::from_bytes(file.to_string().as_bytes()).expect("a whole file")
}

/// Both the file and what is written of it again.
fn and_again(file: &Value) -> [Tokenizer; 2] {
    let tokenizer = read(file);
    let again = Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("its own tokenizer.json");
    assert_eq!(tokenizer.fingerprint(), again.fingerprint());
    [tokenizer, again]
}

/// Characters with `▁` for a space, in front of a text as `scheme` says.
fn of_characters(scheme: &str, fuse_unk: bool) -> Value {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    json!({
        "version": "1.0",
        "added_tokens": added(&[(0, "<unk>", true), (1, "<s>", true), (2, "</s>", true)]),
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": fuse_unk, "byte_fallback": false,
            "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6, "▁b": 7},
            "merges": [["▁", "a"], ["▁", "b"]],
        },
    })
}

#[test]
fn a_space_is_put_in_front_where_the_scheme_says_and_none_is_there() {
    let texts = ["a b", " a b", "▁a", "a</s>a", "<s>a b", "</s> a", "  a"];
    let expected: [(&str, [&[u32]; 7]); 3] = [
        ("first", [&[6, 7], &[6, 7], &[6], &[6, 2, 4], &[1, 4, 7], &[2, 6], &[3, 6]]),
        ("always", [&[6, 7], &[6, 7], &[6], &[6, 2, 6], &[1, 6, 7], &[2, 6], &[3, 6]]),
        ("never", [&[4, 7], &[6, 7], &[6], &[4, 2, 4], &[1, 4, 7], &[2, 6], &[3, 6]]),
    ];
    for (scheme, expected) in expected {
        for tokenizer in and_again(&of_characters(scheme, true)) {
            for (text, ids) in texts.iter().zip(expected) {
                assert_eq!(tokenizer.encode_with_special(text), ids, "{scheme}: {text:?}");
            }
        }
    }
}

#[test]
fn unknown_characters_in_a_row_are_one_token_only_where_the_file_says_so() {
    for (fuse, expected) in [(false, &[6, 0, 0, 4][..]), (true, &[6, 0, 4])] {
        for tokenizer in and_again(&of_characters("first", fuse)) {
            assert_eq!(tokenizer.encode("axya"), expected);
            assert_eq!(tokenizer.encode("x y"), [3, 0, 3, 0], "a space between them");
        }
    }
}

#[test]
fn the_space_in_front_of_a_text_is_no_part_of_it_behind_special_tokens_either() {
    let tokenizer = read(&of_characters("first", false));
    for (before, bytes) in
        [(&[][..], &b"a"[..]), (&[1], b"a"), (&[1, 1], b"a"), (&[4], b" a"), (&[1, 4], b" a"), (&[4, 2], b" a")]
    {
        assert_eq!(tokenizer.token_bytes_after(before, 6), bytes, "{before:?}");
        let ids = [before, &[6]].concat();
        let stream: Vec<u8> =
            (0..ids.len()).flat_map(|i| tokenizer.token_bytes_after(&ids[..i], ids[i]).to_vec()).collect();
        assert_eq!(String::from_utf8(stream).expect("UTF-8"), tokenizer.decode(&ids));
    }
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The 256 bytes, tokens of several digits, and `tokens` from id 260 on.
fn of_bytes(pattern: &str, tokens: &[(u32, &str, bool)]) -> Value {
    let mut file: Value = serde_json::from_str(&Tokenizer::gpt2().to_json()).expect("JSON");
    let vocab = file["model"]["vocab"].as_object_mut().expect("an object");
    vocab.retain(|_, id| id.as_u64().expect("a number") < 256);
    for (name, id) in [("12", 256), ("34", 257), ("123", 258), ("345", 259)] {
        vocab.insert(name.to_owned(), json!(id));
    }
    file["model"]["merges"] = json!([["1", "2"], ["3", "4"], ["12", "3"], ["34", "5"]]);
    file["added_tokens"] = added(tokens);
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
    ]});
    file
}

#[test]
fn a_number_is_split_as_its_pattern_says() {
    let end = [(260, "<|endoftext|>", true)];
    for (pattern, first, second) in [
        (LLAMA3, &["a", "123", "4", "5"][..], &["123", "4", "5", " ", "345"][..]),
        (QWEN, &["a", "1", "2", "3", "4", "5"], &["1", "2", "3", "4", "5", " ", "3", "4", "5"]),
    ] {
        for tokenizer in and_again(&of_bytes(pattern, &end)) {
            let pieces = |text: &str| -> Vec<String> {
                tokenizer.encode(text).iter().map(|id| tokenizer.decode_continuation(&[*id])).collect()
            };
            assert_eq!(pieces("a12345"), first, "{pattern}");
            assert_eq!(pieces("12345 345"), second, "{pattern}");
            let file: Value = serde_json::from_str(&tokenizer.to_json()).expect("JSON");
            assert_eq!(file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], pattern);
        }
    }
}

#[test]
fn of_two_names_that_begin_alike_the_longer_one_is_meant() {
    let tokenizer = read(&of_bytes(
        QWEN,
        &[
            (260, "<|endoftext|>", true),
            (261, "<x>", true),
            (262, "<x>yy", true),
            (263, "<x>y", false),
            (264, "<z>", false),
            (265, "<z>a", true),
        ],
    ));
    // GPT-2's id of `b` is 65.
    for (text, ids) in [
        ("<x>yy", &[262][..]),
        ("<x>yb", &[263, 65]),
        ("<x>", &[261]),
        ("<z>ab", &[265, 65]),
        ("<z>b", &[264, 65]),
        ("<x><x>y<x>yy", &[261, 263, 262]),
    ] {
        assert_eq!(tokenizer.encode_with_special(text), ids, "{text}");
    }
}

/// A file whose names `<s>` and `ab` are looked for in the normalised text where `normalized` says so.
fn of_names(normalized: bool, scheme: Option<&str>) -> Value {
    let mut file = of_characters(scheme.unwrap_or("first"), true);
    if scheme.is_none() {
        file["pre_tokenizer"] = Value::Null;
        file["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]});
    }
    file["model"]["vocab"]["ab"] = json!(8);
    file["added_tokens"] = added(&[(0, "<unk>", true), (1, "<s>", true), (2, "</s>", true), (8, "ab", false)]);
    for i in [1, 3] {
        file["added_tokens"][i]["normalized"] = json!(normalized);
    }
    file
}

#[test]
fn names_are_looked_for_in_the_text_or_in_what_normalising_makes_of_it() {
    let texts =
        ["<s>a b", "a<s>b", "a <s> b", "</s><s>a", "<s></s>a", "ab", "bab", "b ab a", "▁ab", "a</s>b", "<s>", "b</s>"];
    type Ids = [&'static [u32]; 12];
    let expected: [(bool, Option<&str>, Ids); 4] = [
        (
            true,
            None,
            [
                &[1, 4, 7],
                &[6, 0, 5],
                &[6, 1, 7],
                &[2, 1, 4],
                &[1, 2, 6],
                &[8],
                &[7, 4, 5],
                &[7, 8, 6],
                &[3, 8],
                &[6, 2, 7],
                &[1],
                &[7, 2],
            ],
        ),
        (
            false,
            None,
            [
                &[1, 6, 7],
                &[6, 1, 7],
                &[6, 3, 1, 3, 7],
                &[2, 1, 6],
                &[1, 2, 6],
                &[8],
                &[7, 8],
                &[7, 3, 8, 3, 6],
                &[3, 3, 8],
                &[6, 2, 7],
                &[1],
                &[7, 2],
            ],
        ),
        (
            true,
            Some("first"),
            [
                &[1, 4, 7],
                &[6, 1, 5],
                &[6, 3, 1, 7],
                &[2, 1, 4],
                &[1, 2, 4],
                &[8],
                &[7, 8],
                &[7, 3, 8, 6],
                &[3, 8],
                &[6, 2, 5],
                &[1],
                &[7, 2],
            ],
        ),
        (
            true,
            Some("always"),
            [
                &[1, 6, 7],
                &[6, 1, 7],
                &[6, 3, 1, 7],
                &[2, 1, 6],
                &[1, 2, 6],
                &[8],
                &[7, 8],
                &[7, 3, 8, 6],
                &[3, 8],
                &[6, 2, 7],
                &[1],
                &[7, 2],
            ],
        ),
    ];
    for (normalized, scheme, expected) in expected {
        for tokenizer in and_again(&of_names(normalized, scheme)) {
            for (text, ids) in texts.iter().zip(expected) {
                assert_eq!(tokenizer.encode_with_special(text), ids, "{normalized} {scheme:?}: {text:?}");
                assert!(ids.len() >= tokenizer.fewest_tokens(text.len()), "{text:?}");
            }
        }
    }
    // Where special tokens are text, the others are found as before.
    let tokenizer = read(&of_names(true, None));
    for (text, ids) in [("<s>a b", &[3, 0, 4, 7][..]), ("a <s> b", &[6, 3, 0, 7]), ("b ab a", &[7, 8, 6])] {
        assert_eq!(tokenizer.encode(text), ids, "{text}");
    }
    let [now, before] = [true, false].map(|normalized| read(&of_names(normalized, None)));
    assert_ne!(now.fingerprint(), before.fingerprint(), "they give other ids");
    assert!(now.has_fingerprint(&before.fingerprint()), "what was recorded when all names counted as one kind");
    assert!(!before.has_fingerprint(&now.fingerprint()));
}

#[test]
fn names_that_are_looked_for_later_lose_to_those_that_are_not() {
    let mut file = of_bytes(
        LLAMA3,
        &[
            (260, "<|endoftext|>", true),
            (261, "<s>", true),
            (262, "b<s>", false),
            (263, "xy", false),
            (264, "xyz", false),
            (265, "qq", false),
        ],
    );
    for i in [2, 4, 5] {
        file["added_tokens"][i]["normalized"] = json!(true);
    }
    for tokenizer in and_again(&file) {
        for (text, ids) in [
            ("b<s>", &[65, 261][..]),
            ("ab<s>b", &[64, 65, 261, 65]),
            ("xyz", &[263, 89]),
            ("xy", &[263]),
            ("qqxyqqq", &[265, 263, 265, 80]),
            ("b<s>qq", &[65, 261, 265]),
        ] {
            assert_eq!(tokenizer.encode_with_special(text), ids, "{text}");
        }
        for (text, ids) in [("b<s>", &[262][..]), ("ab<s>b", &[64, 262, 65]), ("xyz", &[263, 89])] {
            assert_eq!(tokenizer.encode(text), ids, "{text}");
        }
    }
    // Where no name can lie across another, the order makes no difference, and none is made.
    let names = [(260, "<|endoftext|>", true), (261, "<s>", true), (262, "foo", false)];
    let (plain, mut marked) = (of_bytes(LLAMA3, &names), of_bytes(LLAMA3, &names));
    marked["added_tokens"][2]["normalized"] = json!(true);
    assert_eq!(read(&plain).fingerprint(), read(&marked).fingerprint());
}

/// Digits of Unicode 17, which the patterns' own tables do not have yet, are no numbers, as they are no letters: the character
/// goes with the letters behind it.
#[test]
fn letters_and_numbers_are_those_of_one_version_of_unicode() {
    let mut file = of_bytes(LLAMA3, &[(261, "<|endoftext|>", true)]);
    file["model"]["vocab"]["łb"] = json!(260);
    file["model"]["merges"].as_array_mut().expect("a list").push(json!(["ł", "b"]));
    let tokenizer = read(&file);
    for (text, ids) in [
        ("\u{11de0}b", &[172, 239, 115, 260][..]),
        ("a\u{11de0}b", &[64, 172, 239, 115, 260]),
        ("1\u{11de0}b", &[16, 172, 239, 115, 260]),
        ("\u{660}b", &[149, 254, 65]),
    ] {
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
    }
}

#[test]
fn the_end_of_a_turn_ends_what_a_model_writes_under_each_of_its_names() {
    for name in ["<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>"] {
        let tokens = [(260, "<|endoftext|>", true), (261, "<|im_start|>", true), (262, name, true)];
        let tokenizer = read(&of_bytes(QWEN, &tokens));
        assert_eq!((tokenizer.end_of_text(), tokenizer.stop_ids()), (260, &[260, 262][..]), "{name}");
    }
}
