//! The face of a model for the engine: one step of many sequences at once, with the backend erased.
//!
//! A model holds one arena of KV pages. A page keeps keys and values of [`StepLimits::page_tokens`] positions, of every
//! layer. Who owns which page is the caller's business: a plan names, for each sequence, the pages that hold its
//! positions from 0 on, and several sequences may name the same page as long as none of them writes to it. What a row
//! computes depends on the tokens before it in its own sequence only: not on how they were split over steps, nor on
//! what else is in the step. Logits are the same, bit for bit.

use corella_ops::{Draw, OpsError, OpsInfer, RowAt};

/// What a step can hold; fixed when the model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Most tokens of one sequence.
    pub context_len: usize,
    /// V, the number of logits of a row.
    pub vocab_size: usize,
    /// Positions that a KV page holds.
    pub page_tokens: usize,
    /// KV pages in the arena, numbered from 0.
    pub pages: usize,
    /// Bytes of one KV page, all layers together.
    pub page_bytes: u64,
    /// Most tokens of one step, all sequences together.
    pub max_batch_tokens: usize,
    /// Most sequences of one step.
    pub max_seqs: usize,
    /// Most rows of one step whose logits are wanted.
    pub max_logit_rows: usize,
}

/// The part of one sequence in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqPlan {
    /// Position of its first token in this step: the number of tokens it was fed before.
    pub start: usize,
    /// Its tokens in this step (at least one).
    pub len: usize,
    /// The pages of positions 0 .. start + len, in order. Those of the positions start .. start + len are written.
    pub pages: Vec<u32>,
}

/// One step: which tokens, where they stand, and of which rows the logits are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchPlan {
    /// Token ids of all sequences, one sequence after the other (N).
    pub tokens: Vec<u32>,
    /// The sequences, in the order of their tokens.
    pub seqs: Vec<SeqPlan>,
    /// Rows (indices into `tokens`, ascending) whose logits are wanted; the output head is computed for these and those of
    /// `draws` only.
    pub logit_rows: Vec<usize>,
    /// Other rows, ascending, from whose logits the model is to draw a token; only where [`StepModel::draws`].
    pub draws: Vec<(usize, Draw)>,
}

impl BatchPlan {
    /// Sequence and position of every token.
    pub(crate) fn rows(&self) -> Vec<RowAt> {
        let seqs = self.seqs.iter().enumerate();
        seqs.flat_map(|(i, s)| {
            (s.start..s.start + s.len).map(move |p| RowAt { sequence: i as u32, position: p as u32 })
        })
        .collect()
    }

    /// For each sequence its pages.
    pub(crate) fn tables(&self) -> Vec<&[u32]> {
        self.seqs.iter().map(|s| &s.pages[..]).collect()
    }

    /// How many rows the output head is computed for.
    pub(crate) fn wanted_len(&self) -> usize {
        self.logit_rows.len() + self.draws.len()
    }

    /// These rows: those whose logits are wanted, then those that are drawn from.
    pub(crate) fn wanted(&self) -> Vec<u32> {
        self.logit_rows.iter().chain(self.draws.iter().map(|(row, _)| row)).map(|row| *row as u32).collect()
    }

    /// Whether it is one token of each sequence, and the head is computed for all: what is repeated once for each token of a
    /// text. The head's rows are then in the order of the tokens.
    pub(crate) fn is_decode(&self) -> bool {
        let n = self.tokens.len();
        n > 0 && self.seqs.len() == n && self.wanted_len() == n
    }
}

/// Ids for `n` rows, of which the last may mean nothing.
pub(crate) fn padded(ids: &[u32], n: usize) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.resize(n, 0);
    ids
}

