//! The scheduler on a model that checks every page it reads, against a loop that has no pages at all.

mod ends;
mod fairness;

use std::sync::{Arc, Mutex};

use corella_model::{BatchPlan, Draw, PlanError, StepLimits, StepModel, StepOut, Threads};
use proptest::prelude::*;

use super::{Cancelled, Scheduler};
use crate::completion::Completion;
use crate::event::{FinishReason, TokenLogProb};
use crate::metrics::{Metrics, Place};
use crate::pages::CacheScope;
use crate::request::{Request, RequestLimits, RequestParams};
use crate::sampler::{History, SampleParams, Sampler, Sampling};
use crate::sequence::TokenBytes;

const V: usize = 12;

/// The logits behind `context`: a function of all its tokens, so that any wrong page changes them. It likes to repeat
/// what it said, so that prompt lookup has something to find.
fn logits_behind(context: impl Iterator<Item = u32>) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let (mut last, mut sum) = (0, 0u64);
    for token in context {
        hash = (hash ^ u64::from(token) ^ 0x55).wrapping_mul(0x0000_0100_0000_01b3);
        last = token;
        sum += u64::from(token);
    }
    let noise = |id: u64| ((hash.rotate_left(id as u32 * 5) >> 40) & 0xff) as f32 / 128.0;
    let liked = u64::from(last + 1) % V as u64;
    (0..V as u64).map(|id| noise(id) + if id == liked && sum % 3 > 0 { 3.0 } else { 0.0 }).collect()
}

/// A model that keeps tokens where others keep keys and values.
struct PageModel {
    limits: StepLimits,
    pages: Vec<Vec<Option<u32>>>,
    logits: Vec<f32>,
    fed: usize,
    /// Whether it draws where it can, as a device does, and what it drew.
    draws: bool,
    drawn: Vec<u32>,
}

impl PageModel {
    fn new(limits: StepLimits) -> PageModel {
        let pages = vec![vec![None; limits.page_tokens]; limits.pages];
        PageModel { limits, pages, logits: Vec::new(), fed: 0, draws: false, drawn: Vec::new() }
    }
}

impl StepModel for PageModel {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn backend_name(&self) -> String {
        "pages".to_owned()
    }

    fn draws(&self) -> bool {
        self.draws
    }

    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        self.limits.check(plan)?;
        let size = self.limits.page_tokens;
        let mut rows = Vec::new();
        let mut at = 0;
        for seq in &plan.seqs {
            for position in seq.start..seq.start + seq.len {
                self.pages[seq.pages[position / size] as usize][position % size] = Some(plan.tokens[at]);
                rows.push((seq, position));
                at += 1;
            }
        }
        self.fed += at;
        self.logits.clear();
        let behind = |row: usize| {
            let (seq, position) = rows[row];
            let read = |p: usize| self.pages[seq.pages[p / size] as usize][p % size].expect("a position was written");
            logits_behind((0..=position).map(read))
        };
        self.logits.extend(plan.logit_rows.iter().flat_map(|row| behind(*row)));
        self.drawn = plan.draws.iter().map(|(row, draw)| draw_of(behind(*row), draw)).collect();
        Ok(StepOut { logits: &self.logits, drawn: &self.drawn, threads: Threads::NONE })
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.pages[to as usize] = self.pages[from as usize].clone();
    }
}

/// What a device draws.
fn draw_of(mut logits: Vec<f32>, draw: &Draw) -> u32 {
    for edit in &draw.edits {
        logits[edit.id as usize] = edit.apply(logits[edit.id as usize]);
    }
    let Draw { temperature, top_k, top_p, min_p, .. } = *draw;
    let params = SampleParams { temperature, top_k, top_p, min_p, ..SampleParams::default() };
    let sampling = Sampling::new(params, V).expect("valid");
    Sampler::default().distribution(&logits[..draw.tokens], &sampling).pick(draw.bits)
}

