//! Products with weights in BF16 where the processor has instructions for them. Activations keep 16 bits, as sums of two numbers in
//! BF16, unless they are to be rounded: with eight bits, logits are as far from those in f32 as those of `transformers` in BF16 are, and
//! greedy texts part.

use super::super::Rounding;
use super::super::dot::{self, Finish, SplitRows};
use super::super::gemm::{Size, Store as Kept, Workers};
use super::super::path::Path;
use super::super::pool::Pool;
use super::linear::Layer;
use crate::contract_infer::Store;

/// See [`crate::OpsInfer::linear`]: `n` ≥ 1 rows x (N,C) against layers (OC,C), all in BF16.
pub fn linear(
    pool: &Pool,
    (path, rounding): (Path, Rounding),
    out: &mut [f32],
    x: &[f32],
    n: usize,
    layers: &[Layer<'_>],
    store: Store,
) {
    let Some(k) = layers.first().map(|layer| layer.w.cols) else { return };
    let width = layers.iter().map(|layer| layer.w.rows).sum();
    let x = SplitRows::new(pool, (path, rounding), x, n, k);
    let store = if store == Store::Add { Kept::Add } else { Kept::Write };
    let mut column = 0;
    for Layer { w, bias } in layers.iter().filter(|layer| layer.w.rows > 0) {
        let to = Finish { store, bias: *bias, ..Finish::new(&mut out[column..n * width], width) };
        let size = Size { m: n, n: w.rows, k, ldc: width };
        dot::split_product(Workers::Pool(pool), path, size, &x, w.bf16_panels(), &to);
        column += w.rows;
    }
}
