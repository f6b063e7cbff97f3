//! A model under training: what does not depend on the family.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corella_ops::{AdamW, Choices, ClassifierDims, Dtype, OpsError, OpsInfer, OpsTrain, ParamPart};

use crate::ModelError;
use crate::memory::Recompute;
use crate::params::{ModelConfig, ParamSpec};
use crate::source::{Source, UnderTraining};
use crate::text_model::{BatchShape, ParamInfo, TextModel, TrainModel};

/// Activations and their gradients of a family.
pub type Allocated<N, B> = (<N as Network>::Activations<B>, <N as Network>::Gradients<B>);

/// What a family computes, on any backend. `batch` is that of the call: B may be smaller than what was allocated for.
pub trait Network: ModelConfig {
    /// What the forward pass leaves for the backward pass.
    type Activations<B: OpsTrain>: Send + Sync;
    /// Gradients of activations.
    type Gradients<B: OpsTrain>: Send + Sync;

    /// Allocates both for micro-batches of `batch`.
    fn allocate<B: OpsTrain>(
        &self,
        ops: &B,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Allocated<Self, B>, OpsError>;

    /// From token ids to the last norm's output.
    fn forward<B: OpsTrain>(
        &self,
        ops: &B,
        p: &[B::Param],
        acts: &mut Self::Activations<B>,
        ids: &B::Ids,
        batch: BatchShape,
    );

    /// The last norm's output (N, C), and the place for its gradient.
    fn output<'a, B: OpsTrain>(
        acts: &'a Self::Activations<B>,
        grads: &'a mut Self::Gradients<B>,
    ) -> (&'a B::Buf, &'a mut B::Buf);

    /// From the gradient of the last norm's output to the gradients of every parameter, which are added to.
    fn backward<B: OpsTrain>(
        &self,
        ops: &B,
        p: &mut [B::Param],
        acts: &mut Self::Activations<B>,
        grads: &mut Self::Gradients<B>,
        ids: &B::Ids,
        batch: BatchShape,
    );

    /// A copy of the weights that continues text.
    fn text_model<B: OpsInfer>(ops: Arc<B>, weights: &dyn Source<Self>) -> Result<Box<dyn TextModel>, ModelError>;
}

/// Parameters, activations and gradients of a model on one backend.
pub struct Training<B: OpsTrain, C: Network> {
    ops: Arc<B>,
    config: C,
    batch: BatchShape,
    dtype: Dtype,
    infos: Vec<ParamInfo>,
    /// In the order of the parameter table.
    params: Vec<B::Param>,
    acts: C::Activations<B>,
    grads: C::Gradients<B>,
    /// Loss of each row (N).
    losses: B::Buf,
    inputs: B::Ids,
    targets: B::Ids,
    forward_time: Duration,
}

