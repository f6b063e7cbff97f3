//! Generation of many sequences: what a GPT-2 computes in a step, call by call, over a paged KV cache.

use corella_ops::{Dtype, HeadDims, Linear, NormDims, OpsError, OpsInfer, Store};

use super::config::Gpt2Config;
use super::forward::EPS;
use super::params::{Tensor, WPE, WTE, at, last_norm};
use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::{Source, load_part, load_vector};
use crate::step::StepLimits;
use crate::stepping::{Layers, Stepping};

/// Weight and bias (C) of a norm.
struct Norm<B: OpsInfer> {
    w: B::Param,
    b: B::Param,
}

/// A linear layer: weights (OC, C) packed for products, bias (OC).
struct Layer<B: OpsInfer> {
    w: B::Weight,
    bias: B::Param,
}

impl<B: OpsInfer> Layer<B> {
    fn linear(&self) -> [Linear<'_, B>; 1] {
        [Linear { w: &self.w, bias: Some(&self.bias) }]
    }
}

/// The weights of a block, in the order in which they are used.
struct Block<B: OpsInfer> {
    ln1: Norm<B>,
    qkv: Layer<B>,
    att_proj: Layer<B>,
    ln2: Norm<B>,
    fc: Layer<B>,
    fc_proj: Layer<B>,
}

/// All weights.
struct Weights<B: OpsInfer> {
    wte: B::Weight,
    wpe: B::Weight,
    blocks: Vec<Block<B>>,
    last_norm: Norm<B>,
    /// `None` where the token embedding is the output head too.
    head: Option<B::Weight>,
}

impl<B: OpsInfer> Weights<B> {
    fn load(ops: &B, source: &dyn Source<Gpt2Config>) -> Result<Self, ModelError> {
        use Tensor::*;
        let config = source.config();
        let table = config.table();
        let vector = |row: usize| load_vector(ops, source, row, &table[row]);
        let matrix = |row: usize| load_part(ops, source, row, &table[row], 0);
        let norm = |w, b| Ok::<_, ModelError>(Norm { w: vector(w)?, b: vector(b)? });
        let layer = |w, bias| Ok::<_, ModelError>(Layer { w: matrix(w)?, bias: vector(bias)? });
        let block = |i| {
            Ok(Block {
                ln1: norm(at(i, Ln1W), at(i, Ln1B))?,
                qkv: layer(at(i, QkvW), at(i, QkvB))?,
                att_proj: layer(at(i, AttProjW), at(i, AttProjB))?,
                ln2: norm(at(i, Ln2W), at(i, Ln2B))?,
                fc: layer(at(i, FcW), at(i, FcB))?,
                fc_proj: layer(at(i, FcProjW), at(i, FcProjB))?,
            })
        };
        let last = last_norm(config);
        Ok(Weights {
            wte: matrix(WTE)?,
            wpe: matrix(WPE)?,
            blocks: (0..config.n_layer()).map(block).collect::<Result<_, ModelError>>()?,
            last_norm: norm(last, last + 1)?,
            head: if config.head() == WTE { None } else { Some(matrix(config.head())?) },
        })
    }
}

/// Activations of a step of N tokens.
struct Buffers<B: OpsInfer> {
    ids: B::Ids,
    positions: B::Ids,
    /// Residual stream (N, C).
    x: B::Buf,
    /// A norm's output (N, C), and of its rows mean and inverse deviation (N).
    norm: B::Buf,
    mean: B::Buf,
    rstd: B::Buf,
    /// (N, 3C), then attention's output (N, C).
    qkv: B::Buf,
    attention: B::Buf,
    /// The MLP before and behind GELU (N, 4C).
    fch: B::Buf,
    fch_gelu: B::Buf,
    /// Wanted rows of the residual stream (R, C), and their logits (R, V).
    wanted: B::Buf,
    logits: B::Buf,
}

