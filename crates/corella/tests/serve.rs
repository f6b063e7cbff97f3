//! The server over a real socket: what clients send, rightly and wrongly, and what comes back.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{CORELLA, Folder, done, json, signal, small_run};
use serde_json::{Value, json};

/// A model that was trained for a moment; all tests serve the same one.
fn model() -> &'static str {
    static MODEL: OnceLock<(Folder, String)> = OnceLock::new();
    &MODEL
        .get_or_init(|| {
            let folder = Folder::new("serve");
            let text = folder.text().display().to_string();
            let run = folder.join("run").display().to_string();
            let mut args = small_run(&text, &run, "30");
            args.extend(["--seq-len", "256", "--micro-batch", "1"]);
            done(&args);
            (folder, run)
        })
        .1
}

/// A running server; it goes with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(flags: &[&str]) -> Server {
        let mut child = Command::new(CORELLA)
            .args(["serve", model(), "--port", "0", "--json", "--threads", "1"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let address = json(&line)["address"].as_str().expect("an address").to_owned();
        let server = Server { child, address };
        let end = Instant::now() + Duration::from_secs(60);
        while server.get("/health").status != 200 {
            assert!(Instant::now() < end, "the model did not load");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.open();
        // The server may answer and close before everything is sent.
        let _ = stream.write_all(bytes);
        Answer::read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.with(path, "")
    }

    fn with(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").as_bytes())
    }

    fn post_bytes(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, "", body.to_string().as_bytes())
    }

    fn complete(&self, body: Value) -> Value {
        let answer = self.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        json(&answer.body)
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("corella_{name} ")))
            .unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Waits until nothing is under way and no page is held.
    fn rests(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.metric("running") + self.metric("waiting") + self.metric("queued") + self.metric("pages_held") > 0 {
            assert!(Instant::now() < end, "something is still under way");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = head.to_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Answer { status, head, body }
    }

    fn error(&self) -> Value {
        json(&self.body)["error"].clone()
    }

    /// The documents of a stream, the last marker left out.
    fn events(&self) -> Vec<Value> {
        let data: Vec<&str> = self.body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"), "{}", self.body);
        data[..data.len() - 1].iter().map(|d| json(d)).collect()
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 || more.len() < size {
            break;
        }
        whole.push_str(&more[..size]);
        rest = more[size..].trim_start_matches("\r\n");
    }
    whole
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("text")
}

#[test]
fn a_completion_is_what_generate_writes_and_a_stream_is_the_same_text() {
    let server = Server::start(&[]);
    let body = json!({"prompt": "The red fox", "max_tokens": 20, "seed": 5, "temperature": 0.8});
    let whole = server.complete(body.clone());
    let args = [
        "generate",
        model(),
        "-p",
        "The red fox",
        "--max-tokens",
        "20",
        "--temperature",
        "0.8",
        "--seed",
        "5",
        "--json",
    ];
    let same = json(&done(&args));
    assert_eq!(text(&whole), same["choices"][0]["text"].as_str().expect("text"));
    assert_eq!(whole["usage"]["completion_tokens"], json!(20));
    assert_eq!(whole["corella"]["seed"], json!(5));

    let mut streamed = body;
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let answer = server.post("/v1/completions", &streamed);
    assert!(answer.head.contains("text/event-stream"), "{}", answer.head);
    let events = answer.events();
    let joined: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, text(&whole));
    assert_eq!(events.last().expect("an event")["usage"], whole["usage"]);
    let finish = events.iter().filter(|e| !e["choices"][0]["finish_reason"].is_null()).count();
    assert_eq!(finish, 1);
}

