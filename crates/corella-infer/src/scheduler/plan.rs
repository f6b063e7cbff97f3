//! What goes into the next step: who may draw, who reads on in a prompt, and on which pages.
//!
//! Every continuation that is ready to draw gets its token; what is left of the step's tokens is shared equally among
//! the prompts, in chunks of whole pages. Pages are given in order of age. One that gets none may take those of the
//! youngest continuation behind it, which then waits and is computed again; otherwise it sits this step out. The oldest
//! can take from all others, and any continuation fits alone (checked when the request came), so there is always one
//! that goes on: no deadlock.

use std::collections::HashSet;

use corella_model::{BatchPlan, SeqPlan};

use super::Scheduler;
use super::draw::on_device;
use crate::pages::{Before, Found, alternatives};
use crate::request::Request;
use crate::sequence::Sequence;

/// Pages of an arena for each that a growing text is given room for ahead.
const GROWTH: usize = 64;

/// A page by what stands before it and what it holds.
type PageTokens = (Before, Box<[u32]>);

/// The part of one continuation in a step.
#[derive(Debug)]
pub(super) struct Item {
    /// Its place among the running ones.
    pub index: usize,
    /// Its first token in this step.
    pub start: usize,
    /// Tokens of it in this step, without proposed ones.
    pub len: usize,
    /// Tokens proposed behind its last one.
    pub drafts: Vec<u32>,
    /// Of the rows of this step, the first whose logits are wanted; the rest follow.
    pub first_logit: usize,
    /// Draws that the model makes by itself, instead of logits.
    pub draws: usize,
}

impl Item {
    /// Rows of the step.
    fn rows(&self) -> usize {
        self.len + self.drafts.len()
    }
}

impl Scheduler {
    /// Plans a step; empty if nobody can go on. `model_draws`: whether the model can draw.
    pub(super) fn plan(&mut self, model_draws: bool) -> (BatchPlan, Vec<Item>) {
        let prompts = self.running.iter().filter(|seq| self.remaining(seq) > 1).count();
        let drawing = self.running.len() - prompts;
        let mut tokens_left = self.limits.max_batch_tokens - drawing;
        // Every continuation may want one row of logits; the rest is for scoring prompts and for proposals.
        let mut logits_left = self.limits.max_logit_rows - self.running.len();
        let mut reading = prompts;
        let mut begun = HashSet::new();
        let mut items: Vec<Item> = Vec::new();
        let mut index = 0;
        // Running continuations are sorted by age. Those behind `index` may be preempted while this goes on.
        while index < self.running.len() {
            let remaining = self.remaining(&self.running[index]);
            let item = if remaining > 1 {
                let share = (tokens_left / reading.max(1)).max(self.pool.page_tokens()).min(tokens_left);
                reading = reading.saturating_sub(1);
                self.read_on(index, share, &mut logits_left, &mut begun)
            } else if remaining == 1 {
                // Where prompts wait, the step has better work than guesses.
                let room = if prompts == 0 { tokens_left.min(logits_left) } else { 0 };
                self.draw_on(index, room)
            } else {
                None
            };
            if let Some(item) = item {
                if remaining > 1 {
                    tokens_left -= item.len;
                } else {
                    tokens_left -= item.drafts.len();
                    logits_left -= item.drafts.len();
                }
                items.push(item);
            }
            index += 1;
        }
        (self.batch(&mut items, model_draws), items)
    }

    /// Tokens to compute before the next draw or the end.
    fn remaining(&self, seq: &Sequence) -> usize {
        seq.target(&self.jobs[&seq.job].request) - seq.computed
    }

    /// Whether `seq` is to report the log-probabilities of the prompt.
    pub(super) fn scores_prompt(&self, seq: &Sequence) -> bool {
        seq.sample == 0 && !self.jobs[&seq.job].scored
    }

