//! Clients that leave and wait, and servers that are told to stop.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::server::{Answer, Server, model, text};
use common::{CORELLA, Folder, end_of, signal};
use serde_json::json;

/// However few may wait, the prompts of one request are taken together.
#[test]
fn a_request_with_more_prompts_than_may_wait_is_answered() {
    let server = Server::start(&["--queue", "2"]);
    let answer = server.complete(json!({"prompt": vec!["The red"; 6], "max_tokens": 2}));
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_client_that_leaves_frees_its_pages_and_a_full_queue_says_so() {
    let server = Server::start(&["--queue", "2", "--parallel", "1"]);
    let long = json!({"prompt": "The", "max_tokens": 28, "n": 100, "stream": true, "ignore_eos": true}).to_string();
    let send = |stream: &mut TcpStream| {
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{long}", long.len());
        stream.write_all(head.as_bytes()).expect("sent");
    };
    let mut streams: Vec<TcpStream> = (0..12).map(|_| server.open()).collect();
    streams.iter_mut().for_each(send);
    // Each is answered at once: with the head of its stream, or with 429.
    let mut statuses = Vec::new();
    for stream in &mut streams {
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        statuses.push(String::from_utf8_lossy(&first[9..]).into_owned());
    }
    assert!(statuses.iter().all(|s| s == "200" || s == "429"), "{statuses:?}");
    assert!(statuses.iter().any(|s| s == "429"), "twelve requests, two places to wait");
    drop(streams);
    server.rests();
    assert!(server.metric("cancelled_total") > 0);
    server.complete(json!({"prompt": "The", "max_tokens": 3}));
}

#[test]
fn many_prompts_wait_as_one_request() {
    let server = Server::start(&["--queue", "1", "--parallel", "1"]);
    let answer = server.complete(json!({"prompt": vec!["The"; 20], "max_tokens": 2, "ignore_eos": true}));
    assert_eq!(answer["usage"]["completion_tokens"], json!(40));
    server.rests();
}

/// `shutdown(SHUT_WR)` behind a request says that no other follows. What is there at once is answered; work is given up, as for
/// clients that have left: nobody can tell these from those.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_only_closes_its_side_is_answered_with_what_is_there_at_once() {
    let server = Server::start(&[]);
    for _ in 0..50 {
        let mut stream = server.open();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("closed");
        assert_eq!(Answer::read(stream).status, 200);
    }
    for streamed in [true, false] {
        let body =
            json!({"prompt": "The", "max_tokens": 250, "n": 128, "ignore_eos": true, "stream": streamed}).to_string();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut stream = server.open();
        stream.write_all(head.as_bytes()).expect("sent");
        while server.metric("running") == 0 {}
        stream.shutdown(std::net::Shutdown::Write).expect("closed");
        server.rests();
    }
    assert_eq!(server.metric("cancelled_total"), 2);
}

/// What it sent behind its request is not read before the answer is written.
#[cfg(target_os = "linux")]
#[test]
fn a_client_that_leaves_is_noticed_behind_bytes_that_nobody_has_read() {
    let server = Server::start(&[]);
    let body = json!({"prompt": "The", "max_tokens": 250, "n": 128, "best_of": 128, "ignore_eos": true}).to_string();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for (number, behind) in ["\r\n", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"].iter().enumerate() {
        let mut stream = server.open();
        stream.write_all(format!("{head}{behind}").as_bytes()).expect("sent");
        while server.metric("running") == 0 {}
        drop(stream);
        server.rests();
        assert_eq!(server.metric("cancelled_total"), number as u64 + 1, "{behind:?}");
    }
}

/// `cargo run --release -p corella-server --example load` is the long form.
#[test]
fn hundreds_of_streams_with_random_disconnects_end_with_all_pages_free() {
    let server = Server::start(&["--queue", "128", "--parallel", "16"]);
    let body = json!({"prompt": "The red fox", "max_tokens": 12, "seed": 9, "stream": true}).to_string();
    let expected = server.complete(json!({"prompt": "The red fox", "max_tokens": 12, "seed": 9}));
    let expected = text(&expected).to_owned();
    let one = |worker: u64| {
        let mut stream = server.open();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        if worker.is_multiple_of(3) {
            let mut some = vec![0; (worker as usize * 37) % 900];
            let _ = stream.read(&mut some);
            return None;
        }
        let answer = Answer::read(stream);
        if answer.status == 200 {
            let events = answer.events();
            let joined: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
            assert_eq!(joined, expected);
        }
        Some(answer.status)
    };
    let wave = |round: u64| -> Vec<u16> {
        std::thread::scope(|scope| {
            let one = &one;
            let workers: Vec<_> = (0..200).map(|i| scope.spawn(move || one(round * 200 + i))).collect();
            workers.into_iter().filter_map(|w| w.join().expect("a worker")).collect()
        })
    };
    let mut statuses = wave(0);
    server.rests();
    let early = server.resident_bytes();
    for round in 1..4 {
        statuses.extend(wave(round));
    }
    server.rests();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|s| **s == 200).count() > 100, "{statuses:?}");
    if let (Some(early), Some(late)) = (early, server.resident_bytes()) {
        assert!(late < early + (48 << 20), "memory: {early} bytes after the first wave, {late} after the last");
    }
}

