//! Models through the program: continued, trained, measured, and refused.

mod common;

use std::path::Path;

use common::models::{IDS, changed_llama, checkpoints, fixture, json_file};
use common::{Folder, corella, done, json, refused, stderr, tiny_run};
use corella_infer::{StopStrings, TextStream};
use corella_text::tokenizer::Tokenizer;
use serde_json::Value;

/// `bos_token_id` and `eos_token_id` of a run's newest checkpoint: an own vocabulary has its end of text at 0.
fn ends_of_newest_checkpoint(run: &Path) -> (Value, Value) {
    let entries = std::fs::read_dir(run.join("checkpoints")).expect("checkpoints").flatten();
    let newest = entries.map(|e| e.path()).filter(|p| p.join("config.json").is_file()).max().expect("a checkpoint");
    let config = json_file(&newest.join("config.json"));
    (config["bos_token_id"].clone(), config["eos_token_id"].clone())
}

#[test]
fn a_model_without_tokenizer_continues_ids() {
    for model in ["llama/model", "gpt2/model"] {
        let out = corella(&[
            "generate",
            &fixture(model),
            "--prompt-ids",
            "1,2,3",
            "--max-tokens",
            "4",
            "--seed",
            "42",
            "--json",
        ]);
        assert!(out.status.success() && stderr(&out).contains("tokens are shown as numbers"), "{}", stderr(&out));
        assert!(!stderr(&out).contains("error:") && !stderr(&out).contains("hint:"), "{}", stderr(&out));
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
        let plan = "plan --model gpt2-124m --tokens 1000000 --gpu 8xH100".split(' ').collect();
        let generate = [&["generate", &model], &IDS[..4]].concat();
        let inspect = vec!["tokenizer", "inspect", "gpt2"];
        for command in [generate, vec!["inspect", &model], vec!["doctor"], plan, vec!["plan", "--history"], inspect] {
            let mut program = std::process::Command::new(common::CORELLA);
            program.args(&command).args(more);
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
            let out = program.stdout(full).output().expect("the program starts");
            assert_eq!(out.status.code(), Some(1), "{command:?} {more:?}");
            assert!(stderr(&out).contains("cannot be written") && stderr(&out).contains("hint:"), "{}", stderr(&out));
        }
    }
}

/// What is written in minutes is not lost at its last line either.
#[test]
fn results_of_runs_data_and_traces_are_errors_too_where_a_disk_is_full() {
    if !Path::new("/dev/full").exists() {
        return println!("skipped: no /dev/full");
    }
    let folder = Folder::new("full");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    done(&tiny_run(&data, &run, "3"));
    let (text, more, page) = (folder.join("my.txt"), folder.join("more"), folder.join("page.html"));
    let [text, more, page] = [text, more, page].map(|path| path.display().to_string());
    let words = "The red fox number 7 saw 9 geese. ".repeat(20);
    for command in [
        vec!["prepare", &text, "--vocab-size", "280", "--out", &more, "--overwrite"],
        vec!["report", &run, "--out", &page],
        vec!["trace", "index", &run],
        vec!["trace", "find", &run, "-p", &words],
        vec!["trace", "memory", &fixture("eval/llama"), "-p", &words],
    ] {
        for json in [&["--json"][..], &[]] {
            let mut program = std::process::Command::new(common::CORELLA);
            program.args(&command).args(json);
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
            let out = program.stdout(full).output().expect("the program starts");
            assert_eq!(out.status.code(), Some(1), "{command:?} {json:?}: {}", stderr(&out));
            assert!(stderr(&out).contains("cannot be written"), "{command:?}: {}", stderr(&out));
        }
    }
}

/// A text out of Windows is the text that `prepare` and `train` make of it.
#[test]
fn texts_are_read_as_training_reads_them() {
    let (folder, model) = (Folder::new("crlf"), fixture("eval/llama"));
    let lines = "The red fox number 7 saw 9 geese.\n".repeat(5);
    let (plain, other) = (folder.join("lf.txt"), folder.join("crlf.txt"));
    std::fs::write(&plain, &lines).expect("written");
    std::fs::write(&other, format!("\u{feff}{}", lines.replace('\n', "\r\n"))).expect("written");
    let (plain, other) = (plain.display().to_string(), other.display().to_string());
    for before in [
        &["eval", &model, "--text"][..],
        &["trace", "memory", &model, "--text"],
        &["generate", &model, "--seed", "1", "--max-tokens", "1", "--prompt-file"],
    ] {
        let ask = |file: &str| corella(&[before, &[file, "--json"]].concat());
        let (wanted, found) = (ask(&plain), ask(&other));
        let result = |out: &std::process::Output| {
            let mut result = json(&common::stdout(out));
            // Times differ.
            result.as_object_mut().expect("an object").remove("usage");
            result
        };
        assert_eq!(result(&found), result(&wanted), "{before:?}");
        let said = stderr(&found);
        assert!(said.contains("byte order mark") && said.contains("5 carriage returns"), "{said}");
        assert!(!stderr(&wanted).contains("carriage"), "{}", stderr(&wanted));
    }
    // Ids of a text are of the text as it is.
    assert!(
        done(&["tokenizer", "encode", "--file", &other, "--tokenizer", &model])
            != done(&["tokenizer", "encode", "--file", &plain, "--tokenizer", &model])
    );
}

