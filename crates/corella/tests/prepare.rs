//! `corella prepare` as a whole: killed at any moment it ends with the same bytes, it keeps below its ceiling of memory, and
//! it fetches from a server that speaks the hub's protocol.
#![cfg(unix)]

mod common;
#[path = "../../corella-hub/tests/hub_server/mod.rs"]
mod hub_server;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{CORELLA, Folder, corella, done, stderr};
use hub_server::HubServer;
use serde_json::Value;

/// Text of `bytes` bytes in lines of JSON, no two alike.
fn json_lines(bytes: usize) -> String {
    let mut out = String::with_capacity(bytes + 2000);
    let mut seed = 1u64;
    while out.len() < bytes {
        out.push_str("{\"text\": \"");
        for _ in 0..150 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (word, end) = (seed >> 40, seed >> 36 & 15);
            out.push_str(["the ", "river ", "old ", "and ", "walked "][(word % 5) as usize]);
            out.push_str(&format!("w{}{}", word % 3000, if end == 0 { ".\\n" } else { " " }));
        }
        out.push_str("\"}\n");
    }
    out
}

/// Every file of a folder with its content.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&p).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

#[test]
fn killed_again_and_again_it_ends_with_the_bytes_of_an_undisturbed_run() {
    let folder = Folder::new("prepare-kill");
    let source = folder.join("a.jsonl");
    // A document twice, and one that is too short, so that the report has something to say.
    let first = json_lines(1000);
    std::fs::write(&source, [json_lines(24 << 20), first, "{\"text\": \"x\"}\nno JSON\n".to_owned()].concat())
        .expect("written");
    // Whatever an attempt that was not killed in time finished is made anew.
    let args = |out: &str| -> Vec<String> {
        let fixed =
            "--tokenizer gpt2 --shard-tokens 1000000 --duplicates near --min-bytes 100 --threads 2 --overwrite --out";
        let mut args = vec!["prepare".to_owned(), source.display().to_string()];
        args.extend(fixed.split(' ').map(str::to_owned));
        args.push(folder.join(out).display().to_string());
        args
    };
    let whole_args = args("whole");
    let started = std::time::Instant::now();
    done(&whole_args.iter().map(String::as_str).collect::<Vec<_>>());
    let whole_time = started.elapsed();
    let (mut kills, mut went_on) = (0, false);
    // Some are killed at a time, in the survey or behind it; others when a shard is there, so that some are killed while shards
    // are written however fast the machine is. The fourth shard is behind the first note of the work done. A process that
    // ends before it is killed counts for nothing, as happens when the machine has other work: then there is a next attempt.
    for attempt in 1..=100u32 {
        let mut child = Command::new(CORELLA)
            .args(args("killed"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        match attempt % 4 {
            1 => std::thread::sleep(whole_time.mul_f64(f64::from(attempt % 11) * 0.06)),
            3 => std::thread::sleep(whole_time.mul_f64(f64::from(attempt % 13) * 0.07)),
            two_or_none => {
                let name = if two_or_none == 2 { "train_000000.bin" } else { "train_000003.bin" };
                let shard = folder.join("killed").join(name);
                while !shard.is_file() && child.try_wait().expect("status").is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        if child.try_wait().expect("status").is_none() {
            child.kill().expect("killed");
            kills += 1;
        }
        let output = child.wait_with_output().expect("ended");
        went_on |= String::from_utf8_lossy(&output.stderr).contains("going on behind");
        if attempt >= 8 && kills >= 4 && went_on {
            break;
        }
    }
    assert!(kills >= 4 && went_on, "{kills} kills");
    done(&args("killed").iter().map(String::as_str).collect::<Vec<_>>());
    let (whole, killed) = (contents(&folder.join("whole")), contents(&folder.join("killed")));
    assert!(whole.iter().any(|(name, _)| name == "train_000004.bin"), "several shards");
    assert_eq!(whole.iter().map(|(n, _)| n).collect::<Vec<_>>(), killed.iter().map(|(n, _)| n).collect::<Vec<_>>());
    for ((name, whole), (_, killed)) in whole.iter().zip(&killed) {
        assert!(whole == killed, "{name} differs");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_input_larger_than_the_ceiling_stays_below_it() {
    let folder = Folder::new("prepare-memory");
    // One file of 40 MB in a single document, which is cut, and one of 80 MB in many.
    std::fs::write(folder.join("a.txt"), json_lines(40 << 20).replace("\"}\n", "\n")).expect("written");
    std::fs::write(folder.join("b.jsonl"), json_lines(80 << 20)).expect("written");
    let (out, pattern) = (folder.join("out").display().to_string(), format!("{}/*.*", folder.0.display()));
    for (ceiling, max_document) in [(96u64, "4MiB"), (64, "2MiB")] {
        let memory = format!("{ceiling}MiB");
        let mut args =
            vec!["prepare", &pattern, "--out", &out, "--tokenizer", "gpt2", "--duplicates", "near", "--overwrite"];
        args.extend(["--memory", &memory, "--max-document", max_document, "--threads", "2", "--json"]);
        let json: Value = serde_json::from_str(&done(&args)).expect("JSON");
        // What the kernel says of the whole process, the program's own file included.
        let most = json["peak_memory_bytes"].as_u64().expect("Linux tells");
        println!("input 120 MiB, ceiling {ceiling} MiB, peak {} MiB", most >> 20);
        assert!(most > 10 << 20 && most <= ceiling << 20, "{most} bytes at most, {ceiling} MiB allowed");
        assert!(json["train"]["tokens"].as_u64() > Some(20_000_000), "{json}");
        assert_eq!(json["report"]["problems"]["cut"]["count"].as_u64(), Some(1), "one text, whatever its parts");
    }
}

#[test]
fn data_sets_of_the_hub_are_fetched_prepared_and_trained_on() {
    let folder = Folder::new("prepare-hub");
    let lines = json_lines(200_000);
    let gpt2 = corella_text::tokenizer::Tokenizer::gpt2();
    let tokens = gpt2.encode(&lines[..100_000]);
    corella_text::data::write_shard(&folder.join("shard.bin"), &tokens, 50_257).expect("written");
    let shard = std::fs::read(folder.join("shard.bin")).expect("read");
    let server = HubServer::start(&[
        ("README.md", b"about"),
        ("data/train.jsonl", lines.as_bytes()),
        ("tokens/fineweb_train_000001.bin", &shard),
    ]);
    let run = |args: &[&str], token: &str| {
        Command::new(CORELLA)
            .args(args)
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", folder.join("hf"))
            .env("HF_TOKEN", token)
            .env_remove("HF_HUB_CACHE")
            .output()
            .expect("the program starts")
    };
    server.state().token = Some("secret".to_owned());
    let out = |name: &str| folder.join(name).display().to_string();
    let refused = run(&["prepare", "hf://datasets/o/n", "--out", &out("x")], "wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("401") && stderr(&refused).contains("hint:"), "{}", stderr(&refused));
    // A connection that breaks half-way is taken up.
    server.state().cuts = vec![50_000];
    let json = run(&["prepare", "hf://datasets/o/n/data", "--out", &out("text"), "--json"], "secret");
    assert!(json.status.success(), "{}", stderr(&json));
    assert_eq!(server.ranges(), ["-", "bytes=50000-"]);
    let sources = std::fs::read_to_string(folder.join("text/sources.txt")).expect("sources");
    assert_eq!(sources, "\"hf://datasets/o/n/data/train.jsonl\"\n");
    let tokens_out = out("tokens");
    let args = ["prepare", "hf://datasets/o/n/tokens/*.bin", "--tokenizer", "gpt2", "--out", &tokens_out, "--json"];
    let json = run(&args, "secret");
    assert!(json.status.success(), "{}", stderr(&json));
    let info: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(info["train"]["tokens"].as_u64(), Some(tokens.len() as u64));
    // Files of tokens hold no texts to judge.
    for flag in [["--filter", "web"], ["--duplicates", "near"], ["--val-fraction", "0.1"], ["--min-bytes", "9"]] {
        let refused = run(&[&args[..], &flag, &["--overwrite"]].concat(), "secret");
        assert!(refused.status.code() == Some(2) && stderr(&refused).contains(flag[0]), "{}", stderr(&refused));
    }
    let again = run(&args, "secret");
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("holds dataset.json already") && stderr(&again).contains("--overwrite"));
    let missing = run(&["prepare", "hf://datasets/o/n/*.parquet", "--out", &out("x")], "secret");
    assert!(stderr(&missing).contains("no file matches") && missing.status.code() == Some(1));
}

#[test]
fn of_a_repository_the_files_to_train_on_are_read_and_of_several_sets_none() {
    let folder = Folder::new("prepare-splits");
    let [train, other] = [json_lines(20_000), json_lines(10_000).replace("river", "lake")];
    let server = HubServer::start(&[
        ("config.json", b"{\"text\": \"no text of the set\"}"),
        ("data/test-00000.jsonl", other.as_bytes()),
        ("data/train-00000.jsonl", train.as_bytes()),
        ("other-config/validation.jsonl", other.as_bytes()),
    ]);
    let run = |name: &str, out: &str| {
        Command::new(CORELLA)
            .args(["prepare", name, "--vocab-size", "280", "--out", &folder.join(out).display().to_string()])
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", folder.join("hf"))
            .env_remove("HF_HUB_CACHE")
            .output()
            .expect("the program starts")
    };
    let output = run("hf://datasets/o/n", "out");
    assert!(output.status.success(), "{}", stderr(&output));
    let sources = std::fs::read_to_string(folder.join("out/sources.txt")).expect("sources");
    assert_eq!(sources, "\"hf://datasets/o/n/data/train-00000.jsonl\"\n");
    let told = stderr(&output);
    assert!(told.contains("1 to validate on (other-config/validation.jsonl), 1 to test (data/test-"), "{told}");
    assert!(run("hf://datasets/o/n/**/test*", "test").status.success());
    server.state().files.push(("other-config/train.jsonl".to_owned(), train.into_bytes()));
    let refused = run("hf://datasets/o/n", "both");
    assert_eq!(refused.status.code(), Some(1));
    let told = stderr(&refused);
    assert!(
        told.contains("2 sets of files") && told.contains("hint: name one of them: hf://datasets/o/n/other"),
        "{told}"
    );
    assert!(!folder.join("both").exists());
}

#[test]
fn models_of_the_hub_are_what_their_folders_are() {
    let folder = Folder::new("model-hub");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama/model");
    let read = |name: &str| std::fs::read(model.join(name)).expect("readable");
    // The ids of BOS and EOS, and that it was tuned, stand in a file of their own.
    let text = std::fs::read_to_string(folder.text()).expect("a text");
    let trained = corella_text::tokenizer::Tokenizer::train([text.as_str()], 300, Default::default());
    let trained = trained.expect("a vocabulary").to_json();
    let named = br#"{"chat_template": "{{ messages }}"}"#;
    let files: [(&str, &[u8]); 4] = [
        ("config.json", &read("config.json")),
        ("model.safetensors", &read("model.safetensors")),
        ("tokenizer.json", trained.as_bytes()),
        ("tokenizer_config.json", named),
    ];
    let server = HubServer::start(&files);
    let inspect_with = |name: &str, variables: &[(&str, &str)]| {
        Command::new(CORELLA)
            .args(["inspect", name, "--json"])
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_HOME", folder.join("hf"))
            .env_remove("HF_HUB_CACHE")
            .envs(variables.iter().copied())
            .output()
            .expect("the program starts")
    };
    // What is no model by itself is refused before it is fetched.
    for (name, hint) in
        [("model.safetensors", "hint: name the whole: hf://o/n"), ("x.gguf", "hf://o/n has config.json, ")]
    {
        let refused = inspect_with(&format!("hf://o/n/{name}"), &[]);
        assert!(refused.status.code() == Some(1) && stderr(&refused).contains(hint), "{}", stderr(&refused));
    }
    assert!(server.ranges().is_empty());
    let inspect = inspect_with("hf://o/n", &[]);
    assert!(stderr(&inspect).contains("fetching 4 of 4"), "{}", stderr(&inspect));
    assert!(inspect.status.success(), "{}", stderr(&inspect));
    assert!(stderr(&inspect).contains("tuned to follow"), "{}", stderr(&inspect));
    let found: Value = serde_json::from_slice(&inspect.stdout).expect("JSON");
    assert_eq!(found["kind"], "instruct");
    let snapshots = folder.join("hf/hub/models--o--n/snapshots");
    let snapshot = std::fs::read_dir(snapshots).expect("a cache").flatten().next().expect("a snapshot").path();
    for (name, bytes) in files {
        assert_eq!(std::fs::read(snapshot.join(name)).expect("in the cache"), bytes, "{name}");
    }
    // A model of which a part is missing is not another model.
    std::fs::remove_file(snapshot.join("tokenizer_config.json")).expect("removed");
    let offline = [("HF_HUB_OFFLINE", "1")];
    let refused = inspect_with("hf://o/n", &offline);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("only 3 of the 4 files"), "{}", stderr(&refused));
    std::fs::remove_dir_all(folder.join("hf")).expect("removed");
    let again = inspect_with("hf://o/n", &[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]);
    assert!(again.status.success() && !stderr(&again).contains("fetching"), "{}", stderr(&again));
    let offline = inspect_with("hf://o/n", &offline);
    assert!(offline.status.success(), "{}", stderr(&offline));
    let found: Value = serde_json::from_slice(&offline.stdout).expect("JSON");
    assert_eq!(found["kind"], "instruct");
}

/// Pages as long as a record may be, and a text that fills a line of JSON: the readers hold these whole.
#[cfg(target_os = "linux")]
#[test]
fn pages_and_lines_as_long_as_allowed_stay_below_the_ceiling() {
    let folder = Folder::new("prepare-pages");
    // Up to 4 MiB a document: three pages of Latin-1 that is 15.6 MB in UTF-8.
    let page = format!("<p>{}", "caf\u{e9} ".repeat(2_600_000));
    let latin: Vec<u8> = page.chars().map(|c| c as u8).collect();
    let mut warc = Vec::new();
    for _ in 0..3 {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n";
        let length = head.len() + latin.len();
        warc.extend(format!("WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: {length}\r\n\r\n{head}").bytes());
        warc.extend(&latin);
        warc.extend(b"\r\n\r\n");
    }
    std::fs::write(folder.join("a.warc"), warc).expect("written");
    let line = json_lines(24 << 20).replace("\"}\n{\"text\": \"", "\\n");
    std::fs::write(folder.join("b.jsonl"), line).expect("written");
    let (out, pattern) = (folder.join("out").display().to_string(), format!("{}/*.*", folder.0.display()));
    let args = ["prepare", &pattern, "--out", &out, "--tokenizer", "gpt2", "--memory", "96MiB"];
    let json = done(&[&args[..], &["--max-document", "4MiB", "--threads", "2", "--json"]].concat());
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let most = json["peak_memory_bytes"].as_u64().expect("Linux tells");
    println!("peak {} MiB", most >> 20);
    assert!(most <= 96 << 20, "{most} bytes at most");
    assert_eq!(json["report"]["problems"]["cut"]["count"].as_u64(), Some(4), "{json}");
}

#[test]
fn sources_inside_the_output_are_refused_where_they_are_named_and_counted_where_they_are_found() {
    let folder = Folder::new("prepare-inside");
    let (text, out) = (folder.text().display().to_string(), folder.join("out"));
    std::fs::create_dir(&out).expect("made");
    for name in ["a.txt", "b.txt"] {
        std::fs::write(out.join(name), "a text that lies where the output goes").expect("written");
    }
    let (out, inside) = (out.display().to_string(), out.join("a.txt").display().to_string());
    let message = stderr(&corella(&["prepare", &text, &inside, "--vocab-size", "280", "--out", &out]));
    assert!(message.contains("a.txt lies in --out") && message.contains("hint:"), "{message}");
    let all = folder.0.display().to_string();
    let output = corella(&["prepare", &all, "--vocab-size", "280", "--out", &out]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("note: 2 files that lie in --out"), "{}", stderr(&output));
    let info: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("out/report.json")).expect("read")).expect("JSON");
    assert_eq!(info["read"]["documents"], 1);
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let folder = Folder::new("prepare-flags");
    let (text, out) = (folder.text().display().to_string(), folder.join("out").display().to_string());
    for (flags, words) in [
        (&["--tokenizer", "gpt2", "--vocab-size", "300"][..], "--vocab-size 300 is for a vocabulary that is trained"),
        (&["--seed", "3"], "--seed is for the tiny internet"),
        (&["--field", "body"], "--field is for JSON lines and Parquet"),
        (&["--min-bytes", "100", "--max-bytes", "10"], "at least 100 bytes (--min-bytes) and at most 10"),
        (&["--duplicates", "near", "--similarity", "0.3"], "--similarity 0.3 is not in 0.4 .. 1"),
        (&["--language", "deu,fra", "--filter", "web"], "of texts in deu, fra nothing would be left"),
    ] {
        let output = corella(&[&["prepare", &text, "--out", &out], flags].concat());
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(words) && message.contains("hint:"), "{message}");
    }
    let refused = corella(&["prepare", "tiny-internet", "--tokenizer", "gpt2", "--vocab-size", "300", "--out", &out]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!folder.join("out").exists());
    // With a source that has fields it has a meaning, and an own vocabulary has a size.
    std::fs::write(folder.join("b.jsonl"), "{\"body\": \"one two three\"}\n").expect("written");
    let lines = folder.join("b.jsonl").display().to_string();
    done(&["prepare", &text, &lines, "--field", "body", "--vocab-size", "280", "--tokenizer", "own", "--out", &out]);
}

#[test]
fn training_reads_what_prepare_reads() {
    let folder = Folder::new("train-readers");
    let lines = json_lines(60_000);
    let packed = folder.join("my.jsonl.zst");
    std::fs::write(&packed, zstd::encode_all(lines.as_bytes(), 1).expect("compressed")).expect("written");
    let small = "--n-layer 1 --n-head 1 --n-embd 16 --seq-len 16 --vocab-size 300 --steps 1 --sample-every 0 --out";
    let run = folder.join("run").display().to_string();
    let packed = packed.display().to_string();
    let mut args = vec!["train", &packed];
    args.extend(small.split(' '));
    args.push(&run);
    done(&args);
    let (prepared, source) = (folder.join("prepared").display().to_string(), format!("{}/*.zst", folder.0.display()));
    done(&["prepare", &source, "--vocab-size", "300", "--out", &prepared]);
    let second = folder.join("second").display().to_string();
    let mut args = vec!["train", "--data", &prepared];
    // The vocabulary is that of the data.
    let without = small.replace("--vocab-size 300 ", "");
    args.extend(without.split(' '));
    args.push(&second);
    done(&args);
    let strict = folder.join("bad.txt");
    std::fs::write(&strict, b"good\xff").expect("written");
    let strict =
        corella(&["prepare", &strict.display().to_string(), "--strict", "--out", &format!("{prepared}-strict")]);
    assert_eq!(strict.status.code(), Some(1));
    assert!(stderr(&strict).contains("bad UTF-8") && stderr(&strict).contains("hint:"), "{}", stderr(&strict));
}

#[test]
fn what_keeps_texts_from_being_read_is_told_with_a_way_out() {
    let folder = Folder::new("prepare-hints");
    let out = folder.join("out").display().to_string();
    let refused = |args: &[&str]| {
        let output = corella(&[args, &["--out", &out]].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        stderr(&output)
    };
    // A prepared folder can be named where training reads it, and nowhere else.
    let of_prepare = refused(&["prepare", "nope.txt"]);
    assert!(of_prepare.contains("hint: give a file") && !of_prepare.contains("written by"), "{of_prepare}");
    assert!(refused(&["train", "nope.txt"]).contains("written by `corella prepare`"));
    let record = "WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: 2\r\n\r\n{}\r\n\r\n";
    let lines = "{\"body\": \"one two three\"}\n".repeat(3);
    for (name, content) in [("a.wat", record), ("a.warc", &record[..50]), ("b.jsonl", &lines)] {
        std::fs::write(folder.join(name), content).expect("written");
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let wat = refused(&["prepare", &path("a.wat")]);
    assert!(wat.contains("take the WET or WARC") && wat.contains("of 0 documents") && wat.contains("hint:"), "{wat}");
    let clipped = refused(&["prepare", &path("a.warc")]);
    assert!(clipped.contains("warning:") && clipped.contains("hint: the warnings say"), "{clipped}");
    // Each command names the flag that it has.
    assert!(refused(&["prepare", &path("b.jsonl")]).contains("hint: --field NAME"));
    let of_train = refused(&["train", &path("b.jsonl")]);
    assert!(of_train.contains("hint: `corella prepare SOURCE --field NAME"), "{of_train}");
    let own = path("own.json");
    let of_tokenizer = corella(&["tokenizer", "train", &path("b.jsonl"), "--out", &own]);
    assert!(stderr(&of_tokenizer).contains("hint: --field NAME"), "{}", stderr(&of_tokenizer));
    done(&["tokenizer", "train", &path("b.jsonl"), "--field", "body", "--vocab-size", "260", "--out", &own]);
}

#[test]
fn a_pipe_below_a_folder_is_passed_over_and_parts_of_archives_are_counted() {
    let folder = Folder::new("prepare-pipe");
    folder.text();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().expect("it runs").success());
    let parts = Folder::new("prepare-pipe-parts");
    std::fs::write(parts.join("a.parquet"), "PAR1").expect("written");
    std::fs::write(parts.join("b.txt"), "text of an archive").expect("written");
    let mut packed = Command::new("tar");
    packed.arg("-cf").arg(folder.join("a.tar")).arg("-C").arg(&parts.0);
    assert!(packed.args(["a.parquet", "b.txt"]).status().expect("it runs").success());
    let out = folder.join("out").display().to_string();
    let output = corella(&["prepare", &folder.0.display().to_string(), "--vocab-size", "100000", "--out", &out]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("pipe is no file and is passed over"), "{told}");
    assert!(told.contains("warning: 1 sources were left out whole"), "{told}");
    let said = common::stdout(&output);
    assert!(said.contains("vocabulary of ") && said.contains("fewer than asked for"), "{said}");
}
