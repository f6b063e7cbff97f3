//! The forward pass: what a GPT-2 computes, call by call.

use corella_ops::{AttentionDims, EncoderDims, MatmulDims, NormDims, Normed, OpsTrain};

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
    first_norm(ops, p, 0, &acts.residual[0], &mut acts.blocks[0], s);
    for layer in 0..config.n_layer() {
        let (before, after) = acts.residual.split_at_mut(layer + 1);
        let kept = acts.blocks.len();
        forward_block(ops, p, layer, &before[layer], &mut acts.blocks[layer % kept], &mut acts.fch_gelu, s);
        // The last projection adds to the stream; the norm that follows is the next block's first, or the last one.
        let linear = (&p[at(layer, Tensor::FcProjW)], &p[at(layer, Tensor::FcProjB)]);
        let (residual2, next) = stream_and_next_norm(&mut acts.blocks, layer);
        let (out, norm) = match next.filter(|_| layer + 1 < config.n_layer()) {
            Some(next) => (next, at(layer + 1, Tensor::Ln1W)),
            None => {
                (Normed { out: &mut acts.lnf, mean: &mut acts.lnf_mean, rstd: &mut acts.lnf_rstd }, last_norm(config))
            }
        };
        let (x, norm, dims) = (&acts.fch_gelu, (&p[norm], &p[norm + 1]), s.linear(4 * s.c, s.c));
        ops.matmul_residual_layernorm(&mut after[0], out, residual2, x, linear, norm, dims, EPS);
    }
}

/// The stream within block `layer`, and where the first norm of the one that follows goes: into the same activations where all blocks
/// use them in turn, into none behind the last.
fn stream_and_next_norm<Buf>(blocks: &mut [BlockActs<Buf>], layer: usize) -> (&Buf, Option<Normed<'_, Buf>>) {
    if let [block] = blocks {
        let next = Normed { out: &mut block.ln1, mean: &mut block.ln1_mean, rstd: &mut block.ln1_rstd };
        return (&block.residual2, Some(next));
    }
    let (front, back) = blocks.split_at_mut(layer + 1);
    let next = back.first_mut().map(|a| Normed { out: &mut a.ln1, mean: &mut a.ln1_mean, rstd: &mut a.ln1_rstd });
    (&front[layer].residual2, next)
}

/// The norm of a block's input `x`.
pub fn first_norm<B: OpsTrain>(ops: &B, p: &[B::Param], layer: usize, x: &B::Buf, a: &mut BlockActs<B::Buf>, s: Shape) {
    let (w, b) = (&p[at(layer, Tensor::Ln1W)], &p[at(layer, Tensor::Ln1B)]);
    ops.layernorm(&mut a.ln1, &mut a.ln1_mean, &mut a.ln1_rstd, x, w, b, s.norm());
}

/// One block from its input `x`, whose norm is in `a`, to `fch_gelu`, which the last projection then adds to the stream.
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
    ops.matmul(&mut a.qkv, &a.ln1, w(QkvW), Some(w(QkvB)), s.linear(c, 3 * c));
    ops.attention(&mut a.atty, &mut a.lse, &a.qkv, s.attention());
    let ln2 = Normed { out: &mut a.ln2, mean: &mut a.ln2_mean, rstd: &mut a.ln2_rstd };
    let (linear, norm) = ((w(AttProjW), w(AttProjB)), (w(Ln2W), w(Ln2B)));
    ops.matmul_residual_layernorm(&mut a.residual2, ln2, x, &a.atty, linear, norm, s.linear(c, c), EPS);
    ops.matmul_gelu(fch_gelu, &mut a.fch, &a.ln2, w(FcW), w(FcB), s.linear(c, 4 * c));
}