#[test]
fn a_text_to_trace_may_come_from_standard_input() {
    let trace = |text: &[u8]| {
        use std::io::Write;
        let mut program = std::process::Command::new(common::CORELLA);
        program.args(["trace", "memory", &fixture("eval/llama"), "--text", "-", "--json"]);
        program.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = program.stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
        child.stdin.take().expect("an input").write_all(text).expect("taken");
        child.wait_with_output().expect("ended")
    };
    let found = trace("The red fox saw nine geese. ".repeat(20).as_bytes());
    assert!(json(&common::stdout(&found))["tokens"].as_u64() > Some(100), "{}", stderr(&found));
    let wrong = trace(b"The red\xff");
    let said = stderr(&wrong);
    assert!(wrong.status.code() == Some(1) && said.contains("byte 7 is not UTF-8") && said.contains("iconv"), "{said}");
}

#[test]
fn a_model_file_without_a_tokenizer_is_traced_with_the_one_that_is_named() {
    let folder = Folder::new("trace-tokenizer");
    let (model, bare) = (fixture("eval/llama"), folder.join("bare"));
    std::fs::create_dir(&bare).expect("made");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(Path::new(&model).join(name), bare.join(name)).expect("copied");
    }
    let bare = bare.display().to_string();
    let text = "The red fox number 7 saw 9 geese. ".repeat(20);
    refused(&["trace", "memory", &bare, "-p", &text], 1, "tokenizer");
    let named = done(&["trace", "memory", &bare, "-p", &text, "--tokenizer", &model, "--json"]);
    assert_eq!(named, done(&["trace", "memory", &model, "-p", &text, "--json"]));
}

#[test]
fn numbers_below_zero_mean_what_they_mean_to_servers_or_are_refused_by_name() {
    let model = fixture("eval/llama");
    let generate =
        |flags: &[&str]| corella(&[&["generate", &model, "-p", "The", "--seed", "3", "--json"], flags].concat());
    let ids = |flags: &[&str]| json(&common::stdout(&generate(flags)))["choices"][0]["ids"].clone();
    assert_eq!(ids(&["--max-tokens", "4", "--top-k", "-1"]), ids(&["--max-tokens", "4"]));
    for flags in [
        &["--max-tokens", "-1"][..],
        &["--top-k", "-2"],
        &["--top-p", "-1"],
        &["--min-tokens", "-1"],
        &["--seed", "-1"],
        &["-n", "-1"],
    ] {
        let out = corella(&[&["generate", &model, "-p", "The"], flags].concat());
        let said = stderr(&out);
        assert!(out.status.code() == Some(2) && !said.contains("-- -"), "{flags:?}: {said}");
    }
    let prompt = |ids: &str| json(&done(&["generate", &model, "--prompt-ids", ids, "--max-tokens", "1", "--json"]));
    assert_eq!(prompt("1, 2 ,3")["prompt_ids"], serde_json::json!([1, 2, 3]));
}

#[test]
fn names_of_special_tokens_and_spaces_at_the_end_are_pointed_out() {
    let model = fixture("eval/model");
    let tokenizer = Tokenizer::load(Path::new(&model)).expect("a vocabulary");
    let end = tokenizer.end_of_text();
    let name = tokenizer.special_tokens().into_iter().find(|(_, id)| *id == end).expect("a name").0.to_owned();
    let prompt = format!("The{name}red");
    let ask = |prompt: &str, flags: &[&str]| {
        let out =
            corella(&[&["generate", &model, "-p", prompt, "--max-tokens", "1", "--no-bos", "--json"], flags].concat());
        let ids = json(&common::stdout(&out))["prompt_ids"].as_array().expect("ids").clone();
        (ids.contains(&end.into()), stderr(&out))
    };
    let (token, said) = ask(&prompt, &[]);
    assert!(!token && said.contains("--parse-special"), "{said}");
    let (token, said) = ask(&prompt, &["--parse-special"]);
    assert!(token && !said.contains("--parse-special"), "{said}");
    assert!(ask("The red ", &[]).1.contains("ends with a space"));
    assert_eq!(ask("The red", &[]).1, "");
}

