//! The output head with softmax and cross-entropy, by chunks of rows: the logits of a batch are never held whole.

use super::attention::max_of;
use super::gemm::{Right, Size, Store, Workers, gemm};
use super::math::{exp, sum_by};
use super::pack::Operand;
use super::param::Weight;
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::scratch::Scratch;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::ClassifierDims;

/// Least rows of a chunk: each chunk reads all of `wte` three times, so short chunks cost memory traffic.
const LEAST_ROWS: usize = 512;
/// Logits of a chunk, where that allows more rows.
const LOGITS: usize = 1 << 21;

/// The gradients that the same pass produces.
pub struct Grads<'a> {
    /// (N, C), written.
    pub dx: &'a mut [f32],
    /// (V, C), added to.
    pub dwte: &'a mut [f32],
    /// Factor of the loss.
    pub scale: f32,
}

/// See [`crate::OpsTrain::classifier`] and [`crate::OpsTrain::classifier_grad`].
pub fn classifier(
    pool: &Pool,
    path: Path,
    losses: &mut [f32],
    x: &[f32],
    wte: Weight<'_>,
    targets: &[u32],
    mut grads: Option<Grads<'_>>,
    d: ClassifierDims,
) {
    let chunk = LEAST_ROWS.max(LOGITS / d.v).min(d.n.max(1));
    let mut logits = Scratch::new(chunk * d.v);
    for first in (0..d.n).step_by(chunk) {
        let rows = chunk.min(d.n - first);
        let x = &x[first * d.c..][..rows * d.c];
        let size = Size { m: rows, n: d.v, k: d.c, ldc: d.v };
        gemm(Workers::Pool(pool), path, size, Operand::rows(x, d.c), wte.right(d.c), &mut logits, Store::Write, None);
        let scale = grads.as_ref().map(|g| g.scale);
        let targets = &targets[first..first + rows];
        cross_entropy(pool, path, &mut losses[first..first + rows], &mut logits, targets, scale, d.v);
        if let Some(grads) = &mut grads {
            let Weight::Rows(wte) = wte else { unreachable!("a parameter without gradient has no rows") };
            let size = Size { m: rows, n: d.c, k: d.v, ldc: d.c };
            let (dlogits, columns) = (Operand::rows(&logits, d.v), Right::Fresh(Operand::columns(wte, d.c)));
            let dx = &mut grads.dx[first * d.c..][..rows * d.c];
            gemm(Workers::Pool(pool), path, size, dlogits, columns, dx, Store::Write, None);
            let size = Size { m: d.v, n: d.c, k: rows, ldc: d.c };
            let (dlogits, columns) = (Operand::columns(&logits, d.v), Right::Fresh(Operand::columns(x, d.c)));
            gemm(Workers::Pool(pool), path, size, dlogits, columns, grads.dwte, Store::Add, None);
        }
    }
}

/// Losses of the rows of `logits`; with `scale`, logits ← scale · (softmax − onehot).
fn cross_entropy(
    pool: &Pool,
    path: Path,
    losses: &mut [f32],
    logits: &mut [f32],
    targets: &[u32],
    scale: Option<f32>,
    v: usize,
) {
    let losses = SharedMut::new(losses);
    by_rows(pool, logits, targets.len(), v, |first, rows, logits| {
        // SAFETY: the rows of this block, which no other block touches.
        let losses = unsafe { losses.part(first, rows) };
        for (i, row) in logits.chunks_exact_mut(v).enumerate() {
            let target = targets[first + i] as usize;
            losses[i] = row_loss(path, row, target, scale);
        }
    });
}

vectorized! {
    /// The loss of a row of logits; with `scale`, logits ← scale · (softmax − onehot).
    fn row_loss(row: &mut [f32], target: usize, scale: Option<f32>) -> f32 {
        let max = max_of(row);
        let correct = row[target];
        for x in row.iter_mut() {
            *x = exp(*x - max);
        }
        let sum = sum_by(row.len(), |j| row[j]);
        if let Some(scale) = scale {
            let factor = scale / sum;
            for x in row.iter_mut() {
                *x *= factor;
            }
            row[target] -= scale;
        }
        sum.ln() + max - correct
    }
}
