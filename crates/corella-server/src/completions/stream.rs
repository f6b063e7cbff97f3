//! The same answer as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use corella_infer::{Event, TokenLogProb, Usage};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::document::{Document, Entry, Extra, Frame};
use super::request::Show;
use super::response::{Choice, Stretch, prompt_logprobs, timings, usage};
use super::run::{Running, about, echo, frame};
use crate::error::ApiError;
use crate::served::Served;

/// A comment line this often keeps proxies from closing a stream while a long prompt is read.
const PING: Duration = Duration::from_secs(10);
/// Chunks that are written ahead of the client; behind them the engine's events wait, which are smaller.
const AHEAD: usize = 16;

/// How the chunks of one kind of answer look.
pub trait Chunks: Send + Sync {
    /// Name of the kind.
    fn object(&self) -> &'static str;
    /// What the answer's id begins with.
    fn id_prefix(&self) -> &'static str;
    /// What the first chunk says about the request, so that a stopped stream can be repeated.
    fn about(&self) -> Value;
    /// A stretch of choice `index`; none where there is nothing to say yet.
    fn choice<'a>(&'a mut self, index: usize, stretch: &Stretch) -> Option<Entry<'a>>;
}

/// Chunks of `/v1/completions`.
pub struct CompletionChunks {
    served: Arc<Served>,
    show: Show,
    about: Value,
    choices: Vec<Choice>,
    /// The prompt's token ids, for the first chunk of each choice, where they are asked for.
    prompt_ids: Vec<Option<Vec<u32>>>,
}

impl CompletionChunks {
    /// For the choices of a request at work.
    pub fn new(served: Arc<Served>, running: &Running, show: Show) -> CompletionChunks {
        let total = running.prompts.len() * running.n;
        let prompt_ids = (0..total).map(|i| show.token_ids.then(|| running.prompts[i / running.n].clone())).collect();
        let choices = (0..total).map(|i| running.choice(i, &show, &served.tokenizer)).collect();
        CompletionChunks { about: about(&served, running), served, show, choices, prompt_ids }
    }
}

impl Chunks for CompletionChunks {
    fn object(&self) -> &'static str {
        "text_completion"
    }

    fn id_prefix(&self) -> &'static str {
        "cmpl"
    }

    fn about(&self) -> Value {
        self.about.clone()
    }

    fn choice<'a>(&'a mut self, index: usize, stretch: &Stretch) -> Option<Entry<'a>> {
        let mut written = self.choices[index].write(stretch, &self.show, &self.served.tokenizer);
        written.prompt_token_ids = self.prompt_ids[index].take().map(Into::into);
        Some(Entry::Completion(Box::new(written)))
    }
}

/// Answers with a stream. When the client leaves, the body is dropped, the writing task ends and with it the work.
pub fn stream(served: Arc<Served>, running: Running, show: Show, chunks: Box<dyn Chunks>) -> Response {
    let (send, receive) = mpsc::channel(AHEAD);
    tokio::spawn(write(served, running, show, chunks, send));
    Sse::new(ReceiverStream::new(receive)).keep_alive(KeepAlive::new().interval(PING)).into_response()
}

type Sender = mpsc::Sender<Result<SseEvent, Infallible>>;

/// The choices of a stream and what each chunk begins with.
struct Writer {
    served: Arc<Served>,
    show: Show,
    frame: Frame,
    chunks: Box<dyn Chunks>,
    echoed: Vec<bool>,
    begun: bool,
    /// Tokens of all prompts, and those drawn so far.
    prompt_tokens: usize,
    drawn: usize,
    send: Sender,
}

/// Why a stream ends early.
enum Cut {
    /// The client has left.
    Gone,
    /// It failed.
    Failed(ApiError),
}

impl From<ApiError> for Cut {
    fn from(error: ApiError) -> Cut {
        Cut::Failed(error)
    }
}

impl Writer {
    /// A chunk about the whole.
    async fn note(&self, extra: Extra<'_>) -> Result<(), Cut> {
        let size = extra.prompt_logprobs.iter().flatten().flatten().map(|token| token.0.len()).sum();
        let write = || Document { frame: &self.frame, choices: Vec::new(), extra }.text();
        let text = self.served.aside.run(size, write).await??;
        self.event(text).await
    }

    /// Waits until the client has taken enough of what was written before.
    async fn event(&self, data: String) -> Result<(), Cut> {
        self.send.send(Ok(SseEvent::default().data(data))).await.map_err(|_| Cut::Gone)
    }

