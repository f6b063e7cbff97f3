//! A request at work: whom to tell, what is left to do, what it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Sink;
use crate::event::{Event, FinishReason, TokenLogProb, Usage};
use crate::metrics::Place;
use crate::request::Request;
use crate::sequence::{Piece, Sequence};

/// A continuation that waits for the others to be ranked.
#[derive(Debug)]
struct Ranked {
    text: String,
    tokens: Vec<TokenLogProb>,
    reason: FinishReason,
    drawn: usize,
    /// Mean log-probability of its tokens.
    mean: f64,
    sample: usize,
}

/// What a caller can do to a request that it handed in.
pub(crate) type Cancelled = Arc<AtomicBool>;

/// A request as it is handed in.
pub(crate) struct HandedIn {
    pub request: Arc<Request>,
    /// Whom to tell.
    pub sink: Sink,
    pub cancelled: Cancelled,
}

pub(crate) struct Job {
    pub request: Arc<Request>,
    /// Number of the first request of those that it was handed in together with: they share what one gets.
    pub submission: u64,
    sink: Sink,
    cancelled: Cancelled,
    /// Where it waits, until it begins.
    place: Option<Arc<Place>>,
    /// Nobody listens any more.
    deaf: bool,
    /// Its continuations that have not ended.
    pub unfinished: usize,
    /// Whether the other samples have been split from the first.
    pub split: bool,
    /// Raw log-probabilities of the prompt's tokens, as far as they are known.
    pub scores: Vec<TokenLogProb>,
    /// Whether they have been sent, or nobody asked for them.
    pub scored: bool,
    /// When the first of its tokens was computed.
    started: Option<Instant>,
    submitted: Instant,
    prefilled: Option<Instant>,
    pub usage: Usage,
    /// Tokens of the prompt that have been in the pages, at the furthest.
    reached: usize,
    /// Text and tokens of each sample, where samples are ranked.
    collected: Vec<(String, Vec<TokenLogProb>)>,
    ranked: Vec<Ranked>,
}

impl Job {
    pub fn new(handed_in: HandedIn, submission: u64, place: Arc<Place>) -> Job {
        let HandedIn { request, sink, cancelled } = handed_in;
        let ranks = request.best_of > request.n;
        // Nothing stands before the first token.
        let first = TokenLogProb { id: request.prompt[0], ..TokenLogProb::default() };
        Job {
            submission,
            sink,
            cancelled,
            place: Some(place),
            deaf: false,
            unfinished: request.best_of,
            split: request.best_of == 1,
            scores: vec![first],
            scored: request.prompt_logprobs.is_none(),
            started: None,
            submitted: Instant::now(),
            prefilled: None,
            usage: Usage { prompt_tokens: request.prompt.len(), ..Usage::default() },
            reached: 0,
            collected: if ranks { vec![Default::default(); request.best_of] } else { Vec::new() },
            ranked: Vec::new(),
            request,
        }
    }

    /// Whether the caller has left or given up.
    pub fn gone(&self) -> bool {
        self.deaf || self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether it has begun.
    pub fn begun(&self) -> bool {
        self.place.is_none()
    }

    /// It is being computed since `now`, if not before.
    pub fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
        self.place = None;
    }

    fn send(&mut self, event: Event) {
        self.deaf |= !(self.sink)(event);
    }

    /// Whether the samples are ranked at the end.
    pub fn ranks(&self) -> bool {
        self.request.best_of > self.request.n
    }

    /// So many tokens of the prompt are in the pages. Returns how many of these were never there before: a prompt that gave
    /// its pages up is read again.
    pub fn reach(&mut self, done: usize) -> usize {
        let new = done.saturating_sub(self.reached);
        self.reached += new;
        new
    }

    /// So many tokens of the prompt are in the pages: tells the caller, if there were never as many.
    pub fn progress(&mut self, done: usize) {
        if self.reach(done) > 0 {
            let total = self.request.prompt.len();
            self.send(Event::Progress { done, total });
        }
    }

    /// The prompt's end has been reached for the first time.
    pub fn prefilled(&mut self) {
        if self.prefilled.is_none() {
            self.prefilled = Some(Instant::now());
        }
        if !self.scored && self.scores.len() == self.request.prompt.len() {
            self.scored = true;
            let scores = std::mem::take(&mut self.scores);
            self.send(Event::Prompt(scores));
        }
    }

    /// A piece of the sample `seq`.
    pub fn piece(&mut self, seq: &Sequence, piece: Piece) {
        let Piece { text, tokens, end } = piece;
        if self.ranks() {
            let (all_text, all_tokens) = &mut self.collected[seq.sample];
            all_text.push_str(&text);
            all_tokens.extend(tokens);
            if let Some(reason) = end {
                let (text, tokens) = std::mem::take(&mut self.collected[seq.sample]);
                let mean = seq.log_prob / seq.drawn.max(1) as f64;
                self.ranked.push(Ranked { text, tokens, reason, drawn: seq.drawn, mean, sample: seq.sample });
                self.unfinished -= 1;
            }
            return;
        }
        let choice = seq.sample;
        if !text.is_empty() || !tokens.is_empty() {
            self.send(Event::Piece { choice, text, tokens });
        }
        if let Some(reason) = end {
            self.send(Event::Finished { choice, reason, drawn: seq.drawn });
            self.unfinished -= 1;
        }
    }

    /// Everything has been computed.
    pub fn done(mut self) {
        // Whoever hears of the end finds the place free.
        self.place = None;
        // The likeliest first; the earlier sample among equals.
        self.ranked.sort_by(|a, b| b.mean.total_cmp(&a.mean).then(a.sample.cmp(&b.sample)));
        let best: Vec<Ranked> = self.ranked.drain(..).take(self.request.n).collect();
        for (choice, ranked) in best.into_iter().enumerate() {
            self.send(Event::Piece { choice, text: ranked.text, tokens: ranked.tokens });
            self.send(Event::Finished { choice, reason: ranked.reason, drawn: ranked.drawn });
        }
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let prefilled = self.prefilled.unwrap_or(now);
        let usage = Usage {
            queue_seconds: (started - self.submitted).as_secs_f64(),
            prefill_seconds: (prefilled - started).as_secs_f64(),
            decode_seconds: (now - prefilled).as_secs_f64(),
            ..self.usage
        };
        self.send(Event::Done(usage));
    }

    /// It cannot be computed.
    pub fn failed(mut self, why: String) {
        self.place = None;
        self.send(Event::Failed(why));
    }
}
