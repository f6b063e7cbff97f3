//! The forward pass: what a GPT-2 computes, call by call.

use corella_ops::{AttentionDims, EncoderDims, MatmulDims, NormDims, OpsTrain};

use super::activations::{Activations, BlockActs};
use super::config::Gpt2Config;
use super::params::{Tensor, WPE, WTE, at, last_norm};
use crate::text_model::BatchShape;

/// Added to the variance in every norm.
pub const EPS: f32 = 1e-5;

/// Shapes of one pass: B sequences of T tokens through a model of width C.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
    /// Width.
    pub c: usize,
    /// Heads.
    pub nh: usize,
}

impl Shape {
    /// Shapes of a batch.
    pub fn new(config: &Gpt2Config, batch: BatchShape) -> Self {
        Shape { b: batch.b, t: batch.t, c: config.n_embd(), nh: config.n_head() }
    }
    /// N = B·T.
    pub fn n(&self) -> usize {
        self.b * self.t
    }
    /// Of a norm.
    pub fn norm(&self) -> NormDims {
        NormDims { n: self.n(), c: self.c, eps: EPS }
    }
    /// Of a linear layer from width c to oc.
    pub fn linear(&self, c: usize, oc: usize) -> MatmulDims {
        MatmulDims { n: self.n(), c, oc }
    }
    /// Of attention.
    pub fn attention(&self) -> AttentionDims {
        AttentionDims { b: self.b, t: self.t, nh: self.nh, nkv: self.nh, hs: self.c / self.nh }
    }
}

/// Token ids to the last norm's output in `acts.lnf`; the classifier follows.
pub fn forward<B: OpsTrain>(
    ops: &B,
    config: &Gpt2Config,
    p: &[B::Param],
    acts: &mut Activations<B>,
    ids: &B::Ids,
    s: Shape,
) {
    let dims = EncoderDims { b: s.b, t: s.t, c: s.c, v: config.vocab_size(), pos0: 0 };
    ops.encoder(&mut acts.residual[0], ids, &p[WTE], &p[WPE], dims);
    for layer in 0..config.n_layer() {
        let (before, after) = acts.residual.split_at_mut(layer + 1);
        let kept = acts.blocks.len();
        let block = &mut acts.blocks[layer % kept];
        forward_block(ops, p, layer, &before[layer], block, &mut acts.fch_gelu, s);
        let (w, b) = (&p[at(layer, Tensor::FcProjW)], &p[at(layer, Tensor::FcProjB)]);
        ops.matmul_residual(&mut after[0], &block.residual2, &acts.fch_gelu, w, b, s.linear(4 * s.c, s.c));
    }
    let (last, norm) = (&acts.residual[config.n_layer()], last_norm(config));
    ops.layernorm(&mut acts.lnf, &mut acts.lnf_mean, &mut acts.lnf_rstd, last, &p[norm], &p[norm + 1], s.norm());
}

/// One block from its input `x` to `fch_gelu`, which the last projection then adds to the stream.
pub fn forward_block<B: OpsTrain>(
    ops: &B,
    p: &[B::Param],
    layer: usize,
    x: &B::Buf,
    a: &mut BlockActs<B::Buf>,
    fch_gelu: &mut B::Buf,
    s: Shape,
) {
    use Tensor::*;
    let w = |which| &p[at(layer, which)];
    let c = s.c;
    ops.layernorm(&mut a.ln1, &mut a.ln1_mean, &mut a.ln1_rstd, x, w(Ln1W), w(Ln1B), s.norm());
    ops.matmul(&mut a.qkv, &a.ln1, w(QkvW), Some(w(QkvB)), s.linear(c, 3 * c));
    ops.attention(&mut a.atty, &mut a.lse, &a.qkv, s.attention());
    ops.matmul_residual(&mut a.residual2, x, &a.atty, w(AttProjW), w(AttProjB), s.linear(c, c));
    ops.layernorm(&mut a.ln2, &mut a.ln2_mean, &mut a.ln2_rstd, &a.residual2, w(Ln2W), w(Ln2B), s.norm());
    ops.matmul_gelu(fch_gelu, &mut a.fch, &a.ln2, w(FcW), w(FcB), s.linear(c, 4 * c));
}
