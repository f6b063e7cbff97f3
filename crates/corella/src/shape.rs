//! The shape of a model to train, of either family.

use corella_model::gpt2::{self, Gpt2Config};
use corella_model::llama::{self, LlamaConfig, LlamaShape, Rope, RopeScaling};
use corella_model::memory::{MemoryPlan, Recompute};
use corella_model::params::{ModelConfig, ParamSpec};
use corella_model::{AnyModel, BatchShape, Dtype};
use corella_train::{Family, ModelPlan};

use crate::error::Result;

/// Names of the published GPT-2.
pub const GPT2_PRESETS: [&str; 4] = ["gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m"];
/// The name of a Llama with a shape of one's own.
pub const LLAMA_CUSTOM: &str = "llama-custom";
/// The name of a GPT-2 with a shape of one's own.
pub const GPT2_CUSTOM: &str = "gpt2-custom";
/// Base of the rotary frequencies of a new Llama, as in Llama 3.
const ROPE_THETA: f64 = 500_000.0;
/// Width of the feed-forward layer where none is given: two thirds of GPT-2's, because it has three matrices, in whole
/// multiples of this.
const FEED_FORWARD_STEP: usize = 32;

/// Names of all published shapes.
pub fn presets() -> Vec<&'static str> {
    [&GPT2_PRESETS[..], &LlamaConfig::PRESETS].concat()
}

/// Tokens of a sequence of [`small_gpt2`].
pub const SMALL_SEQ_LEN: usize = 256;

/// A GPT-2 that a laptop trains in minutes: the tour's, and what is trained where nothing else is said.
pub fn small_gpt2(vocab_size: usize) -> ModelPlan {
    ModelPlan {
        name: GPT2_CUSTOM.to_owned(),
        n_layer: 4,
        n_head: 4,
        n_embd: 256,
        n_kv_head: None,
        n_ff: None,
        tied: None,
        seq_len: SMALL_SEQ_LEN,
        vocab_size,
    }
}

/// A shape of either family.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelShape {
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// Llama.
    Llama(LlamaConfig),
}

impl ModelShape {
    /// The published model of a name.
    pub fn preset(name: &str) -> Option<Self> {
        Gpt2Config::preset(name).map(ModelShape::Gpt2).or_else(|| LlamaConfig::preset(name).map(ModelShape::Llama))
    }

    /// The shape of a model that is there.
    pub fn of_model(model: &AnyModel) -> Self {
        match model {
            AnyModel::Gpt2(checkpoint) => ModelShape::Gpt2(checkpoint.config.clone()),
            AnyModel::Llama(checkpoint) => ModelShape::Llama(checkpoint.config.clone()),
        }
    }