#[test]
fn echo_scores_the_prompt_also_from_the_cache_and_without_new_tokens() {
    let server = Server::start(&[]);
    let prompt = "The old fox number 7 saw 9 geese. ".repeat(8);
    let ids = json(&server.post("/tokenize", &json!({"content": prompt, "add_special": true})).body)["tokens"].clone();
    let n = ids.as_array().expect("ids").len();
    assert!(n > 64, "the prompt was to fill pages of the cache, and has {n} tokens");
    let body = json!({"prompt": ids, "echo": true, "logprobs": 2, "max_tokens": 1, "temperature": 0});
    let first = server.complete(body.clone());
    let lists = &first["choices"][0]["logprobs"];
    assert_eq!(lists["token_logprobs"].as_array().map(Vec::len), Some(n + 1));
    assert_eq!(lists["tokens"].as_array().map(Vec::len), Some(n + 1));
    assert!(lists["token_logprobs"][0].is_null() && lists["top_logprobs"][0].is_null());
    assert!(
        lists["token_logprobs"].as_array().expect("list")[1..].iter().all(|l| l.as_f64().is_some_and(|l| l <= 0.0))
    );
    // Greedy: the generated token is the likeliest of its alternatives.
    let top = lists["top_logprobs"][n].as_object().expect("alternatives");
    let best = top.values().filter_map(Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(lists["token_logprobs"][n].as_f64(), Some(best));
    assert!(text(&first).starts_with(&prompt));

    let again = server.complete(body.clone());
    assert_eq!(again["choices"], first["choices"], "from the cache");
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(0));
    let mut scored = body;
    scored["max_tokens"] = json!(0);
    let scored = server.complete(scored);
    assert_eq!(
        scored["choices"][0]["logprobs"]["token_logprobs"].as_array().map(|l| &l[..n]),
        lists["token_logprobs"].as_array().map(|l| &l[..n])
    );
    assert_eq!(text(&scored), prompt);
}

