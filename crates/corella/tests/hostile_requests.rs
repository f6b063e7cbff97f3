//! Requests that broke other servers, one test for each (advisories and issues of vLLM, llama.cpp, ollama, tiktoken), over a
//! real socket. Each ends with a proper answer to a proper request. Slow bodies and loading are tested in `corella-server`,
//! where time can be stopped.
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::models::{changed_llama, fixture, json_file};
use common::server::{Server, model, text};
use common::{Folder, corella, json, stderr};
use serde_json::{Value, json};

const PROMPT: &str = "The red fox";

impl Server {
    /// Each body is refused with 400, the parameter, and a sentence; then a proper request is answered.
    fn refuses(&self, cases: &[(Value, &str)]) {
        for (body, param) in cases {
            let answer = self.post("/v1/completions", body);
            let shown: String = body.to_string().chars().take(200).collect();
            assert_eq!(answer.status, 400, "{shown}: {}", answer.body);
            let error = answer.error();
            assert_eq!(error["param"], json!(param), "{shown}: {error}");
            assert!(error["type"].is_string() && error["code"].is_string(), "{error}");
            assert!(error["message"].as_str().is_some_and(|m| !m.is_empty() && m.len() < 300), "{error}");
        }
        self.still_answers();
    }

    fn still_answers(&self) {
        let answer = self.complete(json!({"prompt": PROMPT, "max_tokens": 3, "ignore_eos": true}));
        assert_eq!(answer["usage"]["completion_tokens"], json!(3));
        self.rests();
    }
}

/// The largest resident set so far, in bytes.
#[cfg(target_os = "linux")]
fn most_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

#[test]
fn s01_a_million_samples_are_refused_before_memory_is_taken() {
    let server = Server::start(&[]);
    server.still_answers();
    #[cfg(target_os = "linux")]
    let before = most_memory(&server);
    server.refuses(&[
        (json!({"n": 1_000_000}), "n"),
        (json!({"n": 4_294_967_296u64}), "n"),
        (json!({"n": 1e300}), "n"),
        (json!({"prompt": vec![PROMPT; 100_000]}), "prompt"),
    ]);
    #[cfg(target_os = "linux")]
    assert!(most_memory(&server) < before + (64 << 20), "{} bytes, then {}", before, most_memory(&server));
}

#[test]
fn s01_alternatives_of_many_tokens_are_refused_before_memory_is_taken() {
    let server = Server::start(&[]);
    server.still_answers();
    #[cfg(target_os = "linux")]
    let before = most_memory(&server);
    let prompts = vec![vec![5; 250]; 40];
    server.refuses(&[
        (json!({"prompt": prompts, "prompt_logprobs": 100, "max_tokens": 0}), "prompt_logprobs"),
        (json!({"prompt": PROMPT, "n_probs": 100, "n": 128, "max_tokens": 200}), "n_probs"),
        (json!({"prompt": PROMPT, "n_probs": 100, "best_of": 128, "max_tokens": 200, "stream": true}), "n_probs"),
        (json!({"prompt": vec![5; 250], "echo": true, "n": 128, "logprobs": 100, "max_tokens": 1}), "logprobs"),
    ]);
    #[cfg(target_os = "linux")]
    assert!(most_memory(&server) < before + (64 << 20), "{} bytes, then {}", before, most_memory(&server));
    // Half a million tokens and alternatives are the most: 20 prompts of 250 tokens with 100 each are 505,000.
    let most = server.complete(json!({"prompt": prompts[..20], "prompt_logprobs": 100, "max_tokens": 0}));
    let last = &most["choices"][19]["prompt_logprobs"];
    assert_eq!(last.as_array().map(Vec::len), Some(250));
    let alternatives = last[249].as_object().expect("a map from ids").len();
    assert!(alternatives == 100 || alternatives == 101, "{alternatives}");
    #[cfg(target_os = "linux")]
    assert!(most_memory(&server) < before + (400 << 20), "{} bytes, then {}", before, most_memory(&server));
}

/// A model with as many tokens as its tokenizer, 61: fewer than the alternatives that a request may otherwise ask for.
fn few_tokens(folder: &Folder) -> String {
    let model = folder.join("few");
    let path = changed_llama(&model, |_| (), |_, weight| weight);
    let mut tokenizer = json_file(fixture("eval/llama/tokenizer.json").as_ref());
    tokenizer["model"]["merges"] = json!([]);
    tokenizer["model"]["vocab"].as_object_mut().expect("a map to ids").retain(|_, id| id.as_u64() < Some(61));
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    path
}

