//! Completions over a real socket: what clients send, rightly and wrongly, and what comes back.
#![cfg(unix)]

mod common;

use common::server::{Server, model, text};
use common::{done, json};
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

/// Nobody named a seed, so nobody wants one text several times; each prompt's own seed repeats it.
#[test]
fn equal_prompts_without_a_seed_go_on_in_different_ways() {
    let server = Server::start(&[]);
    let texts = |answer: &Value| -> Vec<String> {
        answer["choices"].as_array().expect("choices").iter().map(|c| c["text"].to_string()).collect()
    };
    let body = json!({"prompt": vec!["The red fox"; 6], "max_tokens": 12, "temperature": 1.5, "ignore_eos": true});
    let all = server.complete(body.clone());
    let seeds = all["corella"]["seeds"].as_array().expect("a seed for each prompt");
    assert!(seeds.len() == 6 && all["corella"]["seed"].is_null());
    let distinct: std::collections::BTreeSet<String> = texts(&all).into_iter().collect();
    assert!(distinct.len() > 3, "{distinct:?}");
    let mut alone = body.clone();
    (alone["prompt"], alone["seed"]) = (json!("The red fox"), seeds[4].clone());
    let again = server.complete(alone);
    assert_eq!((texts(&again)[0].as_str(), &again["corella"]["seed"]), (texts(&all)[4].as_str(), &seeds[4]));
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    assert_eq!(
        server.post("/v1/completions", &streamed).events()[0]["corella"]["seeds"].as_array().map(Vec::len),
        Some(6)
    );
    // A seed that was named is every prompt's.
    let mut named = body;
    named["seed"] = json!(9);
    let named = server.complete(named);
    assert!(texts(&named).iter().all(|text| *text == texts(&named)[0]) && named["corella"]["seed"] == json!(9));
}

#[test]
fn a_server_with_a_seed_says_the_same_again() {
    let asked = |flags: &[&str]| {
        let server = Server::start(flags);
        let body = json!({"prompt": "The red fox", "max_tokens": 12, "temperature": 1.5, "ignore_eos": true});
        [0; 3].map(|_| text(&server.complete(body.clone())).to_owned())
    };
    let first = asked(&["--seed", "7"]);
    assert_eq!(first, asked(&["--seed", "7", "--lookup", "4"]), "proposals change no byte");
    assert!(first[0] != first[1] || first[1] != first[2], "{first:?}");
    assert_ne!(first, asked(&["--seed", "8"]));
}

/// llama.cpp's order of sampling, by the name that other servers have for it.
#[test]
fn a_temperature_may_come_last() {
    let server = Server::start(&[]);
    let ask = |last: bool| {
        let body = json!({"prompt": "The red fox", "max_tokens": 1, "temperature": 100, "top_p": 0.2, "logprobs": 100,
            "post_sampling_probs": true, "seed": 1, "temperature_last": last});
        server.complete(body)["choices"][0]["logprobs"]["top_logprobs"][0].as_object().map(serde_json::Map::len)
    };
    // At 100 a fifth of the vocabulary is a fifth of all; before that fewer tokens are.
    let [last, first] = [true, false].map(|last| ask(last).expect("alternatives"));
    assert!(first > 50 && 2 * last < first, "{last}, {first}");
}

#[test]
fn a_refusal_says_which_prompt_it_is_about() {
    let server = Server::start(&[]);
    for prompts in [json!(["The", "x ".repeat(2000)]), json!([[1], [999_999]])] {
        let refused = server.post("/v1/completions", &json!({"prompt": prompts, "max_tokens": 1}));
        let error = refused.error();
        assert_eq!((refused.status, error["param"].as_str()), (400, Some("prompt")), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.starts_with("prompt 2 of 2: ")), "{error}");
    }
    let alone = server.post("/v1/completions", &json!({"prompt": [999_999], "max_tokens": 1})).error();
    assert!(alone["message"].as_str().is_some_and(|m| !m.contains("prompt 1")), "{alone}");
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
    let shown = |special: bool, mark: bool| {
        let prompt = format!("The{name}red");
        let body = json!({"prompt": [prompt], "max_tokens": 0, "return_token_ids": true, "parse_special": special,
            "add_special_tokens": mark});
        server.complete(body)["choices"][0]["prompt_token_ids"].as_array().expect("ids").clone()
    };
    let (the, red) = (ids(json!({"content": "The"})), ids(json!({"content": "red"})));
    let apart = [&the[..], std::slice::from_ref(&start), &red].concat();
    assert_eq!(shown(true, false), apart, "in a prompt too");
    assert_eq!(shown(true, true), [std::slice::from_ref(&start), &apart].concat());
    assert!(shown(false, false).iter().all(|id| *id != start));
    let bias = json!({start.to_string(): 100});
    let body = json!({"prompt": "The", "max_tokens": 3, "temperature": 0, "ignore_eos": true, "logit_bias": bias});
    assert_eq!(text(&server.complete(body.clone())), name.repeat(3));
    let mut skipped = body;
    skipped["skip_special_tokens"] = json!(true);
    let answer = server.complete(skipped);
    assert_eq!((text(&answer), &answer["usage"]["completion_tokens"]), ("", &json!(3)));
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
