//! The memory of a training run, planned from the shapes and allocated once.

use corella_ops::{Dtype, OpsError, OpsTrain};

use super::config::Gpt2Config;
use crate::memory::{MemoryPlan, Recompute};
use crate::text_model::BatchShape;

/// The plan for a shape, with activations and weights in format `dtype`: the residual stream, statistics of rows, masters,
/// gradients and moments are f32 in any case.
pub fn memory_plan(config: &Gpt2Config, batch: BatchShape, recompute: Recompute, dtype: Dtype) -> MemoryPlan {
    let n = (batch.b * batch.t) as u64;
    let (c, layers, heads) = (config.n_embd() as u64, config.n_layer() as u64, config.n_head() as u64);
    let (wide, narrow) = (4, dtype.bytes() as u64);
    // Per row of a block: ln1, qkv (3), atty, ln2, fch (4) of width C; residual2; four norm numbers; lse.
    let block = n * (narrow * 10 * c + wide * (c + 4 + heads));
    let kept_blocks = if recompute == Recompute::Block { 1 } else { layers };
    // The inputs of the blocks and the last output; fch_gelu (4), last norm; then the gradients.
    let rest = n * (wide * ((layers + 1) * c + 3) + narrow * 5 * c) + n * (wide * c + narrow * 5 * c);
    MemoryPlan::new(config.parameter_count(), dtype, kept_blocks * block + rest)
}

/// What one block computes and its backward pass needs.   N = B·T rows.
#[derive(Debug)]
pub struct BlockActs<Buf> {
    /// First norm's output (N, C) with its row means and inverse deviations (N).
    pub ln1: Buf,
    /// See `ln1`.
    pub ln1_mean: Buf,
    /// See `ln1`.
    pub ln1_rstd: Buf,
    /// Queries, keys, values (N, 3C).
    pub qkv: Buf,
    /// Attention's output before its projection (N, C).
    pub atty: Buf,
    /// Log of the softmax denominators (B, NH, T).
    pub lse: Buf,
    /// Residual stream after attention (N, C).
    pub residual2: Buf,
    /// Second norm's output (N, C) with its row means and inverse deviations (N).
    pub ln2: Buf,
    /// See `ln2`.
    pub ln2_mean: Buf,
    /// See `ln2`.
    pub ln2_rstd: Buf,
    /// MLP before GELU (N, 4C).
    pub fch: Buf,
}

/// All activations.
#[derive(Debug)]
pub struct Activations<B: OpsTrain> {
    /// residual[l] is the input of block l, residual[L] the last block's output (N, C).
    pub residual: Vec<B::Buf>,
    /// One per block, or a single one that every block uses in turn.
    pub blocks: Vec<BlockActs<B::Buf>>,
    /// MLP after GELU (N, 4C), of the block that is being computed; the way back computes it again.
    pub fch_gelu: B::Buf,
    /// Last norm (N, C), (N), (N).
    pub lnf: B::Buf,
    /// See `lnf`.
    pub lnf_mean: B::Buf,
    /// See `lnf`.
    pub lnf_rstd: B::Buf,
}

/// Gradients of activations; each is used by every block in turn.
#[derive(Debug)]
pub struct ActivationGrads<B: OpsTrain> {
    /// Of the residual stream (N, C).
    pub residual: B::Buf,
    /// Of a norm's output or of attention's output (N, C).
    pub narrow: B::Buf,
    /// Of the MLP's inner activations (N, 4C), then of qkv (N, 3C).
    pub wide: B::Buf,
}

impl<B: OpsTrain> Activations<B> {
    /// Allocates everything.
    pub fn new(
        ops: &B,
        config: &Gpt2Config,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Self, OpsError> {
        let (n, c) = (batch.b * batch.t, config.n_embd());
        let block = || -> Result<_, OpsError> {
            Ok(BlockActs {
                ln1: ops.buf(n * c, dtype, "ln1")?,
                ln1_mean: ops.buf(n, Dtype::F32, "ln1_mean")?,
                ln1_rstd: ops.buf(n, Dtype::F32, "ln1_rstd")?,
                qkv: ops.buf(n * 3 * c, dtype, "qkv")?,
                atty: ops.buf(n * c, dtype, "atty")?,
                lse: ops.buf(n * config.n_head(), Dtype::F32, "lse")?,
                residual2: ops.buf(n * c, Dtype::F32, "residual2")?,
                ln2: ops.buf(n * c, dtype, "ln2")?,
                ln2_mean: ops.buf(n, Dtype::F32, "ln2_mean")?,
                ln2_rstd: ops.buf(n, Dtype::F32, "ln2_rstd")?,
                fch: ops.buf(n * 4 * c, dtype, "fch")?,
            })
        };
        let blocks = if recompute == Recompute::Block { 1 } else { config.n_layer() };
        Ok(Activations {
            residual: (0..=config.n_layer())
                .map(|_| ops.buf(n * c, Dtype::F32, "residual"))
                .collect::<Result<_, _>>()?,
            blocks: (0..blocks).map(|_| block()).collect::<Result<_, _>>()?,
            fch_gelu: ops.buf(n * 4 * c, dtype, "fch_gelu")?,
            lnf: ops.buf(n * c, dtype, "lnf")?,
            lnf_mean: ops.buf(n, Dtype::F32, "lnf_mean")?,
            lnf_rstd: ops.buf(n, Dtype::F32, "lnf_rstd")?,
        })
    }
}

impl<B: OpsTrain> ActivationGrads<B> {
    /// Allocates everything.
    pub fn new(ops: &B, config: &Gpt2Config, batch: BatchShape, dtype: Dtype) -> Result<Self, OpsError> {
        let (n, c) = (batch.b * batch.t, config.n_embd());
        Ok(ActivationGrads {
            residual: ops.buf(n * c, Dtype::F32, "gradient of residual")?,
            narrow: ops.buf(n * c, dtype, "gradient of norms")?,
            wide: ops.buf(n * 4 * c, dtype, "gradient of fch and qkv")?,
        })
    }
}
