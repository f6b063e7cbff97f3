//! The engine: one thread that owns the model, and handles through which any thread hands requests in.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use corella_model::{StepLimits, StepModel};

use crate::completion::Completion;
use crate::error::RequestError;
use crate::event::Event;
use crate::metrics::{Metrics, MetricsSnapshot, Place};
use crate::request::{Request, RequestLimits, RequestParams};
use crate::scheduler::{Cancelled, HandedIn, Scheduler, Sink};
use crate::sequence::TokenBytes;

/// How an engine works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most continuations under way at once; also bounded by what a step of the model can hold.
    pub max_running: usize,
    /// Most requests that wait, beyond those for which places are free; those that are handed in together count as one.
    pub max_queue: usize,
    /// What one request may ask for.
    pub limits: RequestLimits,
    /// The model's own end-of-text tokens.
    pub eos: Vec<u32>,
    /// Tokens that the tokenizer knows, where a model has rows of logits behind them to fill up: those are neither taken
    /// nor drawn.
    pub vocab_size: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            max_running: 64,
            max_queue: 256,
            limits: RequestLimits::default(),
            eos: Vec::new(),
            vocab_size: None,
        }
    }
}

/// Why a request was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many wait as may wait: try again later.
    #[error("{waiting} requests wait already, no more are taken")]
    QueueFull {
        /// Requests that wait.
        waiting: u64,
    },
    /// The engine takes no more requests, or has ended.
    #[error("the engine is shutting down")]
    Closed,
}

enum Command {
    Submit { together: Vec<HandedIn>, place: Arc<Place> },
    Close,
}

struct Shared {
    model: StepLimits,
    backend: String,
    options: EngineOptions,
    /// Continuations that are computed at once, as far as the model's steps hold them.
    at_once: u64,
    metrics: Arc<Metrics>,
    closed: AtomicBool,
    /// The thread panicked, or what to do when it does.
    failure: Mutex<Failure>,
    /// The requests under way are given up.
    stop: AtomicBool,
}

/// What becomes of a panic on the engine's thread.
enum Failure {
    Awaited(Option<Box<dyn FnOnce() + Send>>),
    Happened,
}

/// A running engine. Dropping it gives up what is under way and waits for its thread.
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

/// A way to hand requests in. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// A request that was taken in. Dropping it gives the request up: its pages are free before the next step.
#[derive(Debug)]
pub struct Ticket {
    cancelled: Cancelled,
}

impl Engine {
    /// Starts the thread. `bytes` gives the bytes of a token, for text and stop strings.
    pub fn start(model: Box<dyn StepModel>, bytes: TokenBytes, options: EngineOptions) -> io::Result<Engine> {
        let metrics = Arc::new(Metrics::default());
        let limits = model.limits();
        let known = options.vocab_size.unwrap_or(limits.vocab_size).min(limits.vocab_size);
        let scheduler = Scheduler::new(limits, known, options.max_running, bytes, metrics.clone());
        let shared = Arc::new(Shared {
            model: StepLimits { vocab_size: known, ..limits },
            backend: model.backend_name(),
            options,
            at_once: scheduler.max_running() as u64,
            metrics,
            closed: AtomicBool::new(false),
            failure: Mutex::new(Failure::Awaited(None)),
            stop: AtomicBool::new(false),
        });
        let (commands, inbox) = channel();
        let seen = shared.clone();
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // What was under way is dropped with the scheduler: its callers lose their channels.
            if catch_unwind(AssertUnwindSafe(|| work(model, scheduler, &inbox, &seen))).is_err() {
                seen.fail();
            }
        })?;
        Ok(Engine { handle: EngineHandle { commands, shared }, thread: Some(thread) })
    }

    /// A handle for another thread.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Calls `action`, in place of the one before, when the engine fails: its thread panicked, because a card was lost, say. It
    /// takes no more requests then.
    pub fn when_it_fails(&self, action: impl FnOnce() + Send + 'static) {
        let mut failure = self.handle.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *failure {
            Failure::Awaited(awaited) => *awaited = Some(Box::new(action)),
            Failure::Happened => {
                drop(failure);
                action();
            }
        }
    }

    /// Whether it has failed.
    pub fn has_failed(&self) -> bool {
        matches!(*self.handle.shared.failure.lock().unwrap_or_else(PoisonError::into_inner), Failure::Happened)
    }

    /// Takes no more requests, finishes those that it has, and ends.
    pub fn drain(mut self) {
        self.handle.close();
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the engine has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.shared.stop.store(true, Ordering::Relaxed);
        self.handle.close();
        self.join();
    }
}

