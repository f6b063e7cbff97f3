//! The engine on real models: the same bytes alone or among others, and everything given back at the end.

mod common;

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::{cpu, letters, options};
use corella_infer::{
    CacheScope, Completion, Engine, EngineHandle, EngineOptions, Event, Field, FinishReason, Request, RequestError,
    RequestParams, SampleParams, Sink, SubmitError, Ticket, complete,
};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Infer};
use corella_model::llama::{LlamaCheckpoint, LlamaInfer};
use corella_model::{BatchPlan, PlanError, StepLimits, StepModel, StepOut};

/// A GPT-2 of a context of 120 tokens, with pages for hardly more than two sequences of that length.
fn gpt2(kv_tokens: usize) -> Box<dyn StepModel> {
    Box::new(common::gpt2(kv_tokens))
}

/// A trained Llama with grouped queries, where it is there.
fn llama(kv_tokens: usize) -> Option<Box<dyn StepModel>> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/checkpoints/stories260K/stories260K.bin");
    if !path.is_file() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    let checkpoint = LlamaCheckpoint::open(&path).expect("a checkpoint");
    Some(Box::new(LlamaInfer::new(cpu(), &checkpoint, options(120, kv_tokens)).expect("fits")))
}

/// A model whose device is lost at the third step.
struct Lost {
    model: Box<dyn StepModel>,
    steps: usize,
}

impl StepModel for Lost {
    fn limits(&self) -> StepLimits {
        self.model.limits()
    }

    fn backend_name(&self) -> String {
        self.model.backend_name()
    }

    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        self.steps += 1;
        assert!(self.steps < 3, "the card failed (as this test wants)");
        self.model.step(plan)
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.model.copy_page(from, to);
    }
}

#[test]
fn an_engine_whose_device_is_lost_says_so_and_takes_nothing_more() {
    let engine = engine(Box::new(Lost { model: gpt2(300), steps: 0 }));
    let (told, failed) = channel();
    engine.when_it_fails(move || told.send(()).expect("somebody waits"));
    let handle = engine.handle();
    let ask = || handle.check(RequestParams { prompt: vec![1, 2], max_tokens: 8, ..RequestParams::default() });
    let (_ticket, events) = handle.stream(ask().expect("fits")).expect("taken");
    failed.recv_timeout(Duration::from_secs(60)).expect("told");
    assert!(engine.has_failed());
    let ends = |event: &Event| matches!(event, Event::Done { .. });
    assert!(!events.iter().any(|event| ends(&event)), "the stream ends without an end of its own");
    assert!(matches!(handle.submit(ask().expect("fits"), Box::new(|_| true)), Err(SubmitError::Closed)));
    // Whoever asks later is told at once.
    let (told, failed) = channel();
    engine.when_it_fails(move || told.send(()).expect("somebody waits"));
    failed.try_recv().expect("told");
}

fn engine(model: Box<dyn StepModel>) -> Engine {
    Engine::start(model, letters(), EngineOptions { max_queue: 2000, ..EngineOptions::default() }).expect("a thread")
}

/// Request number `i` of a load: lengths, parameters and what is asked for all differ; beginnings are shared.
fn request(i: u64, v: u32) -> RequestParams {
    let mut state = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let family = random(4);
    let mut prompt: Vec<u32> =
        (0..1 + random(70)).map(|k| ((k * (family + 5) + k / 3) % u64::from(v)) as u32).collect();
    prompt.extend((0..random(4)).map(|_| random(u64::from(v)) as u32));
    RequestParams {
        prompt,
        n: 1 + random(3) as usize,
        max_tokens: random(24) as usize,
        sample: SampleParams {
            temperature: [0.0, 0.8, 1.0][random(3) as usize],
            top_p: [None, Some(0.9)][random(2) as usize],
            frequency_penalty: [0.0, 0.4][random(2) as usize],
            seed: random(u64::MAX >> 33),
            ..SampleParams::default()
        },
        stop: [vec![], vec!["ab".to_owned(), "q".to_owned()]][random(2) as usize].clone(),
        logprobs: [None, Some(2)][random(2) as usize],
        prompt_logprobs: [None, None, Some(1)][random(3) as usize],
        lookup: [0, 6][random(2) as usize],
        scope: if random(5) == 0 { CacheScope::salted("s") } else { CacheScope::default() },
        ..RequestParams::default()
    }
}

/// What must not depend on company: everything but the times and the cache hits.
fn content(completion: Completion) -> Completion {
    assert_eq!(completion.error, None);
    Completion { usage: Default::default(), ..completion }
}

