//! The shape of a GPT-2.

use crate::ModelError;

/// No dimension is larger.
const LARGEST: usize = 1 << 24;
/// No model has more blocks; GPT-2 has 48 at most. A few bytes of a file that claims millions would cost gigabytes of table.
const MOST_LAYERS: usize = 4096;

/// A shape that a GPT-2 can have: every value is in range and the heads divide the width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt2Config {
    vocab_size: usize,
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    seq_len: usize,
    tied: bool,
}

impl Gpt2Config {
    /// Checks the values: each between 1 and 2^24 (blocks up to 4,096), `n_head` divides `n_embd`, and the parameters can be counted.
    pub fn new(
        vocab_size: usize,
        n_layer: usize,
        n_head: usize,
        n_embd: usize,
        seq_len: usize,
    ) -> Result<Self, ModelError> {
        let fields = [
            ("vocab_size", vocab_size, LARGEST),
            ("n_layer", n_layer, MOST_LAYERS),
            ("n_head", n_head, LARGEST),
            ("n_embd", n_embd, LARGEST),
            ("seq_len", seq_len, LARGEST),
        ];
        for (field, value, most) in fields {
            if !(1..=most).contains(&value) {
                let rule = format!("must be from 1 to {most}");
                return Err(ModelError::BadConfig { field, value: value.to_string(), rule });
            }
        }
        if !n_embd.is_multiple_of(n_head) {
            let rule = format!("must divide n_embd = {n_embd}");
            return Err(ModelError::BadConfig { field: "n_head", value: n_head.to_string(), rule });
        }
        let config = Gpt2Config { vocab_size, n_layer, n_head, n_embd, seq_len, tied: true };
        config.count()?;
        Ok(config)
    }

    /// One of the four published sizes: `gpt2-124m`, `gpt2-355m`, `gpt2-774m`, `gpt2-1558m`.
    pub fn preset(name: &str) -> Option<Self> {
        let (n_layer, n_head, n_embd) = match name {
            "gpt2-124m" => (12, 12, 768),
            "gpt2-355m" => (24, 16, 1024),
            "gpt2-774m" => (36, 20, 1280),
            "gpt2-1558m" => (48, 25, 1600),
            _ => return None,
        };
        Some(Gpt2Config { vocab_size: 50257, n_layer, n_head, n_embd, seq_len: 1024, tied: true })
    }

    /// The same shape with an output head of its own, as some files keep it; GPT-2 itself has none.
    pub fn with_own_head(self) -> Result<Self, ModelError> {
        let config = Gpt2Config { tied: false, ..self };
        config.count()?;
        Ok(config)
    }

    /// V, the tokens that can be predicted.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
    /// L, the blocks.
    pub fn n_layer(&self) -> usize {
        self.n_layer
    }
    /// NH, the heads of a block.
    pub fn n_head(&self) -> usize {
        self.n_head
    }
    /// C, the width.
    pub fn n_embd(&self) -> usize {
        self.n_embd
    }
    /// HS = C / NH, the size of a head.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }
    /// Rows of wpe: the longest context.
    pub fn seq_len(&self) -> usize {
        self.seq_len
    }

    /// Whether the output head is the token embedding.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// L·(12C² + 13C) + (V + T)·C + 2C, and V·C for a head of its own.
    pub fn parameter_count(&self) -> usize {
        self.checked_count().unwrap_or(usize::MAX)
    }

    fn count(&self) -> Result<usize, ModelError> {
        self.checked_count().ok_or_else(|| ModelError::BadConfig {
            field: "n_embd",
            value: self.n_embd.to_string(),
            rule: "the parameters must be fewer than 2^40".to_owned(),
        })
    }

    fn checked_count(&self) -> Option<usize> {
        let c = self.n_embd;
        let block = c.checked_mul(c)?.checked_mul(12)?.checked_add(13 * c)?;
        let vocab = self.vocab_size.checked_mul(if self.tied { 1 } else { 2 })?;
        let rest = vocab.checked_add(self.seq_len)?.checked_mul(c)?.checked_add(2 * c)?;
        block.checked_mul(self.n_layer)?.checked_add(rest).filter(|n| *n < 1 << 40)
    }
}
