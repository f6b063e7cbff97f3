//! A step of a model that generates, the same for both families: plan in, what is wanted of its tokens out.
//!
//! What lies between, call by call, is a family's [`Layers`]: gpt2/infer.rs, llama/infer.rs.

use std::sync::Arc;

use corella_ops::{BatchPlan as RowPlan, HeadDims, KvPagesDims, OpsInfer};

use crate::ModelError;
use crate::params::ModelConfig;
use crate::source::Source;
use crate::step::{BatchPlan, PlanError, Results, StepLimits, StepModel, StepOut, padded};
use crate::step_options::{PAGE_TOKENS, StepOptions};

/// The network of a family with what a step reads and writes, on one backend.
pub trait Layers<B: OpsInfer>: Send + Sized {
    /// Shape of the model.
    type Config: ModelConfig;

    /// Loads the weights, and allocates the activations of a step.
    fn load(ops: &B, source: &dyn Source<Self::Config>, limits: StepLimits) -> Result<Self, ModelError>;
    /// Number and size of the heads.
    fn heads(config: &Self::Config) -> HeadDims;
    /// Layers, each of which has keys and values of its own.
    fn count(config: &Self::Config) -> usize;
    /// Radians per position of each rotary pair; none without rotary positions.
    fn frequencies(config: &Self::Config) -> Vec<f32>;
    /// Takes tokens and their positions (N).
    fn feed(&mut self, ops: &B, ids: &[u32], positions: &[u32]);
    /// The blocks, for the N tokens of a plan. `pages`: for each layer its keys and values.
    fn blocks(&mut self, ops: &B, n: usize, pages: &mut [B::KvPages], batch: &B::Batch);
    /// Last norm and output head of `n` rows: those that are listed, or the first ones.
    fn head(&mut self, ops: &B, n: usize, rows: Option<&[u32]>);
    /// Logits (R, V) that the head wrote.
    fn logits(&mut self) -> &mut B::Buf;
}

/// A model that continues many sequences over a paged KV cache.
pub struct Stepping<B: OpsInfer, L> {
    pub(crate) ops: Arc<B>,
    pub(crate) layers: L,
    limits: StepLimits,
    name: String,
    frequencies: Vec<f32>,
    pages: Vec<B::KvPages>,
    recorded: B::Recorded,
    results: Results,
}

impl<B: OpsInfer, L: Layers<B>> Stepping<B, L> {
    /// Loads the weights and allocates everything that steps need.
    pub fn new(
        ops: impl Into<Arc<B>>,
        source: &dyn Source<L::Config>,
        options: StepOptions,
    ) -> Result<Self, ModelError> {
        let (ops, config, kind) = (ops.into(), source.config(), options.kv_kind);
        ops.check_heads(config.head_size())?;
        let limits = options.limits(config.context_len(), config.vocab_size(), config.kv_token_bytes(kind))?;
        let mut layers = L::load(&*ops, source, limits)?;
        let HeadDims { nkv, hs, .. } = L::heads(config);
        let dims = KvPagesDims { pages: limits.pages, page_len: PAGE_TOKENS, nkv, hs, kind };
        Ok(Stepping {
            name: format!("{} kv {}", ops.name(), kind.name()),
            frequencies: L::frequencies(config),
            pages: (0..L::count(config)).map(|_| ops.kv_pages(dims)).collect::<Result<_, _>>()?,
            results: Results::new(&*ops, layers.logits(), &limits),
            recorded: B::Recorded::default(),
            layers,
            limits,
            ops,
        })
    }
}

impl<B: OpsInfer, L: Layers<B>> StepModel for Stepping<B, L> {
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
        let (ops, layers, pages, wanted) = (&*self.ops, &mut self.layers, &mut self.pages, plan.wanted_len());
        let (rows, tables) = (plan.rows(), plan.tables());
        let row_plan = RowPlan { rows: &rows, tables: &tables, page_len: PAGE_TOKENS, frequencies: &self.frequencies };
        let positions: Vec<u32> = rows.iter().map(|row| row.position).collect();
        if plan.is_decode() {
            let n = ops.decode_rows(wanted);
            let batch = ops.decode_batch(row_plan)?;
            layers.feed(ops, &padded(&plan.tokens, n), &padded(&positions, n));
            ops.repeat(&mut self.recorded, &batch, &mut || {
                layers.blocks(ops, n, pages, &batch);
                layers.head(ops, n, None);
            });
        } else {
            let batch = ops.batch(row_plan)?;
            layers.feed(ops, &plan.tokens, &positions);
            layers.blocks(ops, rows.len(), pages, &batch);
            if wanted > 0 {
                layers.head(ops, wanted, Some(&plan.wanted()));
            }
        }
        self.results.take(ops, layers.logits(), plan, self.limits.vocab_size)
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        for pages in &mut self.pages {
            self.ops.copy_page(pages, from, to);
        }
    }
}
