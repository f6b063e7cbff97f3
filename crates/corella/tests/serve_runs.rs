//! Runs behind a server, and models that cannot be loaded.
#![cfg(unix)]

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::server::Server;
use common::{CORELLA, Folder, done, end_of, json, signal, tiny_run};
use serde_json::json;

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_with_the_reason() {
    let folder = Folder::new("serve-bad");
    let path = folder.join("bad.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0garbage").expect("written");
    let mut child = Command::new(CORELLA)
        .args(["serve", &path.display().to_string(), "--port", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let status = end_of(&mut child, "it goes on without a model");
    let mut error = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut error).expect("text");
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(error.contains("bad.gguf"), "{error}");
}

#[test]
fn a_run_whose_model_cannot_be_loaded_is_shown_by_a_server_that_says_why() {
    let folder = Folder::new("serve-no-model");
    std::fs::write(folder.join("run.toml"), "").expect("written");
    let (server, _) = Server::beside(&["serve", &folder.0.display().to_string(), "--port", "0", "--json"]);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = server.get("/health");
        assert_eq!(answer.status, 503);
        if answer.error()["message"].as_str().is_some_and(|m| m.contains("could not be loaded")) {
            break;
        }
        assert!(Instant::now() < end, "{}", answer.body);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.get("/run.html").status, 200);
}

#[test]
fn a_run_in_progress_is_shown_live_and_ends_when_it_is_told_to() {
    let folder = Folder::new("live");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let mut args = tiny_run(&data, &run, "100000000");
    args.extend(["--sample-every", "50", "--serve=127.0.0.1:0", "--json"]);
    let (mut server, lines) = Server::beside(&args);
    let reader = std::thread::spawn(move || lines.last());
    let end = Instant::now() + Duration::from_secs(120);
    let seen = loop {
        let seen = json(&server.get("/corella/run").body);
        let rows = |name: &str| seen[name].as_array().map_or(0, Vec::len);
        if rows("log") > 60 && rows("samples") > 1 {
            break seen;
        }
        assert!(Instant::now() < end, "{seen}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(seen["plan"].as_str().is_some_and(|plan| plan.contains("steps = 100000000")), "{}", seen["plan"]);
    assert_eq!(seen["heartbeat"]["steps"], 100_000_000, "{}", seen["heartbeat"]);
    assert!(seen["silent"].as_f64().is_some_and(|seconds| seconds < 60.0), "{}", seen["silent"]);
    let health = server.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.error()["message"].as_str().is_some_and(|m| m.contains("training, update ")), "{}", health.body);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "The"})).status, 503);
    assert_eq!(server.get("/corella/anatomy").status, 503, "there is no model yet");
    assert!(server.get("/").body.contains("Corella") && server.get("/run.html").body.contains("Loss"));
    let since = seen["log"].as_array().and_then(|log| log.last()).expect("a row")["step"].clone();
    let news = json(&server.get(&format!("/corella/run?since={since}")).body);
    assert!(news["log"].as_array().expect("rows").iter().all(|row| row["step"].as_u64() > since.as_u64()));
    signal(&server.child, "TERM");
    assert_eq!(server.child.wait().expect("ended").code(), Some(common::STOPPED));
    let last = reader.join().expect("a reader").expect("a line").expect("text");
    assert_eq!(json(&last)["state"], "stopped");
}

