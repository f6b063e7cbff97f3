//! The server over a real socket: what clients send, rightly and wrongly, and what comes back.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::server::{Answer, Server, model, text};
use common::{CORELLA, Folder, done, end_of, json, signal, tiny_run};
use serde_json::{Value, json};

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
fn tokens_of_a_prompt_are_shown_as_vllm_shows_them() {
    let server = Server::start(&[]);
    let ask = |count: usize| {
        let asked = json!({"prompt": "The red fox", "max_tokens": 0, "return_token_ids": true, "prompt_logprobs": count, "logprobs": 100, "echo": true});
        server.complete(asked)["choices"][0].clone()
    };
    let (own, wide) = (ask(0), ask(100));
    let ids: Vec<String> = own["prompt_token_ids"].as_array().expect("a list").iter().map(Value::to_string).collect();
    let lists = [&own, &wide].map(|choice| choice["prompt_logprobs"].as_array().expect("a list"));
    assert!(ids.len() > 1 && lists.iter().all(|list| list.len() == ids.len() && list[0].is_null()));
    for (at, id) in ids.iter().enumerate().skip(1) {
        let [alone, many] = lists.map(|list| list[at].as_object().expect("a map from ids"));
        // With 0 there is the token itself; every one has the same three fields.
        assert_eq!(alone.keys().collect::<Vec<_>>(), [id]);
        assert_eq!(alone[id], many[id]);
        assert!(many.len() == 100 || many.len() == 101, "{}", many.len());
        assert!(many.values().all(|one| one.as_object().is_some_and(|fields| fields.len() == 3)));
        assert_eq!(alone[id]["decoded_token"], own["logprobs"]["tokens"][at]);
        assert_eq!(alone[id]["logprob"], own["logprobs"]["token_logprobs"][at]);
        // A rank is 1 and the number of tokens that are likelier.
        let logprob = |one: &Value| one["logprob"].as_f64().expect("a number");
        for one in many.values().filter(|one| one["rank"].as_u64() <= Some(100)) {
            let likelier = many.values().filter(|other| logprob(other) > logprob(one)).count();
            assert_eq!(one["rank"], json!(1 + likelier));
        }
    }
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
    assert!(answer["timings"]["predicted_n"] == json!(4));
    let asked = json!({"prompt": ["The", "The red"], "n": 2, "max_tokens": 2, "stream": true, "return_token_ids": true,
        "prompt_logprobs": 1, "ignore_eos": true});
    let events = server.post("/v1/completions", &asked).events();
    for prompt in 0..2 {
        let scores = events.iter().find(|e| e["prompt"] == json!(prompt)).expect("an event for each prompt");
        let scores = scores["prompt_logprobs"].as_array().expect("a list");
        for index in 2 * prompt..2 * prompt + 2 {
            let of_choice = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == json!(index));
            let ids: Vec<&Value> = of_choice.map(|c| &c["prompt_token_ids"]).filter(|ids| !ids.is_null()).collect();
            assert_eq!(ids.len(), 1, "once for choice {index}");
            let ids = ids[0].as_array().expect("a list");
            assert!(ids.len() == scores.len() && scores[0].is_null());
            assert!(ids.iter().zip(scores).skip(1).all(|(id, score)| score.get(id.to_string()).is_some()));
        }
    }
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

/// `text_offset` is where a token stands in the text, whether the answer comes whole or in a stream.
#[test]
fn tokens_stand_in_the_text_where_their_offsets_say() {
    let server = Server::start(&[]);
    for (prompt, healing) in [("The é red fox", false), ("The red fox number 7 saw ", true)] {
        let body = json!({"prompt": prompt, "max_tokens": 12, "seed": 2, "logprobs": 1, "echo": true, "ignore_eos": true,
            "token_healing": healing});
        let whole = server.complete(body.clone());
        let lists = &whole["choices"][0]["logprobs"];
        let text: Vec<char> = text(&whole).chars().collect();
        let list = |name: &str| lists[name].as_array().expect("a list").clone();
        let (tokens, offsets) = (list("tokens"), list("text_offset"));
        let offsets: Vec<usize> = offsets.iter().map(|o| o.as_u64().expect("a number") as usize).collect();
        assert_eq!(&offsets[..2], [0, 0], "the token that marks the start has no text");
        assert!(offsets.is_sorted(), "{offsets:?}");
        for (token, offset) in tokens.iter().zip(&offsets).skip(1) {
            let (token, rest) = (token.as_str().expect("text"), text[*offset..].iter().collect::<String>());
            let shown = !token.starts_with("bytes:") && !token.starts_with("<|");
            assert!(!shown || rest.starts_with(token), "{token:?} is not at {offset}: {rest:?}");
        }
        let mut streamed = body;
        streamed["stream"] = json!(true);
        let events = server.post("/v1/completions", &streamed).events();
        let joined: Vec<u64> = events
            .iter()
            .filter_map(|e| e["choices"][0]["logprobs"]["text_offset"].as_array())
            .flat_map(|list| list.iter().filter_map(Value::as_u64))
            .collect();
        assert_eq!(joined, offsets.iter().map(|o| *o as u64).collect::<Vec<_>>(), "streamed");
    }
}

