//! The memory of a training run, planned from the shapes and allocated once.

use corella_ops::{Dtype, OpsError, OpsTrain, rope_table};

use super::config::LlamaConfig;
use crate::memory::{MemoryPlan, Recompute};
use crate::text_model::BatchShape;

/// The plan for a shape, with activations and weights in format `dtype`: the residual stream, statistics of rows, masters,
/// gradients and moments are f32 in any case.
pub fn memory_plan(config: &LlamaConfig, batch: BatchShape, recompute: Recompute, dtype: Dtype) -> MemoryPlan {
    let n = (batch.b * batch.t) as u64;
    let (c, f, qkv) = (config.n_embd as u64, config.n_ff as u64, config.qkv_width() as u64);
    let (heads, layers) = (config.n_head as u64, config.n_layer as u64);
    let q = heads * config.head_size as u64;
    let (wide, narrow) = (4, dtype.bytes() as u64);
    // Per row of a block: two norms, qkv, attention, gate and up (2), swiglu; residual2; two norm numbers; lse.
    let block = n * (narrow * (2 * c + qkv + q + 3 * f) + wide * (c + 2 + heads));
    let kept_blocks = if recompute == Recompute::Block { 1 } else { layers };
    // The inputs of the blocks and the last output; scratch, last norm; the rotary table; then the gradients.
    let rest = n * (wide * ((layers + 1) * c + 2) + narrow * 2 * c)
        + wide * (batch.t * config.head_size) as u64
        + n * (wide * c + narrow * (c + q + qkv + 3 * f));
    MemoryPlan::new(config.parameter_count(), dtype, kept_blocks * block + rest)
}

/// What one block computes and its backward pass needs.   N = B·T rows.
#[derive(Debug)]
pub struct BlockActs<Buf> {
    /// First norm's output (N, C), and what its rows are multiplied by (N).
    pub norm1: Buf,
    /// See `norm1`.
    pub rstd1: Buf,
    /// Queries, keys, values, turned by their positions (N, (NH + 2·NKV)·HS).
    pub qkv: Buf,
    /// Attention's output before its projection (N, NH·HS).
    pub attention: Buf,
    /// Log of the softmax denominators (B, NH, T).
    pub lse: Buf,
    /// Residual stream after attention (N, C).
    pub residual2: Buf,
    /// Second norm's output (N, C), and what its rows are multiplied by (N).
    pub norm2: Buf,
    /// See `norm2`.
    pub rstd2: Buf,
    /// Gate and up (N, 2F).
    pub gate_up: Buf,
    /// What the gate lets through (N, F).
    pub gated: Buf,
}

/// All activations.
#[derive(Debug)]
pub struct Activations<B: OpsTrain> {
    /// residual[l] is the input of block l, residual[L] the last block's output (N, C).
    pub residual: Vec<B::Buf>,
    /// One per block, or a single one that every block uses in turn.
    pub blocks: Vec<BlockActs<B::Buf>>,
    /// A projection's output before it is added to the residual stream (N, C).
    pub scratch: B::Buf,
    /// Last norm (N, C), (N).
    pub norm: B::Buf,
    /// See `norm`.
    pub rstd: B::Buf,
    /// Cosines and sines of the rotary angles (T, HS).
    pub rope: B::Buf,
}

/// Gradients of activations; each is used by every block in turn.
#[derive(Debug)]
pub struct ActivationGrads<B: OpsTrain> {
    /// Of the residual stream (N, C).
    pub residual: B::Buf,
    /// Of a norm's output (N, C).
    pub narrow: B::Buf,
    /// Of attention's output (N, NH·HS).
    pub attention: B::Buf,
    /// Of qkv.
    pub qkv: B::Buf,
    /// Of gate and up (N, 2F).
    pub gate_up: B::Buf,
    /// Of what the gate lets through (N, F).
    pub gated: B::Buf,
}

impl<B: OpsTrain> Activations<B> {
    /// Allocates everything and writes the rotary table.
    pub fn new(
        ops: &B,
        config: &LlamaConfig,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Self, OpsError> {
        let (n, c, f) = (batch.b * batch.t, config.n_embd, config.n_ff);
        let block = || -> Result<_, OpsError> {
            Ok(BlockActs {
                norm1: ops.buf(n * c, dtype, "norm1")?,
                rstd1: ops.buf(n, Dtype::F32, "rstd1")?,
                qkv: ops.buf(n * config.qkv_width(), dtype, "qkv")?,
                attention: ops.buf(n * config.n_head * config.head_size, dtype, "attention")?,
                lse: ops.buf(n * config.n_head, Dtype::F32, "lse")?,
                residual2: ops.buf(n * c, Dtype::F32, "residual2")?,
                norm2: ops.buf(n * c, dtype, "norm2")?,
                rstd2: ops.buf(n, Dtype::F32, "rstd2")?,
                gate_up: ops.buf(n * 2 * f, dtype, "gate and up")?,
                gated: ops.buf(n * f, dtype, "gated")?,
            })
        };
        let blocks = if recompute == Recompute::Block { 1 } else { config.n_layer };
        let table = rope_table(&config.rope.frequencies(config.head_size), batch.t);
        let mut rope = ops.buf(table.len(), Dtype::F32, "rotary table")?;
        ops.write(&mut rope, &table);
        Ok(Activations {
            residual: (0..=config.n_layer).map(|_| ops.buf(n * c, Dtype::F32, "residual")).collect::<Result<_, _>>()?,
            blocks: (0..blocks).map(|_| block()).collect::<Result<_, _>>()?,
            scratch: ops.buf(n * c, dtype, "scratch")?,
            norm: ops.buf(n * c, dtype, "norm")?,
            rstd: ops.buf(n, Dtype::F32, "rstd")?,
            rope,
        })
    }
}

impl<B: OpsTrain> ActivationGrads<B> {
    /// Allocates everything.
    pub fn new(ops: &B, config: &LlamaConfig, batch: BatchShape, dtype: Dtype) -> Result<Self, OpsError> {
        let (n, c, f) = (batch.b * batch.t, config.n_embd, config.n_ff);
        Ok(ActivationGrads {
            residual: ops.buf(n * c, Dtype::F32, "gradient of residual")?,
            narrow: ops.buf(n * c, dtype, "gradient of norms")?,
            attention: ops.buf(n * config.n_head * config.head_size, dtype, "gradient of attention")?,
            qkv: ops.buf(n * config.qkv_width(), dtype, "gradient of qkv")?,
            gate_up: ops.buf(n * 2 * f, dtype, "gradient of gate and up")?,
            gated: ops.buf(n * f, dtype, "gradient of gated")?,
        })
    }
}
