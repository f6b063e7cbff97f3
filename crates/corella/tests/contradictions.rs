//! Flags of `train` that contradict the data or the model to start from are refused, not left out of account.
#![cfg(unix)]

mod common;

use common::{CORELLA, Folder, corella, done, json, refused, small_run, stderr, tiny_run};

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
    refused(&with(&["--model", "gpt2-124m", "--n-layer", "2"]), 2, "--n-layer 2, but gpt2-124m has 12");
    refused(&with(&["--model", "gpt5"]), 2, "llama-3.3-70b, or gpt2-custom");
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

#[test]
fn a_run_goes_on_in_the_micro_batch_it_was_settled_on_and_says_what_else_differs() {
    let folder = Folder::new("settled");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let with = |flags: &[&'static str]| {
        let common =
            "--n-layer 1 --n-head 1 --n-embd 32 --seq-len 32 --batch-tokens 256 --warmup-steps 0 --sample-every 0";
        let words = common.split(' ').map(str::to_owned);
        let args = ["train", "--data", &data, "--out", &run].map(str::to_owned).into_iter().chain(words);
        let args: Vec<String> = args.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        let output = corella(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{message}");
        message
    };
    with(&["--steps", "2", "--micro-batch", "2", "--lr", "0.001"]);
    let said = with(&["--steps", "4", "--micro-batch", "auto", "--lr", "0.001", "--resume"]);
    assert!(!said.contains("the batch differs") && !said.contains("other rules"), "{said}");
    let said = with(&["--steps", "5", "--micro-batch", "4", "--lr", "0.002", "--schedule", "linear", "--resume"]);
    assert!(said.contains("the batch differs"), "{said}");
    assert!(said.contains("lr was 0.001 and is 0.002, schedule was cosine and is linear"), "{said}");
}

#[test]
fn a_run_goes_on_without_the_model_that_it_started_from_and_with_moved_data() {
    let folder = Folder::new("gone");
    let (data, first) = (folder.data().display().to_string(), folder.join("first").display().to_string());
    done(&tiny_run(&data, &first, "1"));
    let out = folder.join("run").display().to_string();
    let args = ["train", "--data", &data, "--out", &out, "--init-from", &first, "--sample-every", "0"];
    let args = [&args[..], &["--micro-batch", "2", "--warmup-steps", "1"]].concat();
    done(&[&args[..], &["--steps", "3"]].concat());
    std::fs::rename(&first, folder.join("elsewhere")).expect("moved");
    done(&["train", "--out", &out, "--resume", "--steps", "4"]);
    done(&[&args[..], &["--resume", "--steps", "5"]].concat());
    let moved = folder.join("moved").display().to_string();
    std::fs::rename(&data, &moved).expect("moved");
    done(&["train", "--out", &out, "--resume", "--steps", "6", "--data", &moved]);
    let last = common::losses(&folder.join("run")).last().expect("an update").clone();
    assert!(last.starts_with("6 "), "{last}");
    let again = folder.join("again").display().to_string();
    let begin = ["train", "--data", &moved, "--out", &again, "--init-from", &first, "--steps", "1"];
    let message = stderr(&corella(&begin));
    assert!(message.contains("first does not exist"), "{message}");
}

#[test]
fn a_run_file_that_contradicts_itself_its_data_or_its_first_model_is_refused() {
    let folder = Folder::new("contradicted-file");
    let (data, first) = (folder.data().display().to_string(), folder.join("first").display().to_string());
    done(&tiny_run(&data, &first, "3"));
    let plan = std::fs::read_to_string(folder.join("first/run.toml")).expect("read");
    let file = folder.join("my.toml").display().to_string();
    let out = folder.join("run").display().to_string();
    let write = |changes: &[(&str, &str)]| {
        let changed = changes.iter().fold(plan.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in {text}");
            text.replace(from, to)
        });
        std::fs::write(&file, changed).expect("written");
    };
    let from_first = format!("[train]\ninit_from = \"{first}\"");
    let init = ("[train]", from_first.as_str());
    for (changes, words) in [
        (&[("gpt2-custom", "foo")][..], "no model is called foo"),
        (&[("gpt2-custom", "Llama-custom")], "no model is called Llama-custom"),
        (&[("gpt2-custom", "gpt2-124m")], "n_layer = 1, but gpt2-124m has 12"),
        (&[("n_head = 2", "n_head = 2\nn_kv_head = 1")], "n_kv_head is of a Llama, but the model is gpt2-custom"),
        (&[("vocab_size = 280", "vocab_size = 1024")], "vocab_size = 1024, but"),
        (&[("tokenizer = \"own\"", "tokenizer = \"gpt2\"")], "tokenizer = gpt2, but"),
        (&[("warmup_steps = 1", "warmup_steps = 1000")], "warmup_steps is 1000, but the run has only 3 steps"),
        (&[init, ("n_layer = 1", "n_layer = 4")], "n_layer = 4, but the model to start from has 1"),
        (&[init, ("n_embd = 16", "n_embd = 64")], "n_embd = 64, but the model to start from has 16"),
        (&[init, ("vocab_size = 280", "vocab_size = 999")], "vocab_size = 999, but the model to start from has 280"),
        (&[init, ("gpt2-custom", "llama-custom")], "name = \"llama-custom\", but the model to start from is another"),
    ] {
        write(changes);
        refused(&["train", &file, "--out", &out], 2, words);
        assert!(!folder.join("run/run.toml").exists(), "nothing is recorded");
    }
    write(&[init]);
    done(&["train", &file, "--out", &out]);
}

