//! The validation loss.

use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::TrainModel;
use corella_text::data::{DataError, TokenStream};
use corella_text::text_bytes;
use corella_text::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

/// Bytes of text ([`text_bytes`]) for each token that a validation predicts.
///
/// `None` where the data does not fill one sequence.
pub fn bytes_per_token(
    val: &TokenStream,
    tokenizer: &Tokenizer,
    t: usize,
    tokens: usize,
) -> Result<Option<f64>, DataError> {
    let windows = windows(val, tokens, t);
    let (mut bytes, mut window) = (0, vec![0; t]);
    for first in 0..windows {
        // The first token of all is only looked back on.
        val.read(first * t as u64 + 1, &mut window)?;
        bytes += text_bytes(tokenizer, &window);
    }
    Ok((windows > 0).then(|| bytes as f64 / (windows * t as u64) as f64))
}

/// What validation losses are measured on: only those of the same tokens can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    /// [`TokenStream::mark`] of all tokens to validate on.
    pub mark: u32,
    /// How many of them are measured.
    pub tokens: u64,
}

impl Validation {
    /// What [`validation_loss`] measures with sequences of `seq_len` tokens; `None` where there is nothing to measure.
    pub fn of(val: &TokenStream, tokens: usize, seq_len: usize) -> Result<Option<Validation>, DataError> {
        match windows(val, tokens, seq_len) * seq_len as u64 {
            0 => Ok(None),
            tokens => Ok(Some(Validation { mark: val.mark()?, tokens })),
        }
    }
}

/// Whole sequences that are measured.
fn windows(val: &TokenStream, tokens: usize, seq_len: usize) -> u64 {
    let there = val.len().saturating_sub(1) / seq_len as u64;
    there.min((tokens / seq_len).max(1) as u64)
}

/// Mean loss over the first `tokens` tokens of `val`, in whole sequences: the number does not depend on the micro-batch.
///
/// `None` where the data does not fill one sequence, or where `stop` was raised meanwhile.
pub fn validation_loss(
    model: &mut dyn TrainModel,
    val: &TokenStream,
    tokens: usize,
    stop: &AtomicBool,
) -> Result<Option<f64>, DataError> {
    let shape = model.batch_shape();
    let windows = windows(val, tokens, shape.t);
    let (mut sum, mut first) = (0.0, 0);
    let mut batch = vec![0; shape.b * shape.t + 1];
    while first < windows {
        if stop.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let rows = (shape.b as u64).min(windows - first);
        let n = rows as usize * shape.t;
        val.read(first * shape.t as u64, &mut batch[..n + 1])?;
        sum += model.loss_sum(&batch[..n], &batch[1..n + 1]);
        first += rows;
    }
    Ok((windows > 0).then(|| sum / (windows * shape.t as u64) as f64))
}
