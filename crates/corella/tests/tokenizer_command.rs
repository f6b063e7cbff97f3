//! `corella tokenizer`: encode, decode, inspect, train.

mod common;

use common::{Folder, corella, done, stderr};

#[test]
fn text_goes_to_ids_and_back() {
    let out = done(&["tokenizer", "encode", "Hello, world!"]);
    assert_eq!(out.trim(), "15496 11 995 0");
    assert_eq!(done(&["tokenizer", "decode", "15496", "11", "995", "0"]).trim(), "Hello, world!");
    let special = done(&["tokenizer", "encode", "a<|endoftext|>", "--special", "--bos", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&special).expect("JSON");
    assert_eq!(report["ids"], serde_json::json!([50256, 64, 50256]));
}

#[test]
fn a_text_may_begin_with_a_dash() {
    let plain = done(&["tokenizer", "encode", "--", "- one"]);
    assert_eq!(plain.trim(), "12 530");
    assert_eq!(done(&["tokenizer", "encode", "- one"]), plain);
    assert_eq!(done(&["tokenizer", "encode", "-1"]).trim(), "12 16");
    // Flags are still flags, on either side of the text.
    for args in [&["--bos", "- one", "--json"], &["- one", "--bos", "--json"]] {
        let report: serde_json::Value =
            serde_json::from_str(&done(&[&["tokenizer", "encode"], &args[..]].concat())).expect("JSON");
        assert_eq!(report["ids"], serde_json::json!([50256, 12, 530]));
    }
}

#[test]
fn ids_that_go_to_a_file_are_told_as_json_where_that_is_asked_for() {
    let dir = Folder::new("encode-out");
    let [first, out] = ["a.bin", "b.bin"].map(|name| dir.join(name).to_string_lossy().into_owned());
    let args = ["tokenizer", "encode", "Hello, world!", "--out"];
    assert_eq!(done(&[&args[..], &[&first]].concat()).trim(), format!("{first}: 4 tokens of 13 bytes"));
    let told: serde_json::Value = serde_json::from_str(&done(&[&args[..], &[&out, "--json"]].concat())).expect("JSON");
    assert_eq!(told, serde_json::json!({"out": out, "tokens": 4, "bytes": 13}));
}

#[test]
fn ids_come_back_as_the_bytes_that_they_stand_for() {
    let bytes = |ids: &[&str]| corella(&[&["tokenizer", "decode"], ids].concat()).stdout;
    // The four bytes of a character are two tokens in GPT-2's vocabulary.
    let ids = done(&["tokenizer", "encode", "😀"]);
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert!(ids.len() > 1, "{ids:?}");
    assert_eq!(bytes(&ids), "😀".as_bytes());
    let parts: Vec<u8> = ids.iter().flat_map(|id| bytes(&[id])).collect();
    assert_eq!(parts, "😀".as_bytes());
    assert_eq!(bytes(&["15496", "198"]), b"Hello\n");
}

#[test]
fn a_vocabulary_is_trained_and_shown() {
    let dir = Folder::new("tokenizer-command");
    let (text, out) = (dir.join("text.txt"), dir.join("own.json"));
    std::fs::write(&text, "the cat and the hat and the bat\n".repeat(50)).expect("written");
    let (text, out) = (text.to_string_lossy().into_owned(), out.to_string_lossy().into_owned());
    done(&["tokenizer", "train", &text, "--vocab-size", "280", "--out", &out]);
    assert!(done(&["tokenizer", "inspect", &out]).starts_with("byte-level BPE, text split as GPT-2 splits it"));
    let shown = done(&["tokenizer", "inspect", &out, "--text", "the bat", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(report["end_of_text"], 0);
    assert!(report["vocab_size"].as_u64().expect("a number") <= 280);
    let ids = done(&["tokenizer", "encode", "--tokenizer", &out, "the hat"]);
    let back = done(&["tokenizer", "decode", "--tokenizer", &out, ids.trim()]);
    assert_eq!(back.trim(), "the hat");
}

#[test]
fn mistakes_say_what_to_do() {
    for (args, code) in [
        (&["tokenizer", "encode", "x", "--tokenizer", "/nowhere.json"][..], 1),
        (&["tokenizer", "inspect", "Cargo.toml"], 1),
        (&["tokenizer", "decode", "50257"], 2),
        (&["tokenizer", "decode", "-7x"], 2),
    ] {
        let out = corella(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}");
        let error = stderr(&out);
        assert!(error.contains("hint:") || error.contains("--help"), "{args:?}: {error}");
    }
}

#[test]
fn what_is_written_takes_the_place_of_no_file() {
    let dir = Folder::new("tokenizer-out");
    let text = dir.text().display().to_string();
    let before = std::fs::read(&text).expect("read");
    for args in [
        &["tokenizer", "train", &text, "--vocab-size", "280", "--out", &text][..],
        &["tokenizer", "encode", "--file", &text, "--out", &text],
    ] {
        let out = corella(args);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let error = stderr(&out);
        assert!(error.contains("exists already") && error.contains("hint:"), "{error}");
        assert_eq!(std::fs::read(&text).expect("read"), before, "{args:?}");
    }
    assert_eq!(std::fs::read_dir(&dir.0).expect("a folder").count(), 1, "and nothing else is left");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_a_way_out() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new(common::CORELLA);
    command.args(["tokenizer", "encode"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("a pipe").write_all(b"a\xff").expect("taken");
    let error = stderr(&child.wait_with_output().expect("ended"));
    assert!(error.contains("standard input: byte 1 is not UTF-8") && error.contains("hint:"), "{error}");
}