#[test]
fn many_prompts_and_samples_come_back_in_their_places() {
    let server = Server::start(&[]);
    let all = server.complete(json!({"prompt": ["The red", "The old"], "n": 2, "max_tokens": 6, "seed": 3}));
    let choices = all["choices"].as_array().expect("choices");
    assert_eq!(choices.iter().map(|c| c["index"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    let second = server.complete(json!({"prompt": "The old", "n": 2, "max_tokens": 6, "seed": 3}));
    for i in 0..2 {
        assert_eq!(choices[2 + i]["text"], second["choices"][i]["text"], "alone or among others");
    }
    let best =
        server.complete(json!({"prompt": "The old", "n": 1, "best_of": 4, "max_tokens": 6, "seed": 3, "logprobs": 0}));
    assert_eq!(best["choices"].as_array().map(Vec::len), Some(1));
}

#[test]
fn extensions_of_other_servers_work_under_their_names() {
    let server = Server::start(&[]);
    let answer = server.complete(json!({
        "prompt": "The red", "max_tokens": 4, "temperature": 0, "n_probs": 3, "return_token_ids": true, "prompt_logprobs": 1,
        "min_tokens": 2, "repetition_penalty": 1.1, "top_k": -1, "min_p": 0.0, "ignore_eos": true, "cache_salt": "me",
    }));
    let choice = &answer["choices"][0];
    let probabilities = choice["completion_probabilities"].as_array().expect("a list");
    assert_eq!(probabilities.len(), 4);
    assert_eq!(probabilities[0]["top_logprobs"].as_array().map(Vec::len), Some(3));
    let ids: Vec<_> = probabilities.iter().map(|p| p["id"].clone()).collect();
    assert_eq!(choice["token_ids"].as_array(), Some(&ids));
    assert_eq!(choice["prompt_logprobs"].as_array().map(Vec::len), choice["prompt_token_ids"].as_array().map(Vec::len));
    assert!(answer["timings"]["predicted_n"] == json!(4));
    let stopped = server
        .complete(json!({"prompt": "The red fox number 3 saw", "max_tokens": 60, "temperature": 0, "stop": [".\n"]}));
    if stopped["choices"][0]["finish_reason"] == "stop" {
        assert!(!text(&stopped).contains(".\n"));
        assert_eq!(stopped["choices"][0]["stop_reason"], json!(".\n"));
    }
    let pieces = json(&server.post("/tokenize", &json!({"content": "The é", "with_pieces": true})).body);
    let ids: Vec<_> = pieces["tokens"].as_array().expect("tokens").iter().map(|t| t["id"].clone()).collect();
    assert_eq!(json(&server.post("/detokenize", &json!({"tokens": ids})).body)["content"], json!("The é"));
}

#[test]
fn a_chat_is_a_transcript_and_says_so() {
    let server = Server::start(&[]);
    let body = json!({"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 8, "seed": 1});
    let answer = json(&server.post("/v1/chat/completions", &body).body);
    let page = answer["corella"]["prompt"].as_str().expect("the page");
    assert!(page.ends_with("\nHuman: Why is the sky blue?\nAssistant:"), "{page}");
    assert_eq!(answer["object"], json!("chat.completion"));
    assert_eq!(answer["corella"]["stop"], json!("\nHuman:"));
    let same = server.complete(json!({"prompt": page, "max_tokens": 8, "seed": 1, "stop": "\nHuman:"}));
    assert_eq!(answer["choices"][0]["message"]["content"].as_str(), Some(text(&same).trim()));
}

#[test]
fn wrong_requests_are_refused_with_the_field_and_the_range_and_disturb_nobody() {
    let server = Server::start(&[]);
    let long = "a ".repeat(5000);
    let many: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    for (body, param) in [
        (json!({"n": 1_000_000}), "n"),
        (json!({"best_of": 100_000}), "best_of"),
        (json!({"n": 3, "best_of": 2}), "best_of"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"prompt": [99_999_999]}), "prompt"),
        (json!({"prompt": [-1]}), "prompt"),
        (json!({"prompt": long}), "prompt"),
        (json!({"prompt": "", "add_special_tokens": false}), "prompt"),
        (json!({"stop": many}), "stop"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"logprobs": 5000}), "logprobs"),
        (json!({"logit_bias": {"99999999": 1}}), "logit_bias"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"prompt_embeds": "x"}), "prompt_embeds"),
        (json!({"grammar": "x"}), "grammar"),
        (json!({"min_tokens": 9, "max_tokens": 3}), "min_tokens"),
    ] {
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer.status, 400, "{param}: {}", answer.body);
        let error = answer.error();
        assert_eq!(error["param"], json!(param), "{error}");
        assert!(
            error["type"].is_string()
                && error["code"].is_string()
                && error["message"].as_str().is_some_and(|m| m.len() < 300)
        );
    }
    for body in
        [&b"{\"prompt\": \"\xff\xfe\"}"[..], b"{\"prompt\": \"\\ud800\"}", b"[1]", b"", b"{\"temperature\": NaN}"]
    {
        assert_eq!(server.post_bytes("/v1/completions", "", body).status, 400);
    }
    let answer = server.post("/v1/completions", &json!({"model": "another"}));
    assert_eq!((answer.status, answer.error()["code"].clone()), (404, json!("model_not_found")));
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/v1/completions").status, 405);
    // An empty prompt is the token that marks the start; extreme seeds work; too many tokens are cut to the room.
    for body in [json!({"prompt": ""}), json!({"prompt": []}), json!({"seed": u64::MAX}), json!({"seed": i64::MIN})] {
        server.complete(body);
    }
    let cut = server.complete(json!({"prompt": "The", "max_tokens": 4_000_000_000u32, "ignore_eos": true}));
    assert!(cut["corella"]["max_tokens"].as_u64() < Some(256) && cut["choices"][0]["finish_reason"] == "length");
    server.rests();
}

#[test]
fn bodies_and_heads_that_are_too_large_are_refused_before_any_work() {
    let server = Server::start(&[]);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n";
    assert_eq!(server.raw(head.as_bytes()).status, 413);
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let chunked = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
        + &chunk.repeat(17);
    assert_eq!(server.raw(chunked.as_bytes()).status, 413);
    assert_eq!(server.with("/health", &format!("x-long: {}\r\n", "y".repeat(200_000))).status, 431);
    // A million equal letters are tokenised and then refused by the context, in linear time.
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a".repeat(1_000_000)})).status, 400);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": " ".repeat(1_000_000)})).status, 400);
}

