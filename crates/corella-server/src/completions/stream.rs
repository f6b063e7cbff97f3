//! The same answer as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use corella_infer::{Event, TokenLogProb, Usage};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::request::Show;
use super::response::{Choice, Frame, Stretch, probabilities, timings, usage};
use super::run::{Running, about, echo, frame};
use crate::error::ApiError;
use crate::served::Served;

/// A comment line this often keeps proxies from closing a stream while a long prompt is read.
const PING: Duration = Duration::from_secs(10);

/// How the chunks of one kind of answer look.
pub trait Chunks: Send {
    /// Name of the kind.
    fn object(&self) -> &'static str;
    /// What the answer's id begins with.
    fn id_prefix(&self) -> &'static str;
    /// What the first chunk says about the request, so that a stopped stream can be repeated.
    fn about(&self) -> Value;
    /// A stretch of choice `index`; none where there is nothing to say yet.
    fn choice(&mut self, index: usize, stretch: &Stretch) -> Option<Value>;
}

/// Chunks of `/v1/completions`.
pub struct CompletionChunks {
    served: Arc<Served>,
    show: Show,
    about: Value,
    choices: Vec<Choice>,
    /// The prompt's token ids, for the first chunk of each choice, where they are asked for.
    prompt_ids: Vec<Option<Value>>,
}

impl CompletionChunks {
    /// For the choices of a request at work.
    pub fn new(served: Arc<Served>, running: &Running, show: Show) -> CompletionChunks {
        let total = running.prompts.len() * running.n;
        let prompt_ids = (0..total).map(|i| show.token_ids.then(|| json!(running.prompts[i / running.n]))).collect();
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

    fn choice(&mut self, index: usize, stretch: &Stretch) -> Option<Value> {
        let mut written = self.choices[index].write(stretch, &self.show, &self.served.tokenizer);
        if let Some(ids) = self.prompt_ids[index].take() {
            written["prompt_token_ids"] = ids;
        }
        Some(written)
    }
}

/// Answers with a stream. When the client leaves, the body is dropped, the writing task ends and with it the work.
pub fn stream(served: Arc<Served>, running: Running, show: Show, chunks: Box<dyn Chunks>) -> Response {
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(write(served, running, show, chunks, send));
    Sse::new(UnboundedReceiverStream::new(receive)).keep_alive(KeepAlive::new().interval(PING)).into_response()
}

type Sender = mpsc::UnboundedSender<Result<SseEvent, Infallible>>;

/// The choices of a stream and what each chunk begins with.
struct Writer {
    served: Arc<Served>,
    show: Show,
    frame: Frame,
    chunks: Box<dyn Chunks>,
    echoed: Vec<bool>,
    begun: bool,
    send: Sender,
}

/// The client has left.
struct Gone;

impl Writer {
    fn chunk(&self, choices: Vec<Value>, extra: &[(&str, Value)]) -> Result<(), Gone> {
        let mut document = self.frame.document(choices);
        for (key, value) in extra {
            document.insert((*key).to_owned(), value.clone());
        }
        self.event(&Value::Object(document).to_string())
    }

    fn event(&self, data: &str) -> Result<(), Gone> {
        self.send.send(Ok(SseEvent::default().data(data))).map_err(|_| Gone)
    }

    fn stretch(&mut self, index: usize, stretch: &Stretch) -> Result<(), Gone> {
        let Some(choice) = self.chunks.choice(index, stretch) else { return Ok(()) };
        let first = !std::mem::replace(&mut self.begun, true);
        let extra = first.then(|| ("corella", self.chunks.about()));
        self.chunk(vec![choice], extra.as_slice())
    }

    /// The prompt in front of a choice, once.
    fn echo(&mut self, index: usize, running: &Running, scores: &[Option<Vec<TokenLogProb>>]) -> Result<(), Gone> {
        if !self.show.echo || std::mem::replace(&mut self.echoed[index], true) {
            return Ok(());
        }
        let p = index / running.n;
        let stretch = echo(&self.served, &running.prompts[p], running.healed(p), scores[p].clone());
        self.stretch(index, &stretch)
    }
}

async fn write(served: Arc<Served>, mut running: Running, show: Show, chunks: Box<dyn Chunks>, send: Sender) {
    let total = running.prompts.len() * running.n;
    let mut writer = Writer {
        frame: frame(&served, chunks.object(), chunks.id_prefix()),
        echoed: vec![false; total],
        begun: false,
        served,
        show,
        chunks,
        send,
    };
    match events(&mut writer, &mut running).await {
        Err(Gone) => {}
        Ok(Err(error)) => {
            // An error comes as an event before the stream ends: the status line is long gone.
            let _ = writer.event(&error.body().to_string());
        }
        Ok(Ok(used)) => {
            if show.usage {
                let mut extra = vec![("usage", usage(&used))];
                if let [one] = &used[..] {
                    extra.push(("timings", timings(one)));
                }
                let _ = writer.chunk(Vec::new(), &extra);
            }
            let _ = writer.event("[DONE]");
        }
    }
}

async fn events(writer: &mut Writer, running: &mut Running) -> Result<Result<Vec<Usage>, ApiError>, Gone> {
    let n = running.n;
    let mut scores: Vec<Option<Vec<TokenLogProb>>> = vec![None; running.prompts.len()];
    let mut used = Vec::new();
    while used.len() < running.prompts.len() {
        // Waiting for the engine, a client that leaves is noticed too.
        let received = tokio::select! {
            event = running.events.recv() => event,
            () = writer.send.closed() => return Err(Gone),
        };
        match received {
            None => return Ok(Err(ApiError::internal("the engine has stopped"))),
            Some((_, Event::Failed(why))) => return Ok(Err(ApiError::internal(why))),
            Some((p, Event::Progress { done, total })) => {
                if writer.show.progress {
                    writer.chunk(
                        Vec::new(),
                        &[("prompt_progress", json!({"prompt": p, "processed": done, "total": total}))],
                    )?;
                }
            }
            Some((p, Event::Prompt(found))) => {
                if let Some(count) = writer.show.prompt_logprobs {
                    let list: Vec<Value> =
                        found.iter().map(|t| probabilities(t, count, &writer.served.tokenizer)).collect();
                    writer.chunk(Vec::new(), &[("prompt", json!(p)), ("prompt_logprobs", json!(list))])?;
                }
                scores[p] = Some(found);
            }
            Some((p, Event::Piece { choice, text, tokens })) => {
                let index = p * n + choice;
                writer.echo(index, running, &scores)?;
                writer.stretch(index, &Stretch { text, tokens, echo: false, finish: None })?;
            }
            Some((p, Event::Finished { choice, reason, .. })) => {
                let index = p * n + choice;
                writer.echo(index, running, &scores)?;
                writer.stretch(index, &Stretch { finish: Some(reason), ..Stretch::default() })?;
            }
            Some((_, Event::Done(usage))) => used.push(usage),
        }
    }
    Ok(Ok(used))
}
