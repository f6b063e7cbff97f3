//! What a run shows of itself: its page, its comparison with another, its scores, and the machine's.

mod common;

use std::fs;
use std::path::Path;

use common::{Folder, corella, done, stderr, tiny_run};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval").join(name).display().to_string()
}

#[test]
fn a_run_writes_a_page_that_needs_nothing_else_and_runs_can_be_compared() {
    let folder = Folder::new("report");
    let data = folder.data().display().to_string();
    let (a, b) = (folder.join("a").display().to_string(), folder.join("b").display().to_string());
    let with = |out: &str, lr: &str| {
        let flags = ["--lr", lr, "--sample-every", "10", "--sample-prompt", "The <b>red</b>", "--price", "2"];
        done(&[tiny_run(&data, out, "30"), flags.to_vec()].concat());
    };
    with(&a, "0.003");
    with(&b, "0.0001");
    let page = fs::read_to_string(folder.join("a/report.html")).expect("a page");
    for part in ["Loss in nats per token", "Learning rate", "Gradient norm", "Tokens per second", "Where the time goes"]
    {
        assert!(page.contains(part), "{part}");
    }
    for part in ["finished", "bill", "computed on", "n_layer = 1", "The &lt;b&gt;red&lt;/b&gt;", "prefers-color-scheme"]
    {
        assert!(page.contains(part), "{part}");
    }
    for outside in ["http:", "https:", "src=", "href=", "@import", "<b>red"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let page = folder.join("both.html").display().to_string();
    let found = json(&done(&["report", &a, &b, "--out", &page, "--json"]));
    let val = |i: usize| found["runs"][i]["val_loss"].as_f64().expect("a loss");
    assert!(val(0) < val(1), "{found}");
    assert_eq!(found["differences"][0][0], "train.lr", "{found}");
    let shown = fs::read_to_string(page).expect("a page");
    assert!(shown.contains("What differs in the plans"));
    assert!(shown.contains(r#"<td class="number">0.003</td>"#), "a number is not broken into two lines");
    assert_eq!(fs::read_dir(folder.join("a/tensorboard")).expect("a folder").count(), 1);

    let message = stderr(&corella(&["report", &data]));
    assert!(message.contains("is not a run folder") && message.contains("hint:"), "{message}");
}

#[test]
fn runs_with_other_vocabularies_are_compared_in_bits_per_byte() {
    let folder = Folder::new("vocabularies");
    let text = folder.text().display().to_string();
    let run = |name: &str, vocab: &str| {
        let (data, out) = (folder.join(&format!("data-{name}")), folder.join(name).display().to_string());
        let data = data.display().to_string();
        done(&["prepare", &text, "--vocab-size", vocab, "--out", &data]);
        done(&tiny_run(&data, &out, "10"));
        out
    };
    let (a, b, c) = (run("a", "280"), run("b", "330"), run("c", "280"));
    let compared = |other: &str| {
        let page = folder.join("page.html").display().to_string();
        let text = done(&["report", &a, other, "--out", &page]);
        let document = json(&done(&["report", &a, other, "--out", &page, "--json"]));
        (text, document, fs::read_to_string(page).expect("a page"))
    };
    let (text, document, page) = compared(&b);
    assert!(text.contains("warning: the runs have different vocabularies"), "{text}");
    assert!(page.contains("different vocabularies") && page.contains("bits per byte by tokens"));
    let of = |i: usize, key: &str| document["runs"][i][key].clone();
    assert!(document["one_vocabulary"] == false && of(0, "tokens_to_common_loss").is_null(), "{document}");
    assert!((0..2).all(|i| of(i, "bits_per_byte").is_f64()), "{document}");
    assert!((0..2).any(|i| of(i, "tokens_to_common_bits_per_byte").is_f64()), "{document}");
    // As `eval` counts it, on the same windows.
    let run = corella_train::report::Record::open(Path::new(&a)).expect("a run");
    let (tokens, bits) = (64 / 16 * 16, document["runs"][0]["bits_per_byte"].as_f64().expect("bits"));
    let data = folder.join("data-a").display().to_string();
    let tokens = tokens.to_string();
    let eval = json(&done(&["eval", &a, "--data", &data, "--limit", &tokens, "--context", "16", "--json"]));
    assert!((eval["bits_per_byte"].as_f64().expect("bits") - bits).abs() < 1e-4, "{eval} {bits}");
    assert_eq!(run.bits_per_byte().count(), run.validations().count());

    let (text, document, page) = compared(&c);
    assert!(!text.contains("warning") && page.contains("Validation loss by tokens"), "{text}");
    assert!(document["one_vocabulary"] == true && document["runs"][0]["tokens_to_common_loss"].is_f64(), "{document}");
}

#[test]
fn a_run_names_its_reference_curve_where_there_is_one() {
    let folder = Folder::new("track");
    let train = |name: &str, flags: &[&str]| {
        let out = folder.join(name).display().to_string();
        let fixed = ["train", "--data", "tiny-internet", "--out", &out, "--steps", "1", "--micro-batch", "1"];
        let short = ["--val-every", "1", "--val-tokens", "600", "--sample-every", "0", "--checkpoint-every", "0"];
        done(&[&fixed[..], &short, flags].concat())
    };
    let known = train("known", &[]);
    assert!(known.contains("reference curve: the tour") && known.contains("from 487424 tokens on"), "{known}");
    let other = train("other", &["--n-layer", "1"]);
    assert!(!other.contains("reference curve: ") && other.contains("no reference curve for this model"), "{other}");
}

/// The items' texts, and the sums that `transformers` in f32 gives for every fortieth window, the token in front included.
#[test]
fn windows_of_a_text_are_as_likely_as_in_transformers() {
    let expected = [
        -103.27197095775313,
        -97.06752621126532,
        -100.61848389836551,
        -100.32751131513496,
        -116.11615587995485,
        -111.95585343627984,
        -114.48731926192333,
        -82.79409046570929,
    ];
    let items = fs::read_to_string(fixture("items/lambada_openai.jsonl")).expect("items");
    let texts: Vec<String> = items.lines().map(|l| json(l)["text"].as_str().expect("a text").to_owned()).collect();
    let text = &texts.join(" ")[..900];
    let found = json(&done(&["trace", "memory", &fixture("llama"), "-p", text, "--stride", "40", "--json"]));
    let found: Vec<f64> =
        found["windows"].as_array().expect("windows").iter().map(|w| w["log_p"].as_f64().expect("a number")).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        // Keys and values in half precision are off by up to 9e-4.
        assert!((found - expected).abs() < 2e-5, "{found} here, {expected} there");
    }
}

#[test]
fn tasks_and_prepared_data_are_scored_after_and_during_training() {
    let folder = Folder::new("eval");
    let model = fixture("model");
    let lines = folder.join("items.jsonl").display().to_string();
    let task = fixture("items/piqa.jsonl");
    let found = json(&done(&["eval", &model, "--task", &task, "--limit", "4", "--items", &lines, "--json"]));
    assert_eq!(found["tasks"]["piqa"]["items"], 4, "{found}");
    assert_eq!(fs::read_to_string(&lines).expect("items").lines().count(), 4);

    let data = folder.data().display().to_string();
    let run = folder.join("run").display().to_string();
    let flags =
        ["--eval-every", "5", "--eval", &task, "--eval-limit", "3", "--val-every", "10", "--val-tokens", "1000000"];
    // A context of 16 holds none of the answers.
    let short = folder.join("short").display().to_string();
    let said = stderr(&corella(&[tiny_run(&data, &short, "10"), flags.to_vec()].concat()));
    assert_eq!(said.matches("warning: piqa: 3 of 3 items cannot be judged").count(), 1, "{said}");
    let flags = [&flags[..], &["--seq-len", "64"]].concat();
    let printed = done(&[tiny_run(&data, &run, "10"), flags].concat());
    assert!(printed.contains("piqa/acc"), "{printed}");
    let log = fs::read_to_string(folder.join("run/log.jsonl")).expect("a log");
    assert_eq!(log.matches("piqa/acc_norm").count(), 2, "{log}");
    let eval = |flags: &[&str]| json(&done(&[&["eval", &run, "--data", &data, "--json"], flags].concat()));
    // Every token but the first, also those that fill no window; training leaves these out.
    let info = fs::read_to_string(folder.join("data/dataset.json")).expect("read");
    let all = serde_json::from_str::<Value>(&info).expect("JSON")["val"]["tokens"].clone();
    let whole = eval(&[]);
    let tokens = whole["tokens"].as_u64().expect("tokens");
    assert!(Some(tokens + 1) == all.as_u64() && tokens % 64 != 0 && whole["context"] == 64, "{whole}, {all}");
    let few = eval(&["--limit", "10"]);
    assert_eq!((few["tokens"].as_u64(), few["context"].as_u64()), (Some(10), Some(10)), "{few}");
    let two = eval(&["--limit", "100", "--context", "60"]);
    assert_eq!((two["tokens"].as_u64(), two["context"].as_u64()), (Some(100), Some(60)), "{two}");
    let measured = eval(&["--limit", &(tokens / 64 * 64).to_string()]);
    let (nll, tokens) = (measured["nll"].as_f64().expect("nll"), measured["tokens"].as_f64().expect("tokens"));
    let trained = json(&log)["val_loss"].as_f64().expect("a validation loss");
    assert!((nll / tokens - trained).abs() < 1e-4, "the validation loss of training, after it: {measured}, {trained}");

    for (args, says) in [
        (vec!["eval", &model], "nothing to measure"),
        (vec!["eval", &model, "--task", "chess.jsonl"], "no task is called chess.jsonl"),
        (vec!["eval", &model, "--task", "chess=x"], "known are hellaswag"),
        (vec!["eval", &model, "--data", &data], "another tokenizer"),
    ] {
        let message = stderr(&corella(&args));
        assert!(message.contains(says), "{args:?}: {message}");
    }
}

#[test]
fn doctor_names_what_is_used_and_what_is_missing() {
    let found = json(&done(&["doctor", "--json", "--threads", "1"]));
    assert_eq!(found["threads"].as_u64(), Some(1));
    let card = found["gpus"].as_array().is_some_and(|gpus| !gpus.is_empty());
    assert!(found["device"].as_str().is_some_and(|device| device == "cpu" || card), "{found}");
    assert!(found["kernel_path"].as_str().is_some_and(|path| path.starts_with("cpu")), "{found}");
    assert!(found["memory"]["total"].as_u64() > found["memory"]["available"].as_u64(), "{found}");
    for library in found["gpu_libraries"].as_array().expect("libraries") {
        let unused = library["purpose"].as_str().is_some_and(|purpose| purpose.contains("not used yet"));
        // What nothing calls need not be installed.
        assert_ne!(library["package"].as_str().is_some_and(|p| !p.is_empty()), unused, "{library}");
    }
    let printed = done(&["doctor"]);
    for part in ["processor", "features", "kernels", "libcublasLt.so", "will use"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // More cards than any machine has: an error with a way out, wherever this runs.
    for command in
        ["doctor", "train --data tiny-internet --model gpt2-custom --n-layer 1 --n-head 1 --n-embd 8 --steps 1"]
    {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(["--device", "cuda:99"]);
        let message = stderr(&corella(&args));
        assert!(message.contains("cuda:99 cannot be used") && message.contains("hint:"), "{message}");
    }
    assert_eq!(corella(&["doctor", "--device", "tpu"]).status.code(), Some(2));
}

#[test]
fn a_log_that_is_lost_leaves_the_page_as_it_was_and_broken_lines_are_counted() {
    let folder = Folder::new("lost-log");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    done(&tiny_run(&data, &run, "5"));
    let (log, page) = (folder.join("run/log.jsonl"), folder.join("run/report.html"));
    let whole = fs::read_to_string(&log).expect("a log");
    fs::write(&log, format!("{{broken\n{whole}")).expect("written");
    fs::write(folder.join("run/heartbeat.json"), "{").expect("written");
    let output = corella(&["report", &run]);
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("log.jsonl: 1 line cannot be read") && told.contains("heartbeat.json cannot be read"),
        "{told}"
    );
    let before = fs::read(&page).expect("a page");
    for lost in [Some("{broken\n"), None] {
        match lost {
            Some(text) => fs::write(&log, text).expect("written"),
            None => fs::remove_file(&log).expect("removed"),
        }
        let output = corella(&["report", &run]);
        assert_eq!(output.status.code(), Some(1), "{lost:?}");
        assert!(stderr(&output).contains("no row that can be read") && stderr(&output).contains("hint:"));
        assert_eq!(fs::read(&page).expect("a page"), before);
    }
}

#[test]
fn a_text_without_a_window_is_refused_in_either_form() {
    for json in [&["--json"][..], &[]] {
        let output = corella(&[&["trace", "memory", &fixture("llama"), "-p", "short"], json].concat());
        assert_eq!(output.status.code(), Some(2), "{json:?}");
        assert!(stderr(&output).contains("give a longer text"), "{}", stderr(&output));
    }
}