/// What cannot be computed. A plan is checked whole before anything is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More than fits in one step.
    #[error("{what}: {found} in one step, at most {allowed}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much was asked for.
        found: usize,
        /// The limit.
        allowed: usize,
    },
    /// The lengths of the sequences do not add up to the tokens, a sequence is empty, or a row does not exist.
    #[error("the plan contradicts itself: {0}")]
    Contradiction(&'static str),
    /// A token that the model does not know.
    #[error("token {id} is outside the vocabulary of {vocab_size}")]
    BadToken {
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sequence longer than the context.
    #[error("a sequence of {found} tokens, but the context holds {context_len}")]
    ContextOverflow {
        /// Tokens it would have.
        found: usize,
        /// Tokens that fit.
        context_len: usize,
    },
    /// A page outside the arena.
    #[error("KV page {page} of {pages}")]
    BadPage {
        /// The page.
        page: u32,
        /// Pages of the arena.
        pages: usize,
    },
    /// The device refused.
    #[error("{0}")]
    Backend(String),
    /// Two sequences of the step write the same page, or one writes a page that another reads.
    #[error("KV page {page} is written by one sequence and used by another in the same step")]
    SharedWrite {
        /// The page.
        page: u32,
    },
}

impl From<OpsError> for PlanError {
    fn from(error: OpsError) -> PlanError {
        PlanError::Backend(error.to_string())
    }
}

impl StepLimits {
    /// Rows that the activations of any step need, and its logits: a step of single tokens may be padded.
    pub(crate) fn buffer_rows<B: OpsInfer>(&self, ops: &B) -> [usize; 2] {
        let decode = ops.decode_rows(self.max_seqs.min(self.max_logit_rows).min(self.max_batch_tokens));
        [self.max_batch_tokens.max(decode), self.max_logit_rows.max(decode)]
    }

    /// Pages that `tokens` positions take.
    pub fn pages_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }

    /// The steps that need the most memory: a prompt as long as fits, and as many single tokens as fit beside each other, both at
    /// the end of the context, with draws where the model draws.
    pub fn largest_plans(&self, draws: bool) -> [BatchPlan; 2] {
        let context = self.context_len.min(self.pages * self.page_tokens);
        let len = self.max_batch_tokens.min(context);
        let pages = self.pages_for(context) as u32;
        let prompt = BatchPlan {
            tokens: vec![0; len],
            seqs: vec![SeqPlan { start: context - len, len, pages: (0..pages).collect() }],
            logit_rows: (len - self.max_logit_rows.min(len)..len).collect(),
            draws: Vec::new(),
        };
        // All read the same pages, and each writes one of its own.
        let own = self.pages - (pages as usize - 1);
        let n = own.min(self.max_seqs).min(self.max_logit_rows).min(self.max_batch_tokens);
        let seq =
            |i: u32| SeqPlan { start: context - 1, len: 1, pages: (0..pages - 1).chain([pages - 1 + i]).collect() };
        let (tokens, temperature, bits) = (self.vocab_size, 1.0, 0);
        let draw = || Draw { tokens, edits: Vec::new(), temperature, top_k: None, top_p: None, min_p: None, bits };
        let single = BatchPlan {
            tokens: vec![0; n],
            seqs: (0..n as u32).map(seq).collect(),
            logit_rows: if draws { Vec::new() } else { (0..n).collect() },
            draws: if draws { (0..n).map(|row| (row, draw())).collect() } else { Vec::new() },
        };
        [prompt, single]
    }

    /// Checks a plan against these limits.
    pub fn check(&self, plan: &BatchPlan) -> Result<(), PlanError> {
        let most = |what, found, allowed| {
            if found > allowed { Err(PlanError::TooMany { what, found, allowed }) } else { Ok(()) }
        };
        most("tokens", plan.tokens.len(), self.max_batch_tokens)?;
        most("sequences", plan.seqs.len(), self.max_seqs)?;
        most("rows of logits", plan.wanted_len(), self.max_logit_rows)?;
        if plan.seqs.iter().any(|s| s.len == 0) {
            return Err(PlanError::Contradiction("a sequence without tokens"));
        }
        if plan.seqs.iter().try_fold(0usize, |n, s| n.checked_add(s.len)) != Some(plan.tokens.len()) {
            return Err(PlanError::Contradiction("the sequences do not add up to the tokens"));
        }
        if plan.logit_rows.windows(2).any(|w| w[0] >= w[1]) {
            return Err(PlanError::Contradiction("rows of logits are not in ascending order"));
        }
        if plan.draws.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(PlanError::Contradiction("draws are not in ascending order"));
        }
        if plan.draws.iter().any(|(row, _)| plan.logit_rows.binary_search(row).is_ok()) {
            return Err(PlanError::Contradiction("a row that is drawn from and whose logits are wanted"));
        }
        if plan.wanted().iter().any(|row| *row as usize >= plan.tokens.len()) {
            return Err(PlanError::Contradiction("a row of logits behind the last token"));
        }
        let known = |draw: &Draw| (1..=self.vocab_size).contains(&draw.tokens);
        let inside = |draw: &Draw| draw.edits.iter().all(|edit| (edit.id as usize) < draw.tokens);
        if !plan.draws.iter().all(|(_, draw)| known(draw) && inside(draw)) {
            return Err(PlanError::Contradiction("a draw of tokens that there are not"));
        }
        if let Some(id) = plan.tokens.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(PlanError::BadToken { id: *id, vocab_size: self.vocab_size });
        }
        self.check_pages(plan)
    }

    fn check_pages(&self, plan: &BatchPlan) -> Result<(), PlanError> {
        // For each page of the arena: unused, read by some, or written by one.
        let mut used = vec![0u8; self.pages];
        for seq in &plan.seqs {
            let end = seq.start.checked_add(seq.len).filter(|end| *end <= self.context_len);
            let Some(end) = end else {
                let found = seq.start.saturating_add(seq.len);
                return Err(PlanError::ContextOverflow { found, context_len: self.context_len });
            };
            if seq.pages.len() != self.pages_for(end) {
                return Err(PlanError::Contradiction("a sequence names more or fewer pages than its positions take"));
            }
            let first_written = seq.start / self.page_tokens;
            for (i, page) in seq.pages.iter().enumerate() {
                let Some(state) = used.get_mut(*page as usize) else {
                    return Err(PlanError::BadPage { page: *page, pages: self.pages });
                };
                let writes = i >= first_written;
                if *state == 2 || (writes && *state != 0) {
                    return Err(PlanError::SharedWrite { page: *page });
                }
                *state = if writes { 2 } else { 1 };
            }
        }
        Ok(())
    }
}

