//! The validation loss.

use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::TrainModel;

/// Mean loss over the first `tokens` tokens of `val`, in whole sequences: the number does not depend on the micro-batch.
///
/// `None` where the data does not fill one sequence, or where `stop` was raised meanwhile.
pub fn validation_loss(model: &mut dyn TrainModel, val: &[u32], tokens: usize, stop: &AtomicBool) -> Option<f64> {
    let shape = model.batch_shape();
    let windows = (val.len().saturating_sub(1) / shape.t).min((tokens / shape.t).max(1));
    let mut sum = 0.0;
    for first in (0..windows).step_by(shape.b) {
        if stop.load(Ordering::SeqCst) {
            return None;
        }
        let n = shape.b.min(windows - first) * shape.t;
        let start = first * shape.t;
        sum += model.loss_sum(&val[start..start + n], &val[start + 1..start + n + 1]);
    }
    (windows > 0).then(|| sum / (windows * shape.t) as f64)
}
