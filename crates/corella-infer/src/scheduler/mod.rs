//! Continuous batching: every step of the model serves whoever is ready.
//!
//! Continuations wait until there is a place and there are pages for their prompt. Of those that wait, the next is one of
//! the submission (what a caller handed in together) that has the fewest under way, there of the request with the fewest,
//! the oldest of these: who hands much in at once gets no more than others while they wait. How a step is put together is
//! in [`plan`], what becomes of its results in [`absorb`]. What a row computes does not depend on what else is in the step,
//! and a draw depends on (seed, sample, position) alone: so the order of all this changes when a token comes, never which.

mod absorb;
mod draw;
mod job;
mod plan;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use corella_model::{StepLimits, StepModel};

use crate::event::{Event, FinishReason};
use crate::metrics::{Metrics, Place};
use crate::pages::PagePool;
use crate::sequence::{Piece, Sequence, TokenBytes};
use draw::Drawers;
use job::Job;
pub(crate) use job::{Cancelled, HandedIn};
use plan::Item;
use queue::{Queue, UnderWay};

/// Takes the events of a request; returns whether anybody still listens.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// All requests on one model.
pub(crate) struct Scheduler {
    limits: StepLimits,
    /// Tokens that may be drawn; logits behind them are padding.
    known_tokens: usize,
    /// Most continuations under way.
    max_running: usize,
    pool: PagePool,
    jobs: BTreeMap<u64, Job>,
    waiting: Queue,
    /// By age, the oldest first.
    running: Vec<Sequence>,
    next_job: u64,
    drawers: Drawers,
    bytes: TokenBytes,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    /// For a model with `limits` whose first `known_tokens` tokens may be drawn; at most `max_running` continuations are
    /// under way at once.
    pub fn new(
        limits: StepLimits,
        known_tokens: usize,
        max_running: usize,
        bytes: TokenBytes,
        metrics: Arc<Metrics>,
    ) -> Scheduler {
        // Half of a step is left for prompts, so that they never wait for the end of all continuations.
        let most = limits.max_seqs.min(limits.max_logit_rows).min(limits.max_batch_tokens.div_ceil(2));
        metrics.pages.set(limits.pages as u64);
        Scheduler {
            max_running: max_running.clamp(1, most.max(1)),
            pool: PagePool::new(limits.pages, limits.page_tokens),
            limits,
            known_tokens,
            jobs: BTreeMap::new(),
            waiting: Queue::default(),
            running: Vec::new(),
            next_job: 0,
            drawers: Drawers::default(),
            bytes,
            metrics,
        }
    }

    /// Takes requests in that are handed in together.
    pub fn add(&mut self, together: Vec<HandedIn>, place: &Arc<Place>) {
        let submission = self.next_job;
        together.into_iter().for_each(|handed_in| self.add_one(handed_in, submission, place.clone()));
    }

    fn add_one(&mut self, handed_in: HandedIn, submission: u64, place: Arc<Place>) {
        let id = self.next_job;
        self.next_job += 1;
        self.metrics.requests.add(1);
        self.metrics.prompt_tokens.add(handed_in.request.prompt.len() as u64);
        let seq = Sequence::new(id, 0, &handed_in.request);
        let mut job = Job::new(handed_in, submission, place);
        let nothing_to_do = job.request.prompt_rows() == 0;
        if nothing_to_do {
            job.prefilled();
        }
        self.jobs.insert(id, job);
        if nothing_to_do {
            self.finish_empty(seq);
            self.end_jobs();
        } else {
            self.waiting.push(submission, seq);
        }
    }

    /// Most continuations under way at once.
    pub fn max_running(&self) -> usize {
        self.max_running
    }

    /// Whether there is nothing to do.
    pub fn idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// One step of the model, and all that follows from it.
    pub fn step(&mut self, model: &mut dyn StepModel) {
        self.drop_gone();
        self.admit();
        let (plan, items) = self.plan(model.draws());
        if !items.is_empty() {
            let start = Instant::now();
            match model.step(&plan) {
                Ok(out) => {
                    let computed = Instant::now();
                    let copies = self.absorb(&items, out, start);
                    for (from, to) in copies {
                        model.copy_page(from, to);
                    }
                    self.metrics.steps.add(1);
                    self.metrics.fed_tokens.add(plan.tokens.len() as u64);
                    self.metrics.step_micros.add((computed - start).as_micros() as u64);
                    self.metrics.sample_micros.add(computed.elapsed().as_micros() as u64);
                }
                Err(error) => self.fail(&items, &error.to_string()),
            }
        }
        // Whoever hears of the end finds the place free.
        self.count_occupied();
        self.end_jobs();
        self.count_occupied();
        self.metrics.waiting.set(self.waiting.len() as u64);
        self.metrics.running.set(self.running.len() as u64);
        self.metrics.pages_held.set((self.pool.len() - self.pool.available()) as u64);
        self.metrics.pages_idle.set(self.pool.idle() as u64);
    }

