//! From a text file to a continued text, and through every file format, with the program itself.

mod common;

use common::{Folder, corella, done, small_run, stderr, stdout};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn a_text_becomes_a_model_that_continues_it() {
    let folder = Folder::new("journey");
    let text = folder.text().display().to_string();
    let run = folder.join("run").display().to_string();
    let printed = done(&small_run(&text, &run, "60"));
    assert!(printed.contains("parameters") && printed.contains("memory:") && printed.contains("eta"), "{printed}");
    for name in ["run.toml", "log.jsonl", "samples.jsonl", "tokenizer.json", "checkpoints"] {
        assert!(folder.join("run").join(name).exists(), "{name}");
    }
    let losses = std::fs::read_to_string(folder.join("run/log.jsonl")).expect("a log");
    let (first, last) = (json(losses.lines().nth(1).expect("a line")), json(&losses));
    for key in ["step", "loss", "lr", "norm", "ms", "tokens_per_second"] {
        assert!(last[key].is_number(), "{key}: {last}");
    }
    assert!(last["loss"].as_f64() < first["loss"].as_f64(), "the loss falls");

    let generate = |more: &[&str]| {
        let args = ["generate", &run, "-p", "The red", "--max-tokens", "8", "--seed", "42", "--json"];
        json(&done(&[&args[..], more].concat()))
    };
    let generated = generate(&["-n", "2", "--logprobs", "3"]);
    assert_eq!(generated["choices"].as_array().map(Vec::len), Some(2));
    let choice = &generated["choices"][0];
    assert_eq!(choice["ids"].as_array().map(Vec::len), choice["logprobs"].as_array().map(Vec::len));
    assert!(choice["text"].is_string() && choice["finish_reason"].is_string());
    let again = generate(&["--threads", "1"]);
    assert_eq!(again["choices"][0]["ids"], choice["ids"], "neither n nor the threads change a sample");

    a_seed_repeats_what_it_drew(&run);

    let measured = json(&done(&["eval", &run, "--text", &text, "--json"]));
    let (nll, ppl) = (measured["nll"].as_f64().expect("nll"), measured["perplexity"].as_f64().expect("perplexity"));
    let tokens = measured["tokens"].as_f64().expect("tokens");
    assert!(((nll / tokens).exp() / ppl - 1.0).abs() < 1e-6 || (nll.exp() / ppl - 1.0).abs() < 1e-6, "{measured}");
    assert!(measured["bits_per_byte"].is_number());
}

/// Three runs, three texts; and each of them again.
fn a_seed_repeats_what_it_drew(run: &str) {
    let drawn = |more: &[&str]| corella(&[&["generate", run, "-p", "The", "--max-tokens", "30"], more].concat());
    let runs = [(); 3].map(|()| drawn(&["--ignore-eos"]));
    let texts = runs.each_ref().map(stdout);
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[2] != texts[0], "{texts:?}");
    let said = stderr(&runs[0]);
    let seed = said.split(", seed ").nth(1).and_then(|rest| rest.split(':').next()).expect("a seed");
    assert!(said.contains(&format!(", seed {seed}: --seed {seed} repeats it]")), "{said}");
    assert_eq!(stdout(&drawn(&["--ignore-eos", "--seed", seed])), texts[0]);
    let [one, two] = [(); 2].map(|()| json(&stdout(&drawn(&["--json"])))["seed"].clone());
    assert!(one.is_u64() && one != two, "{one} {two}");
    assert!(!stderr(&drawn(&["--temperature", "0"])).contains("seed"));
}