#[test]
fn a_run_plan_has_the_vocabulary_of_prepared_data() {
    let folder = Folder::new("planned-data");
    let data = folder.data().display().to_string();
    let out = folder.join("run").display().to_string();
    let train = tiny_run(&data, &out, "1");
    let parameters = |args: &[&str]| {
        let text = done(&[&["plan"], &args[1..], &["--json"]].concat());
        json(&text)["parameters"].as_u64().expect("a number")
    };
    // 280 and 16 rows of width 16, one block of 12 · 16² weights and 13 · 16 biases and gains, and the last norm.
    assert_eq!(parameters(&train), (280 + 16) * 16 + 12 * 256 + 13 * 16 + 32);
    assert!(parameters(&["plan", "--data", &data]) > 280 * 256);
    refused(&["plan", "--data", &data, "--vocab-size", "999"], 2, "--vocab-size 999, but");
}

#[test]
fn what_gives_its_text_only_once_is_no_source() {
    let folder = Folder::new("pipe");
    let out = folder.join("out").display().to_string();
    let script = format!(
        "cat {} | {} prepare /dev/stdin --vocab-size 280 --out {out}",
        folder.text().display(),
        common::CORELLA
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
    let message = stderr(&output);
    assert!(message.contains("/dev/stdin is no file") && message.contains("hint: write the text"), "{message}");
    assert_eq!(output.status.code(), Some(1));
    refused(&["prepare", "-", "--out", &out], 1, "standard input");
    assert!(!folder.join("out/.prepare").exists());
}

#[test]
fn a_model_that_went_through_gguf_fits_its_data() {
    let folder = Folder::new("round-trip");
    let data = folder.data().display().to_string();
    let (run, gguf) = (folder.join("run").display().to_string(), folder.join("run.gguf").display().to_string());
    done(&tiny_run(&data, &run, "1"));
    done(&["convert", &run, &gguf]);
    let back = folder.join("back").display().to_string();
    done(&["convert", &gguf, &back]);
    for model in [&gguf, &back] {
        done(&["eval", model, "--data", &data]);
        let out = format!("{model}-run");
        let args = ["train", "--data", &data, "--out", &out, "--init-from", model, "--steps", "1"];
        done(&[&args[..], &["--micro-batch", "2", "--sample-every", "0"]].concat());
    }
    std::fs::write(folder.join("other.txt"), "a quick red fox saw seven geese. ".repeat(900)).expect("written");
    let (source, other) = (folder.join("other.txt").display().to_string(), folder.join("other").display().to_string());
    done(&["prepare", &source, "--vocab-size", "270", "--out", &other]);
    let out = folder.join("mixed").display().to_string();
    let args = ["train", "--data", &other, "--out", &out, "--init-from", &gguf, "--steps", "1"];
    refused(&[&args[..], &["--micro-batch", "2"]].concat(), 1, "another tokenizer than that of the model");
}

#[test]
fn a_run_never_settles_among_the_data_that_it_reads() {
    let folder = Folder::new("contradicted-out");
    let data = folder.data();
    let name = data.file_name().expect("a name").to_string_lossy().into_owned();
    // As `prepare --out out/NAME` leaves it, and as it says how to go on.
    std::fs::create_dir(folder.join("out")).expect("a folder");
    let (within, run) = (format!("out/{name}"), format!("out/{name}-run"));
    std::fs::rename(&data, folder.join(&within)).expect("moved");
    let train = |more: &[&str]| {
        let mut args = tiny_run(&within, &run, "1");
        let out = args.iter().position(|arg| *arg == "--out").expect("a flag");
        args.drain(out..out + 2);
        let output = std::process::Command::new(CORELLA).args(args).args(more).current_dir(folder.join("")).output();
        output.expect("started")
    };
    let refusal = train(&["--out", &within]);
    assert_eq!(refusal.status.code(), Some(2), "{}", stderr(&refusal));
    assert!(stderr(&refusal).contains("a folder of its own") && stderr(&refusal).contains("hint: name another one"));
    let output = train(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(folder.join(&run).join("run.toml").is_file() && !folder.join(&within).join("run.toml").exists());
    // What an earlier version wrote there does not make them less of data.
    std::fs::write(folder.join(&within).join("run.toml"), "").expect("written");
    let output = train(&["--out", "out/another"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_warm_up_that_is_written_is_obeyed_or_refused_and_an_unwritten_one_is_as_long_as_a_short_run_allows() {
    let folder = Folder::new("warm-up");
    let data = folder.data().display().to_string();
    let run = |out: &str, flags: &[&str]| {
        let out = folder.join(out).display().to_string();
        let fixed = "--n-layer 1 --n-head 2 --n-embd 16 --seq-len 16 --micro-batch 2 --sample-every 0 --val-every 0 --threads 1";
        let args = ["train", "--data", &data, "--out", &out].into_iter().chain(fixed.split(' '));
        args.chain(flags.iter().copied()).map(str::to_owned).collect::<Vec<_>>()
    };
    let rates = |out: &str| {
        let log = std::fs::read_to_string(folder.join(out).join("log.jsonl")).expect("a log");
        log.lines().map(|line| json(line)["lr"].as_f64().expect("a rate")).collect::<Vec<_>>()
    };
    let strs = |args: &[String]| done(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let refuse = |args: &[String], words: &str| refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);

    // The usual 40 is too long for four updates: the peak comes with the last of them.
    strs(&run("short", &["--steps", "4", "--lr", "0.4"]));
    assert_eq!(rates("short"), [0.1, 0.2, 0.30000000000000004, 0.4]);
    assert!(std::fs::read_to_string(folder.join("short/run.toml")).expect("a plan").contains("warmup_steps = 4\n"));

    // The same number, written.
    let words = "warmup_steps is 40, but the run has only 4 steps";
    refuse(&run("flag", &["--steps", "4", "--warmup-steps", "40"]), words);
    strs(&run("long", &["--steps", "50", "--lr", "0.4", "--warmup-steps", "40"]));
    let plan = folder.join("long/run.toml").display().to_string();
    let out = folder.join("file").display().to_string();
    refused(&["train", &plan, "--out", &out, "--steps", "4"], 2, words);
    let text = std::fs::read_to_string(&plan).expect("a plan").replace("steps = 50\n", "steps = 4\n");
    std::fs::write(folder.join("my.toml"), &text).expect("written");
    let file = folder.join("my.toml").display().to_string();
    refused(&["train", &file, "--out", &out], 2, words);
    assert!(!folder.join("file/run.toml").exists() && !folder.join("flag/run.toml").exists(), "nothing is recorded");

    // A run file that does not write it.
    std::fs::write(&file, text.replace("warmup_steps = 40\n", "")).expect("written");
    done(&["train", &file, "--out", &out]);
    assert_eq!(rates("file"), rates("short"));
}

#[test]
fn what_prepare_left_unfinished_is_not_trained_on() {
    let folder = Folder::new("unfinished");
    let (data, out) = (folder.data(), folder.join("run").display().to_string());
    let name = data.display().to_string();
    std::fs::remove_file(data.join("dataset.json")).expect("removed");
    let kept = data.join("train_000000.bin");
    std::fs::rename(&kept, data.join("train_000000.partial")).expect("renamed");
    refused(&tiny_run(&name, &out, "1"), 1, "is unfinished");
    refused(&["plan", "--data", &name], 1, "is unfinished");
    // Some shards are complete.
    std::fs::rename(data.join("train_000000.partial"), &kept).expect("renamed");
    std::fs::create_dir(data.join(".prepare")).expect("made");
    refused(&[&tiny_run(&name, &out, "1")[..], &["--tokenizer", "gpt2"]].concat(), 1, "is unfinished");
}

#[test]
fn one_of_several_processes_does_not_train() {
    let folder = Folder::new("ranks");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    for name in ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let run = |processes: &str| {
            let mut command = std::process::Command::new(common::CORELLA);
            command.args(tiny_run(&data, &out, "1")).env(name, processes);
            command.output().expect("the program starts")
        };
        let message = stderr(&run("2"));
        assert!(message.contains(&format!("{name} is 2")) && message.contains("hint:"), "{message}");
        assert!(!folder.join("run").exists(), "nothing is written");
        assert!(run("1").status.success(), "one process is alone");
        std::fs::remove_dir_all(folder.join("run")).expect("removed");
    }
}

#[test]
fn numbers_that_make_no_bill_are_refused_and_epochs_are_told() {
    let folder = Folder::new("bill");
    let data = folder.data();
    let name = data.display().to_string();
    let plan = |flags: &[&'static str]| [&["plan", "--data", &name, "--gpu", "1xH100"][..], flags].concat();
    refused(&plan(&["--price", "nan"]), 2, "NaN is no price");
    refused(&plan(&["--price=-3"]), 2, "-3 is no price");
    refused(&plan(&["--watts", "inf"]), 2, "inf is no power");
    refused(&plan(&["--steps", "0"]), 2, "no steps");
    let found = json(&done(&plan(&["--steps", "10", "--json"])));
    let info = std::fs::read_to_string(data.join("dataset.json")).expect("there");
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let there = info["train"]["tokens"].as_f64().expect("a number");
    let (tokens, epochs) = (found["tokens"].as_f64().expect("a number"), found["epochs"].as_f64().expect("a number"));
    assert!(found["data_tokens"].as_f64() == Some(there) && (epochs * there / tokens - 1.0).abs() < 1e-9, "{found}");
    refused(&plan(&["--steps", "3", "--warmup-steps", "9"]), 2, "warmup_steps is 9");
    refused(&["plan", "gpt2-124m"], 1, "gpt2-124m does not exist");
    refused(&["plan", "--data", "nosuch.txt"], 1, "nosuch.txt does not exist");
    let run = folder.join("run").display().to_string();
    done(&tiny_run(&name, &run, "2"));
    let found = json(&done(&["plan", &run, "--gpu", "1xH100", "--json"]));
    assert_eq!((&found["steps"], &found["tokens"]), (&2.into(), &64.into()), "that run's, not the usual one");
}

#[test]
fn flags_of_another_bench_and_names_that_nothing_has_are_refused_before_anything_is_measured() {
    for (args, code, words) in [
        (&["ops", "--only", "nothing"][..], 2, "no operation has \"nothing\" in its name"),
        (&["ops", "nothere"], 2, "a MODEL does nothing here"),
        (&["ops", "--prompt", "5"], 2, "--prompt does nothing here"),
        (&["train", "--weights", "q8_0"], 2, "it is for `bench generate`"),
        (&["train", "--only", "gelu"], 2, "it is for `bench ops`"),
        (&["generate", "nothere"], 1, "nothere does not exist"),
        (&["generate", "--model", "foo"], 2, "no bench model is called foo"),
    ] {
        let args = [&["bench"], args].concat();
        refused(&args, code, words);
        assert!(corella(&args).stdout.is_empty(), "{args:?}: nothing was measured");
    }
}

/// A percentage is of what was measured beside it, which stands there too.
fn each_row_has_its_ceiling(printed: &str) {
    assert!(printed.lines().next().is_some_and(|line| line.contains("measured at the start")), "{printed}");
    let rows = common::json(printed)["results"].as_array().expect("rows").clone();
    for row in rows {
        let number = |key: &str| row[key].as_f64().expect("a number");
        let percent = 100.0 * number("value") / number("ceiling");
        assert!((percent / number("percent_of_ceiling") - 1.0).abs() < 1e-6, "{row}");
        assert!(printed.contains(&format!(" % of {:.1} ", number("ceiling"))), "{row}: {printed}");
    }
}

#[test]
fn a_bench_says_what_there_is_and_what_it_changes() {
    let said = stderr(&corella(&["bench", "generate", "--model", "foo"]));
    assert!(["gpt2-124m", "llama-3.1-8b", "llama-3.2-1b"].iter().all(|name| said.contains(name)), "{said}");
    let said = stderr(&corella(&["bench", "train", "--model", "foo"]));
    assert!(said.contains("gpt2-124m") && !said.contains("llama"), "no Llama is trained there: {said}");
    // A model whose context holds 32 tokens.
    let folder = Folder::new("bench-prompt");
    let (source, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&small_run(&source, &out, "3"));
    let bench = |prompt: &str| {
        let output = corella(&["bench", "generate", &out, "--prompt", prompt, "--repeat", "1"]);
        assert!(output.status.success(), "{}", stderr(&output));
        each_row_has_its_ceiling(&common::stdout(&output));
        stderr(&output)
    };
    let said = bench("4096");
    assert!(said.contains("a prompt of 24 tokens instead of 4096: its context holds 32"), "{said}");
    assert!(!bench("8").contains("instead of"));
}

#[test]
fn the_tiny_internet_takes_no_flags_of_texts_and_texts_none_of_its_own() {
    let folder = Folder::new("tiny-flags");
    let (text, out) = (folder.text().display().to_string(), folder.join("out").display().to_string());
    for flags in [["--val-fraction", "0.5"], ["--filter", "web"], ["--field", "x"], ["--min-bytes", "9"]] {
        refused(&[&["prepare", "tiny-internet", "--out", &out], &flags[..]].concat(), 2, "is for texts");
    }
    refused(&["prepare", &text, "--pages", "7", "--out", &out], 2, "--pages is for the tiny internet");
    assert!(!folder.join("out").exists());
}

#[test]
fn a_similarity_is_of_near_duplicates() {
    let folder = Folder::new("similarity");
    let (text, out) = (folder.text().display().to_string(), folder.join("out").display().to_string());
    let prepare = |flags: &[&'static str]| [&["prepare", &text, "--out", &out][..], flags].concat();
    refused(&prepare(&["--similarity", "0.8"]), 2, "--similarity is for texts");
    refused(&prepare(&["--similarity", "3", "--duplicates", "near"]), 2, "not in 0.4 .. 1");
}

#[test]
fn a_run_takes_no_folder_of_other_files() {
    let folder = Folder::new("others");
    let own = folder.join("samples.jsonl");
    std::fs::write(&own, "{\"text\": \"The red fox saw two geese.\"}\n".repeat(400)).expect("written");
    let before = std::fs::read(&own).expect("read");
    let (source, out) = (own.display().to_string(), folder.join("").display().to_string());
    refused(&small_run(&source, &out, "3"), 1, "is no run but holds samples.jsonl");
    assert!(std::fs::read(&own).expect("read") == before, "the text is as it was");
}

#[test]
fn a_run_that_goes_on_takes_no_other_tokenizer() {
    let folder = Folder::new("kept");
    let (source, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    done(&small_run(&source, &out, "3"));
    let resumed = |extra: &[&'static str]| {
        let flags =
            "train --n-layer 2 --n-head 2 --n-embd 32 --seq-len 32 --micro-batch 4 --sample-every 0 --steps 4 --resume";
        let mut args: Vec<&str> = flags.split(' ').chain(["--out", &out]).collect();
        args.insert(1, &source);
        args.extend(extra);
        args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<String>>()
    };
    for (extra, words) in [
        (["--tokenizer", "gpt2"], "--tokenizer gpt2, but the run began with another one"),
        (["--vocab-size", "270"], "--vocab-size 270, but the run has a vocabulary of 287"),
    ] {
        let args = resumed(&extra);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);
    }
    // As the run was begun: the text is too short for so many.
    let args = resumed(&["--vocab-size", "300"]);
    let said = stderr(&corella(&args.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(!said.contains("error") && said.contains("goes on with its vocabulary of 287 tokens"), "{said}");
    assert!(said.contains(": steps 4, warm-up 4, before 3 and 1"), "{said}");
}

#[test]
fn tasks_without_a_time_to_evaluate_are_refused() {
    let folder = Folder::new("eval-every");
    let (source, out) = (folder.text().display().to_string(), folder.join("run").display().to_string());
    let mut args = small_run(&source, &out, "3");
    args.extend(["--eval", "nothing.jsonl"]);
    refused(&args, 2, "--eval names tasks, but nothing says when to evaluate");
}

#[test]
fn a_size_is_for_a_vocabulary_that_is_trained_on_the_text() {
    let folder = Folder::new("named-size");
    let (text, first) = (folder.text().display().to_string(), folder.join("first").display().to_string());
    done(&small_run(&text, &first, "1"));
    let (own, out) = (format!("{first}/tokenizer.json"), folder.join("run").display().to_string());
    let tiny =
        "--n-layer 1 --n-head 1 --n-embd 8 --seq-len 16 --micro-batch 1 --steps 1 --sample-every 0 --val-every 0";
    let with = |name: &str, size: &str| {
        let args = ["train", &text, "--out", &out, "--tokenizer", name, "--vocab-size", size];
        args.into_iter().chain(tiny.split(' ')).map(str::to_owned).collect::<Vec<String>>()
    };
    let strs = |args: &[String]| args.iter().map(|arg| arg.as_str().to_owned()).collect::<Vec<String>>();
    let go = |name: &str, size: &str| {
        let args = strs(&with(name, size));
        corella(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for (name, size, words) in
        [("gpt2", "300", "gpt2 has 50257 tokens"), (&own, "5000", "tokenizer.json has 287 tokens")]
    {
        let output = go(name, size);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("--vocab-size {size}")) && said.contains(words) && said.contains("hint:"),
            "{said}"
        );
    }
    assert!(!folder.join("run").exists(), "nothing is recorded");
    let padded = go("gpt2", "50304");
    assert!(padded.status.success() && stderr(&padded).contains("no rows are padded"), "{}", stderr(&padded));
}

#[test]
fn a_folder_of_texts_may_hold_other_files_and_a_folder_of_tokens_is_still_one() {
    let folder = Folder::new("bytes");
    let texts = folder.join("texts");
    std::fs::create_dir(&texts).expect("made");
    std::fs::rename(folder.text(), texts.join("my.txt")).expect("moved");
    std::fs::write(texts.join("photo.bin"), [0x89, b'P', b'N', b'G', 0, 0, 0, 1, 2, 3, 0, 0]).expect("written");
    let (source, out) = (texts.display().to_string(), folder.join("run").display().to_string());
    let output = corella(&small_run(&source, &out, "1"));
    assert!(output.status.success() && stderr(&output).contains("photo.bin"), "{}", stderr(&output));
    // Tokens of nanoGPT beside the script that made them, and alone; and shards of llm.c beside a note.
    let data = folder.data();
    for (name, files) in
        [("nano", &["train.bin", "prepare.py"][..]), ("alone", &["a.bin"]), ("llm.c", &["x.bin", "readme.md"])]
    {
        let tokens = folder.join(name);
        std::fs::create_dir(&tokens).expect("made");
        for file in files {
            std::fs::write(tokens.join(file), "text ".repeat(40)).expect("written");
        }
        if name == "llm.c" {
            std::fs::copy(data.join("train_000000.bin"), tokens.join("x.bin")).expect("a copy");
        }
        let tokens = tokens.display().to_string();
        refused(&["train", &tokens, "--out", &out], 1, "holds tokens, but not which tokenizer made them");
    }
}

#[test]
fn tokens_of_a_run_that_goes_on_count_those_that_it_has_read() {
    let folder = Folder::new("tokens");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let run = |tokens: &'static str, batch: &'static str, resume: bool| {
        let mut args = tiny_run(&data, &out, "1");
        let steps = args.iter().position(|arg| *arg == "--steps").expect("a flag");
        args.splice(steps..steps + 2, ["--tokens", tokens, "--batch-tokens", batch]);
        args.extend(["--resume"].into_iter().filter(|_| resume));
        args.push("--json");
        let end = json(&done(&args));
        [end["step"].as_u64(), end["tokens"].as_u64()].map(|n| n.expect("a number"))
    };
    assert_eq!(run("320", "32", false), [10, 320]);
    assert_eq!(run("640", "64", true), [15, 640]);
    // What is begun is made to its end.
    assert_eq!(run("641", "128", true), [16, 768]);
}

#[test]
fn a_run_that_goes_on_records_the_tokenizer_it_was_begun_with_and_the_model_as_it_is() {
    let folder = Folder::new("recorded");
    let (text, first) = (folder.text().display().to_string(), folder.join("first").display().to_string());
    let mut args = small_run(&text, &first, "1");
    args.extend(["--seq-len", "64"]);
    done(&args);
    let out = folder.join("run").display().to_string();
    let begin = |more: &[&'static str]| {
        let flags = "--seq-len 32 --micro-batch 2 --sample-every 0 --val-every 0 --warmup-steps 0";
        let mut args = vec!["train", &text, "--out", &out, "--init-from", &first];
        args.extend(flags.split(' ').chain(more.iter().copied()));
        done(&args)
    };
    let recorded = || {
        let plan: toml::Table =
            std::fs::read_to_string(folder.join("run/run.toml")).expect("read").parse().expect("TOML");
        plan["data"]["tokenizer"].as_str().expect("a name").to_owned()
    };
    let said = begin(&["--steps", "1"]);
    assert_eq!(recorded(), first);
    let shown = json(&done(&["inspect", &out, "--json"]));
    assert!(said.contains("context 64 (trained with 32)"), "{said}");
    let parameters = shown["parameters"].as_u64().expect("a number");
    assert!(said.replace(',', "").contains(&format!(": {parameters} parameters")), "{parameters}: {said}");
    begin(&["--steps", "2", "--resume"]);
    assert_eq!(recorded(), first);
}

#[test]
fn keys_of_run_files_are_flags_too() {
    let folder = Folder::new("keys");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let flags = "--weight-decay 0.25 --clip 0.5 --final-lr-fraction 0.125 --order file --sample-tokens 3";
    done(&tiny_run(&data, &out, "1").into_iter().chain(flags.split(' ')).collect::<Vec<_>>());
    let plan = std::fs::read_to_string(folder.join("run/run.toml")).expect("a plan");
    for line in
        ["weight_decay = 0.25", "clip = 0.5", "final_lr_fraction = 0.125", "order = \"file\"", "sample_tokens = 3"]
    {
        assert!(plan.lines().any(|l| l == line), "{line} is missing: {plan}");
    }
}

#[test]
fn in_llm_cs_order_the_micro_batch_is_named_and_stays() {
    let folder = Folder::new("llm-c-order");
    let (data, out) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let with = |steps: &'static str, more: &[&'static str]| {
        let mut args = tiny_run(&data, &out, steps);
        args.extend(["--order", "llm.c", "--batch-tokens", "64"]);
        args.extend(more);
        args.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let refuse = |args: Vec<String>, code, words| {
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
    };
    refuse(with("1", &["--micro-batch", "auto"]), 2, "so it cannot be auto");
    done(&with("2", &[]).iter().map(String::as_str).collect::<Vec<_>>());
    refuse(
        with("4", &["--micro-batch", "4", "--resume"]),
        1,
        "micro-batches of 4 sequences read other windows than those of 2",
    );
    done(&with("4", &["--resume"]).iter().map(String::as_str).collect::<Vec<_>>());
}