#[test]
fn s01_more_alternatives_than_there_are_tokens_are_refused_by_their_name() {
    let folder = Folder::new("few-tokens");
    let server = Server::of(&few_tokens(&folder), &[]);
    server.refuses(&[
        (json!({"prompt_logprobs": 62}), "prompt_logprobs"),
        (json!({"logprobs": 62}), "logprobs"),
        (json!({"n_probs": 62}), "n_probs"),
    ]);
    server.complete(json!({"prompt": PROMPT, "prompt_logprobs": 61, "logprobs": 61, "n_probs": 61, "max_tokens": 2}));
}

/// Texts of megabytes take the processor for long; whoever asks for little is answered first.
#[test]
fn s07_large_requests_keep_nobody_waiting() {
    let server = Server::start(&[]);
    let body = json!({"content": "the red cat sat on a mat ".repeat(600_000), "with_pieces": true}).to_string();
    let head = format!("POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut large: Vec<_> = (0..4).map(|_| server.open()).collect();
    for stream in &mut large {
        stream.write_all(head.as_bytes()).expect("sent");
    }
    // All of them have arrived: this request is the fifth.
    while server.metric("http_active") < 5 {}
    server.still_answers();
    let unanswered = |stream: &std::net::TcpStream| {
        stream.set_nonblocking(true).expect("set");
        stream.peek(&mut [0; 1]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(large.iter().all(unanswered), "a small one waited for a large one");
    // A text that cannot fit is refused without being tokenised.
    let answer = server.post("/v1/completions", &json!({"prompt": "the cat sat on a mat ".repeat(600_000)}));
    let message = answer.error()["message"].as_str().expect("a sentence").to_owned();
    assert!(answer.status == 400 && message.contains("at least") && message.contains("256"), "{message}");
}

#[test]
fn s02_best_of_has_limits_and_is_not_below_n() {
    let server = Server::start(&[]);
    server.refuses(&[
        (json!({"best_of": 100_000}), "best_of"),
        (json!({"best_of": 0}), "best_of"),
        (json!({"n": 3, "best_of": 2}), "best_of"),
    ]);
}

#[test]
fn s03_an_empty_prompt_is_the_token_that_marks_the_start() {
    let server = Server::start(&[]);
    let start = json(&server.post("/tokenize", &json!({"content": "", "add_special": true})).body)["tokens"].clone();
    assert_eq!(start.as_array().map(Vec::len), Some(1));
    let expected = server.complete(json!({"prompt": start, "max_tokens": 4, "seed": 1}));
    for body in
        [json!({}), json!({"prompt": ""}), json!({"prompt": []}), json!({"prompt": null}), json!({"prompt": [""]})]
    {
        let mut body = body;
        body["max_tokens"] = json!(4);
        body["seed"] = json!(1);
        let answer = server.complete(body);
        assert_eq!((text(&answer), &answer["usage"]["prompt_tokens"]), (text(&expected), &json!(1)));
    }
    server.refuses(&[
        (json!({"prompt": "", "add_special_tokens": false}), "prompt"),
        (json!({"prompt": [], "add_special_tokens": false}), "prompt"),
    ]);
}

#[test]
fn s04_scores_of_a_prompt_are_the_same_with_and_without_a_cached_prefix() {
    let shared = "The old fox number 7 saw 9 geese.\n".repeat(8);
    let ask = |server: &Server, end: &str| {
        let body = json!({"prompt": format!("{shared}{end}"), "echo": true, "logprobs": 3, "max_tokens": 2, "seed": 4});
        server.complete(body)
    };
    let cold = |end: &str| ask(&Server::start(&[]), end)["choices"].clone();
    let server = Server::start(&[]);
    for end in ["The red", "The quick fox", "The red"] {
        let answer = ask(&server, end);
        assert_eq!(answer["choices"], cold(end), "{end}");
    }
    let cached = ask(&server, "The old")["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert!(cached.as_u64() > Some(0), "the cache stays on");
}

#[test]
fn s05_counts_are_never_negative() {
    let server = Server::start(&[]);
    let fields = ["max_tokens", "n_predict", "min_tokens", "n", "best_of", "logprobs", "n_probs", "prompt_logprobs"];
    let cases: Vec<(Value, &str)> = fields.iter().map(|f| (json!({ *f: -1 }), *f)).collect();
    server.refuses(&cases);
    server.refuses(&[(json!({"top_k": -7}), "top_k"), (json!({"stop_token_ids": [-1]}), "stop_token_ids")]);
    // llama.cpp's field of that advisory: unknown here, and said so.
    server.refuses(&[(json!({"n_discard": -1}), "n_discard")]);
}

#[test]
fn s06_a_prompt_beyond_the_context_is_refused_with_both_numbers() {
    let server = Server::start(&[]);
    let answer = server.post("/v1/completions", &json!({"prompt": vec![5; 100_000]}));
    assert_eq!((answer.status, answer.error()["param"].clone()), (400, json!("prompt")));
    let message = answer.error()["message"].as_str().expect("a sentence").to_owned();
    assert!(message.contains("100000") && message.contains("maximum context length is 256"), "{message}");
    assert_eq!(answer.error()["code"], "context_length_exceeded");
    // A text of which that is known before its tokens are, and a chat, whose prompt has another name.
    let long = "fox ".repeat(100_000);
    for (path, body, param) in [
        ("/v1/completions", json!({"prompt": long}), "prompt"),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": long}]}), "messages"),
    ] {
        let error = server.post(path, &body).error();
        assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!(param)), "{path}");
    }
    // Three gigabytes are announced and refused before any of it is read.
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000000\r\n\r\n";
    assert_eq!(server.raw(head.as_bytes()).status, 413);
    server.still_answers();
}

#[test]
fn s07_heads_bodies_and_lists_have_limits() {
    let server = Server::start(&[]);
    assert_eq!(server.with("/health", &format!("x-long: {}\r\n", "y".repeat(200_000))).status, 431);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n";
    assert_eq!(server.raw(head.as_bytes()).status, 413);
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let chunked = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    assert_eq!(server.raw((chunked + &chunk.repeat(17)).as_bytes()).status, 413);
    let stops: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    let biases: serde_json::Map<String, Value> = (0..1_000_000).map(|i| (i.to_string(), json!(1))).collect();
    server.refuses(&[
        (json!({"stop": stops}), "stop"),
        (json!({"stop": ["x".repeat(1 << 20)]}), "stop"),
        (json!({"logit_bias": biases}), "logit_bias"),
        (json!({"logprobs": 5000}), "logprobs"),
        (json!({"n_probs": 300}), "n_probs"),
    ]);
}

#[test]
fn s07_a_head_that_does_not_arrive_ends_its_connection_and_no_other() {
    let server = Server::start(&[]);
    let begun = Instant::now();
    let mut slow = server.open();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: local").expect("sent");
    server.still_answers();
    let mut answer = String::new();
    // The server ends it after ten seconds; the test's own limit is a minute.
    let ended = slow.read_to_string(&mut answer);
    assert!(begun.elapsed() < Duration::from_secs(59), "{ended:?}");
    assert!(!answer.contains("200"), "{answer}");
    server.still_answers();
}

#[test]
fn s08_patterns_and_grammars_are_not_offered() {
    let server = Server::start(&[]);
    let fields = ["grammar", "json_schema", "guided_regex", "guided_json", "response_format", "structured_outputs"];
    let cases: Vec<(Value, &str)> = fields.iter().map(|f| (json!({ *f: "((a+)+)+$" }), *f)).collect();
    server.refuses(&cases);
}

#[test]
fn s09_numbers_out_of_range_are_refused_and_extreme_seeds_work() {
    let server = Server::start(&[]);
    let vocabulary = json(&server.get("/v1/models").body)["data"][0]["vocabulary"].as_u64().expect("a size");
    server.refuses(&[
        (json!({"prompt": [vocabulary]}), "prompt"),
        (json!({"prompt": [99_999_999]}), "prompt"),
        (json!({"prompt": [u64::MAX]}), "prompt"),
        (json!({"prompt": [-1]}), "prompt"),
        (json!({"prompt": [1.5]}), "prompt"),
        (json!({"stop_token_ids": [vocabulary]}), "stop_token_ids"),
        (json!({"stream_options": {"continuous_usage_stats": true}}), "stream_options"),
        (json!({"logit_bias": {vocabulary.to_string(): 1}}), "logit_bias"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.01}), "top_p"),
        (json!({"min_p": -0.1}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"presence_penalty": 1e39}), "presence_penalty"),
        (json!({"min_tokens": 9, "max_tokens": 3}), "min_tokens"),
    ]);
    for number in ["NaN", "Infinity", "-Infinity", "1e999", "0x10", "1_000"] {
        let body = format!("{{\"temperature\": {number}}}");
        assert_eq!(server.post_bytes("/v1/completions", "", body.as_bytes()).status, 400, "{number}");
    }
    for seed in [json!(u64::MAX), json!(i64::MIN), json!(0)] {
        server.complete(json!({"prompt": PROMPT, "max_tokens": 2, "seed": seed}));
    }
    let cut = server.complete(json!({"prompt": PROMPT, "max_tokens": u32::MAX, "ignore_eos": true}));
    assert!(cut["corella"]["max_tokens"].as_u64() < Some(256), "the answer says what was left: {}", cut["corella"]);
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[test]
fn s10_a_client_that_leaves_frees_its_pages_and_its_text_stays_with_it() {
    let server = Server::start(&[]);
    let body = json!({"prompt": PROMPT, "max_tokens": 200, "n": 128, "stream": true, "ignore_eos": true}).to_string();
    let mut stream = server.open();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 600];
    stream.read_exact(&mut first).expect("it has begun");
    assert!(String::from_utf8_lossy(&first).contains("\"text\":"), "text comes before the end");
    drop(stream);
    server.rests();
    assert_eq!(server.metric("cancelled_total"), 1);
    server.still_answers();
}