#[test]
fn weights_survive_every_format_and_training_starts_from_each() {
    let folder = Folder::new("formats");
    let text = folder.text().display().to_string();
    let path = |name: &str| folder.join(name).display().to_string();
    let (run, bin, hf, gguf) = (path("run"), path("model.bin"), path("hf"), path("model.gguf"));
    done(&small_run(&text, &run, "6"));
    done(&["convert", &run, &bin]);
    done(&["convert", &bin, &hf]);
    // The way on: from a folder to GGUF, from there to llm.c, which is the file that was written first.
    done(&["convert", &run, &gguf, "--dtype", "f32"]);
    done(&["convert", &gguf, &path("again.bin")]);
    assert!(std::fs::read(&bin).expect("read") == std::fs::read(path("again.bin")).expect("read"));
    let tokenizer = format!("{run}/tokenizer.json");
    let greedy = |model: &str| {
        let args = ["generate", model, "-p", "The old", "--max-tokens", "12", "--temperature", "0", "--json"];
        let mut args = args.to_vec();
        args.extend(["--tokenizer", &tokenizer]);
        json(&done(&args))["choices"][0]["ids"].clone()
    };
    let ids = greedy(&run);
    assert_eq!(ids, greedy(&bin));
    assert_eq!(ids, greedy(&hf));
    assert_eq!(ids, greedy(&gguf));

    // A learning rate of 0 shows that the first loss is that of the weights started from.
    let mut firsts = Vec::new();
    for (i, model) in [&run, &bin, &hf, &gguf].into_iter().enumerate() {
        let out = path(&format!("from-{i}"));
        let args = ["train", &text, "--out", &out, "--init-from", model, "--tokenizer", &tokenizer, "--steps", "1"];
        let mut args = args.to_vec();
        args.extend("--micro-batch 4 --sample-every 0 --val-every 0".split(' '));
        done(&args);
        firsts.push(common::losses(out.as_ref()));
    }
    assert_eq!(firsts[0], firsts[1]);
    assert_eq!(firsts[0], firsts[2]);
    assert_eq!(firsts[0], firsts[3]);
}

#[test]
fn the_tiny_internet_is_written_with_its_facts() {
    let folder = Folder::new("tiny");
    let out = folder.join("tiny").display().to_string();
    let info =
        json(&done(&["prepare", "tiny-internet", "--pages", "600", "--vocab-size", "512", "--out", &out, "--json"]));
    assert_eq!(info["train"]["documents"].as_u64(), Some(600 + 3 * 511), "pages and planted articles");
    assert_eq!(info["val"]["documents"].as_u64(), Some(1000));
    let facts = std::fs::read_to_string(folder.join("tiny/facts.json")).expect("facts");
    let facts: Value = serde_json::from_str(&facts).expect("JSON");
    assert_eq!(facts["planted"].as_array().map(Vec::len), Some(27));
    done(&[
        "train",
        "--data",
        &out,
        "--steps",
        "2",
        "--sample-every",
        "0",
        "--val-every",
        "0",
        "--out",
        &format!("{out}-run"),
    ]);
}

/// The tour's last stop is the playground, with the figures that it measured beside the demonstrations.
#[cfg(unix)]
#[test]
fn a_short_tour_measures_every_phenomenon_and_ends_in_the_playground() {
    let folder = Folder::new("tour");
    let out = folder.join("tour").display().to_string();
    let args = ["tour", "--million-tokens", "0.004", "--out", &out, "--json", "--serve=127.0.0.1:0"];
    let (mut server, mut lines) = common::server::Server::beside(&args);
    let measured = lines.by_ref().map(|line| json(&line.expect("text"))).find(|line| !line["phenomena"].is_null());
    let measured = measured.expect("the figures");
    for key in [
        "grammatical_sentences",
        "recited_of_40",
        "recall_by_mentions",
        "few_shot_by_examples",
        "assistant",
        "dreamt_next_turn",
        "universes",
    ] {
        assert!(!measured["phenomena"][key].is_null(), "{key}: {measured}");
    }
    server.ready(120);
    let demos = json(&server.get("/corella/demos").body)["demos"].clone();
    let demos = demos.as_array().expect("demonstrations");
    assert_eq!(demos.len(), 7);
    let with_figures = demos.iter().filter(|d| d["measured"].as_str().is_some_and(|m| m.contains(" of "))).count();
    assert!(with_figures >= 5, "{demos:?}");
    // One update of 8 × 256 tokens: nothing is said to have been read or learnt that was not.
    assert_eq!(measured["read"]["tokens"], 2048, "{measured}");
    let recite = format!("{} {}", demos[2]["text"], demos[2]["measured"]);
    for part in ["0 of 3 articles that stand there 256 times", "this one does not", "It read 2048 tokens"] {
        assert!(recite.contains(part), "{part}: {recite}");
    }
    assert!(measured["read"]["corpus_tokens"].as_u64() > Some(3_000_000), "{measured}");
    let article = demos[2]["prompts"][0]["reference"].as_str().expect("an article");
    let found = server.traced(article);
    let spans = found["spans"].as_array().expect("spans");
    assert!(spans.iter().any(|s| s["count"].as_u64() >= Some(32)), "the article stood in the corpus often: {found}");
    common::signal(&server.child, "TERM");
    assert!(server.child.wait().expect("ended").success());
}

