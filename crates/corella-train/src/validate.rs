//! The validation loss.

use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::TrainModel;
use corella_text::data::{DataError, TokenStream};

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
    let there = val.len().saturating_sub(1) / shape.t as u64;
    let windows = there.min((tokens / shape.t).max(1) as u64);
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
