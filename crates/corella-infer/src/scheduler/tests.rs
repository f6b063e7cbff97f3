//! The scheduler on a model that checks every page it reads, against a loop that has no pages at all.

mod alone;
mod ends;
mod fairness;
mod page_model;
mod proposals;
mod random_requests;
mod rig;

use std::sync::{Arc, Mutex};

use corella_model::{BatchPlan, Draw, PlanError, StepLimits, StepModel, StepOut, Threads};
use proptest::prelude::*;

use super::{Cancelled, HandedIn, Scheduler, Sink};
use crate::completion::Completion;
use crate::event::{Event, FinishReason, TokenLogProb};
use crate::metrics::{Metrics, Place};
use crate::pages::CacheScope;
use crate::request::{LogProbStage, Request, RequestLimits, RequestParams};
use crate::sampler::{History, SampleParams, Sampler, Sampling};
use crate::sequence::TokenBytes;

use alone::expected;
use page_model::{PageModel, V, bytes_of, logits_behind};
use rig::{Rig, Shared, check, limits};

fn plain(prompt: Vec<u32>, max_tokens: usize) -> RequestParams {
    RequestParams { prompt, max_tokens, ..RequestParams::default() }
}

#[test]
fn samples_of_one_prompt_read_it_once() {
    let mut rig = Rig::new(limits(64, 4, 16), 8);
    let params = RequestParams { n: 6, ..plain((0..38).map(|i| i % 11).collect(), 3) };
    let (result, _) = rig.add(&params);
    rig.run();
    check(&params, &result.lock().expect("unpoisoned").0);
    // The first draw of all six comes from one row; two more tokens are fed for each.
    assert_eq!(rig.model.fed, 38 + 6 * 2);
}

#[test]
fn prompts_with_the_same_beginning_share_its_pages_and_scopes_do_not() {
    let prompt: Vec<u32> = (0..38).map(|i| i % 11).collect();
    let mut rig = Rig::new(limits(64, 4, 64), 8);
    let mut run = |params: &RequestParams| {
        let before = rig.model.fed;
        let (result, _) = rig.add(params);
        rig.run();
        let result = result.lock().expect("unpoisoned");
        check(params, &result.0);
        (rig.model.fed - before, result.0.usage.cached_tokens)
    };
    assert_eq!(run(&plain(prompt.clone(), 1)), (38, 0));
    assert_eq!(run(&plain(prompt.clone(), 1)), (2, 36));
    let salted = RequestParams { scope: CacheScope::salted("somebody"), ..plain(prompt.clone(), 1) };
    assert_eq!(run(&salted), (38, 0), "another scope finds nothing");
    assert_eq!(run(&salted), (2, 36), "its own pages it finds");
    // Scores: none were kept with the pages, so they are computed, and kept; then all but the last page is found.
    let scored = RequestParams { prompt_logprobs: Some(1), ..plain(prompt.clone(), 1) };
    assert_eq!(run(&scored), (38, 0));
    assert_eq!(run(&scored), (6, 32));
    let more = RequestParams { prompt_logprobs: Some(2), ..plain(prompt.clone(), 1) };
    assert_eq!(run(&more), (38, 0), "more alternatives than were kept");
    assert_eq!(run(&scored), (6, 32), "fewer are a part of more");
    assert_eq!(run(&plain(prompt, 1)), (2, 36));
}

#[test]
fn requests_that_come_together_compute_a_common_beginning_once() {
    let prompt: Vec<u32> = (0..40).map(|i| i % 11).collect();
    let mut rig = Rig::new(limits(64, 4, 8), 8);
    let requests: Vec<_> = (0..4)
        .map(|end| {
            let mut prompt = prompt.clone();
            prompt.extend([end, 1, end]);
            let params = RequestParams { prompt_logprobs: Some(0), ..plain(prompt, 0) };
            (rig.add(&params).0, params)
        })
        .collect();
    rig.run();
    for (result, params) in requests {
        check(&params, &result.lock().expect("unpoisoned").0);
    }
    // Each has its own last two tokens, and the page before them for its logits; the last token is not needed.
    assert!(rig.model.fed <= 42 + 3 * (2 + 2 * 4), "{} tokens were fed", rig.model.fed);
}

