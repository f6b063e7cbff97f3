//! What `inspect` says of model files and folders.

mod common;

use std::path::Path;

use common::models::{fixture, part_of};
use common::{Folder, corella, done, json, stderr};
use corella_model::formats::gguf;
use serde_json::Value;

#[test]
fn inspect_shows_the_anatomy_of_a_model() {
    let model = json(&done(&["inspect", &fixture("llama/model"), "--corpus-bytes", "1000000", "--json"]));
    assert_eq!((&model["family"], &model["kind"]), (&"llama".into(), &"base".into()));
    let tensors = model["tensors"].as_array().expect("tensors");
    let sum: u64 = tensors.iter().map(|t| t["parameters"].as_u64().expect("a number")).sum();
    assert_eq!(model["parameters"], sum);
    assert_eq!(model["parameter_bytes"], 4 * sum);
    assert_eq!(model["config"]["n_kv_head"], 3);
    assert_eq!(model["config"]["norm_eps"], 1e-5);
    // Two layers, two kinds, three heads of eight numbers of two bytes.
    assert_eq!(model["kv_bytes_per_token"], 2 * 2 * 3 * 8 * 2);
    assert_eq!(model["corpus"]["bytes"], 1_000_000);
    assert!((60..400).contains(&model["code_lines"].as_u64().expect("a number")));
    let files = model["files"].as_array().expect("files");
    let size = |name: &str| std::fs::metadata(Path::new(&fixture("llama/model")).join(name)).expect("a file").len();
    assert!(files.iter().any(|file| file["name"] == "config.json" && file["bytes"] == size("config.json")), "{model}");
    let sizes: u64 = files.iter().map(|file| size(file["name"].as_str().expect("a name"))).sum();
    assert_eq!(model["file_bytes"], sizes);
    let text = done(&["inspect", &fixture("gpt2/model")]);
    for part in ["attn.c_attn.weight", "lines compute the forward pass", "model.safetensors", "capacity"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn published_shapes_are_inspected_without_their_files() {
    let llama = json(&done(&["inspect", "llama-3.1-405b", "--json"]));
    assert_eq!(llama["parameters"], 405_853_388_800_u64);
    assert_eq!(llama["parameter_bytes"], 811_706_777_600_u64, "in BF16, as published");
    assert_eq!(llama["corpus"]["bytes"], 66_000_000_000_000_u64, "15 trillion tokens of 4.4 bytes");
    // Both families have the names and the counts that their files have.
    for (name, file, tensors) in
        [("llama-3.1-405b", "llama/model", 2 + 126 * 9 + 1), ("gpt2-1558m", "gpt2/model", 2 + 48 * 12 + 2)]
    {
        let (shape, model) =
            (json(&done(&["inspect", name, "--json"])), json(&done(&["inspect", &fixture(file), "--json"])));
        let rows = shape["tensors"].as_array().expect("tensors");
        assert_eq!(rows.len(), tensors, "{name}");
        assert_eq!(rows.iter().map(|t| t["parameters"].as_u64().expect("a number")).sum::<u64>(), shape["parameters"]);
        let named = |t: &Value| rows.iter().any(|row| row["name"] == t["name"]);
        assert!(model["tensors"].as_array().expect("tensors").iter().all(named), "{name}");
    }
    let text = done(&["inspect", "gpt2-1558m"]);
    for part in
        ["1,557,611,200", "rounded it is 1.6 billion", "48 blocks with 1,475,558,400 parameters", "700.9 MB", "WebText"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let said = stderr(&corella(&["inspect", "llama-3.1-9b"]));
    assert!(said.contains("does not exist") && said.contains("hint:"), "{said}");
    assert!(said.contains("llama-3.1-8b") && said.contains("gpt2-124m"), "{said}");
}

#[test]
fn what_inspect_prints_fits_a_terminal() {
    for model in ["gpt2-1558m", "llama-3.1-405b", &fixture("gpt2/model")] {
        let text = done(&["inspect", model, "--corpus-bytes", "15MB"]);
        // The first line has the name, which may be a long path.
        for line in text.lines().skip(1) {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.contains("a lossy zip: 15.0 MB of text (as given)"), "{text}");
    }
    // Every column ends where it does in the title.
    let text = done(&["inspect", "llama-3.1-8b"]);
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("tensor ")).take(13).collect();
    assert!(rows.iter().any(|row| row.contains("post_attention_layernorm")), "{text}");
    assert!(rows.iter().all(|row| row.chars().count() == rows[0].chars().count()), "{rows:#?}");
}

/// Bytes of a run's corpus as `inspect` has them.
fn corpus_of(folder: &Folder, data: &str) -> Value {
    let run = folder.join("run");
    std::fs::write(
        run.join("run.toml"),
        format!("[model]\nname = 'gpt2-custom'\nn_layer = 1\nn_head = 1\nn_embd = 8\nvocab_size = 300\nseq_len = 8\n[data]\npath = '{data}'\n"),
    )
    .expect("written");
    json(&done(&["inspect", &run.display().to_string(), "--json"]))["corpus"].clone()
}

#[test]
fn a_run_is_compared_with_the_bytes_that_it_was_trained_on() {
    let folder = Folder::new("lossy");
    std::fs::create_dir(folder.join("run")).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(&format!("gpt2/model/{file}")), folder.join("run").join(file)).expect("a copy");
    }
    let data = folder.data().display().to_string();
    let info = std::fs::read_to_string(folder.join("data/dataset.json")).expect("read");
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let prepared = corpus_of(&folder, &data);
    assert!(prepared["bytes"].as_u64() > Some(0) && prepared["bytes"] == info["train"]["bytes"], "{prepared}");
    // The pages of the tour: 3.9 million tokens of some 3.7 bytes.
    let tiny = corpus_of(&folder, "tiny-internet");
    assert!((10_000_000..20_000_000).contains(&tiny["bytes"].as_u64().unwrap_or(0)), "{tiny}");
    let texts = folder.join("texts");
    std::fs::create_dir(&texts).expect("a folder");
    for (name, text) in [("a.txt", "one"), ("b.md", "three")] {
        std::fs::write(texts.join(name), text).expect("written");
    }
    assert_eq!(corpus_of(&folder, &texts.display().to_string())["bytes"], 8);
    std::fs::write(texts.join("c.txt.gz"), "packed").expect("written");
    assert!(corpus_of(&folder, &texts.display().to_string()).is_null(), "what is packed has another size");
}

