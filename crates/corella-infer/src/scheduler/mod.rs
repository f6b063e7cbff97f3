//! Continuous batching: every step of the model serves whoever is ready.
//!
//! Continuations wait until there is a place and there are pages for their prompt. Of those that wait, the next is one of
//! the submission (what a caller handed in together) that has the fewest under way, there of the request with the fewest,
//! the oldest of these: who hands much in at once gets no more than others while they wait. How a step is put together is
//! in [`plan`]. What a row computes does not depend on what else is in the step, and a draw depends on (seed, sample,
//! position) alone: so the order of all this changes when a token comes, never which.

mod draw;
mod job;
mod plan;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use corella_model::{StepLimits, StepModel, StepOut, Threads};

use crate::event::{Event, FinishReason};
use crate::metrics::{Metrics, Place};
use crate::pages::{Before, PagePool};
use crate::sequence::{Piece, Sequence, TokenBytes};
use draw::{Drawers, Drawn, Wanted, bare};
use job::Job;
pub(crate) use job::{Cancelled, HandedIn};
use plan::Item;
use queue::{Queue, UnderWay};

/// Takes the events of a request; returns whether anybody still listens.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// What a continuation has of a step's results: tokens that the model drew, and rows of logits.
type Own<'a> = (&'a [u32], Vec<&'a [f32]>);

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

    /// Makes full pages known.
    fn publish(pool: &mut PagePool, seq: &mut Sequence, job: &Job) {
        let page_tokens = pool.page_tokens();
        while (seq.published + 1) * page_tokens <= seq.computed {
            let range = seq.published * page_tokens..(seq.published + 1) * page_tokens;
            let scores = if seq.sample == 0 && !job.scored { job.scores.get(range.clone()) } else { None };
            let own = seq.pages[seq.published];
            let (known, content) = pool.publish(own, &seq.before, &seq.tokens[range], scores.map(Into::into));
            seq.pages[seq.published] = known;
            seq.before = Before::Page(content);
            seq.published += 1;
        }
    }

    /// Takes in what a step computed: scores, draws, new samples, ends. Returns the pages to copy.
    fn absorb(&mut self, items: &[Item], out: StepOut<'_>, began: Instant) -> Vec<(u32, u32)> {
        let results = self.results(items, &out);
        let mut firsts = self.first_draws(items, &results, out.threads).into_iter();
        let mut copies = Vec::new();
        let mut split = Vec::new();
        let (mut ended, mut broken) = (Vec::new(), Vec::new());
        for (item, (by_model, own)) in items.iter().zip(&results) {
            let first = firsts.next().flatten();
            let seq = &mut self.running[item.index];
            let Some(job) = self.jobs.get_mut(&seq.job) else { continue };
            if !job.begun() {
                self.metrics.occupied.add(1);
            }
            job.start(began);
            let request = job.request.clone();
            seq.computed = item.start + item.len;
            if seq.sample == 0 && !job.scored {
                score(&self.drawers, seq, job, item, own);
            }
            Self::publish(&mut self.pool, seq, job);
            if seq.sample == 0 && seq.drawn == 0 {
                job.progress(seq.computed);
            }
            if seq.computed < seq.target(&request) {
                continue;
            }
            job.prefilled();
            if request.max_tokens == 0 {
                ended.push(item.index);
                continue;
            }
            let draws = drawn_from(item, own);
            if draws.iter().any(|row| is_broken(row)) {
                broken.push(seq.job);
                continue;
            }
            let next = |seq: &Sequence, samples, behind: usize| match by_model.get(behind) {
                Some(id) => vec![bare(*id)],
                None => self.drawers.with(|drawer| drawer.draw(draws[behind], &request, seq, samples, &self.bytes)),
            };
            let mut drawn = first.unwrap_or_else(|| next(seq, samples_of(seq, job), 0));
            job.usage.completion_tokens += drawn.len();
            self.metrics.drawn_tokens.add(drawn.len() as u64);
            for (sample, token) in drawn.drain(1..).enumerate() {
                let mut other = Sequence::new(seq.job, sample + 1, &request);
                // It stands behind the prompt's full pages, as this one does now.
                (other.before, other.published) = (seq.before.clone(), seq.published);
                if !join(&mut other, job, token, &self.bytes) {
                    split.push((item.index, other));
                }
            }
            job.split = true;
            let Some(first) = drawn.pop() else { continue };
            let mut end = join(seq, job, first, &self.bytes);
            // Proposals that the draws confirm were computed already.
            let mut accepted = 0;
            while !end && accepted < item.drafts.len() && seq.tokens.last() == Some(&item.drafts[accepted]) {
                accepted += 1;
                seq.computed += 1;
                let sample = seq.sample..seq.sample + 1;
                let more = next(seq, sample, accepted);
                job.usage.completion_tokens += 1;
                self.metrics.drawn_tokens.add(1);
                for token in more {
                    end = join(seq, job, token, &self.bytes);
                }
            }
            if !item.drafts.is_empty() {
                seq.lookup.judge(item.drafts.len(), accepted);
                job.usage.drafted_tokens += item.drafts.len();
                job.usage.accepted_tokens += accepted;
                self.metrics.drafted_tokens.add(item.drafts.len() as u64);
                self.metrics.accepted_tokens.add(accepted as u64);
            }
            if end {
                ended.push(item.index);
            } else {
                Self::publish(&mut self.pool, seq, job);
            }
        }
        for (index, seq) in split {
            self.place_sibling(index, seq, &mut copies);
        }
        self.remove_ended(&ended);
        for id in broken {
            self.fail_job(id, BROKEN);
        }
        self.running.sort_by_key(Sequence::age);
        copies
    }

    /// What each item has of a step's results.
    fn results<'a>(&self, items: &[Item], out: &StepOut<'a>) -> Vec<Own<'a>> {
        let (known, mut tokens) = (self.known_tokens, out.drawn);
        let mut rows = out.logits.chunks_exact(self.limits.vocab_size).map(|row| &row[..known]);
        let of = |item: &Item| {
            let (by_model, rest) = tokens.split_at(item.draws.min(tokens.len()));
            tokens = rest;
            let own = item.len + item.drafts.len() - item.first_logit - item.draws;
            (by_model, rows.by_ref().take(own).collect())
        };
        items.iter().map(of).collect()
    }

    /// The first draw of each continuation that has come so far, if the model did not make it: all of them at once. What follows
    /// a proposal waits until the draw before it is known.
    fn first_draws<'a>(&self, items: &[Item], results: &[Own<'a>], threads: Threads<'_>) -> Vec<Option<Vec<Drawn>>> {
        let wanted = |(item, (by_model, own)): (&Item, &Own<'a>)| {
            let seq = &self.running[item.index];
            let job = self.jobs.get(&seq.job)?;
            let there = item.start + item.len >= seq.target(&job.request) && job.request.max_tokens > 0;
            if !there || !by_model.is_empty() {
                return None;
            }
            let logits = *drawn_from(item, own).first()?;
            Some(Wanted { logits, request: &job.request, seq, samples: samples_of(seq, job) })
        };
        let wanted: Vec<Option<Wanted<'_>>> = items.iter().zip(results).map(wanted).collect();
        let which: Vec<bool> = wanted.iter().map(Option::is_some).collect();
        let wanted: Vec<Wanted<'_>> = wanted.into_iter().flatten().collect();
        let mut drawn = self.drawers.draw_all(threads, &wanted, &self.bytes).into_iter();
        which.into_iter().map(|is| if is { drawn.next() } else { None }).collect()
    }

    /// Another sample of the prompt that the running continuation `index` has read: it shares the full pages and copies
    /// the last one, or waits where that cannot be had.
    fn place_sibling(&mut self, index: usize, mut seq: Sequence, copies: &mut Vec<(u32, u32)>) {
        let Some(job) = self.jobs.get(&seq.job) else { return };
        let prompt_len = job.request.prompt.len();
        let (full, rest) = (seq.published, prompt_len % self.pool.page_tokens());
        let wanted = self.pages_wanted(&seq, &job.request);
        let place = self.running.len() < self.max_running && !self.waiting.holds_others(job.submission);
        let last = if rest > 0 && place { self.pool.take(None, wanted.saturating_sub(full)) } else { None };
        if !place || (rest > 0 && last.is_none()) {
            seq.release(&mut self.pool, &job.request);
            self.waiting.push(job.submission, seq);
            return;
        }
        let first = &self.running[index];
        seq.pages = first.pages[..full].to_vec();
        seq.pages.iter().for_each(|page| self.pool.hold(*page));
        seq.computed = prompt_len;
        if let Some(last) = last {
            copies.push((first.pages[full], last));
            seq.pages.push(last);
        }
        self.running.push(seq);
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

/// What is said of logits that are not numbers.
const BROKEN: &str = "the logits are not numbers: the weights are damaged, or too large to compute with";

/// Whether a row of logits is not numbers: one in the stream they all come from makes each of them one.
fn is_broken(row: &[f32]) -> bool {
    row.first().is_some_and(|logit| logit.is_nan())
}

/// Of an item's rows of logits those behind its last token and behind its proposals.
fn drawn_from<'a, 'b>(item: &Item, rows: &'b [&'a [f32]]) -> &'b [&'a [f32]] {
    rows.get(item.len - 1 - item.first_logit..).unwrap_or_default()
}

/// The samples that are where `seq` is: all, as long as they have not parted.
fn samples_of(seq: &Sequence, job: &Job) -> std::ops::Range<usize> {
    if job.split { seq.sample..seq.sample + 1 } else { 0..job.request.best_of }
}

/// Reads the log-probabilities of the prompt's tokens off the rows of a step.
fn score(drawers: &Drawers, seq: &Sequence, job: &mut Job, item: &Item, rows: &[&[f32]]) {
    let least = job.request.prompt_logprobs.unwrap_or(0);
    for (row, position) in rows.iter().zip(item.start + item.first_logit + 1..) {
        if position == job.scores.len() && position < job.request.prompt.len() {
            job.scores.push(drawers.with(|drawer| drawer.score(row, seq.tokens[position], least)));
        }
    }
}

/// Joins a drawn token to a continuation and tells the caller. Returns whether it has ended.
fn join(seq: &mut Sequence, job: &mut Job, (token, raw): Drawn, bytes: &TokenBytes) -> bool {
    let request = job.request.clone();
    let piece = seq.push(token, raw, &request, bytes);
    let end = piece.end.is_some();
    job.piece(seq, piece);
    end
}