#[test]
fn a_long_prompt_does_not_keep_short_ones_waiting() {
    let mut rig = Rig::new(limits(64, 4, 8), 4);
    let (long, _) = rig.add(&plain((0..55).map(|i| i * 5 % 12).collect(), 1));
    let (short, _) = rig.add(&plain(vec![1, 2, 3], 1));
    rig.step();
    assert!(short.lock().expect("unpoisoned").1, "the short one is done after one step");
    assert!(!long.lock().expect("unpoisoned").1);
    rig.run();
}

#[test]
fn cancelling_frees_pages_before_the_next_step() {
    let mut rig = Rig::new(limits(15, 4, 64), 4);
    let (_, cancelled) = rig.add(&RequestParams { n: 3, ..plain((0..30).map(|i| i % 12).collect(), 20) });
    rig.step();
    rig.step();
    assert!(rig.metrics.pages_held.get() >= 8);
    cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.step();
    assert_eq!((rig.metrics.pages_held.get(), rig.metrics.cancelled.get()), (0, 1));
    assert!(rig.scheduler.idle());
}

#[test]
fn when_pages_run_out_the_youngest_gives_way_and_nothing_is_lost() {
    let mut rig = Rig::new(limits(15, 4, 64), 4);
    let requests: Vec<_> = (0..4).map(|i| plain(vec![i, 2, 3], 40)).collect();
    let results: Vec<_> = requests.iter().map(|params| rig.add(params).0).collect();
    let mut first_ended = false;
    while !rig.scheduler.idle() {
        rig.step();
        let ended: Vec<bool> = results.iter().map(|r| r.lock().expect("unpoisoned").1).collect();
        first_ended |= ended == [true, false, false, false];
    }
    assert!(rig.metrics.preemptions.get() > 0, "four times 11 pages do not fit into 15");
    assert!(first_ended, "the oldest is never the one that gives way");
    for (params, result) in requests.iter().zip(&results) {
        check(params, &result.lock().expect("unpoisoned").0);
    }
}

#[test]
fn the_likeliest_samples_are_returned_first() {
    // By the model's own log-probabilities, whatever the draws are from, whatever is reported, and whoever draws.
    let plainly = SampleParams::default();
    let mut kinds = vec![
        plainly.clone(),
        SampleParams { top_k: Some(6), ..plainly.clone() },
        SampleParams { min_p: Some(0.2), ..plainly.clone() },
        SampleParams { typical_p: Some(0.7), ..plainly.clone() },
    ];
    // What is likely among the few that are left is not always likely among all.
    kinds.extend((0..8).map(|seed| SampleParams { temperature: 3.0, top_p: Some(0.8), seed, ..plainly.clone() }));
    for (sample, model_draws) in kinds.iter().flat_map(|sample| [(sample, true), (sample, false)]) {
        let mut rig = Rig::new(limits(64, 4, 64), 4);
        rig.model.draws = model_draws;
        let all = RequestParams { n: 6, logprobs: Some(0), sample: sample.clone(), ..plain(vec![3, 1, 4, 1, 5], 8) };
        let (every, _) = rig.add(&all);
        rig.run();
        check(&all, &every.lock().expect("unpoisoned").0);
        let mut choices = every.lock().expect("unpoisoned").0.choices.clone();
        let mean = |choice: &crate::completion::Choice| {
            let total: f64 = choice.tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
            total / choice.tokens.len() as f64
        };
        choices.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        choices.truncate(2);
        for (logprobs, logprob_stage) in
            [(Some(0), LogProbStage::Raw), (Some(0), LogProbStage::Filtered), (None, LogProbStage::Raw)]
        {
            let (best, _) = rig.add(&RequestParams { n: 2, best_of: Some(6), logprobs, logprob_stage, ..all.clone() });
            rig.run();
            let best = &best.lock().expect("unpoisoned").0.choices;
            let texts =
                |choices: &[crate::completion::Choice]| choices.iter().map(|c| c.text.clone()).collect::<Vec<_>>();
            assert_eq!(texts(best), texts(&choices), "{logprobs:?} {logprob_stage:?}");
            if logprobs.is_some() && logprob_stage == LogProbStage::Raw {
                assert_eq!(*best, choices);
            }
        }
    }
}

