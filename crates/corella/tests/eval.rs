//! `corella eval`: what it reads, what it keeps of a run that was cut short, and what it refuses.

mod common;

use std::fs;
use std::path::Path;

use common::{Folder, corella, done, json, refused, stderr, tiny_run};
use serde_json::Value;

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval").join(name).display().to_string()
}

fn evaluated(args: &[&str]) -> Value {
    json(&done(&[&["eval", &fixture("model")], args, &["--json"]].concat()))
}

#[test]
fn a_run_that_was_cut_short_goes_on_behind_the_items_it_scored() {
    let folder = Folder::new("eval-items");
    let path = folder.join("scores.jsonl");
    let (task, name) = (fixture("items/mmlu.jsonl"), path.display().to_string());
    let flags = ["--task", &task, "--items", &name];
    let whole = evaluated(&flags);
    let text = fs::read_to_string(&path).expect("scores");
    let lines: Vec<Value> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 8);
    for line in &lines {
        let logs = line["score"]["log_probs"].as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number"));
        let logs: Vec<f64> = logs.collect();
        let pred = line["pred"].as_u64().expect("a choice") as usize;
        assert!(logs.iter().all(|log| *log <= logs[pred]), "{line}");
        assert_eq!(line["score"]["acc"], line["gold"] == line["pred"], "{line}");
        assert_eq!(line["subject"], "household_things");
    }
    let right = lines.iter().filter(|line| line["gold"] == line["pred"]).count() as f64;
    let subject = &whole["tasks"]["mmlu"]["subjects"]["household_things"];
    assert_eq!((subject["items"].as_u64(), subject["acc"].as_f64()), (Some(8), Some(right / 8.0)), "{whole}");

    // Three lines, and a part of the next, as a kill leaves it.
    let three = text.split_inclusive('\n').take(3).collect::<String>();
    fs::write(&path, format!("{three}{}", &text[three.len()..three.len() + 40])).expect("written");
    let again = corella(&[&["eval", &fixture("model")], &flags[..], &["--json"]].concat());
    assert!(stderr(&again).contains("3 of 8 items of mmlu are scored already"), "{}", stderr(&again));
    assert_eq!(json(&common::stdout(&again)), whole);
    assert_eq!(fs::read_to_string(&path).expect("scores"), text);
    assert_eq!(evaluated(&flags), whole, "nothing is left to score");

    // Those of others are left as they are.
    let shots = [&flags[..], &["--shots", "1", "--shots-from", &task]].concat();
    let piqa = fixture("items/piqa.jsonl");
    for (model, flags, says) in [
        ("model", &shots[..], "item 0 of mmlu is not the one that is asked for now"),
        ("llama", &flags, "those of another model"),
        ("model", &["--task", &piqa, "--items", &name], "scores of mmlu, which is not asked for"),
    ] {
        refused(&[&["eval", &fixture(model)], flags].concat(), 1, says);
        assert_eq!(fs::read_to_string(&path).expect("scores"), text);
    }
}

#[test]
fn a_text_of_documents_is_read_as_training_reads_it() {
    let folder = Folder::new("eval-documents");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, bytes).expect("written");
        path.display().to_string()
    };
    let (one, two) = ("One red fox saw a goose.", "Two old geese stirred soup.");
    let tokens = |text: &str| evaluated(&["--text", &write("alone.txt", text.as_bytes())])["tokens"].as_u64();
    let expected = tokens(one).expect("tokens") + 1 + tokens(two).expect("tokens");
    let separated = evaluated(&["--text", &write("both.txt", format!("{one}\n<|endoftext|>\n{two}\n").as_bytes())]);
    assert_eq!(separated["tokens"], expected, "{separated}");
    let (nll, bits) = (separated["nll"].as_f64().expect("nll"), separated["bits_per_byte"].as_f64().expect("bits"));
    let bytes = (one.len() + two.len()) as f64;
    assert!((nll / std::f64::consts::LN_2 / bytes - bits).abs() < 1e-12, "the separator has no bytes: {separated}");
    // The same documents in other wrappings.
    let lines = [one, two].map(|text| serde_json::json!({"id": 7, "text": text}).to_string()).join("\n");
    let plain = write("texts/a.jsonl", lines.as_bytes());
    let packed = write("packed", &zstd::bulk::compress(lines.as_bytes(), 1).expect("packed"));
    let (texts, pattern) =
        (folder.join("texts").display().to_string(), folder.join("te*/*.jsonl").display().to_string());
    for source in [&plain, &packed, &texts, &pattern] {
        assert_eq!(evaluated(&["--text", source])["nll"], separated["nll"], "{source}");
    }
    // Without a separator a text is a stretch of one, with the spaces around it.
    assert!(tokens(&format!(" {one}\n\n")) > tokens(one));
    let model = fixture("model");
    refused(&["eval", &model, "--text", &write("latin.txt", b"a caf\xe9")], 1, "iconv");
    refused(&["eval", &model, "--text", &write("a.jsonl", b"{\"text\": \"a\"}\n{")], 1, "record 1");
    refused(&["eval", &model, "--text", &write("a.pdf", b"%PDF-1.7")], 1, "pdftotext");
}