    /// The hub's name of the base model with the weights that were published in a shape.
    pub fn published(name: &str) -> Option<&'static str> {
        Some(match name {
            "gpt2-124m" => "openai-community/gpt2",
            "gpt2-355m" => "openai-community/gpt2-medium",
            "gpt2-774m" => "openai-community/gpt2-large",
            "gpt2-1558m" => "openai-community/gpt2-xl",
            "llama-3-8b" => "meta-llama/Meta-Llama-3-8B",
            "llama-3-70b" => "meta-llama/Meta-Llama-3-70B",
            "llama-3.1-8b" => "meta-llama/Llama-3.1-8B",
            "llama-3.1-70b" => "meta-llama/Llama-3.1-70B",
            "llama-3.1-405b" => "meta-llama/Llama-3.1-405B",
            "llama-3.2-1b" => "meta-llama/Llama-3.2-1B",
            "llama-3.2-3b" => "meta-llama/Llama-3.2-3B",
            // Of 3.3 no base model was published.
            _ => return None,
        })
    }

    /// The shape of a plan.
    pub fn of(plan: &ModelPlan) -> Result<Self> {
        if plan.family() == Family::Gpt2 {
            let config = Gpt2Config::new(plan.vocab_size, plan.n_layer, plan.n_head, plan.n_embd, plan.seq_len)?;
            return Ok(ModelShape::Gpt2(config));
        }
        let preset = LlamaConfig::preset(&plan.name);
        let head_size = match &preset {
            Some(p) => p.head_size,
            None => plan.n_embd.checked_div(plan.n_head).unwrap_or(0),
        };
        Ok(ModelShape::Llama(LlamaConfig::new(LlamaShape {
            vocab_size: plan.vocab_size,
            n_layer: plan.n_layer,
            n_head: plan.n_head,
            n_kv_head: plan.n_kv_head.unwrap_or(plan.n_head),
            head_size,
            n_embd: plan.n_embd,
            n_ff: plan.n_ff.unwrap_or((8 * plan.n_embd / 3).next_multiple_of(FEED_FORWARD_STEP)),
            context_len: plan.seq_len,
            norm_eps: 1e-5,
            tied: plan.tied.unwrap_or_else(|| preset.as_ref().is_none_or(|p| p.tied)),
            rope: preset.map_or(Rope { theta: ROPE_THETA, scaling: RopeScaling::None }, |p| p.rope.clone()),
        })?))
    }

    /// The shape as the plan of a model of this name.
    pub fn plan(&self, name: &str) -> ModelPlan {
        let mut plan = ModelPlan { name: name.to_owned(), ..small_gpt2(0) };
        self.set_plan(&mut plan);
        plan
    }

    /// Writes the shape into a plan, the context and the vocabulary too.
    pub fn set_plan(&self, plan: &mut ModelPlan) {
        match self {
            ModelShape::Gpt2(c) => {
                (plan.n_layer, plan.n_head, plan.n_embd) = (c.n_layer(), c.n_head(), c.n_embd());
                (plan.n_kv_head, plan.n_ff, plan.tied) = (None, None, None);
                (plan.seq_len, plan.vocab_size) = (c.seq_len(), c.vocab_size());
            }
            ModelShape::Llama(c) => {
                (plan.n_layer, plan.n_head, plan.n_embd) = (c.n_layer, c.n_head, c.n_embd);
                (plan.n_kv_head, plan.n_ff, plan.tied) = (Some(c.n_kv_head), Some(c.n_ff), Some(c.tied));
                (plan.seq_len, plan.vocab_size) = (c.context_len, c.vocab_size);
            }
        }
    }

    /// Tokens that can be predicted.
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelShape::Gpt2(c) => c.vocab_size(),
            ModelShape::Llama(c) => c.vocab_size,
        }
    }

    /// Positions that the model has.
    pub fn context_len(&self) -> usize {
        match self {
            ModelShape::Gpt2(c) => c.seq_len(),
            ModelShape::Llama(c) => c.context_len,
        }
    }

    /// All parameters.
    pub fn parameter_count(&self) -> usize {
        match self {
            ModelShape::Gpt2(c) => c.parameter_count(),
            ModelShape::Llama(c) => c.parameter_count(),
        }
    }

    /// Parameters that a token is multiplied with: all, but for an embedding that is not the output head too.
    pub fn product_parameters(&self) -> usize {
        match self {
            ModelShape::Llama(c) if !c.tied => c.parameter_count() - c.vocab_size * c.n_embd,
            _ => self.parameter_count(),
        }
    }

    /// Numbers of the largest tensor.
    pub fn largest_tensor(&self) -> usize {
        fn largest<C: ModelConfig>(config: &C) -> usize {
            config.table().iter().map(ParamSpec::len).max().unwrap_or(0)
        }
        match self {
            ModelShape::Gpt2(c) => largest(c),
            ModelShape::Llama(c) => largest(c),
        }
    }

    /// Blocks, heads, width.
    pub fn sizes(&self) -> (usize, usize, usize) {
        match self {
            ModelShape::Gpt2(c) => (c.n_layer(), c.n_head(), c.n_embd()),
            ModelShape::Llama(c) => (c.n_layer, c.n_head, c.n_embd),
        }
    }

    /// Memory of a training run.
    pub fn memory(&self, batch: BatchShape, recompute: Recompute, dtype: Dtype) -> MemoryPlan {
        match self {
            ModelShape::Gpt2(c) => gpt2::memory_plan(c, batch, recompute, dtype),
            ModelShape::Llama(c) => llama::memory_plan(c, batch, recompute, dtype),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_a_head_of_its_own() {
        for tied in [true, false] {
            let shape = ModelShape::Llama(
                LlamaConfig::new(LlamaShape {
                    vocab_size: 512,
                    n_layer: 1,
                    n_head: 2,
                    n_kv_head: 1,
                    head_size: 32,
                    n_embd: 64,
                    n_ff: 96,
                    context_len: 64,
                    norm_eps: 1e-5,
                    tied,
                    rope: Rope { theta: ROPE_THETA, scaling: RopeScaling::None },
                })
                .expect("valid"),
            );
            let head = if tied { 0 } else { 512 * 64 };
            let planned = ModelShape::of(&shape.plan(LLAMA_CUSTOM)).expect("a shape");
            assert_eq!(planned, shape);
            assert_eq!(planned.parameter_count() - planned.product_parameters(), head, "of an embedding alone");
        }
    }
}