/// `repeat` requests of 40 kinds come in at random times, among others that are given up on; each must get exactly what
/// it gets on a fresh model of its own.
fn same_bytes_under_load(mut alone: Box<dyn StepModel>, crowded: Box<dyn StepModel>, repeat: u64) {
    let v = alone.limits().vocab_size as u32;
    let engine = engine(crowded);
    let handle = engine.handle();
    let expected: Vec<Completion> = (0..40)
        .map(|i| content(complete(&mut *alone, letters(), handle.check(request(i, v)).expect("valid"))))
        .collect();
    let mut under_way = std::collections::VecDeque::new();
    let mut abandoned = Vec::new();
    for round in 0..repeat {
        let kind = round * 7 % 40;
        let stream = handle.stream(handle.check(request(kind, v)).expect("valid")).expect("room in the queue");
        under_way.push_back((kind, stream));
        if round % 3 == 0 {
            // Somebody who leaves: at once, or a little later.
            let long = RequestParams { max_tokens: 60, ignore_eos: true, ..request(round + 1000, v) };
            abandoned.push(handle.stream(handle.check(long).expect("valid")).expect("room in the queue"));
        }
        if round % 5 == 0 {
            abandoned.clear();
        }
        if under_way.len() > 3 + (round * 13 % 23) as usize
            && let Some((kind, (_ticket, events))) = under_way.pop_front()
        {
            assert_eq!(content(Completion::collect(events)), expected[kind as usize], "request {kind}, round {round}");
        }
    }
    for (kind, (_ticket, events)) in under_way {
        assert_eq!(content(Completion::collect(events)), expected[kind as usize], "request {kind}");
    }
    drop(abandoned);
    // Whoever was given up on is gone after the next step.
    handle.complete(handle.check(request(1, v)).expect("valid")).expect("room");
    while handle.metrics().running + handle.metrics().waiting > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let metrics = handle.metrics();
    assert_eq!((metrics.pages_held, metrics.queued, metrics.failed), (0, 0, 0), "{metrics:?}");
    assert!(metrics.cancelled > 0 && metrics.cached_tokens > 0, "{metrics:?}");
    assert!(metrics.running == 0 && metrics.waiting == 0, "{metrics:?}");
}

#[test]
fn gpt2_gives_a_thousand_requests_the_same_bytes_alone_or_among_others() {
    same_bytes_under_load(gpt2(120), gpt2(256), 1000);
}

#[test]
fn llama_gives_a_thousand_requests_the_same_bytes_alone_or_among_others() {
    let (Some(alone), Some(crowded)) = (llama(120), llama(256)) else { return };
    same_bytes_under_load(alone, crowded, 1000);
}

#[test]
fn prompt_lookup_changes_the_number_of_steps_and_no_byte() {
    let engine = engine(gpt2(128));
    let handle = engine.handle();
    let run = |lookup: usize, temperature: f32| {
        let sample = SampleParams { temperature, top_k: Some(2), seed: 3, ..SampleParams::default() };
        let params =
            RequestParams { prompt: vec![5, 17, 40], max_tokens: 100, lookup, sample, ..RequestParams::default() };
        let before = handle.metrics().steps;
        let done = handle.complete(handle.check(params).expect("valid")).expect("room");
        (handle.metrics().steps - before, content(done))
    };
    // An untrained model repeats itself soon where it always takes the likeliest token.
    let (steps, plain) = run(0, 0.0);
    let (fewer, looked_up) = run(8, 0.0);
    assert_eq!(plain, looked_up);
    assert!(steps == 100 && fewer < 80, "{steps} and {fewer} steps");
    assert_eq!(run(0, 1.0).1, run(8, 1.0).1, "guesses that fail change nothing either");
}

