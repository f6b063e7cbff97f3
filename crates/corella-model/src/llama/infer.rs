//! Generation: what a Llama computes in a step, call by call, over packed weights and a paged KV cache.

use corella_ops::{Dtype, GluDims, HeadDims, Linear, NormDims, OpsError, OpsInfer, RopePairs, Store};

use super::config::LlamaConfig;
use super::params::{Block, EMBEDDING, at, last_norm};
use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::{Source, load_part, load_vector};
use crate::step::StepLimits;
use crate::stepping::{Layers, Stepping};

/// The weights of a block.
struct BlockWeights<B: OpsInfer> {
    attention_norm: B::Param,
    /// Queries, keys, values: one matrix each, because files store them in formats of their own.
    qkv: Vec<B::Weight>,
    o: B::Weight,
    feed_forward_norm: B::Param,
    /// Gate and up.
    gate_up: Vec<B::Weight>,
    down: B::Weight,
}

/// All weights.
struct Weights<B: OpsInfer> {
    embedding: B::Weight,
    blocks: Vec<BlockWeights<B>>,
    norm: B::Param,
    /// None where the output head is the embedding.
    head: Option<B::Weight>,
}

impl<B: OpsInfer> Weights<B> {
    fn load(ops: &B, source: &dyn Source<LlamaConfig>) -> Result<Self, ModelError> {
        let config = source.config();
        let table = config.table();
        let part = |row: usize, part: usize| load_part(ops, source, row, &table[row], part);
        let all = |row: usize| (0..table[row].parts.len()).map(|i| part(row, i)).collect::<Result<Vec<_>, _>>();
        let norm = |row: usize| load_vector(ops, source, row, &table[row]);
        let blocks = (0..config.n_layer).map(|layer| {
            Ok(BlockWeights {
                attention_norm: norm(at(layer, Block::AttentionNorm))?,
                qkv: all(at(layer, Block::Qkv))?,
                o: part(at(layer, Block::O), 0)?,
                feed_forward_norm: norm(at(layer, Block::FeedForwardNorm))?,
                gate_up: all(at(layer, Block::GateUp))?,
                down: part(at(layer, Block::Down), 0)?,
            })
        });
        Ok(Weights {
            embedding: part(EMBEDDING, 0)?,
            blocks: blocks.collect::<Result<_, ModelError>>()?,
            norm: norm(last_norm(config))?,
            head: if config.tied { None } else { Some(part(config.head(), 0)?) },
        })
    }
}

/// Llama's layers have no biases.
fn linear<B: OpsInfer>(w: &B::Weight) -> Linear<'_, B> {
    Linear { w, bias: None }
}

/// Activations of a step of N tokens.
struct Buffers<B: OpsInfer> {
    ids: B::Ids,
    /// Residual stream (N, C).
    x: B::Buf,
    /// A norm's output (N, C), and of its rows what divides them (N).
    norm: B::Buf,
    rstd: B::Buf,
    /// Queries, keys and values (N, (NH + 2·NKV)·HS).
    qkv: B::Buf,
    /// Attention's output (N, NH·HS).
    attention: B::Buf,
    /// Gate and up (N, 2F), and what the gate lets through (N, F).
    gate_up: B::Buf,
    feed_forward: B::Buf,
    /// Wanted rows of the residual stream (R, C), and their logits (R, V).
    wanted: B::Buf,
    logits: B::Buf,
}

impl<B: OpsInfer> Buffers<B> {
    fn new(ops: &B, config: &LlamaConfig, limits: StepLimits) -> Result<Self, OpsError> {
        let [n, r] = limits.buffer_rows(ops);
        let buf = |len, what| ops.buf(len, Dtype::F32, what);
        let low = |len, what| ops.buf(len, ops.step_dtype(), what);
        Ok(Buffers {
            ids: ops.ids(n)?,
            x: buf(n * config.n_embd, "residual")?,
            norm: low(n.max(r) * config.n_embd, "norm")?,
            rstd: buf(n.max(r), "rstd")?,
            qkv: low(n * config.qkv_width(), "qkv")?,
            attention: low(n * config.n_head * config.head_size, "attention")?,
            gate_up: low(n * 2 * config.n_ff, "gate and up")?,
            feed_forward: low(n * config.n_ff, "feed-forward")?,
            wanted: buf(r * config.n_embd, "wanted rows")?,
            logits: buf(r * config.vocab_size, "logits")?,
        })
    }
}

