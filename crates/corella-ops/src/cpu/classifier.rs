//! The output head with softmax and cross-entropy, by chunks of rows: the logits of a batch are never held whole.

use super::Cpu;
use super::bf16::{Bf16, Number};
use super::buf::{Buf, numbers};
use super::cross_entropy::cross_entropy;
use super::gemm::{Size, Store};
use super::pack::Operand;
use super::param::{GradMut, Low, Param};
use super::right::Right;
use super::scratch::Scratch;
use crate::contract::ClassifierDims;

/// Least rows of a chunk.
const LEAST_ROWS: usize = 512;
/// Rows of a chunk for each column of x: a chunk reads and writes all of `wte` and its gradient, some 16 bytes an element, and
/// its logits a few times, some 12 bytes each; so few that the first would outweigh the second cost memory traffic.
const ROWS_BY_WIDTH: usize = 4;
/// Most bytes of the logits of a chunk.
const LOGITS: usize = 64 << 20;

/// Chunks are whole tiles of every micro-kernel for bf16 but the last.
const TILE: usize = 96;

/// The output head in the format of its products, and its gradients, where these are wanted.
struct Head<'a, T: Number> {
    /// For x·wteᵀ.
    right: Right<'a, T>,
    grads: Option<Grads<'a, T>>,
}

/// The gradients that the same pass produces.
struct Grads<'a, T> {
    /// (N, C), written.
    dx: &'a mut Buf,
    /// The head for dlogits·wte.
    right: Right<'a, T>,
    /// (V, C), added to.
    dwte: GradMut<'a>,
    /// Factor of the loss.
    scale: f32,
}

/// The head in bf16 for x·wteᵀ and for dlogits·wte.
fn both_ways(low: &Low, c: usize) -> [Right<'_, Bf16>; 2] {
    match low {
        Low::Rows(rows) => [Right::fresh(Operand::rows(rows, c)), Right::fresh(Operand::columns(rows, c))],
        #[cfg(target_arch = "x86_64")]
        Low::Panels(images) => [Right::panels(images.forward()), Right::panels(images.backward())],
    }
}

impl Cpu {
    /// See [`crate::OpsTrain::classifier`].
    pub(super) fn losses(&self, losses: &mut [f32], x: &Buf, wte: &Param, targets: &[u32], d: ClassifierDims) {
        match &wte.low {
            Some(low) => {
                let [right, _] = both_ways(low, d.c);
                self.by_chunks(losses, &self.lend_bf16(x, d.n * d.c), Head { right, grads: None }, targets, d);
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
                let [right, back] = both_ways(low, d.c);
                let head = Head { right, grads: Some(Grads { dx, right: back, dwte, scale }) };
                self.by_chunks(losses, &self.lend_bf16(x, d.n * d.c), head, targets, d);
            }
            None => {
                let right = Right::fresh(Operand::rows(values.rows, d.c));
                let back = Right::fresh(Operand::columns(values.rows, d.c));
                let head = Head { right, grads: Some(Grads { dx, right: back, dwte, scale }) };
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
        // Chunks of about one length.
        let most = (ROWS_BY_WIDTH * d.c).min(LOGITS / (d.v * size_of::<T>())).max(LEAST_ROWS);
        let chunk = d.n.div_ceil(d.n.div_ceil(most).max(1)).next_multiple_of(TILE).min(d.n).max(1);
        // Panels have whole steps of the vocabulary: so have the rows of logits, which are then read where they are.
        let row = head.right.steps(d.v);
        let mut logits = Scratch::<T>::new(chunk * row);
        for first in (0..d.n).step_by(chunk) {
            let rows = chunk.min(d.n - first);
            let (x, logits) = (&x[first * d.c..][..rows * d.c], &mut logits[..rows * row]);
            let size = Size { m: rows, n: d.v, k: d.c, ldc: row };
            self.product(size, Operand::rows(x, d.c), head.right, logits, Store::Write, None);
            let scale = head.grads.as_ref().map(|g| g.scale);
            let losses = &mut losses[first..first + rows];
            cross_entropy(&self.pool, self.path, losses, logits, row, &targets[first..first + rows], scale, d.v);
            if let Some(grads) = &mut head.grads {
                let size = Size { m: rows, n: d.c, k: row, ldc: d.c };
                numbers!([dx = &mut *grads.dx] {
                    let dx = &mut dx[first * d.c..][..rows * d.c];
                    self.product(size, Operand::rows(logits, row), grads.right, dx, Store::Write, None);
                });
                let size = Size { m: d.v, n: d.c, k: rows, ldc: d.c };
                let (dlogits, columns) = (Operand::columns(logits, row), Right::fresh(Operand::columns(x, d.c)));
                let (dwte, store) = grads.dwte.front(d.v * d.c);
                self.product(size, dlogits, columns, dwte, store, None);
            }
        }
    }
}
