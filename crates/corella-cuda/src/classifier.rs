//! The output head, softmax and cross-entropy by chunks of rows, so that the logits of a batch are never held whole.

use corella_ops::{ClassifierDims, Dtype};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda};
use crate::driver::{Address, Finish, Operand, Product};
use crate::geometry;
use crate::ids::Ids;
use crate::param::Param;

/// Most logits of a chunk: enough rows for a product at full speed, 128 MB of bf16.
const CHUNK_LOGITS: usize = 1 << 26;
/// The same on a card with much memory: the gradient of the weights is read and written once for each chunk.
const LARGE_CHUNK_LOGITS: usize = 1 << 28;
/// Bytes of memory from which on that is little of it: cards of 64 GB.
const MUCH_MEMORY: u64 = 60 << 30;
/// Rows of a chunk are a multiple of this.
const CHUNK_ROWS: usize = 128;

/// Most logits of a chunk on a card with so many bytes of memory.
pub(crate) fn chunk_logits(memory: u64) -> usize {
    if memory >= MUCH_MEMORY { LARGE_CHUNK_LOGITS } else { CHUNK_LOGITS }
}

/// Most rows of a chunk, from the most logits that it has and their width.
fn most_rows(logits: usize, width: usize) -> usize {
    (logits / width / CHUNK_ROWS * CHUNK_ROWS).max(CHUNK_ROWS)
}

/// Rows of a chunk of `n`: as many in each, but for the multiple.
fn chunk_rows(n: usize, most: usize) -> usize {
    let n = n.max(1);
    n.div_ceil(n.div_ceil(most)).next_multiple_of(CHUNK_ROWS).min(n)
}

/// A chunk's logits, and what they come from.
struct Chunk {
    n: usize,
    logits: Address,
    x: Address,
    losses: Address,
    targets: Address,
}

impl Cuda {
    /// The chunks of a batch: x in the format of the weights, and one array of logits for all.
    #[track_caller]
    fn chunks(
        &self,
        losses: &Buf,
        x: &Buf,
        wte: &Param,
        targets: &Ids,
        d: ClassifierDims,
    ) -> impl Iterator<Item = Chunk> + use<> {
        let (width, dtype) = (wte.padded_rows, wte.dtype());
        let rows = chunk_rows(d.n, most_rows(self.chunk_logits(), width));
        let x = self.cast(x, d.n * d.c, dtype, "input of a product");
        let logits = self.scratch("logits", rows * width * dtype.bytes());
        let (losses, targets) = (losses.f32(), targets.at());
        (0..d.n).step_by(rows).map(move |first| Chunk {
            n: rows.min(d.n - first),
            logits,
            x: x + (first * d.c * dtype.bytes()) as u64,
            losses: losses + 4 * first as u64,
            targets: targets + 4 * first as u64,
        })
    }

    /// logits = x·wteᵀ, then losses, and the logits' gradient in their place where `scale` is not 0.
    fn chunk_losses(&self, chunk: &Chunk, wte: &Param, scale: f32, d: ClassifierDims) {
        let (width, dtype) = (wte.padded_rows, wte.dtype());
        self.product(&Product {
            m: chunk.n,
            n: width,
            k: d.c,
            dtype,
            out_dtype: dtype,
            out: chunk.logits,
            out_stride: width,
            a: Operand { at: chunk.x, transposed: false },
            b: Operand { at: wte.operand(), transposed: false },
            finish: Finish::Plain,
            measured: true,
        });
        let logits = Array::new(chunk.logits, dtype);
        let (v, ld) = (d.v as u64, width as u64);
        let arguments: [&dyn Argument; 6] = [&chunk.losses, &logits, &chunk.targets, &v, &ld, &scale];
        match geometry::held_rows(chunk.n, width).filter(|_| dtype == Dtype::Bf16) {
            Some(shape) => self.run("classifier_held", shape, &arguments),
            None => self.run("classifier", geometry::block_per_row(chunk.n), &arguments),
        }
    }

    #[track_caller]
    pub(crate) fn classify(&self, losses: &mut Buf, x: &Buf, wte: &Param, targets: &Ids, d: ClassifierDims) {
        for chunk in self.chunks(losses, x, wte, targets, d) {
            self.chunk_losses(&chunk, wte, 0.0, d);
        }
    }

    #[track_caller]
    pub(crate) fn classify_grad(
        &self,
        losses: &mut Buf,
        dx: &mut Buf,
        x: &Buf,
        wte: &mut Param,
        targets: &Ids,
        scale: f32,
        d: ClassifierDims,
    ) {
        let (width, dtype, dx_dtype) = (wte.padded_rows, wte.dtype(), dx.dtype);
        let mut dx = dx.memory.at;
        for chunk in self.chunks(losses, x, wte, targets, d) {
            self.chunk_losses(&chunk, wte, scale, d);
            self.product(&Product {
                m: chunk.n,
                n: d.c,
                k: width,
                dtype,
                out_dtype: dx_dtype,
                out: dx,
                out_stride: d.c,
                a: Operand { at: chunk.logits, transposed: false },
                b: Operand { at: wte.operand(), transposed: true },
                finish: Finish::Plain,
                measured: true,
            });
            dx += (chunk.n * d.c * dx_dtype.bytes()) as u64;
            let grad = wte.grad_whole();
            self.product(&Product {
                m: width,
                n: d.c,
                k: chunk.n,
                dtype,
                out_dtype: Dtype::F32,
                out: grad.at,
                out_stride: d.c,
                a: Operand { at: chunk.logits, transposed: true },
                b: Operand { at: chunk.x, transposed: true },
                finish: if grad.adds { Finish::Add } else { Finish::Plain },
                measured: true,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{chunk_logits, chunk_rows, most_rows};

    #[test]
    fn large_cards_take_larger_chunks() {
        assert_eq!(most_rows(chunk_logits(80_000_000_000), 50_304), 5248);
        assert_eq!(most_rows(chunk_logits(24 << 30), 50_304), 1280);
    }

    #[test]
    fn chunks_are_large_enough_for_products_and_small_enough_for_memory() {
        let most_rows = |width| most_rows(chunk_logits(0), width);
        assert_eq!(most_rows(50_304), 1280);
        assert_eq!(most_rows(128_256), 512);
        assert_eq!(most_rows(64), 1 << 20);
        assert_eq!(most_rows(1 << 30), 128);
    }

    #[test]
    fn the_last_chunk_is_no_remnant() {
        assert_eq!(
            chunk_rows(65_536, 5248),
            5120,
            "twelve of them and one of 4096, not twelve of 5248 and one of 2560"
        );
        assert_eq!(chunk_rows(16_384, 5248), 4096);
        assert_eq!([0, 1, 300].map(|n| chunk_rows(n, 1280)), [1, 1, 300]);
    }
}