#[test]
fn s11_keys_are_compared_whole() {
    let server = Server::start(&["--api-key", "a-long-secret"]);
    let status = |key: &str| server.with("/v1/models", &format!("authorization: Bearer {key}\r\n")).status;
    for wrong in ["", "a", "a-long-secre", "a-long-secret2", "b-long-secret", "A-LONG-SECRET"] {
        assert_eq!(status(wrong), 401, "{wrong:?}");
    }
    assert_eq!(status("a-long-secret"), 200);
}

#[test]
fn s12_cached_prompts_are_shared_within_a_key_only() {
    let server = Server::start(&["--api-key", "mine", "--api-key", "yours"]);
    let prompt = "The old fox number 7 saw 9 geese. ".repeat(8);
    let cached = |key: &str, salt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 1, "cache_salt": salt}).to_string();
        let answer = server.post_bytes("/v1/completions", &format!("authorization: Bearer {key}\r\n"), body.as_bytes());
        json(&answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached("mine", Value::Null), 0);
    assert!(cached("mine", Value::Null) > 0);
    assert_eq!(cached("yours", Value::Null), 0, "what others asked is not found");
    assert_eq!(cached("mine", json!("private")), 0, "nor what was asked without the salt");
    assert!(cached("mine", json!("private")) > 0);
}