#[test]
fn special_tokens_are_left_out_of_the_text_and_found_in_it_where_that_is_asked_for() {
    let server = Server::start(&[]);
    let ids = |body: Value| json(&server.post("/tokenize", &body).body)["tokens"].as_array().expect("ids").clone();
    let start = ids(json!({"content": "", "add_special": true}))[0].clone();
    let name = json(&server.post("/detokenize", &json!({"tokens": [start]})).body)["content"].clone();
    let name = name.as_str().expect("a name");
    assert_eq!(ids(json!({"content": name, "parse_special": true})), std::slice::from_ref(&start));
    assert!(ids(json!({"content": name})).len() > 1, "it is text as long as nothing else is said");
    let bias = json!({start.to_string(): 100});
    let body = json!({"prompt": "The", "max_tokens": 3, "temperature": 0, "ignore_eos": true, "logit_bias": bias});
    assert_eq!(text(&server.complete(body.clone())), name.repeat(3));
    let mut skipped = body;
    skipped["skip_special_tokens"] = json!(true);
    let answer = server.complete(skipped);
    assert_eq!((text(&answer), &answer["usage"]["completion_tokens"]), ("", &json!(3)));
}

/// However few may wait, the prompts of one request are taken together.
#[test]
fn a_request_with_more_prompts_than_may_wait_is_answered() {
    let server = Server::start(&["--queue", "2"]);
    let answer = server.complete(json!({"prompt": vec!["The red"; 6], "max_tokens": 2}));
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_model_is_found_by_its_name_and_no_two_have_one() {
    let server = Server::start(&["--name", "mine/of-two", "--peer", "other=http://127.0.0.1:9"]);
    let listed = json(&server.get("/v1/models").body)["data"].clone();
    assert_eq!(json(&server.get("/v1/models/mine/of-two").body), listed[0]);
    assert_eq!(json(&server.get("/v1/models/mine%2Fof-two").body), listed[0]);
    assert_eq!(json(&server.get("/v1/models/other").body), listed[1]);
    let none = server.get("/v1/models/none");
    assert_eq!((none.status, &none.error()["code"]), (404, &json!("model_not_found")));
    let tokenize = |model: &str| server.post("/tokenize", &json!({"model": model, "content": "The"})).status;
    assert_eq!((tokenize("mine/of-two"), tokenize("none")), (200, 404));
    for flags in [
        ["--name", "a", "--peer", "a=http://127.0.0.1:9", "--peer", "b=http://127.0.0.1:9"],
        ["--name", "c", "--peer", "a=http://127.0.0.1:9", "--chat-peer", "a=http://127.0.0.1:8"],
    ] {
        let output = common::corella(&[&["serve", model(), "--port", "0"], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let error = common::stderr(&output);
        assert!(error.contains("two models have the name `a`") && error.contains("hint:"), "{error}");
    }
}

#[test]
fn a_folder_is_offered_by_its_whole_name() {
    let folder = Folder::new("serve-name");
    let path = folder.join("Tiny-3.1-8B");
    std::os::unix::fs::symlink(model(), &path).expect("linked");
    let server = Server::of(&path.display().to_string(), &[]);
    assert_eq!(json(&server.get("/v1/models").body)["data"][0]["id"], "Tiny-3.1-8B");
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

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &streamed).events();
    assert_eq!(events[0]["corella"], answer["corella"], "a stream says so too");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(events.iter().all(|e| e["object"] == "chat.completion.chunk"));
    let joined: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(Some(joined.as_str()), answer["choices"][0]["message"]["content"].as_str());
    let ends: Vec<_> = events.iter().map(|e| &e["choices"][0]["finish_reason"]).filter(|f| !f.is_null()).collect();
    assert_eq!(ends, [&answer["choices"][0]["finish_reason"]]);
}

#[test]
fn unknown_models_paths_and_methods_are_named() {
    let server = Server::start(&[]);
    let answer = server.post("/v1/completions", &json!({"model": "another"}));
    assert_eq!((answer.status, answer.error()["code"].clone()), (404, json!("model_not_found")));
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/v1/completions").status, 405);
    let suffix = server.post("/v1/completions", &json!({"suffix": "x"}));
    assert_eq!((suffix.status, suffix.error()["param"].clone()), (400, json!("suffix")));
}

#[test]
fn a_key_opens_everything_but_health_which_is_open() {
    let server = Server::start(&["--api-key", "secret"]);
    for path in ["/v1/models", "/metrics", "/openapi.json", "/corella/demos", "/corella/run", "/corella/transcript"] {
        assert_eq!(server.get(path).status, 401, "{path}");
        assert_eq!(server.with(path, "authorization: Bearer secret\r\n").status, 200, "{path}");
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
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

#[test]
fn a_run_whose_model_cannot_be_loaded_is_shown_by_a_server_that_says_why() {
    let folder = Folder::new("serve-no-model");
    std::fs::write(folder.join("run.toml"), "").expect("written");
    let mut child = Command::new(CORELLA)
        .args(["serve", &folder.0.display().to_string(), "--port", "0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let server = Server { address: json(&line)["address"].as_str().expect("an address").to_owned(), child };
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
fn the_playground_is_one_page_without_other_servers() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("text/html") && page.head.contains("content-security-policy"));
    assert!(
        page.body.contains(":root {") && page.body.contains("id=\"text\""),
        "style and text come with the first answer"
    );
    for name in page.body.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        assert_eq!(server.get(&format!("/{name}")).status, 200, "{name}");
    }
    let tag = page.head.lines().find_map(|l| l.strip_prefix("etag: ")).expect("a tag").to_owned();
    assert_eq!(server.with("/", &format!("if-none-match: {tag}\r\n")).status, 304);
    let run = json(&server.get("/corella/run").body);
    assert!(run["log"].as_array().is_some_and(|log| log.len() >= 30), "the run folder is followed");
    assert!(json(&server.get("/corella/demos").body)["demos"].as_array().is_some_and(|d| d.len() == 7));
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
    let health = server.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.error()["message"].as_str().is_some_and(|m| m.contains("training, update ")), "{}", health.body);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "The"})).status, 503);
    assert!(server.get("/").body.contains("Corella") && server.get("/run.html").body.contains("Loss"));
    let since = seen["log"].as_array().and_then(|log| log.last()).expect("a row")["step"].clone();
    let news = json(&server.get(&format!("/corella/run?since={since}")).body);
    assert!(news["log"].as_array().expect("rows").iter().all(|row| row["step"].as_u64() > since.as_u64()));
    signal(&server.child, "TERM");
    assert!(server.child.wait().expect("ended").success());
    let last = reader.join().expect("a reader").expect("a line").expect("text");
    assert_eq!(json(&last)["state"], "stopped");
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

