//! Model files of every kind through the program: converted, looked into, continued, measured.

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, corella, done, stderr};
use corella_infer::{StopStrings, TextStream};
use corella_model::formats::gguf;
use corella_model::llama::{LlamaCheckpoint, LlamaWeights};
use corella_text::tokenizer::Tokenizer;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON")
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name).display().to_string()
}

/// The folder of real checkpoints, where it is there.
fn checkpoints() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/checkpoints");
    if !dir.is_dir() {
        eprintln!("skipped: {} is not here", dir.display());
        return None;
    }
    Some(dir)
}

/// `bos_token_id` and `eos_token_id` of a run's newest checkpoint: an own vocabulary has its end of text at 0.
fn ends_of_newest_checkpoint(run: &Path) -> (Value, Value) {
    let entries = std::fs::read_dir(run.join("checkpoints")).expect("checkpoints").flatten();
    let newest = entries.map(|e| e.path()).filter(|p| p.join("config.json").is_file()).max().expect("a checkpoint");
    let config = json_file(&newest.join("config.json"));
    (config["bos_token_id"].clone(), config["eos_token_id"].clone())
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

/// All weights of a Llama, as numbers.
fn weights(model: &str) -> LlamaWeights {
    LlamaWeights::read(&LlamaCheckpoint::open(Path::new(model)).expect("a right file")).expect("readable")
}

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
        ["1557611200", "rounded it is 1.6 billion", "48 blocks with 1475558400 parameters", "700.9 MB", "WebText"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(stderr(&corella(&["inspect", "gpt2-9b"])).contains("does not exist"));
}

/// Writes the tensors of a GGUF that `wanted` takes by their number, with other keys, and says the size of the file.
fn part_of(whole: &Path, keys: &[(String, gguf::Value)], wanted: impl Fn(usize) -> bool, path: &Path) -> u64 {
    let (file, header) = gguf::open(whole).expect("a right file");
    let own: Vec<_> = header.tensors.iter().enumerate().filter(|(i, _)| wanted(*i)).map(|(_, t)| t).collect();
    let table =
        own.iter().map(|t| gguf::NewTensor { name: t.name.clone(), dims: t.dims.clone(), encoding: t.encoding });
    let mut out = gguf::create(path, keys, &table.collect::<Vec<_>>()).expect("writable");
    for tensor in own {
        let mut bytes = vec![0; tensor.bytes as usize];
        file.read_at(tensor.begin, &mut bytes).expect("readable");
        out.tensor(&bytes).expect("written");
    }
    out.finish().expect("written");
    std::fs::metadata(path).expect("there").len()
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
fn a_llama_survives_the_way_through_gguf_in_every_format() {
    let folder = Folder::new("gguf");
    let path = |name: &str| folder.join(name).display().to_string();
    let original = weights(&fixture("llama/model"));
    // Bytes of a number, and how far rounding may move one.
    for (format, bytes, rounding) in [("f32", 4.0, 0.0), ("f16", 2.0, 1.0 / 2048.0), ("bf16", 2.0, 1.0 / 256.0)] {
        let file = path(&format!("{format}.gguf"));
        done(&["convert", &fixture("llama/model"), &file, "--dtype", format]);
        let model = json(&done(&["inspect", &file, "--json"]));
        let per = model["parameter_bytes"].as_f64().expect("bytes") / model["parameters"].as_f64().expect("numbers");
        assert!((per - bytes).abs() < 0.1, "{format}: {per} bytes per parameter");
        assert!(model["config"]["rope_scaling"].as_str().is_some_and(|s| s.contains("divisors")), "{model}");
        for (ours, theirs) in weights(&file).tensors.iter().zip(&original.tensors) {
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= rounding * b.abs() + 1e-7), "{format}");
        }
    }
    // Back to a folder, whose configuration has the three regimes again, and every weight its place and value.
    let again = path("again");
    done(&["convert", &path("f32.gguf"), &again]);
    assert!(weights(&again) == original);
    // Rows of 48 are not whole blocks of 32.
    let refused = corella(&["convert", &fixture("llama/model"), &path("q8.gguf"), "--dtype", "q8_0"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("blocks") && !folder.join("q8.gguf").exists(), "{}", stderr(&refused));
}

#[test]
fn a_gpt2_survives_the_way_through_gguf_in_every_format() {
    let folder = Folder::new("gpt2-gguf");
    let (text, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    let flags = "--model gpt2-custom --n-layer 2 --n-head 2 --n-embd 32 --seq-len 32 --vocab-size 300 --micro-batch 4 --steps 60 --warmup-steps 5 --sample-every 0 --val-every 0 --lr 1e-2";
    let mut args = vec!["train", &text, "--out", &out];
    args.extend(flags.split(' '));
    done(&args);
    let loss = |model: &str| {
        let found = json(&done(&["eval", model, "--text", &text, "--json"]));
        found["nll"].as_f64().expect("a number") / found["tokens"].as_f64().expect("a number")
    };
    let exact = loss(&out);
    for (format, allowed) in [("f32", 1e-6), ("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2), ("q4_0", 0.2)] {
        let file = folder.join(&format!("{format}.gguf")).display().to_string();
        done(&["convert", &out, &file, "--dtype", format]);
        let found = loss(&file);
        assert!((found - exact).abs() < allowed, "{format}: {found} {exact}");
        let model = json(&done(&["inspect", &file, "--json"]));
        assert_eq!((&model["family"], &model["config"]["n_embd"]), (&"gpt2".into(), &32.into()));
    }
    // A file that does not say how text is split has the pattern of GPT-2, with a warning.
    let (_, mut header) = gguf::open(&folder.join("f32.gguf")).expect("a right file");
    header.metadata.retain(|(key, _)| key != "tokenizer.ggml.pre");
    let silent = folder.join("silent.gguf");
    part_of(&folder.join("f32.gguf"), &header.metadata, |_| true, &silent);
    let (silent, said) = (silent.display().to_string(), folder.join("f32.gguf").display().to_string());
    let warns = |model: &str| {
        let out = corella(&["generate", model, "-p", "The", "--max-tokens", "1"]);
        assert!(out.status.success(), "{}", stderr(&out));
        stderr(&out).contains("tokenizer.ggml.pre")
    };
    assert!(warns(&silent) && !warns(&said));
    // In a file of another family it is split as llama.cpp splits it, and the warning says what to do.
    let encoded = |file: &str| {
        let out = corella(&["tokenizer", "encode", "it's  12345", "--tokenizer", file, "--json"]);
        (json(&String::from_utf8_lossy(&out.stdout))["ids"].clone(), stderr(&out))
    };
    let key = |key: &str, text: &str| (key.to_owned(), gguf::Value::String(text.to_owned()));
    header.metadata.retain(|(key, _)| key != "general.architecture");
    header.metadata.push(key("general.architecture", "llama"));
    let llama = folder.join("llama.gguf");
    part_of(&folder.join("f32.gguf"), &header.metadata, |_| true, &llama);
    let (ids, warning) = encoded(&llama.display().to_string());
    assert!(warning.contains("llama.cpp's default is taken") && warning.contains("hint: "), "{warning}");
    header.metadata.push(key("tokenizer.ggml.pre", "default"));
    part_of(&folder.join("f32.gguf"), &header.metadata, |_| true, &llama);
    assert_eq!(encoded(&llama.display().to_string()), (ids, String::new()));
    // A folder cannot hold blocks; a quantised file becomes one of whole numbers again.
    let again = folder.join("again").display().to_string();
    done(&["convert", &folder.join("q8_0.gguf").display().to_string(), &again]);
    assert!((loss(&again) - exact).abs() < 1e-2);
    let refused = corella(&["convert", &out, &folder.join("no").display().to_string(), "--dtype", "q8_0"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
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
fn a_model_without_tokenizer_continues_ids() {
    for model in ["llama/model", "gpt2/model"] {
        let out = corella(&["generate", &fixture(model), "--prompt-ids", "1,2,3", "--max-tokens", "4", "--json"]);
        assert!(out.status.success() && stderr(&out).contains("tokens are shown as numbers"), "{}", stderr(&out));
        let found = json(&String::from_utf8_lossy(&out.stdout));
        let ids = found["choices"][0]["ids"].as_array().expect("ids");
        assert_eq!(ids.len(), 4);
        let text: String = ids.iter().map(|id| format!("{id} ")).collect();
        assert_eq!(found["choices"][0]["text"], text);
        assert_eq!(found["prompt_ids"], serde_json::json!([1, 2, 3]));
        let refused = corella(&["generate", &fixture(model), "-p", "text"]);
        assert!(stderr(&refused).contains("--tokenizer"), "{}", stderr(&refused));
    }
}

/// A folder with the Llama of the fixtures, its configuration changed by `config` and its weights by `weight`.
fn changed_llama(folder: &Path, config: impl Fn(&mut Value), weight: impl Fn(usize, f32) -> f32) -> String {
    let mut text = json_file(&PathBuf::from(fixture("llama/model/config.json")));
    config(&mut text);
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("config.json"), text.to_string()).expect("written");
    let mut bytes = std::fs::read(fixture("llama/model/model.safetensors")).expect("readable");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    for (i, x) in bytes[header..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *x = weight(i, f32::from_le_bytes(*x)).to_le_bytes();
    }
    std::fs::write(folder.join("model.safetensors"), bytes).expect("written");
    folder.display().to_string()
}

const IDS: [&str; 5] = ["--prompt-ids", "1,2,3", "--max-tokens", "4", "--json"];

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    let folder = Folder::new("huge");
    // Weights are finite; products with them are not.
    let huge = |i, x: f32| if i < 6000 { x } else { x.signum() * 3e37 };
    let model = changed_llama(&folder.join("m"), |_| {}, huge);
    let out = corella(&[&["generate", &model], &IDS[..]].concat());
    assert_eq!(out.status.code(), Some(1), "{}", common::stdout(&out));
    assert!(stderr(&out).contains("not numbers"), "{}", stderr(&out));
}

#[test]
fn the_old_name_of_the_rope_rule_may_stand_beside_the_new_one() {
    let folder = Folder::new("rope-names");
    let logits = |name: &str, rope: Value| {
        let model = changed_llama(&folder.join(name), |config| config["rope_scaling"] = rope.clone(), |_, x| x);
        json(&done(&[&["generate", &model, "--logprobs", "2"], &IDS[..]].concat()))["prompt_logprobs"].clone()
    };
    let both = logits("both", serde_json::json!({"type": "linear", "rope_type": "linear", "factor": 8.0}));
    assert_eq!(both, logits("new", serde_json::json!({"rope_type": "linear", "factor": 8.0})));
    assert_eq!(both, logits("old", serde_json::json!({"type": "linear", "factor": 8.0})));
    assert_ne!(both, logits("none", Value::Null));
}

#[test]
fn weights_that_a_format_cannot_hold_are_not_written() {
    let folder = Folder::new("large");
    let model = changed_llama(&folder.join("m"), |_| {}, |i, x| if i == 5000 { 1e5 } else { x });
    let out = folder.join("m.gguf").display().to_string();
    let refused = corella(&["convert", &model, &out]);
    let said = stderr(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("100000") && said.contains("--dtype bf16"), "{said}");
    done(&["convert", &model, &out, "--dtype", "bf16"]);
    // One that has 16 bits of that kind keeps them.
    done(&["convert", &out, &folder.join("again.gguf").display().to_string()]);
    assert!(weights(&folder.join("again.gguf").display().to_string()) == weights(&out));
}

#[test]
fn a_conversion_that_fails_leaves_nothing_behind() {
    let folder = Folder::new("leftovers");
    for name in ["out", "out.gguf", "out.bin"] {
        let out = folder.join(name).display().to_string();
        // Files may have 100 blocks of half a KiB each, less than the weights.
        let script =
            format!("trap '' XFSZ; ulimit -f 100; {} convert {} {out}", common::CORELLA, fixture("llama/model"));
        let script = script.replace("llama/model", if name == "out.bin" { "gpt2/model" } else { "llama/model" });
        let refused = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        assert_eq!(refused.status.code(), Some(1), "{name}: {}", stderr(&refused));
        let left: Vec<_> = std::fs::read_dir(&folder.0).expect("a folder").flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_tokenizer_that_is_named_is_written_beside_the_weights() {
    let Some(dir) = checkpoints() else { return };
    let folder = Folder::new("named");
    let model = dir.join("stories260K/stories260K.bin").display().to_string();
    let tokenizer = dir.join("stories260K/tok512.bin").display().to_string();
    let greedy = |model: &str, more: &[&str]| {
        let args = ["generate", model, "-p", "Once upon a time", "--temperature", "0", "--max-tokens", "8", "--json"];
        json(&done(&[&args[..], more].concat()))["choices"][0]["ids"].clone()
    };
    let expected = greedy(&model, &["--tokenizer", &tokenizer]);
    for name in ["named.gguf", "named"] {
        let out = folder.join(name).display().to_string();
        done(&["convert", &model, &out, "--tokenizer", &tokenizer, "--dtype", "f32"]);
        assert_eq!(greedy(&out, &[]), expected, "{name}");
    }
    let refused = corella(&["convert", &model, &folder.join("x.gguf").display().to_string(), "--tokenizer", "gpt2"]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
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

#[test]
fn a_card_is_refused_where_nothing_is_computed() {
    let folder = Folder::new("no-card");
    let (model, out) = (fixture("llama/model"), folder.join("out.gguf").display().to_string());
    for args in [vec!["inspect", &model, "--device", "cuda"], vec!["convert", &model, &out, "--device", "cuda"]] {
        let refused = corella(&args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
        assert!(stderr(&refused).contains("cuda:0") && stderr(&refused).contains("hint:"), "{}", stderr(&refused));
    }
}

#[test]
fn what_stands_before_its_prefix_does_not_make_a_window_likelier() {
    let Some(dir) = checkpoints() else { return };
    let model = dir.join("TinyStories-656K-f32").display().to_string();
    let story = "Once upon a time, there was a little girl named Lily. She loved to play outside with her red ball. ";
    let text = story.repeat(12);
    let found = json(&done(&["trace", "memory", &model, "-p", &text, "--stride", "50", "--json"]));
    let tokenizer = Tokenizer::load(Path::new(&model)).expect("a vocabulary");
    let ids = tokenizer.encode(&text);
    for window in found["windows"].as_array().expect("windows").iter().take(4) {
        let start = window["start"].as_u64().expect("a place") as usize;
        let prompt = [&[tokenizer.start_of_text()], &ids[start - 50..start + 50]].concat();
        let prompt: Vec<String> = prompt.iter().map(u32::to_string).collect();
        let args = ["generate", &model, "--prompt-ids", &prompt.join(","), "--logprobs", "0", "--max-tokens", "1"];
        let alone = json(&done(&[&args[..], &["--json"]].concat()));
        let scores = alone["prompt_logprobs"].as_array().expect("scores");
        let sum: f64 = scores[51..].iter().map(|score| score.as_f64().expect("a number")).sum();
        assert!((window["log_p"].as_f64().expect("a number") - sum).abs() < 1e-2, "{window}: {sum}");
    }
}

#[test]
fn a_prompt_may_begin_with_a_dash() {
    let Some(dir) = checkpoints() else { return };
    let (model, tokenizer) = (dir.join("stories260K/hf-derived"), dir.join("stories260K/tok512.bin"));
    let (model, tokenizer) = (model.display().to_string(), tokenizer.display().to_string());
    let out = done(&["generate", &model, "-p", "- a list", "--tokenizer", &tokenizer, "--max-tokens", "2"]);
    assert!(out.starts_with("- a list"), "{out}");
}

#[test]
fn output_that_nobody_takes_is_an_error_where_a_disk_is_full() {
    if !Path::new("/dev/full").exists() {
        return println!("skipped: no /dev/full");
    }
    let model = fixture("llama/model");
    for more in [&["--json"][..], &[]] {
        for command in [[&["generate", &model], &IDS[..4]].concat(), vec!["inspect", &model]] {
            let mut program = std::process::Command::new(common::CORELLA);
            program.args(&command).args(more);
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
            let out = program.stdout(full).output().expect("the program starts");
            assert_eq!(out.status.code(), Some(1), "{command:?} {more:?}");
            assert!(stderr(&out).contains("cannot be written") && stderr(&out).contains("hint:"), "{}", stderr(&out));
        }
    }
}

#[test]
fn a_tokenizer_that_cannot_be_read_is_not_replaced() {
    let folder = Folder::new("unreadable");
    let text = folder.text().display().to_string();
    let flags = "--tokenizer gpt2 --n-layer 1 --n-head 1 --n-embd 16 --seq-len 16 --steps 1 --micro-batch 2 --sample-every 0 --val-every 0";
    let (run, model) = (folder.join("run").display().to_string(), folder.join("model"));
    let mut args = vec!["train", &text, "--out", &run];
    args.extend(flags.split(' '));
    done(&args);
    done(&["convert", &run, &model.display().to_string()]);
    let generate = || corella(&["generate", &model.display().to_string(), "-p", "The", "--max-tokens", "2"]);
    std::fs::write(model.join("tokenizer.json"), r#"{"model": {"type": "Unigram"}}"#).expect("written");
    assert_eq!(generate().status.code(), Some(1), "{}", common::stdout(&generate()));
    // Where there is none, that of the published vocabulary is meant.
    std::fs::remove_file(model.join("tokenizer.json")).expect("removed");
    assert!(generate().status.success(), "{}", stderr(&generate()));
    // Its shape is not that of a published model, so nothing is claimed of what it was trained on.
    let inspected = json(&done(&["inspect", &model.display().to_string(), "--json"]));
    assert_eq!(inspected["corpus"], Value::Null);
}

#[test]
fn bits_per_byte_count_what_is_predicted() {
    let Some(dir) = checkpoints() else { return };
    let folder = Folder::new("bits");
    let (text, tokenizer) = (folder.join("story.txt"), dir.join("stories260K/tok512.bin").display().to_string());
    let story = "Once upon a time, there was a little girl named Lily. She loved to play outside.";
    std::fs::write(&text, story).expect("written");
    let (model, text) = (dir.join("stories260K/hf-derived").display().to_string(), text.display().to_string());
    // Windows of two tokens, of which the second is predicted: half of the text.
    let args = ["eval", &model, "--text", &text, "--tokenizer", &tokenizer, "--json", "--context", "2", "--no-bos"];
    let found = json(&done(&args));
    let ids = Tokenizer::load(Path::new(&tokenizer)).expect("a vocabulary");
    let predicted: Vec<u32> = ids.encode(story).chunks_exact(2).map(|pair| pair[1]).collect();
    let bytes: usize = predicted.iter().map(|id| ids.token_bytes(*id).len()).sum();
    assert_eq!(found["tokens"], predicted.len());
    let bits = found["nll"].as_f64().expect("a number") / std::f64::consts::LN_2 / bytes as f64;
    assert!((found["bits_per_byte"].as_f64().expect("a number") - bits).abs() < 1e-9, "{found}: {bits}");
}

#[test]
fn activations_are_rounded_where_asked_and_the_output_says_so() {
    let ids = ["--prompt-ids", "1,2,3", "--max-tokens", "2", "--json"];
    let generate = |more: &[&str]| corella(&[&["generate", &fixture("llama/model_bf16")], &ids[..], more].concat());
    let backend = |more: &[&str]| {
        let out = generate(more);
        let found = json(&String::from_utf8_lossy(&out.stdout));
        (found["backend"].as_str().expect("a name").to_owned(), stderr(&out))
    };
    let (exact, _) = backend(&[]);
    assert!(!exact.contains("activations"), "{exact}");
    let (rounded, said) = backend(&["--activations", "bf16"]);
    // Else the processor has no instructions for it.
    assert_ne!(rounded.contains("with bf16 activations"), said.contains("activations stay exact"), "{rounded}: {said}");
    // Where it would do nothing it is refused.
    for refused in
        [generate(&["--activations", "bf16", "--device", "cuda"]), corella(&["doctor", "--activations", "bf16"])]
    {
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains("hint: leave it out"), "{}", stderr(&refused));
    }
}

#[test]
fn trained_models_are_measured_alike_in_every_file_that_holds_them() {
    let Some(dir) = checkpoints() else { return };
    let folder = Folder::new("alike");
    let text = folder.join("story.txt");
    std::fs::write(&text, "Once upon a time, there was a little girl named Lily. She loved to play outside.")
        .expect("written");
    let (text, tokenizer) = (text.display().to_string(), dir.join("stories260K/tok512.bin").display().to_string());
    let loss = |model: &str| {
        let out = json(&done(&["eval", model, "--text", &text, "--tokenizer", &tokenizer, "--json"]));
        let (nll, n) = (out["nll"].as_f64().expect("a number"), out["tokens"].as_f64().expect("a number"));
        assert!(n > 20.0, "{out}");
        nll / n
    };
    let bin = loss(&dir.join("stories260K/stories260K.bin").display().to_string());
    let folder_loss = loss(&dir.join("stories260K/hf-derived").display().to_string());
    // The rows of q and k are permuted, so sums differ in their last bits.
    assert!((bin - folder_loss).abs() < 1e-3, "{bin} {folder_loss}");
    // The model's published validation loss; the usual beginning of a story is easier than a whole one.
    assert!(bin < 1.2968, "a story like those it was trained on: {bin}");
    let gguf = folder.join("stories.gguf").display().to_string();
    done(&["convert", &dir.join("stories260K/stories260K.bin").display().to_string(), &gguf, "--dtype", "f16"]);
    assert!((loss(&gguf) - bin).abs() < 2e-3);
}

#[test]
fn a_small_llama_trains_and_continues_text() {
    let folder = Folder::new("llama-run");
    let (text, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    let flags = "--model llama-custom --n-layer 2 --n-head 4 --n-kv-head 2 --n-embd 32 --n-ff 96 --seq-len 32 --vocab-size 300 --micro-batch 4 --steps 20 --warmup-steps 2 --sample-every 10 --val-every 10 --lr 5e-3";
    let mut args = vec!["train", &text, "--out", &out];
    args.extend(flags.split(' '));
    done(&args);
    let losses: Vec<f64> = std::fs::read_to_string(folder.join("run/log.jsonl"))
        .expect("a log")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["loss"].as_f64())
        .collect();
    assert!(losses.last() < losses.first(), "{losses:?}");
    let model = json(&done(&["inspect", &out, "--json"]));
    assert_eq!((&model["family"], &model["config"]["n_kv_head"]), (&"llama".into(), &2.into()));
    assert!(model["corpus"]["bytes"].as_u64() > Some(1000), "the text of the run: {model}");
    assert_eq!(ends_of_newest_checkpoint(&folder.join("run")), (0.into(), 0.into()));
    // Through a file of 8 bits with its tokenizer inside, the same greedy text comes.
    let gguf = folder.join("run.gguf").display().to_string();
    done(&["convert", &out, &gguf, "--dtype", "q8_0"]);
    let greedy = |model: &str| {
        json(&done(&["generate", model, "-p", "The red fox", "--max-tokens", "8", "--temperature", "0", "--json"]))
    };
    assert_eq!(greedy(&out)["prompt_ids"], greedy(&gguf)["prompt_ids"]);
    let eval =
        |model: &str| json(&done(&["eval", model, "--text", &text, "--json"]))["nll"].as_f64().expect("a number");
    let (exact, eight) = (eval(&out), eval(&gguf));
    assert!((eight / exact - 1.0).abs() < 2e-3, "{eight} {exact}");
}

#[test]
fn text_behind_a_bare_bos_begins_without_the_space_that_encoding_adds() {
    let Some(dir) = checkpoints() else { return };
    let tokenizer = dir.join("stories260K/tok512.bin").display().to_string();
    let model = dir.join("stories260K/stories260K.bin").display().to_string();
    let out = json(&done(&["generate", &model, "--tokenizer", &tokenizer, "--max-tokens", "60", "-n", "3", "--json"]));
    assert_eq!(out["prompt_ids"], serde_json::json!([1]));
    let vocabulary = Tokenizer::load(Path::new(&tokenizer)).expect("a vocabulary");
    for choice in out["choices"].as_array().expect("choices") {
        let ids: Vec<u32> = serde_json::from_value(choice["ids"].clone()).expect("ids");
        let text = choice["text"].as_str().expect("text");
        assert!(!text.starts_with(' ') && vocabulary.token_bytes(ids[0]).starts_with(b" "), "{text:?}");
        assert_eq!(text, vocabulary.decode(&ids));
    }
}

/// What the engine's text stream shows of real vocabularies: whole characters, and together the text itself.
#[test]
fn streams_of_every_vocabulary_show_whole_characters() {
    let shared = checkpoints();
    let file = |name: &str| Some(Tokenizer::load(&shared.as_ref()?.join(name)).expect("a vocabulary"));
    let small = [file("stories260K/tok512.bin"), file("../tokenizers/llama3/tokenizer.model")];
    for tokenizer in small.into_iter().flatten().chain([Tokenizer::gpt2()]) {
        let text = "a👩‍👧é漢z ½ теперь हिन्दी";
        let ids = tokenizer.encode(text);
        let mut stream = TextStream::new(StopStrings::default(), false);
        let mut shown = String::new();
        for (i, id) in ids.iter().enumerate() {
            shown += &stream.push(tokenizer.token_bytes_after(&ids[..i], *id), true).text;
            assert!(text.starts_with(&shown), "{shown:?}");
        }
        assert_eq!(shown + &stream.finish().text, text);
    }
}

#[test]
fn checkpoints_name_the_ends_of_their_own_vocabulary() {
    let folder = Folder::new("ends");
    let (text, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&common::small_run(&text, &out, "3"));
    assert_eq!(ends_of_newest_checkpoint(&folder.join("run")), (0.into(), 0.into()));
    // Converted, they stay; a file of llm.c, which names none, has those of GPT-2 where its vocabulary has them.
    let again = folder.join("again").display().to_string();
    done(&["convert", &out, &again]);
    assert_eq!(json_file(&folder.join("again/config.json"))["eos_token_id"], 0);
    let (bin, folder_again) = (folder.join("model.bin").display().to_string(), folder.join("third"));
    done(&["convert", &out, &bin]);
    done(&["convert", &bin, &folder_again.display().to_string()]);
    assert_eq!(json_file(&folder_again.join("config.json"))["eos_token_id"], Value::Null);
}

#[test]
fn flags_are_checked_before_weights_are_read() {
    let folder = Folder::new("first");
    // Reading these weights fails.
    let model = changed_llama(&folder.join("m"), |_| {}, |i, x| if i == 5000 { f32::NAN } else { x });
    let generate = |model: &str, more: &[&str]| corella(&[&["generate", model], &IDS[..], more].concat());
    assert_eq!(generate(&model, &[]).status.code(), Some(1));
    for wrong in [["--top-p", "2"], ["--min-p=-0.1", "--ignore-eos"], ["--stop-id", "100000"], ["--min-tokens", "9"]] {
        let refused = generate(&model, &wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}: {}", stderr(&refused));
    }
    // 0 filters nothing.
    let model = fixture("llama/model");
    let ids = |more: &[&str]| json(&common::stdout(&generate(&model, more)))["choices"][0]["ids"].clone();
    assert_eq!(ids(&["--top-k", "0", "--min-p", "0"]), ids(&[]));
}

#[test]
fn a_server_says_what_room_it_takes_instead_of_what_was_asked_for() {
    let folder = Folder::new("rooms");
    let (text, run) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&common::small_run(&text, &run, "3"));
    let model = folder.join("m");
    done(&["convert", &run, &model.display().to_string()]);
    // The server ends by itself, because reading these weights fails.
    let mut bytes = std::fs::read(model.join("model.safetensors")).expect("readable");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), bytes).expect("written");
    let limits = ["--context-len", "1000000", "--kv-tokens", "8", "--port", "0"];
    let ended = corella(&[&["serve", &model.display().to_string()], &limits[..]].concat());
    let (said, context) = (stderr(&ended), 32);
    assert!(said.contains(&format!("texts have up to {context} tokens")), "{said}");
    assert!(said.contains(&format!("--kv-tokens 8 is less than one text of {context} tokens")), "{said}");
    assert!(said.contains(&format!("for {context} positions of keys and values")), "{said}");
}