/// What a step computed.
#[derive(Clone, Copy, Debug)]
pub struct StepOut<'a> {
    /// Logits of the wanted rows, in their order (rows, V).
    pub logits: &'a [f32],
    /// The token of each draw; none where the logits were not numbers.
    pub drawn: &'a [Option<u32>],
    /// Threads for what the caller does with it.
    pub threads: Threads<'a>,
}

/// The threads of a model, which stand idle between two steps.
#[derive(Clone, Copy)]
pub struct Threads<'a>(Option<&'a dyn Share>);

impl Threads<'_> {
    /// None but the caller's.
    pub const NONE: Threads<'static> = Threads(None);

    /// Runs `job(0) … job(tasks - 1)`, each once.
    pub fn run(self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        match self.0 {
            Some(threads) => threads.share(tasks, job),
            None => (0..tasks).for_each(job),
        }
    }
}

impl std::fmt::Debug for Threads<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Threads")
    }
}

/// A backend whose number formats do not matter here.
trait Share {
    /// See [`OpsInfer::share`].
    fn share(&self, tasks: usize, job: &(dyn Fn(usize) + Sync));
}

impl<B: OpsInfer> Share for B {
    fn share(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        OpsInfer::share(self, tasks, job);
    }
}

/// The host's side of a step.
#[derive(Debug)]
pub(crate) struct Results {
    /// Logits brought from the device (max_logit_rows, V); none where they are read in their place.
    logits: Option<Vec<f32>>,
    drawn: Vec<Option<u32>>,
    /// Whether the backend draws.
    pub draws: bool,
}

impl Results {
    /// For the steps of a model with these logits (max_logit_rows, V) on the device.
    pub fn new<B: OpsInfer>(ops: &B, logits: &mut B::Buf, limits: &StepLimits) -> Results {
        let draws = ops.draw(logits, limits.vocab_size, &[]).is_some();
        let in_place = !draws && ops.view(logits, 0).is_some();
        let brought = || vec![0.0; limits.max_logit_rows * limits.vocab_size];
        Results { logits: (!in_place).then(brought), drawn: Vec::new(), draws }
    }

    /// Draws, and brings what is wanted from the device, once the head's logits are there.
    pub fn take<'a, B: OpsInfer>(
        &'a mut self,
        ops: &'a B,
        logits: &'a mut B::Buf,
        plan: &BatchPlan,
        v: usize,
    ) -> Result<StepOut<'a>, PlanError> {
        let (decode, listed) = (plan.is_decode(), plan.logit_rows.len());
        let threads = Threads(Some(ops));
        let Some(host) = &mut self.logits else {
            if !plan.draws.is_empty() {
                return Err(PlanError::Contradiction("a draw on a device that does not draw"));
            }
            // Without draws the head's rows are the wanted ones, in their order.
            let logits = ops.view(logits, listed * v).unwrap_or_default();
            return Ok(StepOut { logits, drawn: &[], threads });
        };
        // In a decoding step the head's rows are those of the tokens; else the wanted ones come first.
        let brought = if decode { plan.logit_rows.last().map_or(0, |row| row + 1) } else { listed };
        ops.read(logits, &mut host[..brought * v]);
        if decode {
            for (i, row) in plan.logit_rows.iter().enumerate() {
                host.copy_within(row * v..(row + 1) * v, i * v);
            }
        }
        let draws = plan.draws.iter().enumerate();
        let draws: Vec<_> = draws.map(|(i, (row, draw))| (if decode { *row } else { listed + i }, draw)).collect();
        self.drawn.clear();
        if !draws.is_empty() {
            let drawn = ops.draw(logits, v, &draws);
            self.drawn = drawn.ok_or(PlanError::Contradiction("a draw on a device that does not draw"))?;
        }
        Ok(StepOut { logits: &host[..listed * v], drawn: &self.drawn, threads })
    }
}