    async fn stretch(&mut self, index: usize, stretch: &Stretch) -> Result<(), Cut> {
        let about = if self.begun { None } else { Some(self.chunks.about()) };
        self.drawn += if stretch.echo { 0 } else { stretch.tokens.len() };
        let so_far = Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.drawn, ..Usage::default() };
        let usage = self.show.running_usage.then(|| usage(&[so_far]));
        let size = stretch.text.len() + stretch.tokens.iter().map(|t| 1 + t.top.len()).sum::<usize>();
        let (chunks, frame) = (&mut self.chunks, &self.frame);
        let write = || {
            let choice = chunks.choice(index, stretch)?;
            let extra = Extra { corella: about, usage, ..Extra::default() };
            Some(Document { frame, choices: vec![choice], extra }.text())
        };
        let Some(text) = self.served.aside.run(size, write).await? else { return Ok(()) };
        self.begun = true;
        self.event(text?).await
    }

    /// The prompt in front of a choice, once.
    async fn echo(&mut self, index: usize, running: &Running, scores: &[Option<Vec<TokenLogProb>>]) -> Result<(), Cut> {
        if !self.show.echo || std::mem::replace(&mut self.echoed[index], true) {
            return Ok(());
        }
        let p = index / running.n;
        let stretch = echo(&self.served, &running.prompts[p], running.healed(p), scores[p].clone());
        self.stretch(index, &stretch).await
    }
}

async fn write(served: Arc<Served>, mut running: Running, show: Show, chunks: Box<dyn Chunks>, send: Sender) {
    let total = running.prompts.len() * running.n;
    let mut writer = Writer {
        frame: frame(&served, chunks.object(), chunks.id_prefix()),
        echoed: vec![false; total],
        begun: false,
        prompt_tokens: running.prompts.iter().map(Vec::len).sum(),
        drawn: 0,
        served,
        show,
        chunks,
        send,
    };
    let ended = match events(&mut writer, &mut running).await {
        // An error comes as an event before the stream ends: the status line is long gone.
        Err(Cut::Failed(error)) => writer.event(error.body().to_string()).await,
        Err(Cut::Gone) => return,
        Ok(used) => end(&writer, &used).await,
    };
    // There is nobody left to be told.
    drop(ended);
}

async fn end(writer: &Writer, used: &[Usage]) -> Result<(), Cut> {
    if writer.show.usage {
        let timings = if let [one] = used { Some(timings(one)) } else { None };
        writer.note(Extra { usage: Some(usage(used)), timings, ..Extra::default() }).await?;
    }
    writer.event("[DONE]".to_owned()).await
}

async fn events(writer: &mut Writer, running: &mut Running) -> Result<Vec<Usage>, Cut> {
    let n = running.n;
    let mut scores: Vec<Option<Vec<TokenLogProb>>> = vec![None; running.prompts.len()];
    let mut used = Vec::new();
    while used.len() < running.prompts.len() {
        // Waiting for the engine, a client that leaves is noticed too.
        let received = tokio::select! {
            event = running.next() => event?,
            () = writer.send.closed() => return Err(Cut::Gone),
        };
        match received {
            (_, Event::Failed(_)) => {}
            (p, Event::Progress { done, total }) => {
                if writer.show.progress {
                    let progress = json!({"prompt": p, "processed": done, "total": total});
                    writer.note(Extra { prompt_progress: Some(progress), ..Extra::default() }).await?;
                }
            }
            (p, Event::Prompt(found)) => {
                if let Some(count) = writer.show.prompt_logprobs {
                    let list = prompt_logprobs(&found, count, &writer.served.tokenizer);
                    let extra = Extra { prompt: Some(p), prompt_logprobs: Some(list), ..Extra::default() };
                    writer.note(extra).await?;
                }
                scores[p] = Some(found);
            }
            (p, Event::Piece { choice, text, tokens }) => {
                let index = p * n + choice;
                writer.echo(index, running, &scores).await?;
                writer.stretch(index, &Stretch { text, tokens, echo: false, finish: None }).await?;
            }
            (p, Event::Finished { choice, reason, .. }) => {
                let index = p * n + choice;
                writer.echo(index, running, &scores).await?;
                writer.stretch(index, &Stretch { finish: Some(reason), ..Stretch::default() }).await?;
            }
            (_, Event::Done(usage)) => used.push(usage),
        }
    }
    Ok(used)
}
