//! The output head with softmax and cross-entropy, by chunks of rows: the logits of a batch are never held whole.

use super::Cpu;
use super::bf16::Number;
use super::buf::{Buf, numbers};
use super::gemm::{Right, Size, Store};
use super::math::{exp, max_by, sum_by};
use super::pack::Operand;
use super::param::{GradMut, Param};
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::scratch::Scratch;
use super::shared::SharedMut;
use super::vectorized::vectorized;
use crate::contract::ClassifierDims;

/// Least rows of a chunk.
const LEAST_ROWS: usize = 512;
/// Rows of a chunk for each column of x: a chunk reads and writes all of `wte` and its gradient, some 16 bytes an element, and
/// its logits a few times, some 12 bytes each; so few that the first would outweigh the second cost memory traffic.
const ROWS_BY_WIDTH: usize = 4;
/// Most bytes of the logits of a chunk.
const LOGITS: usize = 224 << 20;

/// The output head in the format of its products, and its gradients, where these are wanted.
struct Head<'a, T: Number> {
    right: Right<'a, T>,
    grads: Option<Grads<'a, T>>,
}

/// The gradients that the same pass produces.
struct Grads<'a, T> {
    /// (N, C), written.
    dx: &'a mut Buf,
    /// Values of the head (V, C).
    wte: &'a [T],
    /// (V, C), added to.
    dwte: GradMut<'a>,
    /// Factor of the loss.
    scale: f32,
}

impl Cpu {
    /// See [`crate::OpsTrain::classifier`].
    pub(super) fn losses(&self, losses: &mut [f32], x: &Buf, wte: &Param, targets: &[u32], d: ClassifierDims) {
        match &wte.low {
            Some(low) => {
                let head = Head { right: Right::Fresh(Operand::rows(low, d.c)), grads: None };
                self.by_chunks(losses, &self.lend_bf16(x, d.n * d.c), head, targets, d);
            }
            None => {
                let head = Head { right: wte.weight().right(d.c), grads: None };
                self.by_chunks(losses, &self.lend_f32(x, d.n * d.c), head, targets, d);
            }
        }
    }

    /// See [`crate::OpsTrain::classifier_grad`].
    pub(super) fn losses_grad(
        &self,
        losses: &mut [f32],
        dx: &mut Buf,
        x: &Buf,
        wte: &mut Param,
        targets: &[u32],
        scale: f32,
        d: ClassifierDims,
    ) {
        let (values, dwte) = wte.parts();
        match values.low {
            Some(low) => {
                let grads = Some(Grads { dx, wte: low, dwte, scale });
                let head = Head { right: Right::Fresh(Operand::rows(low, d.c)), grads };
                self.by_chunks(losses, &self.lend_bf16(x, d.n * d.c), head, targets, d);
            }
            None => {
                let grads = Some(Grads { dx, wte: values.rows, dwte, scale });
                let head = Head { right: Right::Fresh(Operand::rows(values.rows, d.c)), grads };
                self.by_chunks(losses, &self.lend_f32(x, d.n * d.c), head, targets, d);
            }
        }
    }

    fn by_chunks<T: Number>(
        &self,
        losses: &mut [f32],
        x: &[T],
        mut head: Head<'_, T>,
        targets: &[u32],
        d: ClassifierDims,
    ) {
        // Chunks of one length.
        let most = (ROWS_BY_WIDTH * d.c).min(LOGITS / (d.v * size_of::<T>())).max(LEAST_ROWS);
        let chunk = d.n.div_ceil(d.n.div_ceil(most).max(1)).max(1);
        let mut logits = Scratch::<T>::new(chunk * d.v);
        for first in (0..d.n).step_by(chunk) {
            let rows = chunk.min(d.n - first);
            let (x, logits) = (&x[first * d.c..][..rows * d.c], &mut logits[..rows * d.v]);
            let size = Size { m: rows, n: d.v, k: d.c, ldc: d.v };
            self.product(size, Operand::rows(x, d.c), head.right, logits, Store::Write, None);
            let scale = head.grads.as_ref().map(|g| g.scale);
            let losses = &mut losses[first..first + rows];
            cross_entropy(&self.pool, self.path, losses, logits, &targets[first..first + rows], scale, d.v);
            if let Some(grads) = &mut head.grads {
                let size = Size { m: rows, n: d.c, k: d.v, ldc: d.c };
                let (dlogits, columns) = (Operand::rows(logits, d.v), Right::Fresh(Operand::columns(grads.wte, d.c)));
                numbers!([dx = &mut *grads.dx] {
                    self.product(size, dlogits, columns, &mut dx[first * d.c..][..rows * d.c], Store::Write, None);
                });
                let size = Size { m: d.v, n: d.c, k: rows, ldc: d.c };
                let (dlogits, columns) = (Operand::columns(logits, d.v), Right::Fresh(Operand::columns(x, d.c)));
                let (dwte, store) = grads.dwte.front(d.v * d.c);
                self.product(size, dlogits, columns, dwte, store, None);
            }
        }
    }
}

/// Losses of the rows of `logits`; with `scale`, logits ← scale · (softmax − onehot).
fn cross_entropy<T: Number>(
    pool: &Pool,
    path: Path,
    losses: &mut [f32],
    logits: &mut [T],
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
    fn row_loss<T: Number>(row: &mut [T], target: usize, scale: Option<f32>) -> f32 {
        let max = max_by(row.len(), |j| row[j].get());
        let correct = row[target].get();
        let sum = sum_by(row.len(), |j| exp(row[j].get() - max));
        if let Some(scale) = scale {
            let factor = scale / sum;
            let probability = exp(correct - max) * factor;
            for x in row.iter_mut() {
                *x = T::put(exp(x.get() - max) * factor);
            }
            row[target] = T::put(probability - scale);
        }
        sum.ln() + max - correct
    }
}
