//! What training needs of a Llama: the passes of this folder behind the trait that both families have.

use std::sync::Arc;

use corella_ops::{Dtype, KvKind, OpsError, OpsInfer, OpsTrain};

use super::activations::{ActivationGrads, Activations};
use super::backward::backward;
use super::config::LlamaConfig;
use super::forward::{Shape, forward};
use super::infer::LlamaInfer;
use crate::ModelError;
use crate::memory::Recompute;
use crate::one_sequence::OneSequence;
use crate::source::Source;
use crate::step_options::StepOptions;
use crate::text_model::{BatchShape, TextModel};
use crate::training::Network;

impl Network for LlamaConfig {
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
        forward(ops, p, acts, ids, Shape { config: self, batch });
    }

    fn output<'a, B: OpsTrain>(
        acts: &'a Activations<B>,
        grads: &'a mut ActivationGrads<B>,
    ) -> (&'a B::Buf, &'a mut B::Buf) {
        (&acts.norm, &mut grads.narrow)
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
        backward(ops, p, acts, grads, ids, Shape { config: self, batch });
    }

    fn text_model<B: OpsInfer>(ops: Arc<B>, weights: &dyn Source<Self>) -> Result<Box<dyn TextModel>, ModelError> {
        // As `eval` does: two choices may lie closer together than the rounding of keys and values to half precision.
        let one = StepOptions::one_sequence(weights.config().context_len);
        let options = StepOptions { kv_kind: KvKind::F32, ..one };
        Ok(Box::new(OneSequence::new(LlamaInfer::<B>::new(ops, weights, options)?)))
    }
}
