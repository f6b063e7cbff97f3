//! How much a model that steps is given room for.

pub use corella_ops::KvKind;

use crate::ModelError;
use crate::step::StepLimits;

/// Positions of a KV page.
pub const PAGE_TOKENS: usize = 32;

/// Room for steps and for the KV cache; memory is allocated when the model is loaded and does not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOptions {
    /// Most tokens of one sequence; no more than the model's own context.
    pub context_len: usize,
    /// Positions in the KV cache, all sequences together.
    pub kv_tokens: usize,
    /// Number type of the cache.
    pub kv_kind: KvKind,
    /// Most sequences of one step.
    pub max_seqs: usize,
    /// Most tokens of one step.
    pub max_batch_tokens: usize,
    /// Most rows of logits of one step.
    pub max_logit_rows: usize,
}

/// Most positions of a cache that takes `token_bytes` for each.
fn most_tokens(token_bytes: u64) -> usize {
    let by_bytes = isize::MAX as u64 / token_bytes.max(1);
    let by_number = u64::from(u32::MAX) * PAGE_TOKENS as u64;
    usize::try_from(by_bytes.min(by_number)).map_or(usize::MAX, |tokens| tokens / PAGE_TOKENS * PAGE_TOKENS)
}

impl StepOptions {
    /// For one sequence of `context_len` tokens at most.
    pub fn one_sequence(context_len: usize) -> Self {
        StepOptions {
            context_len,
            kv_tokens: context_len,
            kv_kind: KvKind::F16,
            max_seqs: 1,
            max_batch_tokens: context_len.min(512),
            max_logit_rows: context_len.min(32),
        }
    }

    /// The limits of a model with these options, or which of them is out of range. `token_bytes` is what a position
    /// takes in the cache, all layers together.
    pub fn limits(&self, model_context: usize, vocab_size: usize, token_bytes: u64) -> Result<StepLimits, ModelError> {
        let fields = [
            ("context_len", self.context_len, model_context),
            // Pages have numbers of 32 bits, and their bytes can be counted.
            ("kv_tokens", self.kv_tokens, most_tokens(token_bytes)),
            ("max_seqs", self.max_seqs, self.max_batch_tokens),
            ("max_batch_tokens", self.max_batch_tokens, usize::MAX),
            ("max_logit_rows", self.max_logit_rows, self.max_batch_tokens),
        ];
        for (field, value, most) in fields {
            if value == 0 || value > most {
                let rule = format!("must be from 1 to {most}");
                return Err(ModelError::BadConfig { field, value: value.to_string(), rule });
            }
        }
        Ok(StepLimits {
            context_len: self.context_len,
            vocab_size,
            page_tokens: PAGE_TOKENS,
            pages: self.kv_tokens.div_ceil(PAGE_TOKENS),
            page_bytes: PAGE_TOKENS as u64 * token_bytes,
            max_batch_tokens: self.max_batch_tokens,
            max_seqs: self.max_seqs,
            max_logit_rows: self.max_logit_rows,
        })
    }
}