/// Whole words end where the vocabulary goes on (`The re` begins `The red`): healing must take something back, and prompt and
/// continuation must still be one text.
#[test]
fn a_healed_prompt_goes_on_with_tokens_that_spell_its_end() {
    let server = Server::start(&[]);
    let ids = |text: &str| {
        let answer = json(&server.post("/tokenize", &json!({"content": text, "add_special": true})).body);
        answer["tokens"].as_array().expect("ids").clone()
    };
    let mut healed_any = false;
    for prompt in ["The re", "The red fox number 7 saw ", "The old f", "The"] {
        let body = json!({"prompt": prompt, "max_tokens": 6, "temperature": 0, "return_token_ids": true, "n_probs": 1,
            "ignore_eos": true});
        let plain = server.complete(body.clone());
        let mut asked = body.clone();
        asked["token_healing"] = json!(true);
        let healed = server.complete(asked.clone());
        let choice = &healed["choices"][0];
        let end = healed["corella"]["healed"][0].as_str().expect("what was healed");
        assert!(prompt.ends_with(end), "{prompt:?} does not end with {end:?}");
        assert_eq!(choice["token_ids"].as_array().map(Vec::len), Some(6));
        // The ids, all together, are the prompt and the text behind it.
        let all: Vec<Value> = [&choice["prompt_token_ids"], &choice["token_ids"]]
            .iter()
            .flat_map(|l| l.as_array().expect("ids").clone())
            .collect();
        let text_of_all = json(&server.post("/detokenize", &json!({"tokens": all[1..]})).body)["content"].clone();
        assert_eq!(text_of_all, json!(format!("{prompt}{}", text(&healed))));
        if end.is_empty() {
            assert_eq!(choice["token_ids"], plain["choices"][0]["token_ids"]);
        } else {
            healed_any = true;
            assert!(choice["prompt_token_ids"].as_array().map(Vec::len) < Some(ids(prompt).len()));
        }
        asked["echo"] = json!(true);
        assert_eq!(
            text(&server.complete(asked.clone())),
            format!("{prompt}{}", text(&healed)),
            "with the prompt in front"
        );
        asked["stream"] = json!(true);
        let events = server.post("/v1/completions", &asked).events();
        let streamed: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
        assert_eq!(streamed, format!("{prompt}{}", text(&healed)));
        assert_eq!(events[0]["corella"]["healed"][0], json!(end));
    }
    assert!(healed_any, "none of the prompts ends inside a token");
    let ids = ids("The re");
    let given = json!({"prompt": ids, "max_tokens": 1, "token_healing": true, "return_token_ids": true});
    assert_eq!(server.complete(given)["choices"][0]["prompt_token_ids"], json!(ids), "ids are taken as they are");
}

