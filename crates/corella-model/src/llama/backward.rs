//! The backward pass: the forward pass's calls in reverse, each with its gradient.

use corella_ops::OpsTrain;

use super::activations::{ActivationGrads, Activations, BlockActs};
use super::forward::{Shape, forward_block};
use super::params::{Block, EMBEDDING, at, last_norm};

/// From the gradient of the last norm's output, in `d.narrow`, to the gradients of every parameter, which are added to.
pub fn backward<B: OpsTrain>(
    ops: &B,
    p: &mut [B::Param],
    acts: &mut Activations<B>,
    d: &mut ActivationGrads<B>,
    ids: &B::Ids,
    s: Shape<'_>,
) {
    let layers = s.config.n_layer;
    // The norm adds to dx: the stream's gradient starts from zero.
    ops.clear(&mut d.residual, s.n() * s.config.n_embd);
    let norm = &mut p[last_norm(s.config)];
    ops.rmsnorm_grad(&mut d.residual, norm, &d.narrow, &acts.residual[layers], &acts.rstd, s.norm());
    let recompute = acts.blocks.len() < layers;
    for layer in (0..layers).rev() {
        let x = &acts.residual[layer];
        let block = &mut acts.blocks[if recompute { 0 } else { layer }];
        if recompute {
            forward_block(ops, p, layer, x, block, &mut acts.scratch, &acts.rope, s);
        }
        backward_block(ops, p, layer, x, block, d, &acts.rope, s);
    }
    ops.embedding_grad(&mut p[EMBEDDING], &d.residual, ids, s.embedding());
}

/// One block. `d.residual` holds the gradient of its output before and of its input after.
fn backward_block<B: OpsTrain>(
    ops: &B,
    p: &mut [B::Param],
    layer: usize,
    x: &B::Buf,
    a: &BlockActs<B::Buf>,
    d: &mut ActivationGrads<B>,
    rope: &B::Buf,
    s: Shape<'_>,
) {
    let (c, f, q) = (s.config.n_embd, s.config.n_ff, s.attention().c());
    ops.matmul_grad(&mut d.gated, &mut p[at(layer, Block::Down)], None, &d.residual, &a.gated, s.linear(f, c));
    ops.swiglu_grad(&mut d.gate_up, &d.gated, &a.gate_up, s.glu());
    ops.matmul_grad(&mut d.narrow, &mut p[at(layer, Block::GateUp)], None, &d.gate_up, &a.norm2, s.linear(c, 2 * f));
    let norm = &mut p[at(layer, Block::FeedForwardNorm)];
    ops.rmsnorm_grad(&mut d.residual, norm, &d.narrow, &a.residual2, &a.rstd2, s.norm());
    ops.matmul_grad(&mut d.attention, &mut p[at(layer, Block::O)], None, &d.residual, &a.attention, s.linear(q, c));
    ops.attention_grad(&mut d.qkv, &d.attention, &a.attention, &a.qkv, &a.lse, s.attention());
    ops.rope_grad(&mut d.qkv, rope, s.attention());
    ops.matmul_grad(
        &mut d.narrow,
        &mut p[at(layer, Block::Qkv)],
        None,
        &d.qkv,
        &a.norm1,
        s.linear(c, s.config.qkv_width()),
    );
    ops.rmsnorm_grad(&mut d.residual, &mut p[at(layer, Block::AttentionNorm)], &d.narrow, x, &a.rstd1, s.norm());
}
