//! Llama in the files of others: the names of its tensors, and its shape as GGUF's keys.

use std::path::Path;

use super::config::{LlamaConfig, LlamaShape};
use super::params::Tensor;
use super::rope::{Rope, RopeScaling};
use super::{config_json, llama2c};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::Exchange;
use crate::exchange::gguf::{Keys, fraction, whole};
use crate::formats::gguf::Value;
use crate::formats::sniff::Kind;
use crate::place::RowOrder;
use crate::special_ids::SpecialIds;

/// The tensor of GGUF that holds a divisor for each rotary frequency.
const GGUF_ROPE_DIVISORS: &str = "rope_freqs.weight";
/// The key of the context that was first trained on. llama.cpp computes with the divisors alone; the rule that they come from
/// is found again by it.
const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";

impl Exchange for LlamaConfig {
    const ARCHITECTURE: &'static str = "llama";
    const OWN_FILE: Kind = Kind::PerhapsLlama2C;
    const EMBEDDING: Tensor = Tensor::Embedding;
    const HEAD: Tensor = Tensor::Head;
    const GGUF_EXTRA: Option<&'static str> = Some(GGUF_ROPE_DIVISORS);

    fn tied(&self) -> bool {
        self.tied
    }

    fn with_own_head(&self) -> Result<Self, ModelError> {
        LlamaConfig::new(LlamaShape { tied: false, ..LlamaShape::clone(self) })
    }

    fn open_own_file(path: &Path) -> Result<Checkpoint<Self>, ModelError> {
        llama2c::open(path)
    }

    fn from_json(text: &str, path: &Path) -> Result<(Self, SpecialIds), ModelError> {
        config_json::read(text, path)
    }

    fn to_json(&self, special: &SpecialIds, dtype: &str) -> Result<serde_json::Value, ModelError> {
        config_json::write(self, special, dtype)
    }

    fn hugging_face_names(&self, tensor: Tensor, layer: Option<usize>) -> Vec<String> {
        let rest = match tensor {
            Tensor::Embedding => "embed_tokens",
            Tensor::AttentionNorm => "input_layernorm",
            Tensor::Q => "self_attn.q_proj",
            Tensor::K => "self_attn.k_proj",
            Tensor::V => "self_attn.v_proj",
            Tensor::O => "self_attn.o_proj",
            Tensor::FeedForwardNorm => "post_attention_layernorm",
            Tensor::Gate => "mlp.gate_proj",
            Tensor::Up => "mlp.up_proj",
            Tensor::Down => "mlp.down_proj",
            Tensor::Norm => "norm",
            Tensor::Head => return vec!["lm_head.weight".to_owned()],
        };
        let name = match layer {
            Some(layer) => format!("layers.{layer}.{rest}.weight"),
            None => format!("{rest}.weight"),
        };
        // Files saved from the class without a head have no prefix.
        let mut names = vec![format!("model.{name}"), name];
        if tensor == Tensor::Embedding && self.tied {
            // A tied model's one matrix may also stand under the name of the head.
            names.push("lm_head.weight".to_owned());
        }
        names
    }

    fn hugging_face_order(&self, _tensor: Tensor) -> RowOrder {
        RowOrder::AsStored
    }

    fn from_gguf(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let (n_embd, n_head) = (keys.need("embedding_length")?, keys.need_each_layer("attention.head_count")?);
        let n_kv_head = keys.each_layer("attention.head_count_kv")?.unwrap_or(n_head);
        let head_size = match keys.whole("attention.key_length")? {
            Some(size) => size,
            None if n_head > 0 && n_embd.is_multiple_of(n_head) => n_embd / n_head,
            None => {
                let rule = format!("must divide embedding_length = {n_embd}");
                return Err(ModelError::BadConfig { field: "n_head", value: n_head.to_string(), rule });
            }
        };
        for rest in ["rope.dimension_count", "attention.value_length"] {
            if let Some(found) = keys.whole(rest)?.filter(|found| *found != head_size) {
                return Err(ModelError::BadConfig {
                    field: "head_size",
                    value: format!("{found} in {}", keys.name(rest)),
                    rule: format!("must be {head_size}: all of a head turns"),
                });
            }
        }
        let eps = keys.fraction("attention.layer_norm_rms_epsilon")?;
        let eps = eps.ok_or_else(|| keys.missing("llama.attention.layer_norm_rms_epsilon"))?;
        LlamaConfig::new(LlamaShape {
            vocab_size: keys.vocab_size(&Self::gguf_name(Tensor::Embedding, None))?,
            n_layer: keys.need("block_count")?,
            n_head,
            n_kv_head,
            head_size,
            n_embd,
            n_ff: keys.need_each_layer("feed_forward_length")?,
            context_len: keys.need("context_length")?,
            norm_eps: eps as f32,
            tied: !keys.holds(&Self::gguf_name(Tensor::Head, None)),
            rope: rope(keys)?,
        })
    }