/// Arguments, exit code, what the message says, and whether there is a hint.
#[test]
fn mistakes_are_answered_with_what_to_do() {
    let folder = Folder::new("mistakes");
    let text = folder.text().display().to_string();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(folder.join("pickle.bin"), [0x80, 2, b'}', b'q']).expect("written");
    std::fs::write(folder.join("empty.txt"), "").expect("written");
    std::fs::write(folder.join("doc.pdf"), b"%PDF-1.7\n\xe2\xe3").expect("written");
    std::fs::write(folder.join("run.toml"), "[model\n").expect("written");
    let shape = "[model]\nname = 'gpt2-custom'\nn_layer = 1\nn_head = 1\nn_embd = 8\nvocab_size = 300\nseq_len = 8\n";
    let from = format!("{shape}[data]\npath = '{text}'\n[train]\ninit_from = 'out/nowhere'\n");
    std::fs::write(folder.join("from.toml"), from).expect("written");
    let (missing, pickle, empty, below) =
        (path("missing"), path("pickle.bin"), path("empty.txt"), format!("{text}/below"));
    let (pdf, run, from) = (path("doc.pdf"), path("run.toml"), path("from.toml"));
    let (named, out) = (format!("{run}: TOML parse error"), path("prepared"));
    let cases: [(&[&str], i32, &str, bool); 24] = [
        (&["generate", &missing, "The sea"], 2, "-p 'The sea'", true),
        (&["train", &text, "--serve", "8090"], 2, "--serve=127.0.0.1:8090", true),
        (&["trace", "memory", &missing, "--text", &pdf], 1, "pdftotext", true),
        (&["train", &pdf], 1, "pdftotext", false),
        (&["prepare", &text, "--language", "en", "--out", &out], 2, "did you mean eng?", false),
        (&["generate", "gpt2-124m", "-p", "a"], 1, "hf://openai-community/gpt2 has", true),
        (&["serve", "llama-3.1-405b"], 1, "hf://meta-llama/Llama-3.1-405B has", true),
        (&["plan", &run], 1, &named, true),
        (&["train", &run], 1, &named, true),
        (&["plan", &from], 1, "init_from: out/nowhere does not exist", true),
        (&["train", &text, "--init-from", "out/nowhere"], 1, "--init-from: out/nowhere does not exist", true),
        (&[], 2, "Usage", false),
        (&["train"], 2, "nothing to train on", true),
        (&["train", &missing], 1, "does not exist", true),
        (&["train", &empty], 1, "holds no text", false),
        (&["train", &text, "--out", &below], 1, "Not a directory", true),
        (&["train", &text, "--model", "gpt5"], 2, "no model is called gpt5", true),
        (&["train", &text, "--schedule", "sine"], 2, "[possible values: cosine, linear, constant, wsd]", false),
        (&["train", &text, "--n-embd", "30", "--n-head", "4"], 1, "n_head", false),
        (&["train", &text, "--batch-tokens", "1000", "--out", &path("x")], 1, "batch_tokens", true),
        (&["generate", &missing, "-p", "a"], 1, "does not exist", true),
        (&["generate", &pickle, "-p", "a"], 1, "pickle", true),
        (&["generate", &text, "-p", "a"], 1, "llm.c", true),
        (&["tour", "--million-tokens", "-1"], 2, "", false),
    ];
    for (args, code, says, hint) in cases {
        let output = corella(args);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}{}", stdout(&output));
        assert!(message.contains(says), "{args:?}: {message}");
        assert_eq!(message.contains("hint:"), hint, "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{args:?}: {message}");
    }
    assert!(done(&["--version"]).starts_with("corella 0."));
}