/// Whoever reads a pipe gets what the model was given; a terminal is not commanded by it (see `control.rs`).
#[test]
fn a_pipe_takes_control_characters_as_they_are() {
    let Some(dir) = checkpoints() else { return };
    let (model, tokenizer) = (dir.join("stories260K/hf-derived"), dir.join("stories260K/tok512.bin"));
    let (model, tokenizer) = (model.display().to_string(), tokenizer.display().to_string());
    let prompt = "a \u{1b}[31mred\r\n\u{7}";
    let out = done(&["generate", &model, "-p", prompt, "--tokenizer", &tokenizer, "--max-tokens", "1"]);
    assert!(out.starts_with(prompt), "{out:?}");
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
fn without_a_card_the_device_auto_is_the_processor() {
    if json(&done(&["doctor", "--json", "--device", "auto"]))["device"] != "cpu" {
        println!("skipped: there is a card");
        return;
    }
    let folder = Folder::new("auto");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    done(&tiny_run(&data, &run, "3"));
    let eval = |device| json(&done(&["eval", &run, "--data", &data, "--json", "--device", device]));
    let (cpu, auto) = (eval("cpu"), eval("auto"));
    assert!(cpu["backend"].as_str().is_some_and(|name| name.contains("kv f32")), "{cpu}");
    assert_eq!(cpu, auto);
    // What memory a server takes it says before it reads the weights.
    let model = model_that_cannot_be_read(&folder, &run);
    let said = stderr(&corella(&["serve", &model, "--port", "0", "--device", "auto"]));
    assert!(said.contains("positions of keys and values; "), "{said}");
}

#[test]
fn activations_are_rounded_where_asked_and_the_output_says_so() {
    let ids = ["--prompt-ids", "1,2,3", "--max-tokens", "2", "--seed", "42", "--json"];
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
    let flags = ["--max-tokens", "60", "-n", "3", "--seed", "42", "--json"];
    let out = json(&done(&[&["generate", &model, "--tokenizer", &tokenizer], &flags[..]].concat()));
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

/// The model of a run, with a weight that is no number: a server of it ends by itself.
fn model_that_cannot_be_read(folder: &Folder, run: &str) -> String {
    let model = folder.join("m");
    done(&["convert", run, &model.display().to_string()]);
    let mut bytes = std::fs::read(model.join("model.safetensors")).expect("readable");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), bytes).expect("written");
    model.display().to_string()
}

#[test]
fn a_server_says_what_room_it_takes_instead_of_what_was_asked_for() {
    let folder = Folder::new("rooms");
    let (text, run) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&common::small_run(&text, &run, "3"));
    let model = model_that_cannot_be_read(&folder, &run);
    let limits = ["--context-len", "1000000", "--kv-tokens", "8", "--port", "0"];
    let ended = corella(&[&["serve", &model], &limits[..]].concat());
    let (said, context) = (stderr(&ended), 32);
    assert!(said.contains(&format!("texts have up to {context} tokens")), "{said}");
    assert!(said.contains(&format!("--kv-tokens 8 is less than one text of {context} tokens")), "{said}");
    assert!(said.contains(&format!("for {context} positions of keys and values")), "{said}");
}

#[test]
fn scores_take_the_place_of_no_file() {
    let folder = Folder::new("scores");
    let (model, items) = (fixture("eval/model"), folder.join("piqa.jsonl"));
    std::fs::copy(fixture("eval/items/piqa.jsonl"), &items).expect("copied");
    let before = std::fs::read(&items).expect("read");
    let name = items.display().to_string();
    let eval = |out: &str| refused(&["eval", &model, "--task", &name, "--limit", "1", "--items", out], 1, out);
    eval(&name);
    // A file is no folder.
    eval(&format!("{name}/scores"));
    assert_eq!(std::fs::read(&items).expect("read"), before, "the items are what they were");
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 1);
}

#[test]
fn a_text_of_which_nothing_is_predicted_is_refused() {
    let folder = Folder::new("one-token");
    let text = folder.join("a.txt");
    let name = text.display().to_string();
    for (content, words) in [("a", "a single token"), ("", "is empty")] {
        std::fs::write(&text, content).expect("written");
        refused(&["eval", &fixture("eval/model"), "--text", &name, "--no-bos"], 1, words);
    }
}