#[test]
fn s13_only_this_machine_and_listed_names_and_origins_are_answered() {
    let output = corella(&["serve", model(), "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--api-key"), "{}", stderr(&output));
    let server = Server::start(&["--cors-origin", "https://a.example"]);
    assert!(server.address.starts_with("127.0.0.1:"));
    let origin = |origin: &str| server.with("/health", &format!("origin: {origin}\r\n")).head;
    assert!(origin("https://a.example").contains("access-control-allow-origin: https://a.example"));
    for foreign in ["https://b.example", "null", "https://a.example.evil.example", "HTTPS://A.EXAMPLE"] {
        assert!(!origin(foreign).contains("access-control-allow-origin"), "{foreign}");
    }
    assert!(!origin("https://a.example").contains("allow-credentials"));
    let work = |origin: &str| {
        server.post_bytes("/tokenize", &format!("origin: {origin}\r\n"), br#"{"content": "The"}"#).status
    };
    assert_eq!((work("https://a.example"), work("http://localhost")), (200, 200));
    assert_eq!((work("https://b.example"), work("null"), work("http://localhost:81")), (403, 403, 403));
    let host = |host: &str| {
        let request = format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        server.raw(request.as_bytes()).status
    };
    let nameless = server.raw(b"GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(nameless.status, 403);
    assert!(nameless.error()["message"].as_str().is_some_and(|m| m.contains("no `Host` header")), "{}", nameless.body);
    assert_eq!((host("localhost"), host("127.0.0.1:80"), host("evil.example"), host("")), (200, 200, 403, 403));
}

#[test]
fn s14_long_runs_and_broken_text_take_linear_time() {
    let server = Server::start(&[]);
    for letter in ["a", " ", "\n", "é", "🦓", "ab", "'s "] {
        let prompt = letter.repeat(1_000_000 / letter.len());
        assert_eq!(server.post("/v1/completions", &json!({"prompt": prompt})).status, 400, "{letter:?}");
    }
    let broken: [&[u8]; 7] = [
        b"{\"prompt\": \"\xff\xfe\"}",
        b"{\"prompt\": \"\xc0\xaf\"}",
        b"{\"prompt\": \"\xed\xa0\x80\"}",
        b"{\"prompt\": \"\xf4\x90\x80\x80\"}",
        b"{\"prompt\": \"\\ud800\"}",
        b"{\"prompt\": \"\\udc00\\ud800\"}",
        b"{\"prompt\": \"a",
    ];
    for body in broken {
        assert_eq!(server.post_bytes("/v1/completions", "", body).status, 400, "{body:?}");
    }
    let deep = format!("{{\"prompt\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(server.post_bytes("/v1/completions", "", deep.as_bytes()).status, 400);
    let mut stream = server.open();
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP at all\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    server.still_answers();
}

#[test]
fn s15_embeddings_as_a_prompt_are_not_offered() {
    let server = Server::start(&[]);
    server.refuses(&[(json!({"prompt_embeds": "AAAA"}), "prompt_embeds")]);
}
