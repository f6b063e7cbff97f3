//! From a parsed request to the engine and back: one submission per prompt, events in one channel.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corella_infer::{
    Event, Field, FinishReason, Request, RequestError, RequestParams, Sink, Ticket, TokenLogProb, Usage,
};
use corella_text::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::backlog::{self, Outlet, Unread, backlog};
use super::document::{Document, Entry, Extra, Frame};
use super::extent::Extent;
use super::heal::{spelled, taken_back};
use super::offsets::Offsets;
use super::request::{CompletionCall, Prompt, Show};
use super::response::{Choice, Stretch, prompt_logprobs, timings, usage};
use crate::error::ApiError;
use crate::served::Served;
use crate::tally::Times;

/// The seeds that the prompts of a request draw with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// One for all prompts.
    One(u64),
    /// One for each: nobody named any, so equal prompts are to go on in different ways.
    Each(Vec<u64>),
}

impl Seeds {
    /// The seeds of `prompts` prompts: those that `draw` gives behind the `first` unless the request is `seeded`.
    fn of(prompts: usize, first: u64, seeded: bool, draw: impl FnMut() -> u64) -> Seeds {
        if seeded || prompts < 2 {
            return Seeds::One(first);
        }
        Seeds::Each(std::iter::once(first).chain(std::iter::repeat_with(draw)).take(prompts).collect())
    }

    /// The seed of a prompt.
    fn of_prompt(&self, prompt: usize) -> u64 {
        match self {
            Seeds::One(seed) => *seed,
            Seeds::Each(seeds) => seeds[prompt],
        }
    }

    /// As the answer names them: `seed`, or `seeds`, each of which repeats its prompt where it is asked for alone.
    pub fn named(&self) -> (&'static str, Value) {
        match self {
            Seeds::One(seed) => ("seed", json!(seed)),
            Seeds::Each(seeds) => ("seeds", json!(seeds)),
        }
    }
}

/// A request at work. Dropping it (a client that leaves) ends the work and frees its pages.
pub struct Running {
    /// Events, each with the number of its prompt.
    events: Outlet,
    /// The token ids of each prompt, without those that were taken back.
    pub prompts: Vec<Vec<u32>>,
    /// What healing took back of each prompt, where it was asked for.
    pub healed: Option<Vec<Vec<u32>>>,
    /// Choices for each prompt.
    pub n: usize,
    /// Most tokens of a continuation, after the context's room has cut it.
    pub max_tokens: usize,
    /// The seed of each prompt: one for all where the request named it.
    pub seeds: Seeds,
    /// Cancel what still runs when dropped.
    _tickets: Vec<Ticket>,
}

impl Running {
    /// The next event, with the number of its prompt.
    pub async fn next(&mut self) -> Result<(usize, Event), ApiError> {
        match self.events.next().await {
            None => Err(ApiError::internal("the engine has stopped")),
            Some(Err(Unread)) => Err(ApiError::unread()),
            Some(Ok((_, Event::Failed(why)))) => Err(ApiError::internal(why)),
            Some(Ok((_, event))) if no_number(&event) => {
                Err(ApiError::internal("the model gave a log-probability that is no number"))
            }
            Some(Ok(event)) => Ok(event),
        }
    }

    /// The tokens that were taken back of a prompt.
    pub fn healed(&self, prompt: usize) -> &[u32] {
        self.healed.as_ref().map_or(&[], |healed| &healed[prompt])
    }

    /// Choice number `index`, before anything of it is written.
    pub fn choice(&self, index: usize, show: &Show, tokenizer: &Tokenizer) -> Choice {
        let offsets = show.logprobs.map(|_| {
            let (prompt, healed) = (&self.prompts[index / self.n], self.healed(index / self.n));
            let owed = spelled(&[prompt, healed].concat(), healed.len(), tokenizer);
            Offsets::new(prompt, owed, show.skip_special, tokenizer)
        });
        Choice::new(index, offsets)
    }
}

/// Ids of a prompt. An empty one is the token alone that marks the start; without it there is nothing to continue.
fn ids(served: &Served, prompt: Prompt, mark_start: bool, by_name: bool) -> Result<Vec<u32>, ApiError> {
    let ids = match prompt {
        Prompt::Ids(ids) if ids.is_empty() => served.encode("", mark_start),
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => {
            served.check_length(&text)?;
            if by_name { served.encode_with_special(&text, mark_start) } else { served.encode(&text, mark_start) }
        }
    };
    if ids.is_empty() {
        return Err(ApiError::bad("prompt", "an empty prompt: there is no token to continue from"));
    }
    Ok(ids)
}

/// Alternatives for a token have two names here, and one in the engine.
fn refused(error: RequestError, show: &Show) -> ApiError {
    if error.field() == Field::Logprobs && show.n_probs > show.logprobs {
        return ApiError::bad("n_probs", error.to_string());
    }
    error.into()
}