/// Rows of logits behind those that the tokenizer knows are no tokens, whoever draws.
#[test]
fn logits_that_fill_up_are_never_drawn_from() {
    for draws in [true, false] {
        let mut rig = Rig::new(limits(64, 4, 64), 8);
        rig.scheduler.known_tokens = 7;
        rig.model.draws = draws;
        let sample = SampleParams { temperature: 100.0, ..SampleParams::default() };
        let (result, _) = rig.add(&RequestParams { n: 6, sample, ..plain(vec![1, 2, 3], 50) });
        rig.run();
        let choices = &result.lock().expect("unpoisoned").0.choices;
        let largest = choices.iter().flat_map(|choice| &choice.tokens).map(|token| token.id).max();
        assert_eq!(largest, Some(6));
    }
}

#[test]
fn who_is_in_a_step_that_fails_is_told_and_the_others_go_on() {
    let mut rig = Rig::new(limits(64, 4, 64), 3);
    let refused = |rig: &mut Rig| {
        rig.model.refuses = true;
        rig.step();
    };
    // What each is told, and how many wait when it hears of it: its own place is free by then.
    let told = Arc::new(Mutex::new(Vec::new()));
    for i in 0..3 {
        let (told, metrics) = (told.clone(), rig.metrics.clone());
        let sink = move |event| {
            told.lock().expect("unpoisoned").push((i, event, metrics.queued.get()));
            true
        };
        rig.add_to(&plain(vec![i, 2, 3, 4, 5], 6), Box::new(sink));
    }
    let waiting = plain(vec![3, 2, 3, 4, 5], 6);
    let (result, _) = rig.add(&waiting);
    refused(&mut rig);
    let failed = |i: u32, queued: u64| (i, Event::Failed("out of memory".to_owned()), queued);
    assert_eq!(*told.lock().expect("unpoisoned"), [failed(0, 3), failed(1, 2), failed(2, 1)]);
    assert_eq!((rig.metrics.failed.get(), rig.metrics.queued.get(), rig.metrics.pages_held.get()), (3, 1, 0));
    rig.run();
    check(&waiting, &result.lock().expect("unpoisoned").0);
    // In the middle of an output.
    let params = plain(vec![7, 2, 3, 4, 5], 6);
    let (result, _) = rig.add(&params);
    rig.step();
    rig.step();
    refused(&mut rig);
    assert_eq!(result.lock().expect("unpoisoned").0.error.as_deref(), Some("out of memory"));
    assert!(rig.scheduler.idle());
    assert_eq!((rig.metrics.failed.get(), rig.metrics.pages_held.get(), rig.metrics.completed.get()), (4, 0, 1));
    let (result, _) = rig.add(&params);
    rig.run();
    check(&params, &result.lock().expect("unpoisoned").0);
    assert_eq!((rig.metrics.failed.get(), rig.metrics.completed.get()), (4, 2));
}

/// Whoever draws, and also where nothing is drawn and only the prompt is scored, in one step or in several.
#[test]
fn logits_that_are_not_numbers_fail_the_request() {
    let scored = |prompt, max_tokens| RequestParams { prompt_logprobs: Some(1), ..plain(prompt, max_tokens) };
    let long: Vec<u32> = (0..38).map(|i| i % 11).collect();
    let requests = [
        plain(vec![1, 2, 3], 4),
        RequestParams { n: 3, logprobs: Some(2), ..plain(vec![1, 2, 3], 4) },
        scored(vec![1, 2, 3], 0),
        scored(long.clone(), 0),
        scored(long, 4),
    ];
    for (params, draws) in requests.iter().flat_map(|params| [(params, true), (params, false)]) {
        let mut rig = Rig::new(limits(64, 4, 8), 8);
        (rig.model.draws, rig.model.broken) = (draws, true);
        let (result, _) = rig.add(params);
        rig.run();
        let found = result.lock().expect("unpoisoned").0.clone();
        assert!(found.error.as_deref().is_some_and(|why| why.contains("not numbers")), "{params:?}: {found:?}");
        assert!(found.prompt.is_empty() && found.choices.iter().all(|choice| choice.tokens.is_empty()), "{found:?}");
        assert_eq!((rig.metrics.failed.get(), rig.metrics.pages_held.get()), (1, 0));
        // Nothing of it is left for others to find.
        rig.model.broken = false;
        let (result, _) = rig.add(params);
        rig.run();
        check(params, &result.lock().expect("unpoisoned").0);
    }
}
