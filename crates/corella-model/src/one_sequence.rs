//! A model of many sequences, used for one.

use crate::step::{BatchPlan, SeqPlan, StepModel};
use crate::text_model::TextModel;

/// Feeds one sequence, in steps as large as fit, into the pages from 0 on.
pub struct OneSequence<M> {
    model: M,
    position: usize,
    logits: Vec<f32>,
}

impl<M: StepModel> OneSequence<M> {
    /// Nothing fed yet.
    pub fn new(model: M) -> Self {
        OneSequence { model, position: 0, logits: Vec::new() }
    }

    fn step(&mut self, tokens: &[u32], logit_rows: Vec<usize>) -> &[f32] {
        let limits = self.model.limits();
        let pages = (0..limits.pages_for(self.position + tokens.len()) as u32).collect();
        let seqs = vec![SeqPlan { start: self.position, len: tokens.len(), pages }];
        let plan = BatchPlan { tokens: tokens.to_vec(), seqs, logit_rows, draws: Vec::new() };
        self.position += tokens.len();
        match self.model.step(&plan) {
            Ok(out) => out.logits,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<M: StepModel> TextModel for OneSequence<M> {
    fn context_len(&self) -> usize {
        let limits = self.model.limits();
        limits.context_len.min(limits.pages * limits.page_tokens)
    }

    fn vocab_size(&self) -> usize {
        self.model.limits().vocab_size
    }

    fn reset(&mut self) {
        self.position = 0;
    }

    fn rewind(&mut self, position: usize) {
        assert!(position <= self.position, "no more than was fed can be forgotten");
        self.position = position;
    }

    fn position(&self) -> usize {
        self.position
    }

    fn feed(&mut self, tokens: &[u32]) -> &[f32] {
        assert!(!tokens.is_empty(), "nothing to feed");
        let most = self.model.limits().max_batch_tokens;
        // All but the last piece are for the cache only.
        let last = (tokens.len() - 1) / most * most;
        for piece in tokens[..last].chunks(most) {
            self.step(piece, Vec::new());
        }
        let tokens = &tokens[last..];
        let logits = self.step(tokens, vec![tokens.len() - 1]).to_vec();
        self.logits = logits;
        &self.logits
    }

    fn feed_each(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) {
        let limits = self.model.limits();
        let most = limits.max_batch_tokens.min(limits.max_logit_rows);
        for (i, piece) in tokens.chunks(most).enumerate() {
            let logits = self.step(piece, (0..piece.len()).collect());
            logits.chunks_exact(limits.vocab_size).enumerate().for_each(|(row, l)| each(i * most + row, l));
        }
    }
}