fn bytes_of(id: u32) -> Vec<u8> {
    vec![b'a' + id as u8]
}

/// What a request must give, one token after the other, with no pages, no batch and no cache.
fn expected(params: &RequestParams, room: usize) -> Completion {
    let sampling = Sampling::new(params.sample.clone(), V).expect("valid");
    let (mut sampler, mut plain) = (Sampler::default(), Sampler::default());
    let mut scored = |logits: &[f32], id: u32, n: Option<usize>| {
        let mut raw = plain.distribution(logits, &Sampling::plain());
        TokenLogProb {
            id,
            logprob: n.map(|_| raw.log_prob(id)),
            entropy: n.map(|_| raw.entropy()),
            top: n.map(|n| raw.top(n)).unwrap_or_default(),
        }
    };
    let mut completion = Completion::default();
    for sample in 0..params.n {
        let mut tokens = params.prompt.clone();
        let mut history = History::new(&sampling, &tokens);
        let mut choice = crate::completion::Choice::default();
        let max = params.max_tokens.min(room);
        while choice.reason.is_none() {
            if choice.drawn == max {
                choice.reason = Some(FinishReason::Length);
                break;
            }
            let logits = logits_behind(tokens.iter().copied());
            let mut adjusted = logits.clone();
            let owed = params.owed.get(choice.drawn).map(|letter| usize::from(letter - b'a'));
            let forbidden = if choice.drawn < params.min_tokens && owed.is_none() { &params.stop_ids[..] } else { &[] };
            history.adjust(&mut adjusted, &sampling, forbidden);
            if let Some(owed) = owed {
                adjusted.iter_mut().enumerate().filter(|(id, _)| *id != owed).for_each(|(_, l)| *l = f32::NEG_INFINITY);
            }
            let id = sampler.distribution(&adjusted, &sampling).draw(
                params.sample.seed,
                params.first_sample + sample as u64,
                tokens.len() as u64,
            );
            choice.drawn += 1;
            if owed.is_none() && params.stop_ids.contains(&id) {
                choice.reason = Some(FinishReason::StopToken(id));
                break;
            }
            tokens.push(id);
            history.push(id);
            choice.tokens.push(scored(&logits, id, params.logprobs));
            if owed.is_some() {
                continue;
            }
            choice.text.push((b'a' + id as u8) as char);
            let begin = params.min_tokens.saturating_sub(1 + params.owed.len());
            let found = params.stop.iter().find(|s| choice.text.get(begin..).is_some_and(|t| t.ends_with(s.as_str())));
            if let Some(stop) = found {
                let left = choice.text.len() - stop.len();
                choice.text.truncate(left);
                choice.tokens.truncate(params.owed.len() + left);
                choice.reason = Some(FinishReason::StopString(stop.clone()));
            }
        }
        completion.choices.push(choice);
    }
    if let Some(n) = params.prompt_logprobs {
        completion.prompt.push(TokenLogProb { id: params.prompt[0], ..TokenLogProb::default() });
        for at in 1..params.prompt.len() {
            let logits = logits_behind(params.prompt[..at].iter().copied());
            completion.prompt.push(scored(&logits, params.prompt[at], Some(n)));
        }
    }
    completion
}

/// A scheduler with its model, and the results of each request handed in.
struct Rig {
    scheduler: Scheduler,
    model: PageModel,
    metrics: Arc<Metrics>,
    /// The model's own end-of-text tokens.
    eos: Vec<u32>,
}

type Shared = Arc<Mutex<(Completion, bool)>>;

impl Rig {
    fn new(limits: StepLimits, max_running: usize) -> Rig {
        let metrics = Arc::new(Metrics::default());
        let bytes: TokenBytes = Arc::new(|_, id| bytes_of(id));
        let scheduler = Scheduler::new(limits, V, max_running, bytes, metrics.clone());
        Rig { scheduler, model: PageModel::new(limits), metrics, eos: Vec::new() }
    }

