//! How continuations begin and end, and what is reported of them.

use std::time::{Duration, Instant};

use super::*;

/// Makes the tokens of `liked` certain, or as good as certain.
fn liking(liked: u32) -> SampleParams {
    SampleParams { logit_bias: vec![(liked, 100.0)], ..SampleParams::default() }
}

#[test]
fn each_stop_token_ends_a_continuation_in_whatever_order_they_are_named() {
    let run = |liked: u32, ignore_eos: bool| {
        let mut rig = Rig::new(limits(64, 4, 32), 4);
        rig.eos = vec![5];
        let params =
            RequestParams { stop_ids: vec![9, 2], ignore_eos, sample: liking(liked), ..plain(vec![1, 3, 4], 4) };
        let (result, _) = rig.add(&params);
        rig.run();
        let choice = result.lock().expect("unpoisoned").0.choices.remove(0);
        (choice.reason.expect("it has ended"), choice.drawn, choice.text)
    };
    for id in [9, 2, 5] {
        assert_eq!(run(id, false), (FinishReason::StopToken(id), 1, String::new()));
    }
    assert_eq!(run(9, true), (FinishReason::StopToken(9), 1, String::new()), "only the model's own are ignored");
    assert_eq!(run(5, true), (FinishReason::Length, 4, "ffff".to_owned()));
}

#[test]
fn a_stop_token_does_not_begin_in_what_the_prompt_owes() {
    let run = |stop_ids: Vec<u32>| {
        let mut rig = Rig::new(limits(64, 4, 32), 4);
        let spelled = |id: u32| [&b"ab"[..], b"ac", b"x"][id.min(2) as usize].to_vec();
        rig.scheduler.bytes = Arc::new(move |_, id| spelled(id));
        let params = RequestParams { stop_ids, owed: b"a".to_vec(), sample: liking(0), ..plain(vec![3, 4, 5], 1) };
        let (result, _) = rig.add(&params);
        rig.run();
        let choice = result.lock().expect("unpoisoned").0.choices.remove(0);
        (choice.text, choice.reason.expect("it has ended"))
    };
    // Of the two tokens that spell "a" and more the first is by far the likelier.
    assert_eq!(run(vec![]), ("b".to_owned(), FinishReason::Length));
    assert_eq!(run(vec![0]), ("c".to_owned(), FinishReason::Length));
}

#[test]
fn the_first_tokens_end_nothing_and_may_begin_a_stop_string() {
    let run = |stop: &str, min_tokens: usize| {
        let mut rig = Rig::new(limits(64, 4, 32), 4);
        let stop = vec![stop.to_owned()];
        let (result, _) = rig.add(&RequestParams { stop, min_tokens, sample: liking(2), ..plain(vec![1, 3, 4], 6) });
        rig.run();
        let choice = result.lock().expect("unpoisoned").0.choices.remove(0);
        (choice.text, choice.drawn)
    };
    assert_eq!(run("c", 0), (String::new(), 1));
    assert_eq!(run("c", 1), ("c".to_owned(), 2));
    assert_eq!(run("cc", 1), (String::new(), 2), "it begins in the first token and ends behind it");
    assert_eq!(run("cc", 3), ("cc".to_owned(), 4));
    assert_eq!(run("ccc", 1), (String::new(), 3));
    assert_eq!(run("c", 6), ("cccccc".to_owned(), 6));
}

#[test]
fn proposals_and_those_that_came_true_are_counted() {
    let mut rig = Rig::new(limits(64, 4, 32), 8);
    let greedy = SampleParams { temperature: 0.0, ..SampleParams::default() };
    let prompt: Vec<u32> = (0..30).map(|i| i % 10).collect();
    let (result, _) = rig.add(&RequestParams { lookup: 8, sample: greedy, ..plain(prompt, 30) });
    rig.run();
    let usage = result.lock().expect("unpoisoned").0.usage;
    // The first step reads the prompt; each later one is fed the last token and the proposals. Each gives one token, and one
    // more for each proposal that came true.
    let steps = rig.metrics.steps.get() as usize;
    let (drafted, accepted) = (rig.model.fed - 30 - (steps - 1), 30 - steps);
    assert!(accepted > 0 && drafted > accepted, "{drafted} proposed, {accepted} accepted");
    assert_eq!((usage.drafted_tokens, usage.accepted_tokens), (drafted, accepted));
    let counted = (rig.metrics.drafted_tokens.get(), rig.metrics.accepted_tokens.get());
    assert_eq!(counted, (drafted as u64, accepted as u64));
}

#[test]
fn waiting_reading_and_drawing_are_timed_apart() {
    let mut rig = Rig::new(limits(64, 4, 8), 4);
    let pause = || {
        let begin = Instant::now();
        std::thread::sleep(Duration::from_millis(3));
        begin.elapsed().as_secs_f64()
    };
    let begin = Instant::now();
    let (result, _) = rig.add(&plain(vec![1; 16], 2));
    let queued = pause();
    rig.step();
    // Half of the prompt has been read.
    let read = pause();
    rig.step();
    assert_eq!(rig.metrics.drawn_tokens.get(), 1);
    let drew = pause();
    rig.run();
    let all = begin.elapsed().as_secs_f64();
    let usage = result.lock().expect("unpoisoned").0.usage;
    // Each part is at least as long as its pause, and together they are no longer than everything.
    assert!(usage.queue_seconds >= queued, "{usage:?}");
    assert!(usage.prefill_seconds >= read, "{usage:?}");
    assert!(usage.decode_seconds >= drew, "{usage:?}");
    assert!(usage.queue_seconds + usage.prefill_seconds + usage.decode_seconds <= all, "{usage:?} in {all} s");
}
