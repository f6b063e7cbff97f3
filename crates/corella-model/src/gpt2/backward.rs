//! The backward pass: the forward pass's calls in reverse, each with its gradient.

use corella_ops::{EncoderDims, OpsTrain};

use super::activations::{ActivationGrads, Activations, BlockActs};
use super::config::Gpt2Config;
use super::forward::{Shape, first_norm, forward_block};
use super::params::{Tensor, WTE, at, last_norm};

/// From the gradient of the last norm's output, in `d.narrow`, to the gradients of every parameter, which are added to.
pub fn backward<B: OpsTrain>(
    ops: &B,
    config: &Gpt2Config,
    p: &mut [B::Param],
    acts: &mut Activations<B>,
    d: &mut ActivationGrads<B>,
    ids: &B::Ids,
    s: Shape,
) {
    let layers = config.n_layer();
    // The norm adds to dx: the stream's gradient starts from zero.
    ops.clear(&mut d.residual, s.n() * s.c);
    let (w, b) = weight_and_bias(p, last_norm(config));
    let x = &acts.residual[layers];
    ops.layernorm_grad(&mut d.residual, w, b, &d.narrow, x, &acts.lnf_mean, &acts.lnf_rstd, s.norm());
    let recompute = acts.blocks.len() < layers;
    for layer in (0..layers).rev() {
        let x = &acts.residual[layer];
        let block = &mut acts.blocks[if recompute { 0 } else { layer }];
        if recompute {
            first_norm(ops, p, layer, x, block, s);
            forward_block(ops, p, layer, x, block, &mut acts.fch_gelu, s);
        }
        backward_block(ops, p, layer, x, block, &mut acts.fch_gelu, d, s);
    }
    let dims = EncoderDims { b: s.b, t: s.t, c: s.c, v: config.vocab_size(), pos0: 0 };
    let (wte, wpe) = weight_and_bias(p, WTE);
    ops.encoder_grad(wte, wpe, &d.residual, ids, dims);
}

/// One block. `d.residual` holds the gradient of its output before and of its input after.
fn backward_block<B: OpsTrain>(
    ops: &B,
    p: &mut [B::Param],
    layer: usize,
    x: &B::Buf,
    a: &BlockActs<B::Buf>,
    fch_gelu: &mut B::Buf,
    d: &mut ActivationGrads<B>,
    s: Shape,
) {
    use Tensor::*;
    let c = s.c;
    let (w, b) = weight_and_bias(p, at(layer, FcProjW));
    ops.gelu_matmul_grad(&mut d.wide, fch_gelu, w, b, &d.residual, &a.fch, s.linear(4 * c, c));
    let (w, b) = weight_and_bias(p, at(layer, FcW));
    ops.matmul_grad(&mut d.narrow, w, Some(b), &d.wide, &a.ln2, s.linear(c, 4 * c));
    let (w, b) = weight_and_bias(p, at(layer, Ln2W));
    ops.layernorm_grad(&mut d.residual, w, b, &d.narrow, &a.residual2, &a.ln2_mean, &a.ln2_rstd, s.norm());
    let (w, b) = weight_and_bias(p, at(layer, AttProjW));
    ops.matmul_grad(&mut d.narrow, w, Some(b), &d.residual, &a.atty, s.linear(c, c));
    ops.attention_grad(&mut d.wide, &d.narrow, &a.atty, &a.qkv, &a.lse, s.attention());
    let (w, b) = weight_and_bias(p, at(layer, QkvW));
    ops.matmul_grad(&mut d.narrow, w, Some(b), &d.wide, &a.ln1, s.linear(c, 3 * c));
    let (w, b) = weight_and_bias(p, at(layer, Ln1W));
    ops.layernorm_grad(&mut d.residual, w, b, &d.narrow, x, &a.ln1_mean, &a.ln1_rstd, s.norm());
}

/// A tensor and the one after it in the table, which is its bias.
fn weight_and_bias<P>(p: &mut [P], weight: usize) -> (&mut P, &mut P) {
    let (front, back) = p.split_at_mut(weight + 1);
    (&mut front[weight], &mut back[0])
}