/// A Llama that continues many sequences.
pub type LlamaInfer<B> = Stepping<B, LlamaLayers<B>>;

impl<B: OpsInfer> LlamaInfer<B> {
    /// Bytes of the packed matrices.
    pub fn weight_bytes(&self) -> u64 {
        let w = &self.layers.weights;
        let blocks = w.blocks.iter().flat_map(|b| b.qkv.iter().chain(&b.gate_up).chain([&b.o, &b.down]));
        blocks.chain([&w.embedding]).chain(&w.head).map(|w| self.ops.weight_bytes(w)).sum()
    }
}

/// The network with what a step reads and writes.
pub struct LlamaLayers<B: OpsInfer> {
    config: LlamaConfig,
    weights: Weights<B>,
    buffers: Buffers<B>,
}

impl<B: OpsInfer> Layers<B> for LlamaLayers<B> {
    type Config = LlamaConfig;

    fn load(ops: &B, source: &dyn Source<LlamaConfig>, limits: StepLimits) -> Result<Self, ModelError> {
        let (config, weights) = (source.config().clone(), Weights::load(ops, source)?);
        Ok(LlamaLayers { buffers: Buffers::new(ops, &config, limits)?, weights, config })
    }

    fn heads(config: &LlamaConfig) -> HeadDims {
        HeadDims { nh: config.n_head, nkv: config.n_kv_head, hs: config.head_size }
    }

    fn count(config: &LlamaConfig) -> usize {
        config.n_layer
    }

    fn frequencies(config: &LlamaConfig) -> Vec<f32> {
        config.rope.frequencies(config.head_size)
    }

    /// Positions come with the plan of the rows, whose queries and keys are turned by them.
    fn feed(&mut self, ops: &B, ids: &[u32], _positions: &[u32]) {
        ops.write_ids(&mut self.buffers.ids, ids);
    }

    fn blocks(&mut self, ops: &B, n: usize, pages: &mut [B::KvPages], batch: &B::Batch) {
        let (b, config) = (&mut self.buffers, &self.config);
        let norm = NormDims { n, c: config.n_embd, eps: config.norm_eps };
        let heads = Self::heads(config);
        ops.lookup(&mut b.x, &b.ids, &self.weights.embedding, n, Store::Write);
        for (w, pages) in self.weights.blocks.iter().zip(pages) {
            ops.rmsnorm(&mut b.norm, &mut b.rstd, &b.x, &w.attention_norm, norm);
            let qkv: Vec<_> = w.qkv.iter().map(linear::<B>).collect();
            ops.linear(&mut b.qkv, &b.norm, n, &qkv, Store::Write);
            ops.rope_rows(&mut b.qkv, batch, RopePairs::Halves, heads);
            ops.attention_paged(&mut b.attention, pages, &b.qkv, batch, heads);
            ops.linear(&mut b.x, &b.attention, n, &[linear::<B>(&w.o)], Store::Add);
            ops.rmsnorm(&mut b.norm, &mut b.rstd, &b.x, &w.feed_forward_norm, norm);
            let gate_up: Vec<_> = w.gate_up.iter().map(linear::<B>).collect();
            ops.linear(&mut b.gate_up, &b.norm, n, &gate_up, Store::Write);
            ops.swiglu(&mut b.feed_forward, &b.gate_up, GluDims { n, f: config.n_ff });
            ops.linear(&mut b.x, &b.feed_forward, n, &[linear::<B>(&w.down)], Store::Add);
        }
    }

    fn head(&mut self, ops: &B, n: usize, rows: Option<&[u32]>) {
        let (b, config) = (&mut self.buffers, &self.config);
        let norm = NormDims { n, c: config.n_embd, eps: config.norm_eps };
        let x = match rows {
            Some(rows) => {
                ops.select_rows(&mut b.wanted, &b.x, rows, config.n_embd);
                &b.wanted
            }
            None => &b.x,
        };
        ops.rmsnorm(&mut b.norm, &mut b.rstd, x, &self.weights.norm, norm);
        let w = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        ops.linear(&mut b.logits, &b.norm, n, &[linear::<B>(w)], Store::Write);
    }
    fn logits(&mut self) -> &mut B::Buf {
        &mut self.buffers.logits
    }
}
