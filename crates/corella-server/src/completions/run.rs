//! From a parsed request to the engine and back: one submission per prompt, events in one channel.

use std::time::{SystemTime, UNIX_EPOCH};

use corella_infer::{Event, FinishReason, Request, RequestParams, Sink, Ticket, TokenLogProb, Usage};
use corella_text::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::heal::{spelled, taken_back};
use super::offsets::Offsets;
use super::request::{CompletionCall, Prompt, Show};
use super::response::{Choice, Frame, Stretch, probabilities, timings, usage};
use crate::error::ApiError;
use crate::served::Served;

/// A request at work. Dropping it (a client that leaves) ends the work and frees its pages.
pub struct Running {
    /// Events of prompt number .0.
    pub events: mpsc::UnboundedReceiver<(usize, Event)>,
    /// The token ids of each prompt, without those that were taken back.
    pub prompts: Vec<Vec<u32>>,
    /// What healing took back of each prompt, where it was asked for.
    pub healed: Option<Vec<Vec<u32>>>,
    /// Choices for each prompt.
    pub n: usize,
    /// Most tokens of a continuation, after the context's room has cut it.
    pub max_tokens: usize,
    /// Its seed.
    pub seed: u64,
    /// Cancel what still runs when dropped.
    _tickets: Vec<Ticket>,
}

impl Running {
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
fn ids(served: &Served, prompt: Prompt, mark_start: bool) -> Result<Vec<u32>, ApiError> {
    let ids = match prompt {
        Prompt::Ids(ids) if ids.is_empty() => served.encode("", mark_start),
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => served.encode(&text, mark_start),
    };
    if ids.is_empty() {
        return Err(ApiError::bad("prompt", "an empty prompt: there is no token to continue from"));
    }
    Ok(ids)
}

/// Checks every prompt, then hands all of them to the engine: either all are taken or none.
pub fn start(served: &Served, call: CompletionCall) -> Result<Running, ApiError> {
    served.check_model(call.model.as_deref())?;
    let (n, seed) = (call.params.n, call.params.sample.seed);
    let heal = call.heal && call.params.max_tokens > 0;
    let specials = if call.show.skip_special { served.tokenizer.special_tokens() } else { Vec::new() };
    let hidden: Vec<u32> = specials.into_iter().map(|(_, id)| id).collect();
    let (mut prompts, mut healed, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in call.prompts {
        let is_text = matches!(prompt, Prompt::Text(_));
        let mut prompt = ids(served, prompt, call.mark_start)?;
        let back = if heal && is_text { taken_back(&prompt, &served.tokenizer) } else { 0 };
        let owed = spelled(&prompt, back, &served.tokenizer);
        healed.push(prompt.split_off(prompt.len() - back));
        requests.push(served.check(RequestParams {
            prompt: prompt.clone(),
            owed,
            hidden: hidden.clone(),
            ..call.params.clone()
        })?);
        prompts.push(prompt);
    }
    let cost: u64 = requests.iter().map(Request::cost).sum();
    if cost > served.limits().total_tokens {
        let message =
            format!("{cost} tokens of prompt and output in all prompts; at most {}", served.limits().total_tokens);
        return Err(ApiError::bad("prompt", message));
    }
    let max_tokens = requests.iter().map(Request::max_tokens).max().unwrap_or(0);
    let (send, events) = mpsc::unbounded_channel();
    let with_sink = |(number, request)| -> (Request, Sink) {
        let send = send.clone();
        (request, Box::new(move |event| send.send((number, event)).is_ok()))
    };
    let tickets = served.submit(requests.into_iter().enumerate().map(with_sink).collect())?;
    Ok(Running { events, prompts, healed: heal.then_some(healed), n, max_tokens, seed, _tickets: tickets })
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

/// Waits for the end and writes the whole answer.
pub async fn collect(served: &Served, mut running: Running, show: Show) -> Result<Value, ApiError> {
    let (prompts, n) = (running.prompts.len(), running.n);
    let mut all: Vec<Collected> = (0..prompts * n).map(|_| Collected::default()).collect();
    let mut scores: Vec<Option<Vec<TokenLogProb>>> = vec![None; prompts];
    let mut used: Vec<Usage> = Vec::new();
    while used.len() < prompts {
        match running.events.recv().await {
            None => return Err(ApiError::internal("the engine has stopped")),
            Some((_, Event::Failed(why))) => return Err(ApiError::internal(why)),
            Some((_, Event::Progress { .. })) => {}
            Some((p, Event::Prompt(found))) => scores[p] = Some(found),
            Some((p, Event::Piece { choice, text, tokens })) => {
                let one = &mut all[p * n + choice];
                one.text.push_str(&text);
                one.tokens.extend(tokens);
            }
            Some((p, Event::Finished { choice, reason, .. })) => all[p * n + choice].finish = Some(reason),
            Some((_, Event::Done(usage))) => used.push(usage),
        }
    }
    let choices = all.into_iter().enumerate().map(|(index, one)| {
        let prompt = index / n;
        let mut choice = running.choice(index, &show, &served.tokenizer);
        let rest = Stretch { text: one.text, tokens: one.tokens, echo: false, finish: one.finish };
        let mut written = if show.echo {
            let first = echo(served, &running.prompts[prompt], running.healed(prompt), scores[prompt].clone());
            let mut written = choice.write(&first, &show, &served.tokenizer);
            join(&mut written, choice.write(&rest, &show, &served.tokenizer));
            written
        } else {
            choice.write(&rest, &show, &served.tokenizer)
        };
        if show.token_ids {
            written["prompt_token_ids"] = json!(running.prompts[prompt]);
        }
        if let (Some(count), Some(found)) = (show.prompt_logprobs, &scores[prompt]) {
            let list: Vec<Value> = found.iter().map(|t| probabilities(t, count, &served.tokenizer)).collect();
            written["prompt_logprobs"] = json!(list);
        }
        written
    });
    let mut document = frame(served, "text_completion", "cmpl").document(choices.collect());
    document.insert("usage".to_owned(), usage(&used));
    if let [one] = &used[..] {
        document.insert("timings".to_owned(), timings(one));
    }
    document.insert("corella".to_owned(), about(served, &running));
    Ok(Value::Object(document))
}

/// What the request came to: the seed that repeats it, the tokens that the context left room for, and the end of each
/// prompt that was healed.
pub fn about(served: &Served, running: &Running) -> Value {
    let mut about = json!({"seed": running.seed, "max_tokens": running.max_tokens});
    if let Some(healed) = &running.healed {
        let text = |(prompt, back): (&Vec<u32>, &Vec<u32>)| {
            let bytes = spelled(&[&prompt[..], back].concat(), back.len(), &served.tokenizer);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        about["healed"] = running.prompts.iter().zip(healed).map(text).collect();
    }
    about
}

/// Puts a second stretch of the same choice behind the first.
fn join(first: &mut Value, second: Value) {
    let Value::Object(second) = second else { return };
    for (key, value) in second {
        match (first.get_mut(&key), value) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Object(lists)), Value::Object(more)) => append(lists, more),
            (_, value) => first[key] = value,
        }
    }
}

fn append(lists: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        if let (Some(Value::Array(list)), Value::Array(more)) = (lists.get_mut(&key), value) {
            list.extend(more);
        }
    }
}
