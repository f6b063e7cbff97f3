//! All of a request's results in one piece, for callers that do not stream.

use std::sync::Arc;

use corella_model::StepModel;

use crate::event::{Event, FinishReason, TokenLogProb, Usage};
use crate::metrics::{Metrics, Place};
use crate::request::Request;
use crate::scheduler::{Cancelled, HandedIn, Scheduler};
use crate::sequence::TokenBytes;

/// One continuation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenLogProb>,
    /// Why it ended; `None` if the engine ended first.
    pub reason: Option<FinishReason>,
    /// Tokens drawn for it.
    pub drawn: usize,
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Log-probabilities of the prompt's tokens, if asked for.
    pub prompt: Vec<TokenLogProb>,
    /// The continuations.
    pub choices: Vec<Choice>,
    /// What it took.
    pub usage: Usage,
    /// What went wrong in the engine.
    pub error: Option<String>,
}

impl Completion {
    /// Gathers events up to the last.
    pub fn collect(events: impl IntoIterator<Item = Event>) -> Completion {
        let mut completion = Completion::default();
        let mut ended = false;
        for event in events {
            ended |= completion.add(event);
        }
        if !ended {
            completion.error = Some("the engine ended".to_owned());
        }
        completion
    }

    /// Takes one event in. Returns whether it was the last.
    pub fn add(&mut self, event: Event) -> bool {
        match event {
            Event::Progress { .. } => {}
            Event::Prompt(scores) => self.prompt = scores,
            Event::Piece { choice, text, tokens } => {
                let choice = self.choice(choice);
                choice.text.push_str(&text);
                choice.tokens.extend(tokens);
            }
            Event::Finished { choice, reason, drawn } => {
                let choice = self.choice(choice);
                choice.reason = Some(reason);
                choice.drawn = drawn;
            }
            Event::Done(usage) => {
                self.usage = usage;
                return true;
            }
            Event::Failed(why) => {
                self.error = Some(why);
                return true;
            }
        }
        false
    }

    fn choice(&mut self, index: usize) -> &mut Choice {
        while self.choices.len() <= index {
            self.choices.push(Choice::default());
        }
        &mut self.choices[index]
    }
}

/// Computes one request on a borrowed model, without a thread.
pub fn complete(model: &mut dyn StepModel, bytes: TokenBytes, request: Request) -> Completion {
    let limits = model.limits();
    let metrics = Arc::new(Metrics::default());
    // It waits for nobody.
    let place = Place::alone(&metrics);
    let mut scheduler = Scheduler::new(limits, limits.vocab_size, limits.max_seqs, bytes, metrics);
    let (sender, events) = std::sync::mpsc::channel();
    let sink = Box::new(move |event| sender.send(event).is_ok());
    scheduler.add(vec![HandedIn { request: Arc::new(request), sink, cancelled: Cancelled::default() }], &place);
    drop(place);
    while !scheduler.idle() {
        scheduler.step(model);
    }
    drop(scheduler);
    Completion::collect(events)
}
