//! Generation of many sequences: what a GPT-2 computes in a step, call by call, over a paged KV cache.

use std::sync::Arc;

use corella_ops::{BatchPlan as RowPlan, Dtype, HeadDims, KvPagesDims, Linear, NormDims, OpsError, OpsInfer, Store};

use super::config::Gpt2Config;
use super::forward::EPS;
use super::params::{Tensor, WPE, WTE, at, last_norm};
use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::{Source, load_part, load_vector};
use crate::step::{BatchPlan, PlanError, StepLimits, StepModel, StepOut};
use crate::step_options::{PAGE_TOKENS, StepOptions};

/// A tensor of the parameter table: vectors as they are, matrices packed for products.
enum Packed<B: OpsInfer> {
    Vector(B::Param),
    Matrix(B::Weight),
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
        let (n, r, c) = (limits.max_batch_tokens, limits.max_logit_rows, config.n_embd());
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
    config: Gpt2Config,
    limits: StepLimits,
    name: String,
    /// In the order of the parameter table.
    tensors: Vec<Packed<B>>,
    /// For each layer its keys and values.
    pages: Vec<B::KvPages>,
    buffers: Buffers<B>,
    host: Vec<f32>,
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
        let token_bytes = 2 * (config.n_layer() * nh * options.kv_kind.bytes(hs)) as u64;
        let limits = options.limits(config.seq_len(), config.vocab_size(), token_bytes)?;
        let table = config.table();
        let tensors = table.iter().enumerate().map(|(row, spec)| {
            Ok(match spec.vector {
                true => Packed::Vector(load_vector(&*ops, source, row, spec)?),
                false => Packed::Matrix(load_part(&*ops, source, row, spec, 0)?),
            })
        });
        let tensors = tensors.collect::<Result<_, ModelError>>()?;
        let dims = KvPagesDims { pages: limits.pages, page_len: PAGE_TOKENS, nkv: nh, hs, kind: options.kv_kind };
        let pages = (0..config.n_layer()).map(|_| ops.kv_pages(dims)).collect::<Result<_, _>>()?;
        Ok(Gpt2Infer {
            name: format!("{} kv {}", ops.name(), options.kv_kind.name()),
            buffers: Buffers::new(&*ops, &config, limits)?,
            host: vec![0.0; limits.max_logit_rows * config.vocab_size()],
            pages,
            tensors,
            limits,
            config,
            ops,
        })
    }

    /// The blocks, for the N tokens of a plan.
    fn blocks(&mut self, n: usize, batch: &B::Batch) {
        use Tensor::*;
        let (ops, b, c) = (&*self.ops, &mut self.buffers, self.config.n_embd());
        let norm = NormDims { n, c, eps: EPS };
        let heads = HeadDims { nh: self.config.n_head(), nkv: self.config.n_head(), hs: self.config.head_size() };
        ops.lookup(&mut b.x, &b.ids, matrix(&self.tensors[WTE]), n, Store::Write);
        ops.lookup(&mut b.x, &b.positions, matrix(&self.tensors[WPE]), n, Store::Add);
        for (layer, pages) in self.pages.iter_mut().enumerate() {
            let v = |which| vector(&self.tensors[at(layer, which)]);
            let linear = |w, bias| [Linear { w: matrix(&self.tensors[at(layer, w)]), bias: Some(v(bias)) }];
            ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, &b.x, v(Ln1W), v(Ln1B), norm);
            ops.linear(&mut b.qkv, &b.norm, n, &linear(QkvW, QkvB), Store::Write);
            ops.attention_paged(&mut b.attention, pages, &b.qkv, batch, heads);
            ops.linear(&mut b.x, &b.attention, n, &linear(AttProjW, AttProjB), Store::Add);
            ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, &b.x, v(Ln2W), v(Ln2B), norm);
            ops.linear(&mut b.fch, &b.norm, n, &linear(FcW, FcB), Store::Write);
            ops.gelu(&mut b.fch_gelu, &b.fch, n * 4 * c);
            ops.linear(&mut b.x, &b.fch_gelu, n, &linear(FcProjW, FcProjB), Store::Add);
        }
    }

    /// Last norm and output head of the wanted rows.
    fn head(&mut self, rows: &[usize]) {
        let (ops, b, c, n) = (&*self.ops, &mut self.buffers, self.config.n_embd(), rows.len());
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        ops.select_rows(&mut b.wanted, &b.x, &rows, c);
        let last = last_norm(&self.config);
        let (w, bias) = (vector(&self.tensors[last]), vector(&self.tensors[last + 1]));
        ops.layernorm(&mut b.norm, &mut b.mean, &mut b.rstd, &b.wanted, w, bias, NormDims { n, c, eps: EPS });
        let head = [Linear { w: matrix(&self.tensors[self.config.head()]), bias: None }];
        ops.linear(&mut b.logits, &b.norm, n, &head, Store::Write);
        ops.read(&b.logits, &mut self.host[..n * self.config.vocab_size()]);
    }
}

fn vector<B: OpsInfer>(tensor: &Packed<B>) -> &B::Param {
    match tensor {
        Packed::Vector(param) => param,
        Packed::Matrix(_) => unreachable!("the parameter table has a vector here"),
    }
}

fn matrix<B: OpsInfer>(tensor: &Packed<B>) -> &B::Weight {
    match tensor {
        Packed::Matrix(weight) => weight,
        Packed::Vector(_) => unreachable!("the parameter table has a matrix here"),
    }
}

impl<B: OpsInfer> StepModel for Gpt2Infer<B> {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn backend_name(&self) -> String {
        self.name.clone()
    }

    fn step(&mut self, plan: &BatchPlan) -> Result<StepOut<'_>, PlanError> {
        self.limits.check(plan)?;
        let rows = plan.rows();
        let tables: Vec<&[u32]> = plan.seqs.iter().map(|s| &s.pages[..]).collect();
        let row_plan = RowPlan { rows: &rows, tables: &tables, page_len: PAGE_TOKENS, frequencies: &[] };
        let batch = self.ops.batch(row_plan).map_err(|e| PlanError::Backend(e.to_string()))?;
        let positions: Vec<u32> = rows.iter().map(|row| row.position).collect();
        self.ops.write_ids(&mut self.buffers.ids, &plan.tokens);
        self.ops.write_ids(&mut self.buffers.positions, &positions);
        self.blocks(plan.tokens.len(), &batch);
        if !plan.logit_rows.is_empty() {
            self.head(&plan.logit_rows);
        }
        Ok(StepOut { logits: &self.host[..plan.logit_rows.len() * self.config.vocab_size()] })
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        for pages in &mut self.pages {
            self.ops.copy_page(pages, from, to);
        }
    }
}