#[test]
fn the_fixture_model_scores_its_batch_as_transformers_does() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gpt2");
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("golden.json")).expect("the fixture")).expect("JSON");
    let ids = |key: &str| -> Vec<u32> {
        golden[key].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let (inputs, targets) = (ids("inputs"), ids("targets"));
    let checkpoint = Gpt2Checkpoint::open(&dir.join("model")).expect("a model");
    let model = Gpt2Infer::new(cpu(), &checkpoint, options(13, 64)).expect("fits");
    let engine = engine(Box::new(model));
    let handle = engine.handle();
    let score = |prompt: &[u32]| {
        let params = RequestParams {
            prompt: prompt.to_vec(),
            max_tokens: 0,
            prompt_logprobs: Some(0),
            ..RequestParams::default()
        };
        handle.complete(handle.check(params).expect("valid")).expect("room").prompt
    };
    // Each target is scored behind the inputs before it: the mean is the loss.
    let mut nll = 0.0;
    for (inputs, targets) in inputs.chunks(13).zip(targets.chunks(13)) {
        for at in 0..12 {
            let prompt: Vec<u32> = inputs[..=at].iter().chain(&targets[at..=at]).copied().collect();
            nll -= f64::from(score(&prompt)[at + 1].logprob.expect("not the first"));
        }
    }
    // The last position of each row would need a context of 14; the golden logits give those two losses.
    let logits: Vec<f64> =
        golden["logits"].as_array().expect("logits").iter().map(|l| l.as_f64().expect("a logit")).collect();
    for row in [12, 25] {
        let row_logits = &logits[row * 97..(row + 1) * 97];
        nll += row_logits.iter().map(|l| l.exp()).sum::<f64>().ln() - row_logits[targets[row] as usize];
    }
    let loss = golden["loss"].as_f64().expect("a loss");
    assert!((nll / 26.0 - loss).abs() < 1e-3, "{} against {loss}", nll / 26.0);
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_both_numbers() {
    let engine = engine(gpt2(64));
    let handle = engine.handle();
    let ok = RequestParams { prompt: vec![1, 2, 3], ..RequestParams::default() };
    let refused = |params: RequestParams| handle.check(params).expect_err("refused").to_string();
    for (params, says) in [
        (RequestParams { prompt: vec![], ..ok.clone() }, "empty prompt"),
        (RequestParams { prompt: vec![60], ..ok.clone() }, "token 60 is outside the vocabulary of 60"),
        (
            RequestParams { prompt: vec![1; 121], ..ok.clone() },
            "the prompt has 121 tokens, but the model's context holds 120",
        ),
        (
            RequestParams { prompt: vec![1; 60], max_tokens: 40, ..ok.clone() },
            "100 tokens of prompt and output need 4 pages",
        ),
        (RequestParams { n: 0, ..ok.clone() }, "n = 0"),
        (RequestParams { n: 1_000_000, ..ok.clone() }, "1000000 continuations of one prompt: at most 128"),
        (RequestParams { n: 3, best_of: Some(2), ..ok.clone() }, "best_of is below n"),
        (RequestParams { best_of: Some(usize::MAX), ..ok.clone() }, "at most 128"),
        (RequestParams { stop: vec![String::new()], ..ok.clone() }, "empty stop string"),
        (RequestParams { stop: vec!["x".into(); 100_000], ..ok.clone() }, "100000 stop strings: at most 64"),
        (RequestParams { stop_ids: vec![99], ..ok.clone() }, "stop_token_ids: token 99"),
        (RequestParams { logprobs: Some(60_000), ..ok.clone() }, "60000 alternatives for a token: at most 60"),
        (RequestParams { min_tokens: 17, ..ok.clone() }, "min_tokens is above max_tokens"),
    ] {
        let message = refused(params);
        assert!(message.contains(says), "{message}");
    }
    let biases = vec![(1, 0.5); 1_000_000];
    let params = RequestParams { sample: SampleParams { logit_bias: biases, ..Default::default() }, ..ok.clone() };
    assert_eq!(
        handle.check(params).expect_err("refused"),
        RequestError::TooMany { field: Field::LogitBias, what: "logit biases", asked: 1_000_000, limit: 1024 }
    );
    // More tokens than the context has room for are cut, and said to be.
    let cut = handle.check(RequestParams { prompt: vec![1; 50], max_tokens: usize::MAX, ..ok.clone() });
    assert!(matches!(cut, Err(RequestError::NeverFits { tokens: 120, .. })));
    let engine = self::engine(gpt2(128));
    let cut = engine.handle().check(RequestParams { max_tokens: usize::MAX, ..ok }).expect("cut");
    assert!(cut.clipped() && cut.max_tokens() == 117);
}

/// The model has rows for 60 tokens, of which the tokenizer knows 50.
#[test]
fn tokens_that_the_tokenizer_does_not_know_are_neither_taken_nor_drawn() {
    let options = EngineOptions { vocab_size: Some(50), ..EngineOptions::default() };
    let engine = Engine::start(gpt2(256), letters(), options).expect("a thread");
    let handle = engine.handle();
    assert_eq!(handle.model().vocab_size, 50);
    // Hardly any token is likelier than another: ten of sixty would be drawn sooner or later.
    let sample = SampleParams { temperature: 100.0, ..SampleParams::default() };
    let ok = RequestParams { prompt: vec![1, 2, 49], n: 10, max_tokens: 100, sample, ..RequestParams::default() };
    let found = handle.complete(handle.check(ok.clone()).expect("valid")).expect("room");
    let drawn: Vec<u32> = found.choices.iter().flat_map(|choice| &choice.tokens).map(|token| token.id).collect();
    assert_eq!(drawn.len(), 1000);
    assert_eq!(drawn.iter().max(), Some(&49));
    let bias = |id: u32| SampleParams { logit_bias: vec![(id, 100.0)], ..SampleParams::default() };
    handle.check(RequestParams { sample: bias(49), stop_ids: vec![49], ..ok.clone() }).expect("the last one known");
    for (params, field, id) in [
        (RequestParams { prompt: vec![1, 55], ..ok.clone() }, Field::Prompt, 55),
        (RequestParams { stop_ids: vec![50], ..ok.clone() }, Field::StopTokenIds, 50),
        (RequestParams { sample: bias(50), ..ok.clone() }, Field::LogitBias, 50),
    ] {
        assert_eq!(handle.check(params).expect_err("unknown"), RequestError::BadToken { field, id, vocab_size: 50 });
    }
    // Log-probabilities are those among the known tokens: together they are 1.
    let scored = RequestParams { logprobs: Some(50), prompt_logprobs: Some(50), n: 1, max_tokens: 2, ..ok };
    let found = handle.complete(handle.check(scored).expect("valid")).expect("room");
    for token in found.prompt[1..].iter().chain(&found.choices[0].tokens) {
        let total: f64 = token.top.iter().map(|(_, log_prob)| f64::from(*log_prob).exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
    }
}

#[test]
fn a_full_queue_is_an_answer_and_a_drained_engine_finishes_its_work() {
    let options = EngineOptions { max_running: 1, max_queue: 2, ..EngineOptions::default() };
    let engine = Engine::start(gpt2(256), letters(), options).expect("a thread");
    let handle = engine.handle();
    let long = || {
        let params = RequestParams { prompt: vec![1, 2, 3], max_tokens: 100, ..RequestParams::default() };
        handle.check(params).expect("valid")
    };
    let mut streams = Vec::new();
    let refused = loop {
        match handle.stream(long()) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SubmitError::QueueFull { .. }), "{refused}");
    assert!(streams.len() >= 2);
    let request = long();
    engine.drain();
    assert_eq!(handle.submit(request, Box::new(|_| true)).expect_err("closed"), SubmitError::Closed);
    for (_ticket, events) in streams {
        let completion = Completion::collect(events);
        assert_eq!(completion.choices[0].reason, Some(FinishReason::Length));
        assert_eq!(completion.choices[0].tokens.len(), 100);
    }
}

/// Hands in a request at whose first event the engine's thread stops, until what is returned is dropped.
fn hold(handle: &EngineHandle, request: Request) -> (Ticket, Sender<()>) {
    let (begun, has_begun) = channel();
    let (release, released) = channel::<()>();
    let mut held = false;
    let sink: Sink = Box::new(move |_| {
        if !held {
            held = true;
            begun.send(()).expect("somebody waits for it");
            // Ends when the other side is dropped.
            assert!(released.recv().is_err());
        }
        true
    });
    let ticket = handle.submit(request, sink).expect("room in the queue");
    has_begun.recv().expect("it begins");
    (ticket, release)
}

/// An engine that serves one continuation at a time and lets two requests wait.
fn narrow_engine() -> Engine {
    let options = EngineOptions { max_running: 1, max_queue: 2, ..EngineOptions::default() };
    Engine::start(gpt2(256), letters(), options).expect("a thread")
}

fn of_ten_tokens(handle: &EngineHandle) -> Request {
    let params = RequestParams { prompt: vec![1, 2, 3], max_tokens: 10, ..RequestParams::default() };
    handle.check(params).expect("valid")
}

#[test]
fn as_many_requests_wait_as_may_wait_and_no_more() {
    let engine = narrow_engine();
    let handle = engine.handle();
    let held = hold(&handle, of_ten_tokens(&handle));
    let waiting: Vec<_> = (0..2).map(|_| handle.stream(of_ten_tokens(&handle)).expect("room in the queue")).collect();
    let refused = handle.stream(of_ten_tokens(&handle)).expect_err("no room in the queue");
    assert_eq!(refused, SubmitError::QueueFull { waiting: 2 });
    drop(held.1);
    for (_ticket, events) in waiting {
        assert_eq!(Completion::collect(events).choices[0].tokens.len(), 10);
    }
}

/// Who finds a place free does not wait, however few may.
#[test]
fn nobody_is_refused_for_whom_a_place_is_free() {
    let options = EngineOptions { max_running: 3, max_queue: 1, ..EngineOptions::default() };
    let engine = Engine::start(gpt2(256), letters(), options).expect("a thread");
    let handle = engine.handle();
    let held = hold(&handle, of_ten_tokens(&handle));
    // The engine takes nobody in now: two for the places that are free, and one that waits.
    let taken: Vec<_> = (0..3).map(|_| handle.stream(of_ten_tokens(&handle)).expect("a place")).collect();
    let refused = handle.stream(of_ten_tokens(&handle)).expect_err("no room in the queue");
    assert_eq!(refused, SubmitError::QueueFull { waiting: 3 });
    drop(held.1);
    for (_ticket, events) in taken {
        assert_eq!(Completion::collect(events).choices[0].tokens.len(), 10);
    }
    engine.drain();
    assert_eq!((handle.metrics().queued, handle.metrics().occupied), (0, 0));
}

#[test]
fn a_closed_engine_takes_nothing_while_it_works_on() {
    let engine = narrow_engine();
    let handle = engine.handle();
    let held = hold(&handle, of_ten_tokens(&handle));
    let (_ticket, waits) = handle.stream(of_ten_tokens(&handle)).expect("room in the queue");
    handle.close();
    let refused = handle.submit(of_ten_tokens(&handle), Box::new(|_| true)).expect_err("closed");
    assert_eq!(refused, SubmitError::Closed);
    drop(held.1);
    assert_eq!(Completion::collect(waits).choices[0].tokens.len(), 10);
    engine.drain();
    assert_eq!((handle.metrics().requests, handle.metrics().completed), (2, 2));
}

#[test]
fn a_request_whose_ticket_is_dropped_while_it_waits_is_never_computed() {
    let engine = narrow_engine();
    let handle = engine.handle();
    let held = hold(&handle, of_ten_tokens(&handle));
    // Its sink would take all events.
    drop(handle.submit(of_ten_tokens(&handle), Box::new(|_| true)).expect("room in the queue"));
    drop(held.1);
    engine.drain();
    let metrics = handle.metrics();
    assert_eq!((metrics.requests, metrics.completed, metrics.cancelled), (2, 1, 1));
    assert_eq!(metrics.drawn_tokens, 10);
}

#[test]
fn hidden_tokens_are_drawn_and_add_no_text() {
    let engine = engine(gpt2(256));
    let handle = engine.handle();
    let run = |hidden: Vec<u32>| {
        let params = RequestParams { prompt: vec![1, 2, 3], max_tokens: 60, hidden, ..RequestParams::default() };
        handle.complete(handle.check(params).expect("valid")).expect("room").choices.remove(0)
    };
    let (all, odd) = (run(Vec::new()), run((0..60).step_by(2).rev().collect()));
    assert_eq!(odd.tokens, all.tokens);
    let letters = |id: u32| char::from(b'a' + (id % 26) as u8);
    let expected: String = all.tokens.iter().map(|t| t.id).filter(|id| id % 2 == 1).map(letters).collect();
    assert_eq!(odd.text, expected);
    assert!(!expected.is_empty() && expected.len() < all.text.len(), "{expected}");
}

/// One place to wait would never be free for forty at once.
#[test]
fn requests_that_are_handed_in_together_wait_in_one_place() {
    let options = EngineOptions { max_running: 1, max_queue: 1, ..EngineOptions::default() };
    let engine = Engine::start(gpt2(256), letters(), options).expect("a thread");
    let handle = engine.handle();
    let (sender, events) = channel();
    let batch = (0..40).map(|_| {
        let params = RequestParams { prompt: vec![1, 2, 3], max_tokens: 20, ..RequestParams::default() };
        let sender = sender.clone();
        let sink: Sink = Box::new(move |event| sender.send(event).is_ok());
        (handle.check(params).expect("valid"), sink)
    });
    let tickets = handle.submit_all(batch.collect()).expect("one place is enough");
    assert_eq!(tickets.len(), 40);
    drop(sender);
    let ended = events.into_iter().filter(|event| matches!(event, Event::Done(_))).count();
    assert_eq!((ended, handle.metrics().queued, handle.metrics().failed), (40, 0, 0));
}

#[test]
fn a_dropped_engine_says_so_to_who_waits() {
    let engine = engine(gpt2(256));
    let params = RequestParams { prompt: vec![1, 2, 3], max_tokens: 110, n: 100, ..RequestParams::default() };
    let (_ticket, events) = engine.handle().stream(engine.handle().check(params).expect("valid")).expect("room");
    drop(engine);
    assert_eq!(Completion::collect(events).error.as_deref(), Some("the engine was stopped"));
}
