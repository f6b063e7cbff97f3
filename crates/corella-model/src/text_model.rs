//! The two faces of a model once the backend is erased: one for the trainer, one for generation.

use std::path::Path;
use std::time::Duration;

pub use corella_ops::{AdamW, Choices, Dtype, ParamPart};

use crate::ModelError;

/// Micro-batch: B sequences of T tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
}

/// One row of the parameter table, as the trainer and the checkpoint see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// Name, unique in the model, e.g. `h.0.attn.c_attn.weight`.
    pub name: String,
    /// Shape as held in memory, (out, in) for matrices.
    pub shape: Vec<usize>,
    /// Whether weight decay applies (matrices and embeddings only).
    pub decay: bool,
}

/// What the trainer needs of a model.
pub trait TrainModel: Send + Sync {
    /// The parameter table, in its one order.
    fn params(&self) -> &[ParamInfo];
    /// Shape of the micro-batches.
    fn batch_shape(&self) -> BatchShape;
    /// Device, kernel path and number format, recorded with the results.
    fn backend_name(&self) -> String;
    /// See [`OpsTrain::choices`](corella_ops::OpsTrain::choices).
    fn choices(&self) -> Choices;
    /// See [`OpsTrain::take_choices`](corella_ops::OpsTrain::take_choices).
    fn take_choices(&mut self, choices: &Choices);
    /// Forward and backward of one micro-batch (B·T inputs and targets): gradients += scale · d(mean loss).
    /// Returns the mean loss, in nats per token.
    fn forward_backward(&mut self, inputs: &[u32], targets: &[u32], scale: f32) -> f64;
    /// How long the forward part of the last [`TrainModel::forward_backward`] took, up to the last hidden states: the
    /// output head computes loss and gradient together, and counts to the backward part.
    fn forward_time(&self) -> Duration;
    /// Σ of the losses of one micro-batch, forward only.
    fn loss_sum(&mut self, inputs: &[u32], targets: &[u32]) -> f64;
    /// Gradients = 0.
    fn zero_grad(&mut self);
    /// Euclidean norm of all gradients together.
    fn grad_norm(&self) -> f64;
    /// One AdamW update of every parameter; `weight_decay` applies to the rows marked `decay`.
    fn adamw(&mut self, hyper: AdamW);
    /// Copies one part of parameter `index` to the host.
    fn read(&self, index: usize, part: ParamPart) -> Vec<f32>;
    /// Replaces one part of parameter `index`.
    fn write(&mut self, index: usize, part: ParamPart, values: &[f32]);
    /// The current weights as a model that continues text.
    fn text_model(&mut self) -> Result<Box<dyn TextModel + '_>, ModelError>;
}

/// What generation needs of a model: feed tokens, get the logits that follow.
pub trait TextModel {
    /// Most tokens that fit in the context.
    fn context_len(&self) -> usize;
    /// Number of logits.
    fn vocab_size(&self) -> usize;
    /// Forgets everything fed so far.
    fn reset(&mut self);
    /// Goes back to a position that was passed: the tokens fed from there on are forgotten, those before it are kept.
    /// Panics if fewer tokens were fed.
    fn rewind(&mut self, position: usize);
    /// Tokens fed since the last reset, less what was gone back.
    fn position(&self) -> usize;
    /// Feeds tokens (at least one, and no more than fit); returns the logits (V) after the last of them.
    /// Panics if the context would overflow or an id is outside the vocabulary: callers check first.
    fn feed(&mut self, tokens: &[u32]) -> &[f32];
    /// Feeds tokens and calls `each` with the number of every one of them and the logits (V) after it.
    /// Panics as [`TextModel::feed`] does.
    fn feed_each(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) {
        for (i, token) in tokens.iter().enumerate() {
            each(i, self.feed(std::slice::from_ref(token)));
        }
    }
}

/// How a model under training is written to and read from a checkpoint folder.
pub trait ModelFiles: Send {
    /// Writes configuration and weights into `dir`, each file synced.
    fn save(&self, model: &dyn TrainModel, dir: &Path) -> Result<(), ModelError>;
    /// Reads the weights back; an error if configuration or shapes differ.
    fn load(&self, model: &mut dyn TrainModel, dir: &Path) -> Result<(), ModelError>;
    /// The configuration as JSON, to compare a checkpoint with.
    fn describe(&self) -> String;
}
