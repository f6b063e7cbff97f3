//! Model files of every kind, converted into each other.

mod common;

use common::models::{changed_llama, checkpoints, fixture, json_file, part_of, weights};
use common::{Folder, corella, done, json, stderr};
use corella_model::formats::gguf;

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
    // Rows of 48 are not whole blocks of 32; what has others is quantised.
    let rounded = corella(&["convert", &fixture("llama/model"), &path("q8.gguf"), "--dtype", "q8_0"]);
    let said = stderr(&rounded);
    assert!(rounded.status.success() && said.contains("stored in F16 instead of Q8_0"), "{said}");
    assert!(said.contains("token_embd.weight") && said.contains(", …"), "{said}");
    done(&["generate", &path("q8.gguf"), "--prompt-ids", "1,2,3", "--max-tokens", "2", "--json"]);
}

#[test]
fn the_rule_of_the_rotary_positions_comes_back_from_a_gguf() {
    let folder = Folder::new("rules");
    let path = |name: &str| folder.join(name).display().to_string();
    let rule = serde_json::json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 96});
    let model = changed_llama(&folder.join("m"), |config| config["rope_scaling"] = rule.clone(), |_, x| x);
    done(&["convert", &model, &path("m.gguf"), "--dtype", "f32"]);
    done(&["convert", &path("m.gguf"), &path("back")]);
    assert_eq!(json_file(&folder.join("back/config.json"))["rope_scaling"], rule);
    // Divisors of no rule: the file itself can be used.
    let (_, header) = gguf::open(&folder.join("m.gguf")).expect("a right file");
    let divisors = header.tensors.iter().find(|tensor| tensor.name == "rope_freqs.weight").expect("divisors");
    let mut bytes = std::fs::read(path("m.gguf")).expect("readable");
    let at = divisors.begin as usize;
    bytes[at..at + 8].copy_from_slice(&[3.5f32.to_le_bytes(), 1.25f32.to_le_bytes()].concat());
    std::fs::write(path("odd.gguf"), bytes).expect("written");
    let refused = corella(&["convert", &path("odd.gguf"), &path("odd")]);
    let said = stderr(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("hint: the .gguf itself can be used"), "{said}");
}