    fn add(&mut self, params: &RequestParams) -> (Shared, Cancelled) {
        let limits = RequestLimits::default();
        let request = Request::new(params.clone(), &self.model.limits, &self.eos, &limits).expect("valid");
        let shared = Shared::default();
        let (kept, cancelled) = (shared.clone(), Cancelled::default());
        let place = Place::alone(&self.metrics);
        let sink = move |event| {
            let mut result = kept.lock().expect("unpoisoned");
            let ended = result.0.add(event);
            result.1 |= ended;
            true
        };
        self.scheduler.add(Arc::new(request), Box::new(sink), cancelled.clone(), place);
        (shared, cancelled)
    }

    fn step(&mut self) {
        self.scheduler.step(&mut self.model);
        assert!(self.scheduler.waiting.iter().all(|seq| seq.pages.is_empty()), "who waits holds nothing");
        let held: Vec<&[u32]> = self.scheduler.running.iter().map(|seq| &seq.pages[..]).collect();
        self.scheduler.pool.audit(&held).expect("the books balance");
        for seq in &self.scheduler.running {
            let next = seq.computed / self.model.limits.page_tokens;
            assert_eq!(seq.published, next, "full pages are known");
            assert!(seq.pages[next..].iter().all(|page| self.scheduler.pool.writable(*page)), "others are its own");
        }
    }

    fn run(&mut self) {
        while !self.scheduler.idle() {
            self.step();
        }
        assert_eq!(self.scheduler.pool.available(), self.model.limits.pages, "all pages are free at the end");
        assert_eq!(self.metrics.queued.get(), 0);
    }
}

fn limits(pages: usize, page_tokens: usize, max_batch_tokens: usize) -> StepLimits {
    StepLimits {
        context_len: 60,
        vocab_size: V,
        page_tokens,
        pages,
        page_bytes: 1,
        max_batch_tokens,
        max_seqs: 8,
        max_logit_rows: 12,
    }
}

fn check(params: &RequestParams, found: &Completion) {
    let expected = expected(params, 60 - params.prompt.len());
    assert_eq!(found.error, None);
    assert_eq!(found.choices, expected.choices, "{params:?}");
    assert_eq!(found.prompt, expected.prompt, "{params:?}");
    let drawn: usize = expected.choices.iter().map(|c| c.drawn).sum();
    assert_eq!((found.usage.completion_tokens, found.usage.prompt_tokens), (drawn, params.prompt.len()));
}