#[test]
fn inspect_measures_all_files_of_a_split_model() {
    let folder = Folder::new("split");
    let whole = folder.join("whole.gguf");
    done(&["convert", &fixture("llama/model"), &whole.display().to_string(), "--dtype", "f32"]);
    let (_, header) = gguf::open(&whole).expect("a right file");
    let part = |index: usize| {
        let count = [("split.no", index as u16), ("split.count", 2)].map(|(k, v)| (k.to_owned(), gguf::Value::U16(v)));
        let keys = [&count[..], if index == 0 { &header.metadata[..] } else { &[] }].concat();
        part_of(&whole, &keys, |i| i % 2 == index, &folder.join(&format!("m-{:05}-of-00002.gguf", index + 1)))
    };
    let sizes = part(0) + part(1);
    let first = folder.join("m-00001-of-00002.gguf").display().to_string();
    assert_eq!(json(&done(&["inspect", &first, "--json"]))["file_bytes"], sizes);
}

#[test]
fn a_model_that_comes_with_a_chat_template_is_said_to_be_tuned() {
    let folder = Folder::new("tuned");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(&format!("llama/model/{file}")), folder.join(file)).expect("a copy");
    }
    let says = |config: &str| {
        std::fs::write(folder.join("tokenizer_config.json"), config).expect("written");
        let output = corella(&["inspect", &folder.join("").display().to_string(), "--json"]);
        (json(&String::from_utf8_lossy(&output.stdout))["kind"].clone(), stderr(&output).contains("tuned to follow"))
    };
    assert_eq!(says(r#"{"bos_token": "<s>", "chat_template": null}"#), ("base".into(), false));
    assert_eq!(says(r#"{"chat_template": "{{ messages }}"}"#), ("instruct".into(), true));
    std::fs::write(folder.join("chat_template.jinja"), "{{ messages }}").expect("written");
    assert_eq!(says("{}"), ("instruct".into(), true));
    let text = done(&["inspect", &folder.join("").display().to_string()]);
    assert!(text.contains(": an instruct llama model"), "{text}");
}

#[test]
fn a_folder_that_is_no_model_is_said_to_be_none() {
    let folder = Folder::new("no-model");
    let (dir, data) = (folder.0.display().to_string(), folder.data().display().to_string());
    for (path, hint) in [(&dir, "a run folder"), (&data, "corella train --data")] {
        let commands = [vec!["generate", path, "-p", "x"], vec!["inspect", path], vec!["serve", path, "--port", "0"]];
        for args in commands {
            let refused = corella(&args);
            let said = stderr(&refused);
            assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
            assert!(said.contains("no model") && said.contains(hint), "{said}");
        }
    }
    std::fs::create_dir(folder.join("inside")).expect("a folder");
    std::fs::write(folder.join("inside/config.json"), "{}").expect("written");
    let said = stderr(&corella(&["inspect", &dir]));
    assert!(said.contains(&folder.join("inside").display().to_string()), "{said}");
}

/// The sizes of a document's parts, blocks or formats by name, as `inspect` adds them up.
fn sums<'a>(rows: &'a Value, name: &str) -> Vec<(&'a str, u64, u64)> {
    let number = |row: &Value, field: &str| row[field].as_u64().expect("a number");
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| (row[name].as_str().unwrap_or(""), number(row, "parameters"), number(row, "bytes"))).collect()
}

/// Expected counts are worked out from the published shapes: C 768, 12 layers, 1,024 positions; C 16,384, 126 layers, F 53,248.
#[test]
fn the_parts_of_a_model_add_up_to_it_and_a_tied_head_is_counted_once() {
    let gpt2 = json(&done(&["inspect", "gpt2-124m", "--json"]));
    let four = |name, parameters: u64| (name, parameters, 4 * parameters);
    let attention = 12 * (768 * 2304 + 2304 + 768 * 768 + 768);
    let feed_forward = 12 * (768 * 3072 + 3072 + 3072 * 768 + 768);
    let parts = [
        four("embedding", (50_257 + 1024) * 768),
        four("attention", attention),
        four("feed_forward", feed_forward),
        four("norm", (2 * 12 + 1) * 2 * 768),
    ];
    assert_eq!(sums(&gpt2["parts"], "part"), parts);
    assert_eq!(parts.iter().map(|part| part.1).sum::<u64>(), gpt2["parameters"]);
    assert_eq!(sums(&gpt2["layers"], ""), [four("", (attention + feed_forward) / 12 + 4 * 768); 12]);
    assert_eq!(sums(&gpt2["formats"], "dtype"), [four("F32", 124_439_808)]);
    assert_eq!((&gpt2["bits_per_parameter"], &gpt2["config"]["n_ff"]), (&32.0.into(), &3072.into()));

    let llama = json(&done(&["inspect", "llama-3.1-405b", "--json"]));
    let two = |name, parameters: u64| (name, parameters, 2 * parameters);
    let (embedding, c) = (128_256 * 16_384, 16_384);
    let parts = [
        two("embedding", embedding),
        two("attention", 126 * (2 * c * c + 2 * 1024 * c)),
        two("feed_forward", 126 * 3 * 53_248 * c),
        two("norm", (2 * 126 + 1) * c),
        two("head", embedding),
    ];
    assert_eq!(sums(&llama["parts"], "part"), parts);
    let said = |part: &str| {
        let lines = llama["corpus"]["comparison"].as_array().expect("sentences");
        lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains(part)))
    };
    assert!(said("811.71 GB of parameters: 1 to 81.3") && said("0.277 %"), "{}", llama["corpus"]);

    // Whatever the file calls a tensor, what it is for is said in the same words.
    let folder = Folder::new("roles");
    let file = folder.join("m.gguf").display().to_string();
    done(&["convert", &fixture("llama/model"), &file, "--dtype", "f32"]);
    let block = |model: &str| -> Vec<(String, String, Value)> {
        let model = json(&done(&["inspect", model, "--json"]));
        let own = model["tensors"].as_array().expect("tensors").iter().filter(|t| t["layer"] == 1);
        own.map(|t| (t["role"].to_string(), t["part"].to_string(), t["shape"].clone())).collect()
    };
    let roles: Vec<String> = block(&file).into_iter().map(|(role, ..)| role).collect();
    let expected =
        ["attention_norm", "query", "key", "value", "attention_output", "feed_forward_norm", "gate", "up", "down"];
    assert_eq!(roles, expected.map(|role| format!("\"{role}\"")));
    assert_eq!(block(&file), block(&fixture("llama/model")));
}