/// File names may have any bytes; JSON has UTF-8.
#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_told_and_used() {
    use std::os::unix::ffi::OsStringExt;
    let folder = Folder::new("bytes");
    let text = folder.text();
    let out = |name: &[u8]| folder.join("").join(std::ffi::OsString::from_vec(name.to_vec()));
    let run = |before: &[&str], path: &std::path::Path, behind: &[&str]| {
        let output = std::process::Command::new(common::CORELLA).args(before).arg(path).args(behind).output();
        let output = output.expect("the program starts");
        assert!(output.status.success(), "{before:?}: {}", stderr(&output));
        json(&common::stdout(&output))
    };
    let model = fixture("llama/model");
    let written = run(&["convert", &model], &out(b"d\xff"), &["--json"]);
    assert!(written["output"].as_str().is_some_and(|name| name.ends_with("d\u{fffd}")), "{written}");
    let found = run(&["inspect"], &out(b"d\xff"), &["--json"]);
    assert!(found["path"].as_str().is_some_and(|name| name.ends_with("d\u{fffd}")), "{found}");
    let (text, run_folder) = (text.display().to_string(), out(b"run\xff"));
    let flags = common::small_run(&text, "--json", "6");
    // The folder stands in the place that `--json` has in the list.
    let at = flags.iter().position(|flag| *flag == "--json").expect("a place");
    let done = run(&flags[..at], &run_folder, &[&flags[at + 1..], &["--json"]].concat());
    assert_eq!(done["state"], "finished");
    assert!(done["checkpoint"].as_str().is_some_and(|name| name.contains("run\u{fffd}")), "{done}");
    assert!(done["best"]["checkpoint"].is_string(), "{done}");
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
fn the_ending_of_a_name_says_what_is_written_and_its_folder_is_made() {
    let folder = Folder::new("endings");
    let model = fixture("llama/model");
    let convert = |name: &str, more: &[&str]| {
        let mut program = std::process::Command::new(common::CORELLA);
        program.args([&["convert", &model, name], more].concat()).current_dir(&folder.0);
        program.output().expect("the program starts")
    };
    for name in ["upper.GGUF", "new/folder/lower.gguf"] {
        let output = convert(name, &[]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let model = json(&done(&["inspect", &folder.join(name).display().to_string(), "--json"]));
        assert!(folder.join(name).is_file() && model["family"] == "llama", "{model}");
    }
    for name in ["model.safetensors", "model.PT", "-"] {
        let output = convert(name, &[]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("hint: name a folder") && !folder.join(name).exists(), "{}", stderr(&output));
    }
}

#[test]
fn weights_that_were_quantised_before_are_said_to_be() {
    let folder = Folder::new("requantised");
    let path = |name: &str| folder.join(name).display().to_string();
    let convert = |from: &str, to: &str, format: &str| {
        let out = corella(&["convert", from, &path(to), "--dtype", format]);
        assert!(out.status.success(), "{}", stderr(&out));
        stderr(&out)
    };
    let said = |text: &str| text.contains("quantised");
    assert!(!said(&convert(&fixture("eval/llama"), "a.gguf", "q8_0")));
    let down = convert(&path("a.gguf"), "b.gguf", "q4_0");
    assert!(down.contains("warning: the weights are quantised already (Q8_0); in Q4_0 they lose"), "{down}");
    let up = convert(&path("a.gguf"), "c.gguf", "f16");
    assert!(up.contains("note: the weights are quantised (Q8_0)"), "{up}");
    assert!(said(&convert(&path("a.gguf"), "d", "f32")), "a folder too");
    // As they are: nothing is lost, with a head of other bits too.
    assert!(!said(&convert(&path("a.gguf"), "e.gguf", "q8_0")) && !said(&convert(&path("b.gguf"), "f.gguf", "q4_0")));
}

#[test]
fn of_several_conversions_to_one_name_one_is_written_and_none_replaced() {
    let folder = Folder::new("at-once");
    for round in 0..4 {
        let out = folder.join(&format!("{round}.gguf")).display().to_string();
        let begin = |_| {
            let mut program = std::process::Command::new(common::CORELLA);
            program.args(["convert", &fixture("llama/model"), &out]);
            program.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            program.spawn().expect("the program starts")
        };
        let begun: Vec<_> = (0..5).map(begin).collect();
        let ended: Vec<_> = begun.into_iter().map(|child| child.wait_with_output().expect("ended")).collect();
        let failed: Vec<_> = ended.iter().filter(|output| !output.status.success()).map(stderr).collect();
        assert_eq!(failed.len(), 4, "{failed:?}");
        assert!(failed.iter().all(|why| why.contains("exists already") && why.contains("hint:")), "{failed:?}");
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 4, "nothing else is left");
}

#[test]
fn what_killed_conversions_left_goes_with_the_next_one() {
    let folder = Folder::new("killed-convert");
    let left = |number: &str| {
        let left = folder.join(&format!(".m.gguf.{number}.partial"));
        std::fs::create_dir(&left).expect("made");
        std::fs::write(left.join("m.gguf"), "half").expect("written");
        (std::fs::File::create(left.join("m.gguf.lock")).expect("made"), left)
    };
    // Larger than the number of any process.
    let ((unlocked, abandoned), (held, used), (_, foreign)) = (left("4000000001"), left("4000000002"), left("mine"));
    drop(unlocked);
    held.lock().expect("locked");
    done(&["convert", &fixture("llama/model"), &folder.join("m.gguf").display().to_string()]);
    assert!(!abandoned.exists(), "nobody writes there any more");
    assert!(used.join("m.gguf").is_file(), "another conversion writes there");
    assert!(foreign.is_dir(), "that is no name of a conversion's folder");
}
