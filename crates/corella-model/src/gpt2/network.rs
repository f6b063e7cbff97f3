//! What training needs of a GPT-2: the passes of this folder behind the trait that both families have.

use std::sync::Arc;

use corella_ops::{Dtype, OpsError, OpsInfer, OpsTrain};

use super::activations::{ActivationGrads, Activations};
use super::backward::backward;
use super::config::Gpt2Config;
use super::decode::Gpt2Exact;
use super::forward::{Shape, forward};
use crate::ModelError;
use crate::memory::Recompute;
use crate::source::Source;
use crate::text_model::{BatchShape, TextModel};
use crate::training::Network;

impl Network for Gpt2Config {
    type Activations<B: OpsTrain> = Activations<B>;
    type Gradients<B: OpsTrain> = ActivationGrads<B>;

    fn allocate<B: OpsTrain>(
        &self,
        ops: &B,
        batch: BatchShape,
        recompute: Recompute,
        dtype: Dtype,
    ) -> Result<(Activations<B>, ActivationGrads<B>), OpsError> {
        Ok((Activations::new(ops, self, batch, recompute, dtype)?, ActivationGrads::new(ops, self, batch, dtype)?))
    }

    fn forward<B: OpsTrain>(
        &self,
        ops: &B,
        p: &[B::Param],
        acts: &mut Activations<B>,
        ids: &B::Ids,
        batch: BatchShape,
    ) {
        forward(ops, self, p, acts, ids, Shape::new(self, batch));
    }

    fn output<'a, B: OpsTrain>(
        acts: &'a Activations<B>,
        grads: &'a mut ActivationGrads<B>,
    ) -> (&'a B::Buf, &'a mut B::Buf) {
        (&acts.lnf, &mut grads.narrow)
    }

    fn backward<B: OpsTrain>(
        &self,
        ops: &B,
        p: &mut [B::Param],
        acts: &mut Activations<B>,
        grads: &mut ActivationGrads<B>,
        ids: &B::Ids,
        batch: BatchShape,
    ) {
        backward(ops, self, p, acts, grads, ids, Shape::new(self, batch));
    }

    fn text_model<B: OpsInfer>(ops: Arc<B>, weights: &dyn Source<Self>) -> Result<Box<dyn TextModel>, ModelError> {
        Ok(Box::new(Gpt2Exact::<B>::new(ops, weights)?))
    }
}