#[test]
fn what_cannot_be_read_is_named_with_a_way_out() {
    let folder = Folder::new("unread");
    let (model, nowhere) = (fixture("eval/model"), folder.join("nothere").display().to_string());
    let dir = folder.0.display().to_string();
    for (args, words) in [
        (vec!["generate", &model, "--prompt-file", &nowhere], "nothere"),
        (vec!["generate", &model, "--prompt-file", &dir], "irectory"),
        (vec!["eval", &model, "--text", &nowhere], "nothere"),
        (vec!["serve", &model, "--port", "0", "--transcript", &nowhere], "nothere"),
        (vec!["generate", &model, "-p", "a", "--tokenizer", "gpt2"], "the tokenizer has 50257 tokens"),
    ] {
        refused(&args, 1, words);
    }
    refused(&["generate", &model, "-p", "a", "--top-p=-0.1"], 2, "top_p = -0.1:");
    refused(&["generate", &model, "-p", "a", "--min-p=-1"], 2, "between 0 and 1");
}

#[test]
fn a_file_that_is_no_model_is_told_what_it_is() {
    use corella_model::formats::gguf::{self, Value as Entry};
    let folder = Folder::new("no-model");
    let whole = folder.join("whole.gguf");
    done(&["convert", &fixture("llama/model"), &whole.display().to_string()]);
    let bytes = std::fs::read(&whole).expect("read");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let weights = std::fs::read(fixture("llama/model/model.safetensors")).expect("read");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    };
    write("empty.gguf", b"");
    write("cut.gguf", &bytes[..200]);
    write("pointer.gguf", pointer);
    write("lone.safetensors", &weights);
    write("unsaid/config.json", b"");
    write("unsaid/model.safetensors", &weights);
    write("pointing/config.json", &std::fs::read(fixture("llama/model/config.json")).expect("read"));
    write("pointing/model.safetensors", pointer);
    let (_, mut header) = gguf::open(&whole).expect("a right file");
    header.metadata.extend([("split.no", 1), ("split.count", 3)].map(|(key, n)| (key.to_owned(), Entry::U16(n))));
    common::models::part_of(&whole, &header.metadata, |_| true, &folder.join("second.gguf"));
    for (name, words) in [
        ("empty.gguf", "the file is empty"),
        ("cut.gguf", "hint: the file may be cut short"),
        ("pointer.gguf", "git lfs pull"),
        ("pointing", "git lfs pull"),
        ("lone.safetensors", "hint: name the folder"),
        ("unsaid", "config.json: the file is empty"),
        ("second.gguf", "hint: a model in several files"),
    ] {
        refused(&[&["generate", &folder.join(name).display().to_string()], &IDS[..]].concat(), 1, words);
    }
}

#[test]
#[cfg(unix)]
fn a_pipe_is_no_model_and_is_not_waited_for() {
    let folder = Folder::new("pipe");
    let pipe = folder.join("pipe").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("a program").success());
    let mut child = common::start(&["generate", &pipe, "-p", "a"]);
    assert_eq!(common::end_of(&mut child, "it waits for the pipe").code(), Some(1));
    refused(&["generate", &pipe, "-p", "a"], 1, "neither a file nor a folder");
}

#[test]
fn what_a_prompt_lacks_is_said() {
    let folder = Folder::new("prompts");
    let said = |args: &[&str]| {
        let output = corella(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stderr(&output)
    };
    // The context has 13 places.
    let ids = ["1"; 13].join(",");
    let full = said(&["generate", &fixture("gpt2/model"), "--prompt-ids", &ids, "--json"]);
    assert!(full.contains("the prompt of 13 tokens fills the context"), "{full}");
    let (text, small) = (folder.text().display().to_string(), folder.join("small.json").display().to_string());
    done(&["tokenizer", "train", &text, "--vocab-size", "260", "--out", &small]);
    let own = ["generate", &fixture("eval/model"), "-p", "The", "--max-tokens", "1"];
    let other = said(&[&own[..], &["--tokenizer", &small]].concat());
    assert!(other.contains("the tokenizer has 260 tokens and the model 400"), "{other}");
    assert!(!said(&own).contains("the tokenizer has"));
}

#[test]
#[cfg(unix)]
fn text_that_comes_unasked_is_left_and_said_to_be() {
    use std::io::Write;
    use std::process::Stdio;
    let run = |more: &[&str], text: Option<&str>| {
        let mut program = std::process::Command::new(common::CORELLA);
        program.args([&["generate", &fixture("eval/model"), "--max-tokens", "1", "--json"], more].concat());
        program.stdin(if text.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        if let (Some(mut input), Some(text)) = (child.stdin.take(), text) {
            // It may have ended without reading.
            let _ = input.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().expect("ended");
        (json(&common::stdout(&output))["prompt_ids"].clone(), stderr(&output))
    };
    let (nothing, said) = run(&[], None);
    assert!(!said.contains("standard input"), "{said}");
    let (left, said) = run(&[], Some("The fox"));
    assert!(said.contains("--prompt-file -") && left == nothing, "{said}");
    let (read, said) = run(&["--prompt-file", "-"], Some("The fox"));
    assert!(!said.contains("standard input") && read != nothing, "{said}");
}