    /// Ends all requests with a message.
    pub fn fail_all(&mut self, why: &str) {
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        ids.into_iter().for_each(|id| self.fail_job(id, why));
    }

    /// Frees what belongs to requests whose caller has left.
    fn drop_gone(&mut self) {
        let gone: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.gone()).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(job) = self.jobs.remove(&id) {
                self.remove_sequences(id, job.submission);
                self.metrics.cancelled.add(1);
            }
        }
    }

    fn remove_sequences(&mut self, id: u64, submission: u64) {
        for seq in self.running.iter_mut().filter(|seq| seq.job == id) {
            for page in seq.pages.drain(..).rev() {
                self.pool.give_back(page);
            }
        }
        self.running.retain(|seq| seq.job != id);
        self.waiting.remove(submission, id);
        self.count_occupied();
    }

    /// Counts the places of requests that have begun; the others count as queued.
    fn count_occupied(&self) {
        let begun = |seq: &&Sequence| self.jobs.get(&seq.job).is_some_and(Job::begun);
        self.metrics.occupied.set(self.running.iter().filter(begun).count() as u64);
    }

    /// Gives all pages of a continuation back; it will be computed again.
    fn release(&mut self, seq: &mut Sequence) {
        if let Some(job) = self.jobs.get(&seq.job) {
            seq.release(&mut self.pool, &job.request);
        }
    }

    /// Lets those in for whom there is room.
    fn admit(&mut self) {
        let mut under_way = UnderWay::new(&self.running, &self.jobs);
        while self.running.len() < self.max_running {
            let Some((turn, seq)) = self.waiting.next(&under_way) else { return };
            if !self.running.is_empty() && !self.has_room(seq) {
                return;
            }
            let Some(seq) = self.waiting.take(turn) else { return };
            under_way.add(turn);
            let at = self.running.partition_point(|other| other.age() < seq.age());
            self.running.insert(at, seq);
        }
    }

    /// Whether the pages that `seq` needs to draw its next token can be had without taking any from others.
    fn has_room(&self, seq: &Sequence) -> bool {
        let pages_for = |seq: &Sequence| self.limits.pages_for(seq.target(&self.jobs[&seq.job].request));
        let promised: usize = self.running.iter().map(|seq| pages_for(seq).saturating_sub(seq.pages.len())).sum();
        let (known, idle) = self.known_pages(seq);
        // A few pages are left for those who are drawing to grow into.
        let spare = self.running.len().div_ceil(4);
        self.pool.available() >= promised + spare + idle + pages_for(seq).saturating_sub(known)
    }

    /// Ends of a request without output.
    fn finish_empty(&mut self, mut seq: Sequence) {
        let Some(job) = self.jobs.get_mut(&seq.job) else { return };
        for sample in 0..job.request.best_of {
            seq.sample = sample;
            job.piece(&seq, Piece { end: Some(FinishReason::Length), ..Piece::default() });
        }
    }

    fn remove_ended(&mut self, ended: &[usize]) {
        // From the back, so that the places of the others stay.
        for index in ended.iter().rev() {
            let mut seq = self.running.remove(*index);
            self.release(&mut seq);
            if seq.drawn == 0 {
                self.finish_empty(seq);
            }
        }
    }

    /// Says the last word on requests whose continuations have all ended.
    fn end_jobs(&mut self) {
        let done: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.unfinished == 0).map(|(id, _)| *id).collect();
        for id in done {
            if let Some(job) = self.jobs.remove(&id) {
                self.metrics.completed.add(1);
                job.done();
            }
        }
    }

    /// The model refused a step: the requests in it fail, the others go on.
    fn fail(&mut self, items: &[Item], why: &str) {
        let ids: Vec<u64> = items.iter().map(|item| self.running[item.index].job).collect();
        ids.into_iter().for_each(|id| self.fail_job(id, why));
    }

    /// Ends a request with a message, if it has not ended.
    fn fail_job(&mut self, id: u64, why: &str) {
        if let Some(job) = self.jobs.remove(&id) {
            self.remove_sequences(id, job.submission);
            self.metrics.failed.add(1);
            job.failed(why.to_owned());
        }
    }
}
