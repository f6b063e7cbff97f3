//! What training takes of a card beside what the model's own plan counts.

use corella_ops::Dtype;

use crate::classifier;
use crate::geometry::CHUNK_ROWS;
use crate::matrix_library::WORKSPACE;
use crate::param::padded;

/// What the driver and cuBLASLt take as they go: code of kernels, loaded at first use.
const RESERVE: u64 = 256 << 20;

/// Shape of a training run, as far as operations need memory of their own for it.
#[derive(Clone, Copy, Debug)]
pub struct ScratchShape {
    /// Rows of a micro-batch, B·T.
    pub rows: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the widest result of a product, the logits left out.
    pub widest: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Tokens that can be predicted.
    pub vocab: usize,
    /// Format of weights and activations.
    pub dtype: Dtype,
}

/// Bytes that operations take for themselves: a chunk of logits, gradients of the residual stream in bf16, attention's row
/// sums, sums by columns, cuBLASLt's workspace, and a reserve.
pub fn scratch_bytes(s: ScratchShape) -> u64 {
    let logits_width = padded(s.vocab);
    let logits = classifier::chunk_rows(logits_width).min(s.rows) * logits_width * s.dtype.bytes();
    let cast = if s.dtype == Dtype::Bf16 { s.rows * s.width * s.dtype.bytes() } else { 0 };
    let columns = 2 * 4 * s.rows.div_ceil(CHUNK_ROWS) * s.widest;
    (logits + cast + 4 * s.rows * s.heads + columns + WORKSPACE) as u64 + RESERVE
}

#[cfg(test)]
mod tests {
    use corella_ops::Dtype;

    use super::{ScratchShape, scratch_bytes};

    /// GPT-2 124M with 16 sequences of 1,024: half a gigabyte, most of it the logits' chunk and the reserve.
    #[test]
    fn scratch_stays_small_beside_activations() {
        let shape =
            ScratchShape { rows: 16 * 1024, width: 768, widest: 3072, heads: 12, vocab: 50_257, dtype: Dtype::Bf16 };
        let bytes = scratch_bytes(shape);
        let logits = 1280 * 50_304 * 2;
        assert_eq!(
            bytes,
            logits + (16 << 10) * 768 * 2 + 4 * (16 << 10) * 12 + 8 * 128 * 3072 + (32 << 20) + (256 << 20)
        );
        assert!(bytes < 480 << 20, "{bytes}");
    }
}