#[test]
fn keys_hosts_and_origins_are_checked() {
    let server = Server::start(&["--api-key", "secret", "--cors-origin", "https://a.example"]);
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.with("/v1/models", "authorization: Bearer wrong\r\n").status, 401);
    let good = server.with("/v1/models", "authorization: Bearer secret\r\norigin: https://a.example\r\n");
    assert_eq!(good.status, 200);
    assert!(good.head.contains("access-control-allow-origin: https://a.example"));
    let other = server.with("/health", "origin: https://b.example\r\n");
    assert_eq!(other.status, 200, "health needs no key");
    assert!(!other.head.contains("access-control-allow-origin"));
    let foreign = server.raw(b"GET /health HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert_eq!(foreign.status, 403);
    let output = common::corella(&["serve", model(), "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(common::stderr(&output).contains("--api-key"), "{}", common::stderr(&output));
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
    let mut refused = 0;
    let mut first = [0; 16];
    for stream in &mut streams {
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        if stream.read(&mut first).is_ok_and(|n| n > 12) && first.starts_with(b"HTTP/1.1 429") {
            refused += 1;
        }
    }
    assert!(refused > 0, "twelve requests, two places to wait");
    drop(streams);
    server.rests();
    assert!(server.metric("cancelled_total") > 0);
    server.complete(json!({"prompt": "The", "max_tokens": 3}));
}

#[test]
fn hundreds_of_streams_with_random_disconnects_end_with_all_pages_free() {
    let server = Server::start(&["--queue", "64", "--parallel", "16"]);
    let expected = server.complete(json!({"prompt": "The red fox", "max_tokens": 12, "seed": 9}));
    let expected = text(&expected).to_owned();
    let outcomes: Vec<u16> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..16u64)
            .map(|worker| {
                let (server, expected) = (&server, &expected);
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for i in 0..25u64 {
                        let leave = (worker * 31 + i * 17) % 3 == 0;
                        let body = json!({"prompt": "The red fox", "max_tokens": 12, "seed": 9, "stream": true}).to_string();
                        let mut stream = server.open();
                        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(head.as_bytes()).expect("sent");
                        if leave {
                            let _ = stream.read(&mut [0; 200]);
                            continue;
                        }
                        let answer = Answer::read(stream);
                        if answer.status == 200 {
                            let joined: String = answer.events().iter().filter_map(|e| e["choices"][0]["text"].as_str()).map(str::to_owned).collect();
                            assert_eq!(&joined, expected);
                        }
                        seen.push(answer.status);
                    }
                    seen
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().expect("a worker")).collect()
    });
    assert!(outcomes.iter().all(|status| [200, 429].contains(status)), "{outcomes:?}");
    assert!(outcomes.iter().filter(|s| **s == 200).count() > 100);
    server.rests();
}

#[test]
fn a_server_told_to_stop_finishes_what_is_under_way() {
    let mut server = Server::start(&[]);
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

#[test]
fn a_model_that_cannot_be_loaded_leaves_a_server_that_says_why() {
    let folder = Folder::new("serve-bad");
    let path = folder.join("bad.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0garbage").expect("written");
    let mut child = Command::new(CORELLA)
        .args(["serve", &path.display().to_string(), "--port", "0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let server = Server { address: json(&line)["address"].as_str().expect("an address").to_owned(), child };
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = server.get("/health");
        assert_eq!(answer.status, 503);
        if answer.error()["message"].as_str().is_some_and(|m| m.contains("could not be loaded")) {
            return;
        }
        assert!(Instant::now() < end, "{}", answer.body);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_playground_is_one_page_without_other_servers() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("text/html") && page.head.contains("content-security-policy"));
    for name in page.body.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        assert_eq!(server.get(&format!("/{name}")).status, 200, "{name}");
    }
    let tag = page.head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("a tag").to_owned();
    assert_eq!(server.with("/", &format!("if-none-match: {tag}\r\n")).status, 304);
    let run = json(&server.get("/corella/run").body);
    assert!(run["log"].as_array().is_some_and(|log| log.len() >= 30), "the run folder is followed");
    assert!(json(&server.get("/corella/demos").body)["demos"].as_array().is_some_and(|d| d.len() == 6));
}