/// A model that steps many sequences at once.
pub trait StepModel: Send {
    /// What a step can hold.
    fn limits(&self) -> StepLimits;
    /// Device, kernel path and number formats: results are the same bytes wherever this text is the same.
    fn backend_name(&self) -> String;
    /// Whether plans may have draws.
    fn draws(&self) -> bool {
        false
    }
    /// Runs a plan: writes keys and values of its tokens into their pages and returns the wanted logits and drawn tokens.
    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError>;
    /// Copies page `from` over page `to`, all layers: how a sequence goes on from a shared page that is not full.
    /// Panics if a page is outside the arena.
    fn copy_page(&mut self, from: u32, to: u32);
}

impl<M: StepModel + ?Sized> StepModel for Box<M> {
    fn limits(&self) -> StepLimits {
        (**self).limits()
    }
    fn backend_name(&self) -> String {
        (**self).backend_name()
    }
    fn draws(&self) -> bool {
        (**self).draws()
    }
    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        (**self).step(plan)
    }
    fn copy_page(&mut self, from: u32, to: u32) {
        (**self).copy_page(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StepLimits = StepLimits {
        context_len: 10,
        vocab_size: 7,
        page_tokens: 4,
        pages: 5,
        page_bytes: 64,
        max_batch_tokens: 8,
        max_seqs: 2,
        max_logit_rows: 2,
    };

    fn plan() -> BatchPlan {
        let seqs =
            vec![SeqPlan { start: 4, len: 1, pages: vec![0, 1] }, SeqPlan { start: 4, len: 3, pages: vec![0, 3] }];
        BatchPlan { tokens: vec![1, 2, 3, 6], seqs, logit_rows: vec![0, 3], draws: vec![] }
    }

    fn draw(tokens: usize) -> Draw {
        Draw { tokens, edits: vec![], temperature: 1.0, top_k: None, top_p: None, min_p: None, bits: 0 }
    }

    #[test]
    fn sequences_may_share_what_they_only_read() {
        assert_eq!(LIMITS.check(&plan()), Ok(()));
    }

    #[test]
    fn a_plan_that_cannot_run_is_refused_with_the_reason() {
        let broken = |change: fn(&mut BatchPlan)| {
            let mut plan = plan();
            change(&mut plan);
            LIMITS.check(&plan).expect_err("broken")
        };
        assert_eq!(broken(|p| p.tokens[2] = 7), PlanError::BadToken { id: 7, vocab_size: 7 });
        assert_eq!(broken(|p| p.seqs[1].pages[1] = 1), PlanError::SharedWrite { page: 1 });
        assert_eq!(broken(|p| p.seqs[1].pages[1] = 0), PlanError::SharedWrite { page: 0 });
        assert_eq!(broken(|p| p.seqs[1].pages[0] = 1), PlanError::SharedWrite { page: 1 });
        assert_eq!(broken(|p| p.seqs[0].pages[1] = 5), PlanError::BadPage { page: 5, pages: 5 });
        assert_eq!(broken(|p| p.seqs[0].start = 10), PlanError::ContextOverflow { found: 11, context_len: 10 });
        assert!(matches!(broken(|p| p.seqs[0].start = usize::MAX), PlanError::ContextOverflow { .. }));
        for change in [
            |p: &mut BatchPlan| p.seqs[0].len = 0,
            |p: &mut BatchPlan| p.seqs[0].len = 2,
            |p: &mut BatchPlan| p.logit_rows = vec![3, 0],
            |p: &mut BatchPlan| p.logit_rows = vec![4],
            |p: &mut BatchPlan| p.seqs[0].pages.push(4),
            |p: &mut BatchPlan| (p.logit_rows, p.draws) = (vec![3], vec![(3, draw(7))]),
            |p: &mut BatchPlan| (p.logit_rows, p.draws) = (vec![], vec![(2, draw(7)), (1, draw(7))]),
            |p: &mut BatchPlan| (p.logit_rows, p.draws) = (vec![], vec![(1, draw(8))]),
        ] {
            let error = broken(change);
            assert!(matches!(error, PlanError::Contradiction(_)), "{error}");
        }
        let error = broken(|p| p.logit_rows = vec![0, 1, 2]);
        assert_eq!(error, PlanError::TooMany { what: "rows of logits", found: 3, allowed: 2 });
    }
}