/// What a server of a run knows of its data: how much they are, and, from when they are indexed, where a text stands in them.
#[test]
fn a_server_finds_the_index_that_is_made_while_it_runs() {
    let folder = Folder::new("indexed-late");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    done(&tiny_run(&data, &run, "3"));
    let (server, _) = Server::beside(&["serve", &run, "--port", "0", "--json"]);
    server.ready(60);
    let info = json(&std::fs::read_to_string(folder.join("data/dataset.json")).expect("read").replace('\n', " "));
    let anatomy = json(&server.get("/corella/anatomy").body);
    assert_eq!(anatomy["corpus"]["bytes"], info["train"]["bytes"], "{}", anatomy["corpus"]);
    let ask = || server.traced("The old fox number 7 saw 9 geese.");
    let before = ask();
    assert!(before["spans"].is_null(), "{before}");
    let hint = before["hint"].as_str().expect("a hint");
    assert!(hint.contains(&format!("corella trace index {run}")), "{hint}");
    done(&["trace", "index", &run]);
    let after = ask();
    assert!(after["spans"].as_array().is_some_and(|spans| !spans.is_empty()), "{after}");
    // One of other data is no answer, and says so.
    std::fs::write(folder.join("run/trace.index"), [0; 64]).expect("written");
    let broken = ask();
    assert!(broken["hint"].as_str().is_some_and(|hint| hint.contains("cannot be used")), "{broken}");
}

/// A pipe in place of the text is read for as long as nobody writes into it.
#[test]
#[cfg(unix)]
fn a_server_is_ready_and_ends_while_the_training_data_are_being_read() {
    let folder = Folder::new("read-behind");
    let (text, run) = (folder.text(), folder.join("run").display().to_string());
    done(&common::small_run(&text.display().to_string(), &run, "1"));
    done(&["trace", "index", &run]);
    std::fs::remove_file(&text).expect("removed");
    assert!(Command::new("mkfifo").arg(&text).status().expect("it runs").success());
    let (mut server, _) = Server::beside(&["serve", &run, "--port", "0", "--json"]);
    server.ready(60);
    let answer = server.complete(json!({"prompt": "The", "max_tokens": 4, "ignore_eos": true}));
    assert_eq!(answer["usage"]["completion_tokens"], json!(4));
    let found = json(&server.post("/corella/trace", &json!({"text": "The old fox"})).body);
    assert!(found["hint"].as_str().is_some_and(|hint| hint.contains("being read")), "{found}");
    signal(&server.child, "TERM");
    assert!(server.child.wait().expect("ended").success());
}

#[test]
fn a_run_that_ends_is_served_in_the_playground() {
    let folder = Folder::new("served");
    let (data, run) = (folder.data().display().to_string(), folder.join("run").display().to_string());
    let mut args = tiny_run(&data, &run, "5");
    args.extend(["--serve=127.0.0.1:0", "--json"]);
    let (mut server, lines) = Server::beside(&args);
    let reader = std::thread::spawn(move || lines.count());
    server.ready(60);
    let answer = server.complete(json!({"prompt": "The", "max_tokens": 4, "ignore_eos": true}));
    assert_eq!(answer["usage"]["completion_tokens"], json!(4));
    signal(&server.child, "TERM");
    assert!(server.child.wait().expect("ended").success());
    reader.join().expect("a reader");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("--serve={}", busy.local_addr().expect("an address"));
    let again = folder.join("again").display().to_string();
    let mut args = tiny_run(&data, &again, "5");
    args.push(&address);
    let output = common::corella(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(common::stderr(&output).contains("cannot listen"), "{}", common::stderr(&output));
}

/// The data are not there: the address is looked at first.
#[test]
fn the_address_of_a_run_is_checked_before_its_data_and_the_way_out_is_one_that_there_is() {
    let train = |serve: &str| {
        let folder = Folder::new("address");
        let (data, out) = (folder.join("none.txt").display().to_string(), folder.join("run").display().to_string());
        let args = ["train", &data, "--out", &out, serve];
        let output = Command::new(CORELLA).args(args).env_remove("CORELLA_API_KEY").output().expect("it runs");
        (output.status.code(), common::stderr(&output))
    };
    let (code, error) = train("--serve=0.0.0.0:0");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("CORELLA_API_KEY") && !error.contains("--api-key"), "{error}");
    assert!(!error.contains("--allow-exposed"), "{error}");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (code, error) = train(&format!("--serve={}", busy.local_addr().expect("an address")));
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("cannot listen") && error.contains("--serve="), "{error}");
}