impl<B: OpsTrain, C: Network> Training<B, C> {
    /// Allocates everything for micro-batches of `batch`, activations and weights in format `dtype`, and copies the weights
    /// in.
    pub fn new(
        ops: B,
        source: &dyn Source<C>,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Self, ModelError> {
        let config = source.config().clone();
        if batch.b == 0 || batch.t == 0 || batch.t > config.context_len() {
            return Err(ModelError::BadConfig {
                field: "micro-batch",
                value: format!("{} × {}", batch.b, batch.t),
                rule: format!("at least one sequence of 1 to {} tokens", config.context_len()),
            });
        }
        ops.check_heads(config.head_size())?;
        let table = config.table();
        let mut params = Vec::new();
        for (row, spec) in table.iter().enumerate() {
            let mut param = ops.param(spec.rows(), spec.cols, true, dtype, &spec.name)?;
            ops.param_write(&mut param, ParamPart::Value, &source.values(row)?);
            params.push(param);
        }
        let (acts, grads) = config.allocate(&ops, batch, recompute, dtype)?;
        let n = batch.b * batch.t;
        Ok(Training {
            losses: ops.buf(n, Dtype::F32, "losses")?,
            inputs: ops.ids(n)?,
            targets: ops.ids(n)?,
            forward_time: Duration::ZERO,
            infos: table.iter().map(ParamSpec::info).collect(),
            ops: Arc::new(ops),
            params,
            acts,
            grads,
            batch,
            dtype,
            config,
        })
    }

    /// Uploads ids and runs the forward pass; returns the whole sequences found in `inputs`, and what classifies them.
    fn begin(&mut self, inputs: &[u32], targets: &[u32]) -> (BatchShape, ClassifierDims) {
        assert_eq!(inputs.len(), targets.len(), "inputs and targets");
        let BatchShape { b, t } = self.batch;
        assert!(inputs.len().is_multiple_of(t) && inputs.len() <= b * t, "whole sequences");
        let v = self.config.vocab_size();
        assert!(inputs.iter().chain(targets).all(|id| (*id as usize) < v), "token id outside the vocabulary of {v}");
        self.ops.write_ids(&mut self.inputs, inputs);
        self.ops.write_ids(&mut self.targets, targets);
        let found = BatchShape { b: inputs.len() / t, t };
        let start = Instant::now();
        self.config.forward(&*self.ops, &self.params, &mut self.acts, &self.inputs, found);
        self.forward_time = start.elapsed();
        (found, ClassifierDims { n: inputs.len(), c: self.config.width(), v })
    }
}

impl<B: OpsTrain, C: Network> TrainModel for Training<B, C> {
    fn params(&self) -> &[ParamInfo] {
        &self.infos
    }

    fn batch_shape(&self) -> BatchShape {
        self.batch
    }

    fn backend_name(&self) -> String {
        format!("{} {}", self.ops.name(), self.dtype.name())
    }

    fn choices(&self) -> Choices {
        self.ops.choices()
    }

    fn take_choices(&mut self, choices: &Choices) {
        self.ops.take_choices(choices);
    }

    fn forward_backward(&mut self, inputs: &[u32], targets: &[u32], scale: f32) -> f64 {
        let (found, dims) = self.begin(inputs, targets);
        let (ops, w, per_row) = (&*self.ops, &mut self.params[self.config.head()], scale / dims.n as f32);
        let (x, dx) = C::output::<B>(&self.acts, &mut self.grads);
        ops.classifier_grad(&mut self.losses, dx, x, w, &self.targets, per_row, dims);
        self.config.backward(ops, &mut self.params, &mut self.acts, &mut self.grads, &self.inputs, found);
        ops.sum(&self.losses, dims.n) / dims.n as f64
    }

    fn forward_time(&self) -> Duration {
        self.forward_time
    }

    fn loss_sum(&mut self, inputs: &[u32], targets: &[u32]) -> f64 {
        let (_, dims) = self.begin(inputs, targets);
        let (x, _) = C::output::<B>(&self.acts, &mut self.grads);
        self.ops.classifier(&mut self.losses, x, &self.params[self.config.head()], &self.targets, dims);
        self.ops.sum(&self.losses, dims.n)
    }

    fn zero_grad(&mut self) {
        for param in &mut self.params {
            self.ops.zero_grad(param);
        }
    }

    fn grad_norm(&self) -> f64 {
        self.ops.grad_square_sums(&self.params).sqrt()
    }

    fn adamw(&mut self, hyper: AdamW) {
        let decay = |info: &ParamInfo| if info.decay { hyper.weight_decay } else { 0.0 };
        let decays: Vec<f32> = self.infos.iter().map(decay).collect();
        self.ops.adamw_all(&mut self.params, hyper, &decays);
    }

    fn read(&self, index: usize, part: ParamPart) -> Vec<f32> {
        let mut out = vec![0.0; self.infos[index].shape.iter().product()];
        self.ops.param_read(&self.params[index], part, &mut out);
        out
    }

    fn write(&mut self, index: usize, part: ParamPart, values: &[f32]) {
        self.ops.param_write(&mut self.params[index], part, values);
    }

    fn text_model(&mut self) -> Result<Box<dyn TextModel + '_>, ModelError> {
        C::text_model(self.ops.sampler(), &UnderTraining::new(&self.config, &*self))
    }
}