/// Whether an event has a log-probability that is NaN: the model's weights are damaged, or its numbers have overflown.
fn no_number(event: &Event) -> bool {
    let (Event::Prompt(tokens) | Event::Piece { tokens, .. }) = event else { return false };
    let bad = |token: &TokenLogProb| {
        token.logprob.is_some_and(f32::is_nan) || token.top.iter().any(|(_, logprob)| logprob.is_nan())
    };
    tokens.iter().any(bad)
}

/// Takes the times of a request.
struct Stopwatch {
    times: Arc<Times>,
    begun: Instant,
    /// When each continuation had its last token.
    last: Vec<Option<Instant>>,
    begins: bool,
}

impl Stopwatch {
    fn new(times: Arc<Times>, samples: usize) -> Stopwatch {
        Stopwatch { times, begun: Instant::now(), last: vec![None; samples], begins: true }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Piece { choice, tokens, .. } => {
                let now = Instant::now();
                if std::mem::take(&mut self.begins) {
                    self.times.first_token.add(now - self.begun, 1);
                }
                // Several come at once where they spell a character together, or were proposed.
                let (count, Some(last)) = (tokens.len().max(1) as u32, self.last.get_mut(*choice)) else { return };
                if let Some(before) = last.replace(now) {
                    self.times.between_tokens.add((now - before) / count, count.into());
                }
            }
            Event::Done(usage) => self.times.queue.add(Duration::from_secs_f64(usage.queue_seconds.max(0.0)), 1),
            Event::Progress { .. } | Event::Prompt(_) | Event::Finished { .. } | Event::Failed(_) => {}
        }
    }
}

/// Checks every prompt, then hands all of them to the engine: either all are taken or none.
pub fn start(served: &Served, call: CompletionCall) -> Result<Running, ApiError> {
    served.check_model(call.model.as_deref())?;
    let n = call.params.n;
    let of = call.prompts.len();
    let seeds = Seeds::of(of, call.params.sample.seed, call.seeded, || served.random_seed());
    let heal = call.heal && call.params.max_tokens > 0;
    let specials = if call.show.skip_special { served.tokenizer.special_tokens() } else { Vec::new() };
    let hidden: Vec<u32> = specials.into_iter().map(|(_, id)| id).collect();
    let (mut prompts, mut healed, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    let mut extent = Extent::default();
    for (number, prompt) in call.prompts.into_iter().enumerate() {
        // Whoever sends many is told which one it is.
        let of_prompt = |error: ApiError| if of > 1 { error.of_prompt(number, of) } else { error };
        let is_text = matches!(prompt, Prompt::Text(_));
        let mut prompt = ids(served, prompt, call.mark_start, call.by_name).map_err(of_prompt)?;
        let back = if heal && is_text { taken_back(&prompt, &served.tokenizer) } else { 0 };
        let owed = spelled(&prompt, back, &served.tokenizer);
        healed.push(prompt.split_off(prompt.len() - back));
        let mut params = RequestParams { prompt: prompt.clone(), owed, hidden: hidden.clone(), ..call.params.clone() };
        params.sample.seed = seeds.of_prompt(number);
        params.lookup = served.lookup();
        let request = served.check(params).map_err(|error| {
            // What room there is follows from the prompt.
            let about_prompt = matches!(error.field(), Field::Prompt | Field::MaxTokens);
            let error = refused(error, &call.show);
            if about_prompt { of_prompt(error) } else { error }
        })?;
        extent.add(&call.show, &request, call.stream && request.samples() == n)?;
        requests.push(request);
        prompts.push(prompt);
    }
    let cost: u64 = requests.iter().map(Request::cost).sum();
    if cost > served.limits().total_tokens {
        let message =
            format!("{cost} tokens of prompt and output in all prompts; at most {}", served.limits().total_tokens);
        return Err(ApiError::bad("prompt", message));
    }
    let max_tokens = requests.iter().map(Request::max_tokens).max().unwrap_or(0);
    // A whole answer is collected as it comes, whoever reads it later.
    let (send, events) = backlog(if call.stream { backlog::MOST } else { usize::MAX });
    let with_sink = |(number, request): (usize, Request)| {
        let send = send.clone();
        let mut clock = Stopwatch::new(served.times.clone(), request.samples());
        let sink: Sink = Box::new(move |event| {
            clock.note(&event);
            send.send(number, event)
        });
        (request, sink)
    };
    let tickets = served.submit(requests.into_iter().enumerate().map(with_sink).collect())?;
    Ok(Running { events, prompts, healed: heal.then_some(healed), n, max_tokens, seeds, _tickets: tickets })
}

/// The frame of a new answer: a document of kind `object` whose id begins with `prefix`.
pub fn frame(served: &Served, object: &'static str, prefix: &str) -> Frame {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Frame {
        id: format!("{prefix}-{:016x}", served.next_id()),
        object,
        created,
        model: served.name.clone(),
        fingerprint: served.fingerprint.clone(),
    }
}

