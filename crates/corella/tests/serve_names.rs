//! Which model a request means, and who may ask: names, keys, chats, servers beside each other.
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use common::server::{Server, model, text};
use common::{Folder, done, end_of, json, signal};
use serde_json::json;

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
fn one_key_does_not_go_to_two_servers() {
    let peers = ["--peer", "a=http://127.0.0.1:9", "--chat-peer", "b-2=http://127.0.0.1:8"];
    let mut command = std::process::Command::new(common::CORELLA);
    let output = command.args(["serve", model(), "--port", "0"]).args(peers).env("CORELLA_PEER_KEY", "k").output();
    let output = output.expect("it starts");
    let error = common::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("CORELLA_PEER_KEY_A, CORELLA_PEER_KEY_B_2"), "{error}");
}

#[test]
fn what_no_request_could_name_is_refused_and_a_host_may_be_a_name() {
    for (flags, words) in [
        (["--name", ""], "the model has no name"),
        (["--cors-origin", "foo"], "\"foo\" is no origin"),
        (["--cors-origin", "https://a.example/path"], "is no origin"),
        (["--allow-host", "a b"], "\"a b\" is no host name"),
        (["--allow-host", "a.example:80"], "is no host name"),
        (["--context-len", "0"], "0 is not in 1.."),
    ] {
        let output = common::corella(&[&["serve", model(), "--port", "0"], &flags[..]].concat());
        let error = common::stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {error}");
        assert!(error.contains(words) && (error.contains("hint:") || error.contains("--help")), "{error}");
    }
    let server = Server::start(&["--host", "localhost", "--cors-origin", "http://[::1]:8080", "--allow-host", "[::1]"]);
    assert_eq!(server.get("/health").status, 200);
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
    for path in ["/v1/completions", "/tokenize"] {
        let unnamed = server.post(path, &json!({"model": "", "content": ""}));
        assert!(unnamed.status == 200 || unnamed.error()["param"] == "content", "{path}: {}", unnamed.body);
    }
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.get("/v1/completions").status, 405);
    let suffix = server.post("/v1/completions", &json!({"suffix": "x"}));
    assert_eq!((suffix.status, suffix.error()["param"].clone()), (400, json!("suffix")));
}

#[test]
fn a_key_opens_everything_but_health_which_is_open() {
    let server = Server::start(&["--api-key", "secret"]);
    for path in [
        "/v1/models",
        "/metrics",
        "/openapi.json",
        "/corella/anatomy",
        "/corella/demos",
        "/corella/run",
        "/corella/transcript",
    ] {
        assert_eq!(server.get(path).status, 401, "{path}");
        assert_eq!(server.with(path, "authorization: Bearer secret\r\n").status, 200, "{path}");
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
}

#[test]
fn what_the_model_is_made_of_is_told_as_inspect_prints_it() {
    let server = Server::start(&[]);
    let answer = server.get("/corella/anatomy");
    assert_eq!(json(&answer.body), json(&done(&["inspect", model(), "--json"])));
    let foreign = server.raw(b"GET /corella/anatomy HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert_eq!(foreign.status, 403);
    assert!(server.get("/anatomy.html").body.contains("anatomy.js"));
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

#[test]
fn what_clients_of_other_servers_look_for_is_there() {
    let server = Server::start(&["--queue", "1"]);
    // vLLM's tokenizing, with its default.
    let found = json(&server.post("/tokenize", &json!({"prompt": "The red fox", "return_token_strs": true})).body);
    let ids = found["tokens"].as_array().expect("ids");
    assert_eq!((&found["count"], &found["max_model_len"]), (&json!(ids.len()), &json!(256)), "{found}");
    assert_eq!(found["token_strs"].as_array().map(Vec::len), Some(ids.len()));
    let bare = json!({"prompt": "The red fox", "add_special_tokens": false});
    let bare = json(&server.post("/tokenize", &bare).body);
    assert_eq!(bare["tokens"], json(&server.post("/tokenize", &json!({"content": "The red fox"})).body)["tokens"]);
    assert_eq!(server.post("/tokenize", &json!({"prompt": "a", "content": "b"})).error()["param"], "prompt");
    // A chat says how many tokens the context has left room for.
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let mut chat = json!({"messages": messages, "max_tokens": 100_000, "stop": "e"});
    let told = json(&server.post("/v1/chat/completions", &chat).body);
    assert!(told["corella"]["max_tokens"].as_u64().is_some_and(|most| most < 256), "{told}");
    chat["stream"] = json!(true);
    assert_eq!(
        server.post("/v1/chat/completions", &chat).events()[0]["corella"]["max_tokens"],
        told["corella"]["max_tokens"]
    );
    // The usage so far, with every chunk.
    let body = json!({"prompt": "The", "max_tokens": 5, "temperature": 0, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let events = server.post("/v1/completions", &body).events();
    let drawn: Vec<u64> = events.iter().filter_map(|event| event["usage"]["completion_tokens"].as_u64()).collect();
    assert_eq!((drawn.len(), drawn.first(), drawn.last()), (events.len(), Some(&1), Some(&5)), "{events:?}");
    // What the playground asks for with its controls at their ends: too much for one document, little at a time.
    let mut wide =
        json!({"prompt": "The", "max_tokens": 100_000, "n": 128, "n_probs": 100, "stop": ["e", "a", "o", "t"]});
    assert_eq!(server.post("/v1/completions", &wide).error()["param"], "n_probs");
    wide["stream"] = json!(true);
    assert_eq!(server.post("/v1/completions", &wide).status, 200);
    let name = server.get("/v1/models/%ff");
    assert_eq!((name.status, &name.error()["param"]), (400, &json!("model")));
    // Refusals are counted, and times taken.
    assert!(server.metric("http_responses_total{code=\"400\"}") >= 3);
    for name in ["time_to_first_token_seconds", "inter_token_latency_seconds", "request_queue_time_seconds"] {
        assert!(server.metric(&format!("{name}_count")) >= 1, "{name}");
    }
}