    fn gguf_keys(&self) -> Vec<(String, Value)> {
        let whole = |rest, v| whole(Self::ARCHITECTURE, rest, v);
        let fraction = |rest, v| fraction(Self::ARCHITECTURE, rest, v);
        let mut keys = vec![
            whole("block_count", self.n_layer),
            whole("context_length", self.context_len),
            whole("embedding_length", self.n_embd),
            whole("feed_forward_length", self.n_ff),
            whole("vocab_size", self.vocab_size),
            whole("attention.head_count", self.n_head),
            whole("attention.head_count_kv", self.n_kv_head),
            whole("attention.key_length", self.head_size),
            whole("attention.value_length", self.head_size),
            whole("rope.dimension_count", self.head_size),
            fraction("attention.layer_norm_rms_epsilon", self.norm_eps),
            fraction("rope.freq_base", self.rope.theta as f32),
        ];
        if let RopeScaling::Linear { factor } = self.rope.scaling {
            keys.push(("llama.rope.scaling.type".to_owned(), Value::String("linear".to_owned())));
            keys.push(fraction("rope.scaling.factor", factor));
        }
        if let Some(context) = self.rope.original_context() {
            keys.push(whole(ORIGINAL_CONTEXT, context));
        }
        keys
    }

    fn gguf_name(tensor: Tensor, layer: Option<usize>) -> String {
        let rest = match tensor {
            Tensor::Embedding => "token_embd",
            Tensor::AttentionNorm => "attn_norm",
            Tensor::Q => "attn_q",
            Tensor::K => "attn_k",
            Tensor::V => "attn_v",
            Tensor::O => "attn_output",
            Tensor::FeedForwardNorm => "ffn_norm",
            Tensor::Gate => "ffn_gate",
            Tensor::Up => "ffn_up",
            Tensor::Down => "ffn_down",
            Tensor::Norm => "output_norm",
            Tensor::Head => "output",
        };
        match layer {
            Some(layer) => format!("blk.{layer}.{rest}.weight"),
            None => format!("{rest}.weight"),
        }
    }

    fn gguf_order(&self, tensor: Tensor) -> RowOrder {
        match tensor {
            Tensor::Q | Tensor::K => RowOrder::NeighboursToHalves { head_size: self.head_size },
            _ => RowOrder::AsStored,
        }
    }

    fn gguf_extra(&self) -> Option<Vec<f32>> {
        self.rope.divisors(self.head_size)
    }
}

/// As llama.cpp reads it: a factor of which no kind is said is linear, it has an older key, 0 is none, and divisors are divided
/// by it.
fn rope(keys: &Keys<'_>) -> Result<Rope, ModelError> {
    let theta = keys.fraction("rope.freq_base")?.unwrap_or(10_000.0);
    let factor = match keys.fraction("rope.scaling.factor")? {
        None => keys.fraction("rope.scale_linear")?,
        found => found,
    };
    let kind = keys.text("llama.rope.scaling.type")?.unwrap_or_else(|| "linear".to_owned());
    let factor = match kind.as_str() {
        "linear" => factor.filter(|factor| *factor != 0.0).map(|factor| factor as f32),
        "none" => None,
        _ => return Err(keys.unsupported("llama.rope.scaling.type", kind, "none and linear are computed")),
    };
    if let Some(scale) = keys.fraction("rope.scaling.attn_factor")?.filter(|scale| *scale != 1.0) {
        return Err(keys.unsupported("llama.rope.scaling.attn_factor", scale.to_string(), "1 is computed"));
    }
    let scaling = match (keys.vector(GGUF_ROPE_DIVISORS)?, factor) {
        (Some(divisors), factor) => RopeScaling::Divisors {
            divisors: divisors.into_iter().map(|d| d * factor.unwrap_or(1.0)).collect(),
            original_context: keys.whole(ORIGINAL_CONTEXT)?.filter(|context| *context > 0),
        },
        (None, Some(factor)) => RopeScaling::Linear { factor },
        (None, None) => RopeScaling::None,
    };
    Ok(Rope { theta, scaling })
}
