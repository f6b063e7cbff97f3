//! A Llama under training.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corella_ops::{AdamW, ClassifierDims, Dtype, OpsTrain, ParamPart};

use super::activations::{ActivationGrads, Activations};
use super::backward::backward;
use super::config::LlamaConfig;
use super::forward::{Shape, forward};
use super::infer::LlamaInfer;
use super::params::{ParamSpec, head, param_specs};
use super::source::{LlamaSource, LlamaWeights};
use crate::ModelError;
use crate::memory::Recompute;
use crate::one_sequence::OneSequence;
use crate::step_options::StepOptions;
use crate::text_model::{BatchShape, ParamInfo, TextModel, TrainModel};

/// Parameters, activations and gradients of a Llama on one backend.
pub struct LlamaTrain<B: OpsTrain> {
    ops: Arc<B>,
    config: LlamaConfig,
    batch: BatchShape,
    dtype: Dtype,
    infos: Vec<ParamInfo>,
    params: Vec<B::Param>,
    acts: Activations<B>,
    grads: ActivationGrads<B>,
    inputs: B::Ids,
    targets: B::Ids,
    forward_time: Duration,
}

impl<B: OpsTrain> LlamaTrain<B> {
    /// Allocates everything for micro-batches of `batch`, activations and weights in format `dtype`, and copies the weights
    /// in.
    pub fn new(
        ops: B,
        source: &dyn LlamaSource,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Self, ModelError> {
        let config = source.config().clone();
        if batch.b == 0 || batch.t == 0 || batch.t > config.context_len {
            return Err(ModelError::BadConfig {
                field: "micro-batch",
                value: format!("{} × {}", batch.b, batch.t),
                rule: format!("at least one sequence of 1 to {} tokens", config.context_len),
            });
        }
        let table = param_specs(&config);
        let mut params = Vec::new();
        for (row, spec) in table.iter().enumerate() {
            let mut param = ops.param(spec.rows(), spec.cols, true, dtype, &spec.name)?;
            ops.param_write(&mut param, ParamPart::Value, &source.values(row)?);
            params.push(param);
        }
        Ok(LlamaTrain {
            acts: Activations::new(&ops, &config, batch, recompute, dtype)?,
            grads: ActivationGrads::new(&ops, &config, batch, dtype)?,
            inputs: ops.ids(batch.b * batch.t)?,
            targets: ops.ids(batch.b * batch.t)?,
            forward_time: Duration::ZERO,
            infos: table.iter().map(ParamSpec::info).collect(),
            params,
            batch,
            dtype,
            config,
            ops: Arc::new(ops),
        })
    }

    /// Uploads ids and runs the forward pass; returns the number of whole sequences found in `inputs`.
    fn begin(&mut self, inputs: &[u32], targets: &[u32]) -> usize {
        assert_eq!(inputs.len(), targets.len(), "inputs and targets");
        let BatchShape { b, t } = self.batch;
        assert!(inputs.len().is_multiple_of(t) && inputs.len() <= b * t, "whole sequences");
        let v = self.config.vocab_size;
        assert!(inputs.iter().chain(targets).all(|id| (*id as usize) < v), "token id outside the vocabulary of {v}");
        self.ops.write_ids(&mut self.inputs, inputs);
        self.ops.write_ids(&mut self.targets, targets);
        let shape = Shape { config: &self.config, b: inputs.len() / t, t };
        let start = Instant::now();
        forward(&*self.ops, &self.params, &mut self.acts, &self.inputs, shape);
        self.forward_time = start.elapsed();
        shape.b
    }

    fn classifier(&self, sequences: usize) -> ClassifierDims {
        ClassifierDims { n: sequences * self.batch.t, c: self.config.n_embd, v: self.config.vocab_size }
    }
}

impl<B: OpsTrain> TrainModel for LlamaTrain<B> {
    fn params(&self) -> &[ParamInfo] {
        &self.infos
    }

    fn batch_shape(&self) -> BatchShape {
        self.batch
    }

    fn backend_name(&self) -> String {
        format!("{} {}", self.ops.name(), self.dtype.name())
    }

    fn forward_backward(&mut self, inputs: &[u32], targets: &[u32], scale: f32) -> f64 {
        let b = self.begin(inputs, targets);
        let dims = self.classifier(b);
        let (ops, acts, grads) = (&*self.ops, &mut self.acts, &mut self.grads);
        let w = &mut self.params[head(&self.config)];
        let per_row = scale / dims.n as f32;
        ops.classifier_grad(&mut acts.losses, &mut grads.narrow, &acts.norm, w, &self.targets, per_row, dims);
        let shape = Shape { config: &self.config, b, t: self.batch.t };
        backward(ops, &mut self.params, acts, grads, &self.inputs, shape);
        ops.sum(&acts.losses, dims.n) / dims.n as f64
    }

    fn forward_time(&self) -> Duration {
        self.forward_time
    }

    fn loss_sum(&mut self, inputs: &[u32], targets: &[u32]) -> f64 {
        let b = self.begin(inputs, targets);
        let (dims, w) = (self.classifier(b), &self.params[head(&self.config)]);
        self.ops.classifier(&mut self.acts.losses, &self.acts.norm, w, &self.targets, dims);
        self.ops.sum(&self.acts.losses, dims.n)
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
        for (param, info) in self.params.iter_mut().zip(&self.infos) {
            let weight_decay = if info.decay { hyper.weight_decay } else { 0.0 };
            self.ops.adamw(param, AdamW { weight_decay, ..hyper });
        }
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
        let tensors = (0..self.params.len()).map(|i| self.read(i, ParamPart::Value)).collect();
        let weights = LlamaWeights { config: self.config.clone(), tensors };
        let options = StepOptions::one_sequence(self.config.context_len);
        Ok(Box::new(OneSequence::new(LlamaInfer::<B::Sampler>::new(self.ops.sampler(), &weights, options)?)))
    }
}