    /// The next chunk of a prompt, of at most `share` tokens.
    fn read_on(
        &mut self,
        index: usize,
        share: usize,
        logits_left: &mut usize,
        begun: &mut HashSet<PageTokens>,
    ) -> Option<Item> {
        let page_tokens = self.pool.page_tokens();
        let seq = &self.running[index];
        if seq.computed.is_multiple_of(page_tokens) {
            let behind = self.adopt(index);
            // Another continuation computes the same page in this step: it will be known in the next.
            if let Some(page) = behind
                && !begun.insert(page)
            {
                return None;
            }
        }
        let seq = &self.running[index];
        let (start, target) = (seq.computed, seq.target(&self.jobs[&seq.job].request));
        let scores = self.scores_prompt(seq);
        let mut len = (target - start).min(share);
        if scores {
            // Its last row is counted already.
            len = len.min(*logits_left + 1);
        }
        let aligned = (start + len) / page_tokens * page_tokens;
        if start + len < target && aligned > start {
            len = aligned - start;
        }
        let fits = self.make_room(index, start + len);
        len = len.min(fits.saturating_sub(start));
        if len == 0 {
            return None;
        }
        if scores {
            *logits_left -= len - 1;
        }
        Some(Item { index, start, len, drafts: Vec::new(), first_logit: 0, draws: 0 })
    }

    /// The last token of a continuation, and proposals for what follows.
    fn draw_on(&mut self, index: usize, room: usize) -> Option<Item> {
        let start = self.running[index].computed;
        if self.make_room(index, start + 1) <= start {
            return None;
        }
        let seq = &mut self.running[index];
        let request = &self.jobs[&seq.job].request;
        // The last draw needs no proposal.
        let room = room.min(request.max_tokens.saturating_sub(seq.drawn + 1));
        let mut drafts = seq.lookup.propose(&seq.tokens, room);
        // Pages are taken for proposals only where nobody has to give them up.
        while seq.pages.len() * self.pool.page_tokens() < start + 1 + drafts.len() {
            match self.pool.take(seq.pages.last().copied(), 1) {
                Some(page) => seq.pages.push(page),
                None => drafts.truncate(seq.pages.len() * self.pool.page_tokens() - start - 1),
            }
        }
        Some(Item { index, start, len: 1, drafts, first_logit: 0, draws: 0 })
    }

    /// Takes pages until `end` tokens fit, from younger continuations if need be. Returns how many fit.
    fn make_room(&mut self, index: usize, end: usize) -> usize {
        let page_tokens = self.pool.page_tokens();
        while self.running[index].pages.len() * page_tokens < end {
            let seq = &self.running[index];
            let wanted = self.pages_wanted(seq, &self.jobs[&seq.job].request);
            if let Some(page) = self.pool.take(seq.pages.last().copied(), wanted) {
                self.running[index].pages.push(page);
            } else if self.running.len() > index + 1 {
                self.preempt_youngest();
            } else {
                break;
            }
        }
        self.running[index].pages.len() * page_tokens
    }

    /// Pages that a continuation will still take, of those for its output a few.
    pub(super) fn pages_wanted(&self, seq: &Sequence, request: &Request) -> usize {
        let growth = self.pool.len() / GROWTH * self.pool.page_tokens();
        let output = request.max_tokens.saturating_sub(seq.drawn).min(growth);
        self.limits.pages_for(seq.target(request) + output).saturating_sub(seq.pages.len())
    }

    /// The youngest continuation gives its pages up and waits.
    fn preempt_youngest(&mut self) {
        if let Some(mut seq) = self.running.pop() {
            self.release(&mut seq);
            self.metrics.preemptions.add(1);
            self.waiting.push(self.jobs[&seq.job].submission, seq);
        }
    }