fn request() -> impl Strategy<Value = RequestParams> {
    // Few prompts with common beginnings, so that pages are shared.
    let prompt = (0u32..3, 1usize..40, prop::collection::vec(0..V as u32, 0..4)).prop_map(|(kind, len, end)| {
        let mut prompt: Vec<u32> = (0..len as u32).map(|i| (i * (kind + 3) + i / 7) % V as u32).collect();
        prompt.extend(end);
        prompt
    });
    let sample =
        (prop_oneof![Just(0.0f32), Just(1.0), Just(0.7)], prop::option::of(0.3f32..1.0), any::<u64>(), 0..4u32)
            .prop_map(|(temperature, top_p, seed, kind)| SampleParams {
                temperature,
                top_p,
                seed,
                repetition_penalty: if kind == 1 { 1.3 } else { 1.0 },
                frequency_penalty: if kind == 2 { 0.5 } else { 0.0 },
                logit_bias: if kind == 3 { vec![(5, 1.5)] } else { vec![] },
                ..SampleParams::default()
            });
    let ends = (prop::collection::vec("[a-l]{1,2}", 0..2), prop::option::of(0..V as u32), 0usize..6);
    let reports = (prop::option::of(0usize..3), prop::option::of(0usize..3), 0usize..6, any::<bool>());
    // Most prompts owe nothing.
    let first = (any::<u64>(), prop_oneof![Just(String::new()), Just(String::new()), "[a-l]{1,2}"]);
    (prompt, 1usize..4, 0usize..14, sample, ends, reports, first).prop_map(
        |(
            prompt,
            n,
            max_tokens,
            sample,
            (stop, stop_id, min),
            (logprobs, prompt_logprobs, lookup, salted),
            (first, owed),
        )| {
            RequestParams {
                n,
                max_tokens,
                min_tokens: min.min(max_tokens),
                sample,
                first_sample: first >> 1,
                stop,
                stop_ids: stop_id.into_iter().collect(),
                logprobs,
                prompt_logprobs,
                lookup,
                scope: if salted { CacheScope::salted("a") } else { CacheScope::default() },
                owed: owed.into_bytes(),
                prompt,
                ..RequestParams::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random requests come and go on an arena that is hardly large enough: each gets what it would get alone.
    #[test]
    fn a_request_gets_the_same_among_others_as_alone(
        requests in prop::collection::vec((request(), 0usize..12, prop::option::of(0usize..20)), 1..12),
        (page_tokens, spare) in (1usize..9, 0usize..12),
        max_batch_tokens in 1usize..40,
        max_running in 1usize..9,
        model_draws: bool,
    ) {
        let pages = 60usize.div_ceil(page_tokens) + spare;
        let mut rig = Rig::new(limits(pages, page_tokens, max_batch_tokens), max_running);
        rig.model.draws = model_draws;
        let mut under_way = Vec::new();
        for (params, steps, cancel_after) in requests {
            let (result, cancelled) = rig.add(&params);
            under_way.push((params, result, cancelled, cancel_after));
            for _ in 0..steps {
                rig.step();
                for (_, _, cancelled, after) in &mut under_way {
                    match after {
                        Some(0) => cancelled.store(true, std::sync::atomic::Ordering::Relaxed),
                        Some(n) => *n -= 1,
                        None => {}
                    }
                }
            }
        }
        rig.run();
        for (params, result, _, cancel_after) in &under_way {
            let result = result.lock().expect("unpoisoned");
            if cancel_after.is_none() {
                prop_assert!(result.1, "it has ended");
                check(params, &result.0);
            }
        }
    }
}

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
fn what_repeats_itself_takes_fewer_steps_with_lookup() {
    let prompt: Vec<u32> = (0..30).map(|i| i % 10).collect();
    let steps = |lookup: usize| {
        let mut rig = Rig::new(limits(64, 4, 32), 8);
        let greedy = SampleParams { temperature: 0.0, ..SampleParams::default() };
        let params = RequestParams { lookup, sample: greedy, ..plain(prompt.clone(), 30) };
        let (result, _) = rig.add(&params);
        rig.run();
        let result = result.lock().expect("unpoisoned");
        check(&params, &result.0);
        (rig.metrics.steps.get(), result.0.usage.accepted_tokens)
    };
    assert_eq!(steps(0), (30, 0));
    let (fewer, accepted) = steps(8);
    assert!(fewer < 30 && accepted > 0 && fewer + accepted as u64 >= 30, "{fewer} steps, {accepted} accepted");
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
    let mut rig = Rig::new(limits(64, 4, 64), 4);
    let all = RequestParams { n: 6, logprobs: Some(0), ..plain(vec![3, 1, 4, 1, 5], 8) };
    let (every, _) = rig.add(&all);
    rig.run();
    let mut choices = every.lock().expect("unpoisoned").0.choices.clone();
    let mean = |choice: &crate::completion::Choice| {
        let total: f64 = choice.tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
        total / choice.tokens.len() as f64
    };
    choices.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    choices.truncate(2);
    let (best, _) = rig.add(&RequestParams { n: 2, best_of: Some(6), ..all });
    rig.run();
    assert_eq!(best.lock().expect("unpoisoned").0.choices, choices);
}