#[test]
fn a_server_told_to_stop_finishes_what_is_under_way() {
    let mut server = Server::start(&["--drain-seconds", "120"]);
    let body = json!({"prompt": "The", "max_tokens": 28, "n": 20, "stream": true, "ignore_eos": true}).to_string();
    let mut stream = server.open();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 64];
    stream.read_exact(&mut first).expect("it has begun");
    signal(&server.child, "TERM");
    let mut rest = String::new();
    BufReader::new(stream).read_to_string(&mut rest).expect("it ends");
    assert!(rest.contains("data: [DONE]"), "{rest}");
    let status = server.child.wait().expect("ended");
    assert!(status.success(), "{status}");
}

/// Nothing is waited for: whoever is cut off is told, and whoever stopped the server how many there were.
#[test]
fn what_is_cut_off_at_the_end_is_told_so_and_every_request_has_a_line() {
    let flags = ["--port", "0", "--json", "--threads", "1", "--drain-seconds", "0", "--log-requests"];
    let mut child = Command::new(CORELLA)
        .args(["serve", model()])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut first).expect("a line");
    let address = common::json(&first)["address"].as_str().expect("an address").to_owned();
    let mut server = Server { child, address };
    server.ready(60);
    let ask = |stream: bool| {
        let body =
            json!({"prompt": "The", "max_tokens": 200, "n": 128, "stream": stream, "ignore_eos": true}).to_string();
        let head =
            format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut stream = server.open();
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    };
    let mut streamed = ask(true);
    streamed.read_exact(&mut [0; 9]).expect("it has begun");
    let whole = ask(false);
    while server.metric("http_active") < 3 {
        std::thread::yield_now();
    }
    signal(&server.child, "TERM");
    let mut rest = String::new();
    BufReader::new(streamed).read_to_string(&mut rest).expect("it ends");
    let last = rest.lines().rfind(|line| line.starts_with("data: ")).expect("an event");
    assert!(last.contains("\"shutting_down\""), "{last}");
    let whole = Answer::read(whole);
    assert_eq!((whole.status, &whole.error()["code"]), (503, &json!("shutting_down")), "{}", whole.body);
    let mut told = String::new();
    server.child.stderr.take().expect("stderr").read_to_string(&mut told).expect("text");
    assert!(told.contains("2 requests were cut off"), "{told}");
    for line in ["127.0.0.1 GET /health 200 ", "127.0.0.1 POST /v1/completions 503 "] {
        assert!(told.lines().any(|found| found.starts_with(line)), "{line}: {told}");
    }
    assert!(server.child.wait().expect("ended").success());
}

/// More than the system keeps for a connection: the server is still writing when it is told to stop.
#[test]
fn a_server_told_to_stop_writes_a_long_answer_to_its_end() {
    let mut server = Server::start(&["--drain-seconds", "120"]);
    let body = json!({"content": "The quick fox. ".repeat(100_000), "with_pieces": true}).to_string();
    let head = format!("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = server.open();
    stream.write_all(head.as_bytes()).expect("sent");
    let mut bytes = vec![0; 512];
    stream.read_exact(&mut bytes).expect("it has begun");
    signal(&server.child, "TERM");
    std::thread::sleep(Duration::from_secs(1));
    stream.read_to_end(&mut bytes).expect("it ends");
    let text = String::from_utf8(bytes).expect("text");
    let (head, sent) = text.split_once("\r\n\r\n").expect("a head");
    assert!(sent.len() > 10 << 20 && head.contains(&format!("content-length: {}", sent.len())), "{head}");
    assert!(server.child.wait().expect("ended").success());
}

#[test]
fn a_server_told_to_stop_while_it_loads_does_not_wait_for_the_model() {
    // A pipe that nobody writes to: loading never ends.
    let folder = Folder::new("serve-loads");
    std::fs::write(folder.join("run.toml"), "").expect("written");
    let pipe = folder.join("config.json").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it starts").success());
    let (mut server, lines) = Server::beside(&["serve", &folder.0.display().to_string(), "--port", "0", "--json"]);
    assert_eq!(server.get("/health").status, 503);
    signal(&server.child, "TERM");
    let status = end_of(&mut server.child, "it waits for the model");
    assert!(status.success(), "{status}");
    assert_eq!(lines.count(), 0, "it is not ready");
}