    /// The known pages that hold the next tokens of `seq`, and the page behind them, if the prompt has it whole.
    fn find_known(&self, seq: &Sequence) -> (Vec<Found>, Option<PageTokens>) {
        let request = &self.jobs[&seq.job].request;
        let scores = self.scores_prompt(seq);
        let page_tokens = self.pool.page_tokens();
        // The last token is computed in any case: its logits are wanted.
        let last = seq.target(request).saturating_sub(1) / page_tokens;
        let least = request.prompt_logprobs.unwrap_or(0);
        let mut found: Vec<Found> = Vec::new();
        let mut before = seq.before.clone();
        for at in seq.computed / page_tokens..last {
            let tokens = &seq.tokens[at * page_tokens..(at + 1) * page_tokens];
            let page = self.pool.find(&before, tokens);
            let enough = |page: &Found| !scores || page.log_probs.as_ref().is_some_and(|p| alternatives(p) >= least);
            let Some(page) = page.filter(enough) else { return (found, Some((before, tokens.into()))) };
            before = Before::Page(page.content);
            found.push(page);
        }
        (found, None)
    }

    /// How many known pages a waiting continuation would take over, and how many of these are idle.
    pub(super) fn known_pages(&self, seq: &Sequence) -> (usize, usize) {
        let (found, _) = self.find_known(seq);
        (found.len(), found.iter().filter(|page| page.idle).count())
    }

    /// Takes over known pages that hold the next tokens. Returns the page behind them, if the prompt has it whole.
    fn adopt(&mut self, index: usize) -> Option<PageTokens> {
        let scores = self.scores_prompt(&self.running[index]);
        let (mut found, behind) = self.find_known(&self.running[index]);
        // The log-probability of the first token behind the known pages needs logits that nobody kept: the last known
        // page is computed again, and gives the one of its own first token.
        let next = if scores { found.pop() } else { None };
        let seq = &mut self.running[index];
        let job = self.jobs.get_mut(&seq.job)?;
        let page_tokens = self.pool.page_tokens();
        let from = seq.computed;
        for page in &found {
            self.pool.hold(page.page);
            // What was taken for these positions earlier is not needed.
            match seq.pages.get_mut(seq.published) {
                Some(own) => self.pool.give_back(std::mem::replace(own, page.page)),
                None => seq.pages.push(page.page),
            }
            seq.published += 1;
            seq.computed += page_tokens;
            seq.before = Before::Page(page.content);
        }
        if seq.drawn == 0 && seq.sample == 0 {
            let cached = job.reach(seq.computed);
            job.usage.cached_tokens += cached;
            self.metrics.cached_tokens.add(cached as u64);
        }
        if scores {
            let least = job.request.prompt_logprobs.unwrap_or(0);
            let known = found.iter().chain(&next).filter_map(|page| page.log_probs.as_deref()).flatten();
            for (position, token) in (from..=seq.computed).zip(known) {
                if position >= job.scores.len() {
                    let mut token = token.clone();
                    token.top.truncate(least);
                    job.scores.push(token);
                }
            }
        }
        behind
    }

    /// The plan of the chosen parts.
    fn batch(&self, items: &mut [Item], model_draws: bool) -> BatchPlan {
        let mut plan = BatchPlan::default();
        for item in items {
            let seq = &self.running[item.index];
            let job = &self.jobs[&seq.job];
            let (row, end) = (plan.tokens.len(), item.start + item.len);
            plan.tokens.extend(&seq.tokens[item.start..end]);
            plan.tokens.extend(&item.drafts);
            // Rows whose logits are wanted: all of a scored prompt, the last one for a draw, those of proposals.
            let draws = job.request.max_tokens > 0 && end == seq.tokens.len();
            let scores = self.scores_prompt(seq);
            item.first_logit = if scores { 0 } else { item.len - usize::from(draws) };
            let by_model = if draws && !scores && model_draws {
                on_device(&job.request, seq, job.split, item.drafts.len(), self.known_tokens)
            } else {
                None
            };
            match by_model {
                Some(draws) => {
                    item.draws = draws.len();
                    plan.draws.extend((row + item.first_logit..).zip(draws));
                }
                None => plan.logit_rows.extend(row + item.first_logit..row + item.rows()),
            }
            let pages = self.limits.pages_for(item.start + item.rows());
            plan.seqs.push(SeqPlan { start: item.start, len: item.rows(), pages: seq.pages[..pages].to_vec() });
        }
        plan
    }
}
