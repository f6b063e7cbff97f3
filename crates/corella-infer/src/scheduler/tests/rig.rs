//! The scheduler with that model, and what is asked of both after every step.

use super::*;

/// A scheduler with its model, and the results of each request handed in.
pub(super) struct Rig {
    pub(super) scheduler: Scheduler,
    pub(super) model: PageModel,
    pub(super) metrics: Arc<Metrics>,
    /// The model's own end-of-text tokens.
    pub(super) eos: Vec<u32>,
}

pub(super) type Shared = Arc<Mutex<(Completion, bool)>>;

impl Rig {
    pub(super) fn new(limits: StepLimits, max_running: usize) -> Rig {
        let metrics = Arc::new(Metrics::default());
        let bytes: TokenBytes = Arc::new(|_, id| bytes_of(id));
        let scheduler = Scheduler::new(limits, V, max_running, bytes, metrics.clone());
        Rig { scheduler, model: PageModel::new(limits), metrics, eos: Vec::new() }
    }

    pub(super) fn add(&mut self, params: &RequestParams) -> (Shared, Cancelled) {
        let (shared, sink) = collecting();
        (shared, self.add_to(params, sink))
    }

    /// Hands requests in together.
    pub(super) fn add_together(&mut self, together: &[RequestParams]) -> Vec<Shared> {
        let (results, sinks): (Vec<Shared>, Vec<Sink>) = together.iter().map(|_| collecting()).unzip();
        self.add_all(together.iter().zip(sinks).collect());
        results
    }

    pub(super) fn add_to(&mut self, params: &RequestParams, sink: Sink) -> Cancelled {
        self.add_all(vec![(params, sink)]).remove(0)
    }

    /// Hands requests in together.
    pub(super) fn add_all(&mut self, together: Vec<(&RequestParams, Sink)>) -> Vec<Cancelled> {
        let hand_in = |(params, sink): (&RequestParams, Sink)| {
            let limits = RequestLimits::default();
            let request = Request::new(params.clone(), &self.model.limits, &self.eos, &limits).expect("valid");
            HandedIn { request: Arc::new(request), sink, cancelled: Cancelled::default() }
        };
        let together: Vec<HandedIn> = together.into_iter().map(hand_in).collect();
        let cancelled = together.iter().map(|handed_in| handed_in.cancelled.clone()).collect();
        self.scheduler.add(together, &Place::alone(&self.metrics));
        cancelled
    }

    pub(super) fn step(&mut self) {
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

    pub(super) fn run(&mut self) {
        while !self.scheduler.idle() {
            self.step();
        }
        assert_eq!(self.scheduler.pool.available(), self.model.limits.pages, "all pages are free at the end");
        assert_eq!(self.metrics.queued.get(), 0);
    }
}

/// What is told of a request, and whom to tell it.
fn collecting() -> (Shared, Sink) {
    let shared = Shared::default();
    let kept = shared.clone();
    let sink = move |event| {
        let mut result = kept.lock().expect("unpoisoned");
        let ended = result.0.add(event);
        result.1 |= ended;
        true
    };
    (shared, Box::new(sink))
}

pub(super) fn limits(pages: usize, page_tokens: usize, max_batch_tokens: usize) -> StepLimits {
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

pub(super) fn check(params: &RequestParams, found: &Completion) {
    let expected = expected(params, 60 - params.prompt.len());
    assert_eq!(found.error, None);
    assert_eq!(found.choices, expected.choices, "{params:?}");
    assert_eq!(found.prompt, expected.prompt, "{params:?}");
    let usage = (expected.usage.completion_tokens, params.prompt.len());
    assert_eq!((found.usage.completion_tokens, found.usage.prompt_tokens), usage);
    assert!(found.usage.cached_tokens < params.prompt.len(), "its last token is computed");
}