/// The prompt as an echoed stretch, with the text that was `healed`: the tokens that spell it come with the continuation.
pub fn echo(served: &Served, prompt: &[u32], healed: &[u32], scores: Option<Vec<TokenLogProb>>) -> Stretch {
    let unknown = || prompt.iter().map(|id| TokenLogProb { id: *id, ..TokenLogProb::default() }).collect();
    // The token that marks the start has no text of its own; it is in the lists of tokens only.
    Stretch {
        text: served.text_of(&[prompt, healed].concat()),
        tokens: scores.unwrap_or_else(unknown),
        echo: true,
        finish: None,
    }
}

/// One continuation as it is collected.
#[derive(Default)]
struct Collected {
    text: String,
    tokens: Vec<TokenLogProb>,
    finish: Option<FinishReason>,
}

/// All of an answer.
pub struct Whole<'a> {
    served: &'a Served,
    running: Running,
    show: Show,
    frame: Frame,
    all: Vec<Collected>,
    /// Log-probabilities of each prompt.
    scores: Vec<Option<Vec<TokenLogProb>>>,
    used: Vec<Usage>,
}

/// Waits for the end.
pub async fn collect(served: &Served, mut running: Running, show: Show) -> Result<Whole<'_>, ApiError> {
    let (prompts, n) = (running.prompts.len(), running.n);
    let mut all: Vec<Collected> = (0..prompts * n).map(|_| Collected::default()).collect();
    let mut scores: Vec<Option<Vec<TokenLogProb>>> = vec![None; prompts];
    let mut used: Vec<Usage> = Vec::new();
    while used.len() < prompts {
        match running.next().await? {
            (_, Event::Progress { .. } | Event::Failed(_)) => {}
            (p, Event::Prompt(found)) => scores[p] = Some(found),
            (p, Event::Piece { choice, text, tokens }) => {
                let one = &mut all[p * n + choice];
                one.text.push_str(&text);
                one.tokens.extend(tokens);
            }
            (p, Event::Finished { choice, reason, .. }) => all[p * n + choice].finish = Some(reason),
            (_, Event::Done(usage)) => used.push(usage),
        }
    }
    Ok(Whole { served, running, show, frame: frame(served, "text_completion", "cmpl"), all, scores, used })
}

impl Whole<'_> {
    /// Bytes of the answer, near enough to tell a small one from a large one.
    pub fn size(&self) -> usize {
        let of = |list: &[TokenLogProb]| -> usize { list.iter().map(|t| 1 + t.top.len()).sum() };
        let drawn: usize = self.all.iter().map(|one| one.text.len() + of(&one.tokens)).sum();
        let scores: usize = self.scores.iter().flatten().map(|list| of(list)).sum();
        drawn + scores.saturating_mul(if self.show.echo { self.running.n } else { 1 })
    }

    /// As it is written. Takes the texts and tokens out.
    pub fn document(&mut self) -> Document<'_> {
        let all = std::mem::take(&mut self.all);
        let choices = all.into_iter().enumerate().map(|(index, one)| self.entry(index, one)).collect();
        let extra = Extra {
            usage: Some(usage(&self.used)),
            timings: if let [one] = &self.used[..] { Some(timings(one)) } else { None },
            corella: Some(about(self.served, &self.running)),
            ..Extra::default()
        };
        Document { frame: &self.frame, choices, extra }
    }

    fn entry(&self, index: usize, one: Collected) -> Entry<'_> {
        let (served, running, show) = (self.served, &self.running, &self.show);
        let prompt = index / running.n;
        let scores = &self.scores[prompt];
        let mut choice = running.choice(index, show, &served.tokenizer);
        let rest = Stretch { text: one.text, tokens: one.tokens, echo: false, finish: one.finish };
        let mut written = if show.echo {
            let first = echo(served, &running.prompts[prompt], running.healed(prompt), scores.clone());
            let first = choice.write(&first, show, &served.tokenizer);
            first.join(choice.write(&rest, show, &served.tokenizer))
        } else {
            choice.write(&rest, show, &served.tokenizer)
        };
        written.prompt_token_ids = show.token_ids.then(|| (&running.prompts[prompt][..]).into());
        written.prompt_logprobs = show
            .prompt_logprobs
            .zip(scores.as_ref())
            .map(|(count, found)| prompt_logprobs(found, count, &served.tokenizer));
        Entry::Completion(Box::new(written))
    }
}

/// What the request came to: the seed that repeats it, or that of each prompt, the tokens that the context left room for, and the end of each
/// prompt that was healed.
pub fn about(served: &Served, running: &Running) -> Value {
    let (name, seeds) = running.seeds.named();
    let mut about = json!({name: seeds, "max_tokens": running.max_tokens});
    if let Some(healed) = &running.healed {
        let text = |(prompt, back): (&Vec<u32>, &Vec<u32>)| {
            let bytes = spelled(&[&prompt[..], back].concat(), back.len(), &served.tokenizer);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        about["healed"] = running.prompts.iter().zip(healed).map(text).collect();
    }
    about
}
