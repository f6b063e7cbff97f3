//! The forward pass of training: what a Llama computes, call by call.

use corella_ops::{AttentionDims, EmbeddingDims, GluDims, MatmulDims, NormDims, OpsTrain};

use super::activations::{Activations, BlockActs};
use super::config::LlamaConfig;
use super::params::{Block, EMBEDDING, at, last_norm};
use crate::text_model::BatchShape;

/// Shapes of one pass: B sequences of T tokens.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The model's.
    pub config: &'a LlamaConfig,
    /// Sequences and their tokens.
    pub batch: BatchShape,
}

impl Shape<'_> {
    /// N = B·T.
    pub fn n(&self) -> usize {
        self.batch.b * self.batch.t
    }
    /// Of a norm.
    pub fn norm(&self) -> NormDims {
        NormDims { n: self.n(), c: self.config.n_embd, eps: self.config.norm_eps }
    }
    /// Of a linear layer from width c to oc.
    pub fn linear(&self, c: usize, oc: usize) -> MatmulDims {
        MatmulDims { n: self.n(), c, oc }
    }
    /// Of attention.
    pub fn attention(&self) -> AttentionDims {
        let config = self.config;
        let BatchShape { b, t } = self.batch;
        AttentionDims { b, t, nh: config.n_head, nkv: config.n_kv_head, hs: config.head_size }
    }
    /// Of the gated layer.
    pub fn glu(&self) -> GluDims {
        GluDims { n: self.n(), f: self.config.n_ff }
    }
    /// Of the lookup.
    pub fn embedding(&self) -> EmbeddingDims {
        EmbeddingDims { n: self.n(), c: self.config.n_embd }
    }
}

/// Token ids to the last norm's output in `acts.norm`; the classifier follows.
pub fn forward<B: OpsTrain>(ops: &B, p: &[B::Param], acts: &mut Activations<B>, ids: &B::Ids, s: Shape<'_>) {
    let layers = s.config.n_layer;
    ops.embedding(&mut acts.residual[0], ids, &p[EMBEDDING], s.embedding());
    for layer in 0..layers {
        let (before, after) = acts.residual.split_at_mut(layer + 1);
        let kept = acts.blocks.len();
        let block = &mut acts.blocks[layer % kept];
        forward_block(ops, p, layer, &before[layer], block, &mut acts.scratch, &acts.rope, s);
        ops.residual(&mut after[0], &block.residual2, &acts.scratch, s.n() * s.config.n_embd);
    }
    ops.rmsnorm(&mut acts.norm, &mut acts.rstd, &acts.residual[layers], &p[last_norm(s.config)], s.norm());
}

/// One block from its input `x` to `a.residual2` and, in `scratch`, the feed-forward output that is added to it.
pub fn forward_block<B: OpsTrain>(
    ops: &B,
    p: &[B::Param],
    layer: usize,
    x: &B::Buf,
    a: &mut BlockActs<B::Buf>,
    scratch: &mut B::Buf,
    rope: &B::Buf,
    s: Shape<'_>,
) {
    let w = |which| &p[at(layer, which)];
    let (c, f, q) = (s.config.n_embd, s.config.n_ff, s.attention().c());
    ops.rmsnorm(&mut a.norm1, &mut a.rstd1, x, w(Block::AttentionNorm), s.norm());
    ops.matmul(&mut a.qkv, &a.norm1, w(Block::Qkv), None, s.linear(c, s.config.qkv_width()));
    ops.rope(&mut a.qkv, rope, s.attention());
    ops.attention(&mut a.attention, &mut a.lse, &a.qkv, s.attention());
    ops.matmul(scratch, &a.attention, w(Block::O), None, s.linear(q, c));
    let norm = w(Block::FeedForwardNorm);
    ops.residual_rmsnorm(&mut a.residual2, &mut a.norm2, &mut a.rstd2, x, scratch, norm, s.norm());
    ops.matmul(&mut a.gate_up, &a.norm2, w(Block::GateUp), None, s.linear(c, 2 * f));
    ops.swiglu(&mut a.gated, &a.gate_up, s.glu());
    ops.matmul(scratch, &a.gated, w(Block::Down), None, s.linear(f, c));
}
