//! Generation of many sequences: what a GPT-2 computes in a step, call by call, over a paged KV cache.

use std::sync::Arc;

use corella_ops::{BatchPlan as RowPlan, Dtype, HeadDims, KvPagesDims, Linear, NormDims, OpsError, OpsInfer, Store};

use super::config::Gpt2Config;
use super::forward::EPS;
use super::params::{Tensor, WPE, WTE, at, last_norm};
use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::{Source, load_part, load_vector};
use crate::step::{BatchPlan, PlanError, Results, StepLimits, StepModel, StepOut, padded};
use crate::step_options::{PAGE_TOKENS, StepOptions};

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
pub struct Gpt2Infer<B: OpsInfer> {
    ops: Arc<B>,
    limits: StepLimits,
    name: String,
    layers: Layers<B>,
    recorded: B::Recorded,
    results: Results,
}

/// The network with what a step reads and writes.
struct Layers<B: OpsInfer> {
    config: Gpt2Config,
    weights: Weights<B>,
    /// For each layer its keys and values.
    pages: Vec<B::KvPages>,
    buffers: Buffers<B>,
}

impl<B: OpsInfer> Gpt2Infer<B> {
    /// Loads the weights and allocates everything that steps need.
    pub fn new(
        ops: impl Into<Arc<B>>,
        source: &dyn Source<Gpt2Config>,
        options: StepOptions,
    ) -> Result<Self, ModelError> {
        let (ops, config) = (ops.into(), source.config().clone());
        let (nh, hs) = (config.n_head(), config.head_size());
        let token_bytes = config.kv_token_bytes(options.kv_kind);
        let limits = options.limits(config.seq_len(), config.vocab_size(), token_bytes)?;
        let weights = Weights::load(&*ops, source)?;
        let dims = KvPagesDims { pages: limits.pages, page_len: PAGE_TOKENS, nkv: nh, hs, kind: options.kv_kind };
        let pages = (0..config.n_layer()).map(|_| ops.kv_pages(dims)).collect::<Result<_, _>>()?;
        let mut buffers = Buffers::new(&*ops, &config, limits)?;
        Ok(Gpt2Infer {
            name: format!("{} kv {}", ops.name(), options.kv_kind.name()),
            results: Results::new(&*ops, &mut buffers.logits, &limits),
            layers: Layers { config, weights, pages, buffers },
            recorded: B::Recorded::default(),
            limits,
            ops,
        })
    }
}

impl<B: OpsInfer> Layers<B> {
    /// The blocks, for the N tokens of a plan.
    fn blocks(&mut self, ops: &B, n: usize, batch: &B::Batch) {
        let (w, b, c) = (&self.weights, &mut self.buffers, self.config.n_embd());
        let norm = NormDims { n, c, eps: EPS };
        let heads = HeadDims { nh: self.config.n_head(), nkv: self.config.n_head(), hs: self.config.head_size() };
        ops.lookup(&mut b.x, &b.ids, &w.wte, n, Store::Write);
        ops.lookup(&mut b.x, &b.positions, &w.wpe, n, Store::Add);
        for (block, pages) in w.blocks.iter().zip(&mut self.pages) {
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

    /// Last norm and output head of `n` rows: those that are listed, or the first ones.
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
}

impl<B: OpsInfer> StepModel for Gpt2Infer<B> {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn backend_name(&self) -> String {
        self.name.clone()
    }

    fn draws(&self) -> bool {
        self.results.draws
    }

    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        self.limits.check(plan)?;
        let (ops, layers, wanted) = (&*self.ops, &mut self.layers, plan.wanted_len());
        let (rows, tables) = (plan.rows(), plan.tables());
        let row_plan = RowPlan { rows: &rows, tables: &tables, page_len: PAGE_TOKENS, frequencies: &[] };
        let positions: Vec<u32> = rows.iter().map(|row| row.position).collect();
        if plan.is_decode() {
            let n = ops.decode_rows(wanted);
            let batch = ops.decode_batch(row_plan)?;
            ops.write_ids(&mut layers.buffers.ids, &padded(&plan.tokens, n));
            ops.write_ids(&mut layers.buffers.positions, &padded(&positions, n));
            ops.repeat(&mut self.recorded, &batch, &mut || {
                layers.blocks(ops, n, &batch);
                layers.head(ops, n, None);
            });
        } else {
            let batch = ops.batch(row_plan)?;
            ops.write_ids(&mut layers.buffers.ids, &plan.tokens);
            ops.write_ids(&mut layers.buffers.positions, &positions);
            layers.blocks(ops, rows.len(), &batch);
            if wanted > 0 {
                layers.head(ops, wanted, Some(&plan.wanted()));
            }
        }
        self.results.take(ops, &mut layers.buffers.logits, plan, self.limits.vocab_size)
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        for pages in &mut self.layers.pages {
            self.ops.copy_page(pages, from, to);
        }
    }
}
