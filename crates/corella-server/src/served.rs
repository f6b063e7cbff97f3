//! The model that is served: engine, tokenizer, and what people want to know of it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use corella_infer::{
    EngineHandle, MetricsSnapshot, Request, RequestError, RequestLimits, RequestParams, Sink, SubmitError, Ticket,
    random_bits,
};
use corella_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::aside::Aside;
use crate::error::ApiError;
use crate::tally::Times;

/// A loaded model behind its engine.
pub struct Served {
    /// Name under which it is offered.
    pub name: String,
    /// Whether it is a base model; instruct models work too, but the playground says so.
    pub base: bool,
    /// Facts for `/v1/models`: parameters, formats, files.
    pub facts: Value,
    /// Device, kernel path and number formats.
    pub fingerprint: String,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where large work is done.
    pub aside: Aside,
    /// How fast requests are answered.
    pub times: Arc<Times>,
    engine: EngineHandle,
    ids: AtomicU64,
    /// What the seeds of requests that name none follow from, and how many there were.
    seed: u64,
    seeds: AtomicU64,
    lookup: usize,
}

impl Served {
    /// Puts a model behind the server.
    pub fn new(name: String, engine: EngineHandle, tokenizer: Tokenizer, base: bool, facts: Value) -> Served {
        let random = RandomState::new();
        let fingerprint = engine.backend_name().to_owned();
        let (ids, seed) = (AtomicU64::new(random.hash_one(&name)), random.hash_one(&fingerprint));
        let (seeds, aside) = (AtomicU64::default(), Aside::default());
        let times = Arc::default();
        Served { name, base, facts, fingerprint, tokenizer, aside, times, engine, ids, seed, seeds, lookup: 0 }
    }

    /// Lets the seeds of requests that name none follow from this one and from their order, instead of from nothing that
    /// anybody knows.
    pub fn with_seed(self, seed: u64) -> Served {
        Served { seed, ..self }
    }

    /// Lets texts that repeat themselves be proposed, at most so many tokens at once.
    pub fn with_lookup(self, lookup: usize) -> Served {
        Served { lookup, ..self }
    }

    /// Tokens proposed at once.
    pub(crate) fn lookup(&self) -> usize {
        self.lookup
    }

    /// A number for an answer's id.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A seed for a request that names none; small enough for every JSON reader to give back exactly.
    pub fn random_seed(&self) -> u64 {
        random_bits(self.seed, self.seeds.fetch_add(1, Ordering::Relaxed), 0) >> 32
    }

    /// Ids of a text, with the token in front that marks the start of a text, as `corella generate` puts it: not where the
    /// tokenizer's file says that none goes there, unless the text is empty and nothing else would be there to continue. What
    /// looks like a special token in the text stays text.
    pub fn encode(&self, text: &str, mark_start: bool) -> Vec<u32> {
        self.marked(text, self.tokenizer.encode(text), mark_start)
    }

    /// The same of a text in which special tokens may stand by name.
    pub fn encode_with_special(&self, text: &str, mark_start: bool) -> Vec<u32> {
        self.marked(text, self.tokenizer.encode_with_special(text), mark_start)
    }

    fn marked(&self, text: &str, ids: Vec<u32>, mark_start: bool) -> Vec<u32> {
        let front = if text.is_empty() { Some(self.tokenizer.start_of_text()) } else { self.tokenizer.front() };
        front.filter(|_| mark_start).into_iter().chain(ids).collect()
    }

    /// 404 to a request that is meant for another model. An empty name is none.
    pub(crate) fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match asked.filter(|asked| !asked.is_empty() && *asked != self.name) {
            None => Ok(()),
            Some(asked) => Err(ApiError::no_such_model(asked, &self.name)),
        }
    }

    /// Refuses a text that cannot fit in the context, whatever its tokens are: that is known before it is tokenised.
    pub(crate) fn check_length(&self, text: &str) -> Result<(), ApiError> {
        let context = self.context();
        let fewest = if text.len() > context { self.tokenizer.fewest_tokens(text.len()) } else { 0 };
        if fewest <= context {
            return Ok(());
        }
        Err(ApiError::too_long(format_args!("at least {fewest}"), context))
    }

    /// Text of ids, without the token that only marks the start.
    pub fn text_of(&self, ids: &[u32]) -> String {
        match ids.split_first() {
            Some((first, rest)) if *first == self.tokenizer.start_of_text() => self.tokenizer.decode(rest),
            _ => self.tokenizer.decode(ids),
        }
    }

    /// Checks a request against model and limits.
    pub(crate) fn check(&self, params: RequestParams) -> Result<Request, RequestError> {
        self.engine.check(params)
    }

    /// Hands the requests of one call to the engine: all or none.
    pub(crate) fn submit(&self, requests: Vec<(Request, Sink)>) -> Result<Vec<Ticket>, ApiError> {
        self.engine.submit_all(requests).map_err(|error| match error {
            SubmitError::QueueFull { .. } => ApiError::busy(),
            SubmitError::Closed => ApiError::shutting_down("the server is shutting down"),
        })
    }

    /// What one request may ask for.
    pub fn limits(&self) -> &RequestLimits {
        &self.engine.options().limits
    }

    /// Ids that the model has.
    pub fn vocabulary(&self) -> usize {
        self.engine.model().vocab_size
    }

    /// Takes no more requests; those under way go on.
    pub fn close(&self) {
        self.engine.close();
    }

    /// Tokens that fit in the context.
    pub fn context(&self) -> usize {
        self.engine.model().context_len
    }

    /// Counters of the engine.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.engine.metrics()
    }

    /// The entry of `/v1/models`.
    pub fn model(&self) -> Value {
        json!({
            "id": self.name,
            "object": "model",
            "owned_by": "corella",
            "created": 0,
            "base": self.base,
            "context": self.context(),
            "max_model_len": self.context(),
            "vocabulary": self.engine.model().vocab_size,
            "backend": self.fingerprint,
            "facts": self.facts,
        })
    }
}