/// GPT-2's matrices lie the other way round in Hugging Face's files than in GGUF.
#[test]
fn a_tensor_has_the_shape_that_its_file_says() {
    let folder = Folder::new("shapes");
    let (model, file) = (fixture("gpt2/model"), folder.join("m.gguf").display().to_string());
    done(&["convert", &model, &file, "--dtype", "f32"]);
    let shapes = |model: &str| -> std::collections::BTreeMap<String, Value> {
        let model = json(&done(&["inspect", model, "--json"]));
        let tensors = model["tensors"].as_array().expect("tensors").clone();
        tensors.iter().map(|t| (t["name"].as_str().unwrap_or("").to_owned(), t["shape"].clone())).collect()
    };
    let bytes = std::fs::read(format!("{model}/model.safetensors")).expect("readable");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    for (name, shape) in shapes(&model) {
        assert_eq!(shape, header[&name]["shape"], "{name}");
    }
    let (_, header) = gguf::open(Path::new(&file)).expect("a right file");
    for (name, shape) in shapes(&file) {
        let dims = &header.tensors.iter().find(|t| t.name == name).expect("a tensor").dims;
        assert_eq!(shape, Value::from(dims.iter().rev().copied().collect::<Vec<u64>>()), "{name}");
    }
    assert_eq!(
        shapes("gpt2-124m")["transformer.h.0.attn.c_attn.weight"],
        serde_json::json!([768, 2304]),
        "as published"
    );
}
