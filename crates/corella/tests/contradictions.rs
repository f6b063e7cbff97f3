//! Flags of `train` that contradict the data or the model to start from are refused, not left out of account.
#![cfg(unix)]

mod common;

use common::{Folder, corella, done, stderr, tiny_run};

/// Runs and expects this exit code, these words and a hint.
fn refused(args: &[&str], code: i32, words: &str) {
    let output = corella(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    assert!(message.contains(words) && message.contains("hint:"), "{words} is missing: {message}");
}

#[test]
fn another_vocabulary_than_that_of_prepared_data_is_refused() {
    let folder = Folder::new("contradicted-data");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let with = |flags: &[&'static str]| [&tiny_run(&data, &out, "1")[..], flags].concat();
    refused(&with(&["--vocab-size", "999"]), 2, "--vocab-size 999, but");
    refused(&with(&["--tokenizer", "gpt2"]), 2, "--tokenizer gpt2, but");
    assert!(!folder.join("run/run.toml").exists(), "nothing is recorded");
    let own = format!("{data}/tokenizer.json");
    done(&[&with(&["--vocab-size", "280", "--tokenizer"])[..], &[&own]].concat());
}

#[test]
fn another_shape_or_vocabulary_than_that_of_the_model_to_start_from_is_refused() {
    let folder = Folder::new("contradicted-model");
    let (data, first) = (folder.data().display().to_string(), folder.join("first").display().to_string());
    done(&tiny_run(&data, &first, "1"));
    let out = folder.join("run").display().to_string();
    let text = folder.join("my.txt").display().to_string();
    let with = |source: &str, flags: &[&str]| {
        let mut args =
            vec!["train", source, "--out", &out, "--init-from", &first, "--steps", "1", "--micro-batch", "2"];
        args.extend(flags);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let strs = |args: &[String]| corella(&args.iter().map(String::as_str).collect::<Vec<_>>());
    for (flags, words) in [
        (["--n-layer", "3"], "--n-layer 3, but the model to start from has 1"),
        (["--n-embd", "64"], "--n-embd 64, but the model to start from has 16"),
        (["--n-kv-head", "2"], "--n-kv-head 2, but the model to start from has none"),
        (["--vocab-size", "999"], "--vocab-size 999, but the model to start from has 280"),
        (["--model", "gpt2-124m"], "--model gpt2-124m, but the model to start from is another"),
        (["--model", "llama-custom"], "--model llama-custom, but the model to start from is another"),
    ] {
        let output = strs(&with(&text, &flags));
        assert!(output.status.code() == Some(2) && stderr(&output).contains(words), "{}", stderr(&output));
        assert!(stderr(&output).contains("hint:"));
    }
    let agreeing = ["--n-layer", "1", "--model", "gpt2-custom", "--vocab-size", "280", "--sample-every", "0"];
    let output = strs(&with(&text, &agreeing));
    assert!(output.status.success(), "{}", stderr(&output));

    // Data whose ids mean something else, however many there are.
    let other = folder.join("other").display().to_string();
    std::fs::write(folder.join("other.txt"), "a quick red fox saw seven geese. ".repeat(900)).expect("written");
    let source = folder.join("other.txt").display().to_string();
    done(&["prepare", &source, "--vocab-size", "270", "--out", &other]);
    let second = folder.join("second").display().to_string();
    let args = ["train", "--data", &other, "--out", &second, "--init-from", &first, "--steps", "1"];
    refused(&[&args[..], &["--micro-batch", "2"]].concat(), 1, "another tokenizer than that of the model");
    let args =
        ["train", "--data", &data, "--out", &second, "--init-from", &first, "--steps", "1", "--sample-every", "0"];
    done(&[&args[..], &["--micro-batch", "2"]].concat());
}

#[test]
fn shape_flags_of_another_kind_of_model_are_refused() {
    let folder = Folder::new("contradicted-shape");
    let (text, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    let with = |flags: &[&'static str]| [&["train", &text, "--out", &out, "--steps", "1"][..], flags].concat();
    refused(&with(&["--n-kv-head", "2"]), 2, "--n-kv-head is of a Llama, but the model is gpt2-custom");
    refused(&with(&["--model", "gpt2-124m", "--n-layer", "2"]), 2, "--n-layer would make another model of gpt2-124m");
    assert!(!folder.join("run").exists());
}

#[test]
fn a_run_goes_on_by_its_folder_or_its_plan_alone() {
    let folder = Folder::new("goes-on");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    done(&tiny_run(&data, &run, "3"));
    done(&["train", "--out", &run, "--resume", "--steps", "6"]);
    let last = || common::losses(&folder.join("run")).last().expect("an update").split(' ').next().map(str::to_owned);
    assert_eq!(last().as_deref(), Some("6"));
    let plan = folder.join("run/run.toml").display().to_string();
    done(&["train", &plan, "--resume", "--steps", "9"]);
    assert_eq!(last().as_deref(), Some("9"));
    refused(&["train", "--out", &folder.join("none").display().to_string(), "--resume"], 2, "nothing to train on");
}
