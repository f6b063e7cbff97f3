//! What becomes of a step's results: scores, draws, samples that part, proposals that were right, ends.

use std::ops::Range;
use std::time::Instant;

use corella_model::{StepOut, Threads};

use super::Scheduler;
use super::draw::{Drawers, Drawn, Wanted, bare};
use super::job::Job;
use super::plan::Item;
use crate::metrics::Metrics;
use crate::pages::{Before, PagePool};
use crate::sequence::{Sequence, TokenBytes};

/// What is said of logits that are not numbers.
const BROKEN: &str = "the logits are not numbers: the weights are damaged, or too large to compute with";

/// What a continuation has of a step's results.
struct Own<'a> {
    /// Tokens that the model drew.
    drawn: &'a [Option<u32>],
    /// Rows of logits.
    rows: Vec<&'a [f32]>,
}

impl<'a> Own<'a> {
    /// Whether a row of logits, here or on the device that drew from it, is not numbers: one in the stream they all come from
    /// makes each of them one.
    fn is_broken(&self) -> bool {
        let broken = |row: &&[f32]| row.first().is_some_and(|logit| logit.is_nan());
        self.drawn.iter().any(Option::is_none) || self.rows.iter().any(broken)
    }

    /// The rows behind the item's last token and behind its proposals.
    fn drawn_from(&self, item: &Item) -> &[&'a [f32]] {
        self.rows.get(item.len - 1 - item.first_logit..).unwrap_or_default()
    }
}

/// How a continuation stands after a step.
enum Stands {
    /// It goes on.
    On,
    /// It has ended.
    Ended,
    /// Its logits are not numbers.
    Broken,
}

impl Scheduler {
    /// Takes in what a step computed. Returns the pages to copy.
    pub(super) fn absorb(&mut self, items: &[Item], out: StepOut<'_>, began: Instant) -> Vec<(u32, u32)> {
        let results = self.results(items, &out);
        let firsts = self.first_draws(items, &results, out.threads);
        let (mut split, mut ended, mut broken) = (Vec::new(), Vec::new(), Vec::new());
        for ((item, own), first) in items.iter().zip(&results).zip(firsts) {
            let seq = &mut self.running[item.index];
            let Some(job) = self.jobs.get_mut(&seq.job) else { continue };
            if !job.begun() {
                self.metrics.occupied.add(1);
            }
            job.start(began);
            let id = seq.job;
            let (pool, drawers, bytes, metrics) = (&mut self.pool, &self.drawers, &self.bytes, &*self.metrics);
            let mut step = SeqStep { item, own, seq, job, pool, drawers, bytes, metrics };
            match step.take_in(first, &mut split) {
                Stands::On => {}
                Stands::Ended => ended.push(item.index),
                Stands::Broken => broken.push(id),
            }
        }
        let mut copies = Vec::new();
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
            let (drawn, rest) = tokens.split_at(item.draws.min(tokens.len()));
            tokens = rest;
            let own = item.len + item.drafts.len() - item.first_logit - item.draws;
            Own { drawn, rows: rows.by_ref().take(own).collect() }
        };
        items.iter().map(of).collect()
    }

    /// The first draw of each continuation that has come so far, if the model did not make it: all of them at once. What follows
    /// a proposal waits until the draw before it is known.
    fn first_draws<'a>(&self, items: &[Item], results: &[Own<'a>], threads: Threads<'_>) -> Vec<Option<Vec<Drawn>>> {
        let wanted = |(item, own): (&Item, &Own<'a>)| {
            let seq = &self.running[item.index];
            let job = self.jobs.get(&seq.job)?;
            let there = item.start + item.len >= seq.target(&job.request) && job.request.max_tokens > 0;
            if !there || !own.drawn.is_empty() {
                return None;
            }
            let logits = *own.drawn_from(item).first()?;
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
}

/// A continuation, its part of a step, and what it takes to go on from there.
struct SeqStep<'a> {
    item: &'a Item,
    own: &'a Own<'a>,
    seq: &'a mut Sequence,
    job: &'a mut Job,
    pool: &'a mut PagePool,
    drawers: &'a Drawers,
    bytes: &'a TokenBytes,
    metrics: &'a Metrics,
}