#[test]
fn task_files_are_told_by_their_content() {
    let folder = Folder::new("eval-packed");
    let plain = fixture("items/piqa.jsonl");
    let packed = folder.join("piqa_items");
    let bytes = zstd::bulk::compress(&fs::read(&plain).expect("items"), 1).expect("packed");
    fs::write(&packed, bytes).expect("written");
    let scores = |path: &str| evaluated(&["--task", path])["tasks"].clone();
    assert_eq!(scores(&packed.display().to_string()), scores(&plain));
    fs::write(&packed, b"BZh91AY").expect("written");
    refused(&["eval", &fixture("model"), "--task", &packed.display().to_string()], 1, "bzip2 is not read");
}

#[test]
fn contexts_that_lose_their_beginning_are_counted() {
    let (model, task) = (fixture("model"), fixture("items/mmlu.jsonl"));
    let shots = ["--task", &task, "--shots", "7", "--shots-from", &task];
    assert_eq!(evaluated(&shots)["tasks"]["mmlu"]["truncated"], 8);
    let printed = done(&[&["eval", &model], &shots[..]].concat());
    assert!(printed.contains("8 of them are longer than the model's context and lost their beginning"), "{printed}");
    assert_eq!(evaluated(&["--task", &fixture("items/winogrande.jsonl")])["tasks"]["winogrande"]["truncated"], 0);
}

#[test]
fn logits_that_are_no_numbers_are_no_score() {
    let folder = Folder::new("eval-infinite");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(&fixture("model")).join(name), folder.join(name)).expect("copied");
    }
    let mut bytes = fs::read(Path::new(&fixture("model")).join("model.safetensors")).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let place = |i: usize| header["transformer.ln_f.weight"]["data_offsets"][i].as_u64().expect("a place") as usize;
    // Every weight is a number; what comes of them is none.
    for weight in bytes[8 + length + place(0)..8 + length + place(1)].as_chunks_mut::<4>().0 {
        *weight = 3e38f32.to_le_bytes();
    }
    fs::write(folder.join("model.safetensors"), bytes).expect("written");
    let text = folder.join("a.txt");
    fs::write(&text, "A fox.").expect("written");
    let (model, text, task) = (folder.0.display().to_string(), text.display().to_string(), fixture("items/piqa.jsonl"));
    refused(&["eval", &model, "--task", &task], 1, "logits are not numbers");
    refused(&["eval", &model, "--text", &text], 1, "logits are not numbers");
}

#[test]
fn damaged_tokens_to_validate_on_are_named() {
    let folder = Folder::new("eval-damaged");
    let (data, run) = (folder.data(), folder.join("run").display().to_string());
    let name = data.display().to_string();
    done(&tiny_run(&name, &run, "1"));
    let val = fs::read_dir(&data).expect("a folder").flatten().map(|entry| entry.path());
    let shard = val
        .into_iter()
        .find(|path| path.to_string_lossy().contains("/val_") && path.extension().is_some_and(|e| e == "bin"));
    let shard = shard.expect("a shard to validate on");
    let mut bytes = fs::read(&shard).expect("tokens");
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&shard, bytes).expect("written");
    refused(&["eval", &run, "--data", &name], 1, "damaged: its checksum is");
}
