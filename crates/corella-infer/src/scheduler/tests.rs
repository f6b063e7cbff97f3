//! The scheduler on a model that checks every page it reads, against a loop that has no pages at all.

mod ends;
mod fairness;

use std::sync::{Arc, Mutex};

use corella_model::{BatchPlan, Draw, PlanError, StepLimits, StepModel, StepOut, Threads};
use proptest::prelude::*;

use super::{Cancelled, Scheduler, Sink};
use crate::completion::Completion;
use crate::event::{Event, FinishReason, TokenLogProb};
use crate::metrics::{Metrics, Place};
use crate::pages::CacheScope;
use crate::request::{LogProbStage, Request, RequestLimits, RequestParams};
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
    /// Whether it refuses the next step, as a device does that has an error.
    refuses: bool,
}

impl PageModel {
    fn new(limits: StepLimits) -> PageModel {
        let pages = vec![vec![None; limits.page_tokens]; limits.pages];
        PageModel { limits, pages, logits: Vec::new(), fed: 0, draws: false, drawn: Vec::new(), refuses: false }
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
        if std::mem::take(&mut self.refuses) {
            return Err(PlanError::Backend("out of memory".to_owned()));
        }
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
    let mut scored = |logits: &[f32], sampling: &Sampling, id: u32, n: Option<usize>| {
        let mut found = plain.distribution(logits, sampling);
        TokenLogProb {
            id,
            logprob: n.map(|_| found.log_prob(id)),
            entropy: n.map(|_| found.entropy()),
            top: n.map(|n| found.top(n)).unwrap_or_default(),
        }
    };
    let raw = Sampling::plain();
    let mut completion = Completion::default();
    let samples = params.best_of.unwrap_or(params.n);
    // Means of the raw log-probabilities of all that was drawn, stop tokens too.
    let mut ranks = Vec::new();
    for sample in 0..samples {
        let mut sum = 0.0;
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
            sum += f64::from(scored(&logits, &raw, id, Some(0)).logprob.expect("asked for"));
            if owed.is_none() && params.stop_ids.contains(&id) {
                choice.reason = Some(FinishReason::StopToken(id));
                break;
            }
            tokens.push(id);
            history.push(id);
            choice.tokens.push(match params.logprob_stage {
                LogProbStage::Raw => scored(&logits, &raw, id, params.logprobs),
                LogProbStage::Filtered => scored(&adjusted, &sampling, id, params.logprobs),
            });
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
        completion.usage.completion_tokens += choice.drawn;
        ranks.push((sum / choice.drawn.max(1) as f64, choice));
    }
    if samples > params.n {
        ranks.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    completion.choices = ranks.into_iter().map(|(_, choice)| choice).take(params.n).collect();
    if let Some(n) = params.prompt_logprobs {
        completion.prompt.push(TokenLogProb { id: params.prompt[0], ..TokenLogProb::default() });
        for at in 1..params.prompt.len() {
            let logits = logits_behind(params.prompt[..at].iter().copied());
            completion.prompt.push(scored(&logits, &raw, params.prompt[at], Some(n)));
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
        let shared = Shared::default();
        let kept = shared.clone();
        let sink = move |event| {
            let mut result = kept.lock().expect("unpoisoned");
            let ended = result.0.add(event);
            result.1 |= ended;
            true
        };
        let cancelled = self.add_to(params, Box::new(sink));
        (shared, cancelled)
    }

    fn add_to(&mut self, params: &RequestParams, sink: Sink) -> Cancelled {
        let limits = RequestLimits::default();
        let request = Request::new(params.clone(), &self.model.limits, &self.eos, &limits).expect("valid");
        let (place, cancelled) = (Place::alone(&self.metrics), Cancelled::default());
        self.scheduler.add(Arc::new(request), sink, cancelled.clone(), place);
        cancelled
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
    let usage = (expected.usage.completion_tokens, params.prompt.len());
    assert_eq!((found.usage.completion_tokens, found.usage.prompt_tokens), usage);
}

fn request() -> impl Strategy<Value = RequestParams> {
    // Few prompts with common beginnings, so that pages are shared.
    let prompt = (0u32..3, 1usize..40, prop::collection::vec(0..V as u32, 0..4)).prop_map(|(kind, len, end)| {
        let mut prompt: Vec<u32> = (0..len as u32).map(|i| (i * (kind + 3) + i / 7) % V as u32).collect();
        prompt.extend(end);
        prompt
    });
    let filters = (
        prop::option::of(0.3f32..1.0),
        prop::option::weighted(0.3, 1usize..V + 2),
        prop::option::weighted(0.3, 0.01f32..0.6),
        prop::option::weighted(0.2, 0.2f32..1.0),
    );
    let sample = (prop_oneof![Just(0.0f32), Just(1.0), Just(0.7)], filters, any::<u64>(), 0..5u32).prop_map(
        |(temperature, (top_p, top_k, min_p, typical_p), seed, kind)| SampleParams {
            temperature,
            top_p,
            top_k,
            min_p,
            typical_p,
            seed,
            repetition_penalty: if kind == 1 { 1.3 } else { 1.0 },
            frequency_penalty: if kind == 2 { 0.5 } else { 0.0 },
            logit_bias: match kind {
                3 => vec![(5, 1.5)],
                // Both are added.
                4 => vec![(5, 3.0), (5, -1.5)],
                _ => vec![],
            },
            ..SampleParams::default()
        },
    );
    let ends = (prop::collection::vec("[a-l]{1,2}", 0..2), prop::option::of(0..V as u32), 0usize..6);
    let reports = (prop::option::of(0usize..3), prop::option::of(0usize..3), 0usize..6, any::<bool>(), any::<bool>());
    // How many more are drawn than returned.
    let n = (1usize..4, prop::option::weighted(0.2, 0usize..4));
    // Most prompts owe nothing.
    let first = (any::<u64>(), prop_oneof![Just(String::new()), Just(String::new()), "[a-l]{1,2}"]);
    (prompt, n, 0usize..14, sample, ends, reports, first).prop_map(
        |(
            prompt,
            (n, more),
            max_tokens,
            sample,
            (stop, stop_id, min),
            (logprobs, prompt_logprobs, lookup, salted, filtered),
            (first, owed),
        )| {
            RequestParams {
                n,
                best_of: more.map(|more| n + more),
                max_tokens,
                min_tokens: min.min(max_tokens),
                sample,
                first_sample: first >> 1,
                stop,
                stop_ids: stop_id.into_iter().collect(),
                logprobs,
                logprob_stage: if filtered { LogProbStage::Filtered } else { LogProbStage::Raw },
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

/// A stop token is forbidden before the minimum and allowed from there on, where the border lies among proposals too.
/// Runs a request on a model that draws itself, behind a prompt whose repetition proposes tokens, and checks its answer. How many
/// proposals came true.
fn accepted_proposals(params: RequestParams) -> usize {
    let mut rig = Rig::new(limits(64, 4, 32), 8);
    rig.model.draws = true;
    let params = RequestParams { lookup: 8, prompt: (0..30).map(|i| i % 10).collect(), ..params };
    let (result, _) = rig.add(&params);
    rig.run();
    let result = result.lock().expect("unpoisoned");
    check(&params, &result.0);
    result.0.usage.accepted_tokens
}

#[test]
fn the_minimum_of_tokens_counts_every_proposal_that_the_model_draws_behind() {
    let mut accepted = 0;
    for min_tokens in 0..14 {
        for stop in 0..V as u32 {
            let sample = SampleParams { temperature: 0.0, ..SampleParams::default() };
            let stop_ids = vec![stop];
            accepted += accepted_proposals(RequestParams { min_tokens, stop_ids, sample, ..plain(Vec::new(), 14) });
        }
    }
    assert!(accepted > 0, "without proposals nothing was tested");
}

/// What a penalty takes behind a proposal depends on whether the proposal was right.
#[test]
fn penalties_behind_proposals_are_those_of_what_was_drawn() {
    let mut accepted = 0;
    for (penalty, seed) in
        [-2.0, -1.0, 0.5, 2.0].into_iter().flat_map(|penalty| (0..8).map(move |seed| (penalty, seed)))
    {
        let sample = SampleParams { frequency_penalty: penalty, seed, ..SampleParams::default() };
        accepted += accepted_proposals(RequestParams { sample, ..plain(Vec::new(), 30) });
    }
    assert!(accepted > 0, "without proposals nothing was tested");
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