impl Shared {
    fn fail(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let before = {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *failure, Failure::Happened)
        };
        if let Failure::Awaited(Some(action)) = before {
            action();
        }
    }
}

/// The engine's thread.
fn work(mut model: Box<dyn StepModel>, mut scheduler: Scheduler, inbox: &Receiver<Command>, shared: &Shared) {
    let take = |scheduler: &mut Scheduler, command| match command {
        Command::Submit { together, place } => scheduler.add(together, &place),
        Command::Close => {}
    };
    loop {
        while let Ok(command) = inbox.try_recv() {
            take(&mut scheduler, command);
        }
        if shared.stop.load(Ordering::Relaxed) {
            scheduler.fail_all("the engine was stopped");
        }
        if !scheduler.idle() {
            scheduler.step(&mut *model);
        } else if shared.closed.load(Ordering::Relaxed) {
            return;
        } else {
            // Nothing to do: sleep until something comes.
            let Ok(command) = inbox.recv() else { return };
            take(&mut scheduler, command);
        }
    }
}

impl EngineHandle {
    /// What the model's steps can hold: context, pages, and the tokens that may be used.
    pub fn model(&self) -> &StepLimits {
        &self.shared.model
    }

    /// Device, kernel path and number formats.
    pub fn backend_name(&self) -> &str {
        &self.shared.backend
    }

    /// How the engine works.
    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// The counters now.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.shared.metrics.snapshot()
    }

    /// Checks a request against the model and the engine's limits.
    pub fn check(&self, params: RequestParams) -> Result<Request, RequestError> {
        Request::new(params, &self.shared.model, &self.shared.options.eos, &self.shared.options.limits)
    }

    /// Hands a request in; its events go to `sink`, on the engine's thread, so `sink` must not wait for anything.
    pub fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, SubmitError> {
        // One request has one ticket.
        self.submit_all(vec![(request, sink)])?.pop().ok_or(SubmitError::Closed)
    }

    /// Hands several requests in that wait in one place of the queue and share what one request gets while others wait:
    /// all are taken or none. A ticket for each.
    pub fn submit_all(&self, requests: Vec<(Request, Sink)>) -> Result<Vec<Ticket>, SubmitError> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(SubmitError::Closed);
        }
        let limit = self.shared.options.max_queue as u64;
        let metrics = &self.shared.metrics;
        let full = || SubmitError::QueueFull { waiting: metrics.queued.get() };
        let place = Place::take(metrics, limit, self.shared.at_once).ok_or_else(full)?;
        let hand_in = |(request, sink)| HandedIn { request: Arc::new(request), sink, cancelled: Cancelled::default() };
        let together: Vec<HandedIn> = requests.into_iter().map(hand_in).collect();
        let tickets = together.iter().map(|handed_in| Ticket { cancelled: handed_in.cancelled.clone() }).collect();
        self.commands.send(Command::Submit { together, place }).map_err(|_| SubmitError::Closed)?;
        Ok(tickets)
    }

    /// Hands a request in and returns a channel with its events.
    pub fn stream(&self, request: Request) -> Result<(Ticket, Receiver<Event>), SubmitError> {
        let (sender, events) = channel();
        let ticket = self.submit(request, Box::new(move |event| sender.send(event).is_ok()))?;
        Ok((ticket, events))
    }

    /// Hands a request in and waits for all of it.
    pub fn complete(&self, request: Request) -> Result<Completion, SubmitError> {
        let (_ticket, events) = self.stream(request)?;
        Ok(Completion::collect(events))
    }

    /// No more requests are taken; those that were go on.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread if it sleeps; if it has ended there is nothing to wake.
        let _ = self.commands.send(Command::Close);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