impl SeqStep<'_> {
    /// All that follows from the step. `first`: the draws that were made for it already. Samples that part from this one go to
    /// `split`, each with the place of the continuation whose prompt it shares.
    fn take_in(&mut self, first: Option<Vec<Drawn>>, split: &mut Vec<(usize, Sequence)>) -> Stands {
        // Whatever follows would be made of them: scores, draws, pages that others find.
        if self.own.is_broken() {
            return Stands::Broken;
        }
        if !self.read_prompt() {
            return Stands::On;
        }
        if self.job.request.max_tokens == 0 {
            return Stands::Ended;
        }
        let mut drawn = self.draw_first(first).into_iter();
        let Some(token) = drawn.next() else { return Stands::On };
        self.split_samples(drawn, split);
        let ended = self.join(token);
        if self.accept_drafts(ended) {
            return Stands::Ended;
        }
        publish(self.pool, self.seq, self.job);
        Stands::On
    }

    /// Counts what is in the pages now, and takes the scores of the prompt. Whether the next token can be drawn.
    fn read_prompt(&mut self) -> bool {
        self.seq.computed = self.item.start + self.item.len;
        let first_sample = self.seq.sample == 0;
        if first_sample && !self.job.scored {
            self.score();
        }
        publish(self.pool, self.seq, self.job);
        if first_sample && self.seq.drawn == 0 {
            self.job.progress(self.seq.computed);
        }
        let there = self.seq.computed >= self.seq.target(&self.job.request);
        if there {
            self.job.prefilled();
        }
        there
    }

    /// Reads the log-probabilities of the prompt's tokens off the rows of the step.
    fn score(&mut self) {
        let job = &mut *self.job;
        let prompt_len = job.request.prompt.len();
        let least = job.request.prompt_logprobs.unwrap_or(0);
        for (row, position) in self.own.rows.iter().zip(self.item.start + self.item.first_logit + 1..) {
            if position == job.scores.len() && position < prompt_len {
                let token = self.seq.tokens[position];
                job.scores.push(self.drawers.with(|drawer| drawer.score(row, token, least)));
            }
        }
    }

    /// The tokens behind the item's last one (`behind` 0) or behind one of its proposals, for each of `samples`.
    fn draw(&self, samples: Range<usize>, behind: usize) -> Vec<Drawn> {
        if let Some(id) = self.own.drawn.get(behind).copied().flatten() {
            return vec![bare(id)];
        }
        let logits = self.own.drawn_from(self.item)[behind];
        self.drawers.with(|drawer| drawer.draw(logits, &self.job.request, self.seq, samples, self.bytes))
    }

    /// The next token of every sample that stands here.
    fn draw_first(&mut self, first: Option<Vec<Drawn>>) -> Vec<Drawn> {
        let drawn = first.unwrap_or_else(|| self.draw(samples_of(self.seq, self.job), 0));
        self.count_drawn(drawn.len());
        drawn
    }

    fn count_drawn(&mut self, count: usize) {
        self.job.usage.completion_tokens += count;
        self.metrics.drawn_tokens.add(count as u64);
    }

    /// Lets the other samples part from the first, with a token each.
    fn split_samples(&mut self, others: impl Iterator<Item = Drawn>, split: &mut Vec<(usize, Sequence)>) {
        for (sample, token) in others.enumerate() {
            let mut other = Sequence::new(self.seq.job, sample + 1, &self.job.request);
            // It stands behind the prompt's full pages, as this one does now.
            (other.before, other.published) = (self.seq.before.clone(), self.seq.published);
            if !join(&mut other, self.job, token, self.bytes) {
                split.push((self.item.index, other));
            }
        }
        self.job.split = true;
    }

    /// Joins a token to this continuation. Returns whether it has ended.
    fn join(&mut self, token: Drawn) -> bool {
        join(self.seq, self.job, token, self.bytes)
    }

    /// Takes the proposals that the draws confirm, which were computed already, and the draw behind each, until the continuation
    /// ends. `end`: whether it has; returns whether it has then.
    fn accept_drafts(&mut self, mut end: bool) -> bool {
        let (drafts, mut accepted) = (&self.item.drafts, 0);
        while !end && accepted < drafts.len() && self.seq.tokens.last() == Some(&drafts[accepted]) {
            accepted += 1;
            self.seq.computed += 1;
            let sample = self.seq.sample..self.seq.sample + 1;
            self.count_drawn(1);
            for token in self.draw(sample, accepted) {
                end = self.join(token);
            }
        }
        self.judge_drafts(accepted);
        end
    }

    /// Records how many of the proposals were right.
    fn judge_drafts(&mut self, accepted: usize) {
        let drafted = self.item.drafts.len();
        if drafted > 0 {
            self.seq.lookup.judge(drafted, accepted);
            self.job.usage.drafted_tokens += drafted;
            self.job.usage.accepted_tokens += accepted;
            self.metrics.drafted_tokens.add(drafted as u64);
            self.metrics.accepted_tokens.add(accepted as u64);
        }
    }
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

/// The samples that are where `seq` is: all, as long as they have not parted.
fn samples_of(seq: &Sequence, job: &Job) -> Range<usize> {
    if job.split { seq.sample..seq.sample + 1 } else { 0..job.request.best_of }
}

/// Joins a drawn token to a continuation and tells the caller. Returns whether it has ended.
fn join(seq: &mut Sequence, job: &mut Job, (token, raw): Drawn, bytes: &TokenBytes) -> bool {
    let request = job.request.clone();
    let piece = seq.push(token, raw, &request, bytes);
    let end = piece.end.is_some();
    job.piece(seq, piece);
    end
}