impl<B: OpsInfer> Buffers<B> {
    fn new(ops: &B, config: &Gpt2Config, limits: StepLimits) -> Result<Self, OpsError> {
        let ([n, r], c) = (limits.buffer_rows(ops), config.n_embd());
        let buf = |len, what| ops.buf(len, Dtype::F32, what);
        let low = |len, what| ops.buf(len, ops.step_dtype(), what);
        Ok(Buffers {
            ids: ops.ids(n)?,
            positions: ops.ids(n)?,
            x: buf(n * c, "residual")?,
            norm: low(n.max(r) * c, "norm")?,
            mean: buf(n.max(r), "mean")?,
            rstd: buf(n.max(r), "rstd")?,
            qkv: low(n * 3 * c, "qkv")?,
            attention: low(n * c, "attention")?,
            fch: low(n * 4 * c, "fch")?,
            fch_gelu: low(n * 4 * c, "fch_gelu")?,
            wanted: buf(r * c, "wanted rows")?,
            logits: buf(r * config.vocab_size(), "logits")?,
        })
    }
}

/// A GPT-2 that continues many sequences.
pub type Gpt2Infer<B> = Stepping<B, Gpt2Layers<B>>;

/// The network with what a step reads and writes.
pub struct Gpt2Layers<B: OpsInfer> {
    config: Gpt2Config,
    weights: Weights<B>,
    buffers: Buffers<B>,
}

impl<B: OpsInfer> Layers<B> for Gpt2Layers<B> {
    type Config = Gpt2Config;

    fn load(ops: &B, source: &dyn Source<Gpt2Config>, limits: StepLimits) -> Result<Self, ModelError> {
        let (config, weights) = (source.config().clone(), Weights::load(ops, source)?);
        Ok(Gpt2Layers { buffers: Buffers::new(ops, &config, limits)?, weights, config })
    }

    fn heads(config: &Gpt2Config) -> HeadDims {
        HeadDims { nh: config.n_head(), nkv: config.n_head(), hs: config.head_size() }
    }

    fn count(config: &Gpt2Config) -> usize {
        config.n_layer()
    }

    fn frequencies(_: &Gpt2Config) -> Vec<f32> {
        Vec::new()
    }

    fn feed(&mut self, ops: &B, ids: &[u32], positions: &[u32]) {
        ops.write_ids(&mut self.buffers.ids, ids);
        ops.write_ids(&mut self.buffers.positions, positions);
    }

    fn blocks(&mut self, ops: &B, n: usize, pages: &mut [B::KvPages], batch: &B::Batch) {
        let (w, b, c) = (&self.weights, &mut self.buffers, self.config.n_embd());
        let norm = NormDims { n, c, eps: EPS };
        let heads = Self::heads(&self.config);
        ops.lookup(&mut b.x, &b.ids, &w.wte, n, Store::Write);
        ops.lookup(&mut b.x, &b.positions, &w.wpe, n, Store::Add);
        for (block, pages) in w.blocks.iter().zip(pages) {
            ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, &b.x, &block.ln1.w, &block.ln1.b, norm);
            ops.linear(&mut b.qkv, &b.norm, n, &block.qkv.linear(), Store::Write);
            ops.attention_paged(&mut b.attention, pages, &b.qkv, batch, heads);
            ops.linear(&mut b.x, &b.attention, n, &block.att_proj.linear(), Store::Add);
            ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, &b.x, &block.ln2.w, &block.ln2.b, norm);
            ops.linear(&mut b.fch, &b.norm, n, &block.fc.linear(), Store::Write);
            ops.gelu(&mut b.fch_gelu, &b.fch, n * 4 * c);
            ops.linear(&mut b.x, &b.fch_gelu, n, &block.fc_proj.linear(), Store::Add);
        }
    }

    fn head(&mut self, ops: &B, n: usize, rows: Option<&[u32]>) {
        let (w, b, c) = (&self.weights, &mut self.buffers, self.config.n_embd());
        let x = match rows {
            Some(rows) => {
                ops.select_rows(&mut b.wanted, &b.x, rows, c);
                &b.wanted
            }
            None => &b.x,
        };
        let (last, norm) = (&w.last_norm, NormDims { n, c, eps: EPS });
        ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, x, &last.w, &last.b, norm);
        let head = [Linear { w: w.head.as_ref().unwrap_or(&w.wte), bias: None }];
        ops.linear(&mut b.logits, &b.norm, n, &head, Store::Write);
    }
    fn logits(&mut self) -> &mut B::Buf {
        &mut self.buffers.logits
    }
}
