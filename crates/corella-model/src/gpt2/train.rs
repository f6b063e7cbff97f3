//! A GPT-2 under training.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corella_ops::{AdamW, ClassifierDims, Dtype, OpsInfer, OpsTrain, ParamPart};

use super::activations::{ActivationGrads, Activations};
use super::backward::backward;
use super::config::Gpt2Config;
use super::decode::Decoding;
use super::forward::{Shape, forward};
use super::params::{WTE, param_specs};
use super::weights::Gpt2Weights;
use crate::ModelError;
use crate::memory::Recompute;
use crate::text_model::{BatchShape, ParamInfo, TextModel, TrainModel};

/// Parameters, activations and gradients of a GPT-2 on one backend.
pub struct Gpt2Train<B: OpsTrain> {
    ops: Arc<B>,
    config: Gpt2Config,
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

impl<B: OpsTrain> Gpt2Train<B> {
    /// Allocates everything for micro-batches of `batch`, activations and weights in format `dtype`, and copies the weights
    /// in.
    pub fn new(
        ops: B,
        weights: &Gpt2Weights,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<Self, ModelError> {
        let config = weights.config.clone();
        if batch.b == 0 || batch.t == 0 || batch.t > config.seq_len() {
            return Err(ModelError::BadConfig {
                field: "micro-batch",
                value: format!("{} × {}", batch.b, batch.t),
                rule: format!("at least one sequence of 1 to {} tokens", config.seq_len()),
            });
        }
        let table = param_specs(&config);
        let mut params = Vec::new();
        for (spec, values) in table.iter().zip(&weights.tensors) {
            let mut param = ops.param(spec.rows, spec.cols, true, dtype, &spec.name)?;
            ops.param_write(&mut param, ParamPart::Value, values);
            params.push(param);
        }
        Ok(Gpt2Train {
            acts: Activations::new(&ops, &config, batch, recompute, dtype)?,
            grads: ActivationGrads::new(&ops, &config, batch, dtype)?,
            inputs: ops.ids(batch.b * batch.t)?,
            targets: ops.ids(batch.b * batch.t)?,
            forward_time: Duration::ZERO,
            infos: table.iter().map(super::params::ParamSpec::info).collect(),
            params,
            batch,
            dtype,
            config,
            ops: Arc::new(ops),
        })
    }

    /// Uploads ids and runs the forward pass; returns the shapes of whole sequences found in `inputs`.
    fn begin(&mut self, inputs: &[u32], targets: &[u32]) -> (Shape, ClassifierDims) {
        assert_eq!(inputs.len(), targets.len(), "inputs and targets");
        assert!(
            inputs.len().is_multiple_of(self.batch.t) && inputs.len() <= self.batch.b * self.batch.t,
            "whole sequences"
        );
        let v = self.config.vocab_size();
        assert!(inputs.iter().chain(targets).all(|id| (*id as usize) < v), "token id outside the vocabulary of {v}");
        self.ops.write_ids(&mut self.inputs, inputs);
        self.ops.write_ids(&mut self.targets, targets);
        let shape = Shape::new(&self.config, inputs.len() / self.batch.t, self.batch.t);
        let start = Instant::now();
        forward(&*self.ops, &self.config, &self.params, &mut self.acts, &self.inputs, shape);
        self.forward_time = start.elapsed();
        (shape, ClassifierDims { n: shape.n(), c: shape.c, v })
    }

    fn sum_of_losses(&self, n: usize) -> f64 {
        self.ops.sum(&self.acts.losses, n)
    }

    fn len(&self, index: usize) -> usize {
        self.infos[index].shape.iter().product()
    }
}

impl<B: OpsTrain> TrainModel for Gpt2Train<B> {
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
        let (shape, dims) = self.begin(inputs, targets);
        let per_row = scale / shape.n() as f32;
        let (acts, grads, wte) = (&mut self.acts, &mut self.grads, &mut self.params[WTE]);
        let ops = &*self.ops;
        ops.classifier_grad(&mut acts.losses, &mut grads.narrow, &acts.lnf, wte, &self.targets, per_row, dims);
        backward(ops, &self.config, &mut self.params, acts, grads, &self.inputs, shape);
        self.sum_of_losses(shape.n()) / shape.n() as f64
    }

    fn forward_time(&self) -> Duration {
        self.forward_time
    }

    fn loss_sum(&mut self, inputs: &[u32], targets: &[u32]) -> f64 {
        let (shape, dims) = self.begin(inputs, targets);
        self.ops.classifier(&mut self.acts.losses, &self.acts.lnf, &self.params[WTE], &self.targets, dims);
        self.sum_of_losses(shape.n())
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
        let mut out = vec![0.0; self.len(index)];
        self.ops.param_read(&self.params[index], part, &mut out);
        out
    }

    fn write(&mut self, index: usize, part: ParamPart, values: &[f32]) {
        self.ops.param_write(&mut self.params[index], part, values);
    }

    fn text_model(&mut self) -> Result<Box<dyn TextModel + '_>, ModelError> {
        // Generation reads each weight once per token: a copy in the layout for that soon pays.
        let ops = self.ops.sampler();
        let mut params = Vec::new();
        for (index, spec) in param_specs(&self.config).iter().enumerate() {
            let mut param = ops.param(spec.rows, spec.cols, false, Dtype::F32, &spec.name)?;
            ops.param_write(&mut param, ParamPart::Value, &self.read(index, ParamPart::Value));
            params.push(param);
        }
        let state = Decoding::new(&*ops, &self.config)?;
        Ok(Box::new(Sampling { ops, config: &self.config, params, state }))
    }
}

/// The weights under training, as a model that continues text.
struct Sampling<'a, B: OpsInfer> {
    ops: Arc<B>,
    config: &'a Gpt2Config,
    params: Vec<B::Param>,
    state: Decoding<B>,
}

impl<B: OpsInfer> TextModel for Sampling<'_, B> {
    fn context_len(&self) -> usize {
        self.config.seq_len()
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size()
    }

    fn reset(&mut self) {
        self.state.reset();
    }

    fn position(&self) -> usize {
        self.state.position()
    }

    fn feed(&mut self, tokens: &[u32]) -> &[f32] {
        self.state.feed(&*self.ops, self.config, &self.params, tokens)
    }
}