#[test]
fn the_model_of_another_server_answers_under_its_name() {
    let other = Server::start(&["--name", "other"]);
    let body = json!({"model": "other", "prompt": "The red fox", "max_tokens": 8, "seed": 3, "logprobs": 2});
    let alone = other.complete(body.clone());
    let peer = format!("other=http://{}", other.address);
    let server = Server::start(&["--peer", &peer]);
    let models = json(&server.get("/v1/models").body)["data"].clone();
    assert_eq!((&models[1]["id"], models.as_array().map(Vec::len)), (&json!("other"), Some(2)));
    assert_eq!(server.complete(body.clone())["choices"], alone["choices"]);
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let answer = server.post("/v1/completions", &streamed);
    assert!(answer.head.contains("text/event-stream"), "{}", answer.head);
    let joined: String = answer.events().iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, text(&alone));
    let refused = server.post("/v1/completions", &json!({"model": "other", "prompt": "x", "temperature": -1}));
    assert_eq!((refused.status, &refused.error()["param"]), (400, &json!("temperature")), "the other's own words");
    drop(other);
    let gone = server.post("/v1/completions", &body);
    assert_eq!((gone.status, &gone.error()["code"]), (502, &json!("peer_failed")));
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_silent_peer_does_not_keep_the_server_from_ending() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = format!("silent=http://{}", silent.local_addr().expect("an address"));
    let mut server = Server::start(&["--peer", &peer, "--drain-seconds", "1"]);
    let body = json!({"model": "silent", "prompt": "The"}).to_string();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut leaves = server.open();
    leaves.write_all(head.as_bytes()).expect("sent");
    let (mut left, _) = silent.accept().expect("it asks the peer");
    left.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    drop(leaves);
    left.read_to_end(&mut Vec::new()).expect("the client has left: the peer's connection ends");
    let mut stays = server.open();
    stays.write_all(head.as_bytes()).expect("sent");
    let asked = silent.accept().expect("it asks the peer");
    signal(&server.child, "TERM");
    let status = end_of(&mut server.child, "it waits for the peer");
    assert!(status.success(), "{status}");
    drop((stays, asked));
}

#[test]
fn a_server_of_chats_continues_a_text_as_the_beginning_of_its_own_answer() {
    // The model's context is short.
    let folder = Folder::new("talker");
    let page = folder.join("page.toml");
    std::fs::write(&page, "preamble = \"A talk.\"\nhuman = \"Human\"\nassistant = \"Assistant\"\n").expect("a file");
    let other = Server::start(&["--name", "talker", "--transcript", &page.display().to_string()]);
    let begun = json!({"messages": [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "The red fox"}],
        "max_tokens": 8, "temperature": 0});
    let chat = json(&other.post("/v1/chat/completions", &begun).body);
    let page = chat["corella"]["prompt"].as_str().expect("the page");
    assert!(page.ends_with("\nHuman: Go on.\nAssistant: The red fox"), "{page}");
    let peer = format!("talker=http://{}", other.address);
    let server = Server::start(&["--chat-peer", &peer]);
    let body = json!({"model": "talker", "prompt": "The red fox", "max_tokens": 8, "temperature": 0});
    let whole = server.complete(body.clone());
    assert_eq!(whole["object"], "text_completion");
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = server.post("/v1/completions", &streamed).events();
    let joined: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert!(!joined.is_empty() && joined.trim_end() == text(&whole), "{joined:?} {:?}", text(&whole));
    let list = server.post("/v1/completions", &json!({"model": "talker", "prompt": ["a", "b"]}));
    assert_eq!((list.status, &list.error()["param"]), (400, &json!("prompt")));
}
