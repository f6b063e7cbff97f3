//! GPT-2 in the files of others: config.json, the names of its tensors, and its shape as GGUF's keys.

use std::path::Path;

use corella_ops::WeightFormat;
use serde::Deserialize;

use super::config::Gpt2Config;
use super::forward::EPS;
use super::llmc;
use super::params::{Tensor, name};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::Exchange;
use crate::exchange::gguf::{Keys, fraction, whole};
use crate::formats::Cause;
use crate::formats::gguf::Value;
use crate::formats::sniff::Kind;
use crate::params::ParamSpec;
use crate::place::RowOrder;
use crate::special_ids::{OneOrMany, SpecialIds};

#[derive(Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    vocab_size: usize,
    #[serde(flatten)]
    sizes: Sizes,
    #[serde(default = "default_eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "default_activation")]
    activation_function: String,
    n_inner: Option<usize>,
    #[serde(default = "default_tied")]
    tie_word_embeddings: bool,
    #[serde(default = "default_scaled")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    add_cross_attention: bool,
    bos_token_id: Option<OneOrMany>,
    eos_token_id: Option<OneOrMany>,
}

/// The sizes by GPT-2's names, and by the general ones that `transformers` takes in their place.
#[derive(Deserialize)]
struct Sizes {
    n_layer: Option<usize>,
    num_hidden_layers: Option<usize>,
    n_head: Option<usize>,
    num_attention_heads: Option<usize>,
    n_embd: Option<usize>,
    hidden_size: Option<usize>,
    n_positions: Option<usize>,
    max_position_embeddings: Option<usize>,
}

/// Positions where a file does not say, as in `transformers`.
const DEFAULT_POSITIONS: usize = 1024;

fn default_eps() -> f64 {
    1e-5
}

fn default_activation() -> String {
    "gelu_new".to_owned()
}

fn default_tied() -> bool {
    true
}

fn default_scaled() -> bool {
    true
}

/// Whether an epsilon of the norms is the one that is computed.
fn is_eps(found: f64) -> bool {
    (found - f64::from(EPS)).abs() < 1e-9
}

fn with_tie(config: Gpt2Config, tied: bool) -> Result<Gpt2Config, ModelError> {
    if tied { Ok(config) } else { config.with_own_head() }
}

impl Exchange for Gpt2Config {
    const ARCHITECTURE: &'static str = "gpt2";
    const OWN_FILE: Kind = Kind::LlmC;
    const EMBEDDING: Tensor = Tensor::Wte;
    const HEAD: Tensor = Tensor::Head;

    fn tied(&self) -> bool {
        self.tied()
    }

    fn with_own_head(&self) -> Result<Self, ModelError> {
        self.clone().with_own_head()
    }

    fn open_own_file(path: &Path) -> Result<Checkpoint<Self>, ModelError> {
        llmc::open(path)
    }

    fn from_json(text: &str, path: &Path) -> Result<(Self, SpecialIds), ModelError> {
        let file: ConfigFile = serde_json::from_str(text).map_err(|e| Cause::of_config(&e).of(path))?;
        let only = |field: &str, found: String, allowed: &str, ok: bool| {
            let cause = || Cause::Unsupported { field: field.to_owned(), found, allowed: allowed.to_owned() };
            if ok { Ok(()) } else { Err(cause().of(path)) }
        };
        let kind = file.model_type.unwrap_or_else(|| "gpt2".to_owned());
        only("model_type", kind.clone(), "llama and gpt2 are computed", kind == "gpt2")?;
        let act = file.activation_function;
        let known = matches!(act.as_str(), "gelu_new" | "gelu_pytorch_tanh");
        only("activation_function", act, "gelu_new is computed", known)?;
        let eps = file.layer_norm_epsilon;
        only("layer_norm_epsilon", eps.to_string(), "1e-5 is computed", is_eps(eps))?;
        // As in transformers, the general name counts where both are there.
        let need = |size: Option<usize>, key: &str| {
            size.ok_or_else(|| Cause::BadField { why: format!("missing field `{key}`") }.of(path))
        };
        let sizes = file.sizes;
        let n_embd = need(sizes.hidden_size.or(sizes.n_embd), "n_embd")?;
        let n_layer = need(sizes.num_hidden_layers.or(sizes.n_layer), "n_layer")?;
        let n_head = need(sizes.num_attention_heads.or(sizes.n_head), "n_head")?;
        let n_positions = sizes.max_position_embeddings.or(sizes.n_positions).unwrap_or(DEFAULT_POSITIONS);
        let inner = file.n_inner.unwrap_or(n_embd.saturating_mul(4));
        let four = n_embd.checked_mul(4) == Some(inner);
        only("n_inner", inner.to_string(), "4 · n_embd is computed", four)?;
        // Some published GPT-2 were trained with other attention: its weights have the same names and shapes.
        for (field, found, usual) in [
            ("scale_attn_weights", file.scale_attn_weights, true),
            ("scale_attn_by_inverse_layer_idx", file.scale_attn_by_inverse_layer_idx, false),
            ("add_cross_attention", file.add_cross_attention, false),
        ] {
            let allowed = if usual { "true is computed" } else { "false is computed" };
            only(field, found.to_string(), allowed, found == usual)?;
        }
        let config = Gpt2Config::new(file.vocab_size, n_layer, n_head, n_embd, n_positions)?;
        let special = SpecialIds::from_config(file.bos_token_id, file.eos_token_id);
        Ok((with_tie(config, file.tie_word_embeddings)?, special))
    }

    fn to_json(&self, special: &SpecialIds, dtype: &str) -> Result<serde_json::Value, ModelError> {
        Ok(serde_json::json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": Self::ARCHITECTURE,
            "vocab_size": self.vocab_size(),
            "n_layer": self.n_layer(),
            "n_head": self.n_head(),
            "n_embd": self.n_embd(),
            "n_positions": self.seq_len(),
            "n_ctx": self.seq_len(),
            "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new",
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "tie_word_embeddings": self.tied(),
            "bos_token_id": special.bos,
            "eos_token_id": special.eos_value(),
            "torch_dtype": dtype,
        }))
    }

    fn hugging_face_names(&self, tensor: Tensor, layer: Option<usize>) -> Vec<String> {
        let name = name(tensor, layer);
        // Files saved from the language-model class have the prefix; the published ones have not.
        if tensor == Tensor::Head { vec![name] } else { vec![format!("transformer.{name}"), name] }
    }

    fn hugging_face_order(&self, tensor: Tensor) -> RowOrder {
        match tensor {
            Tensor::QkvW | Tensor::AttProjW | Tensor::FcW | Tensor::FcProjW => RowOrder::Transposed,
            _ => RowOrder::AsStored,
        }
    }

    fn from_gguf(keys: &Keys<'_>) -> Result<Self, ModelError> {
        let n_embd = keys.need("embedding_length")?;
        let inner = keys.need_each_layer("feed_forward_length")?;
        if n_embd.checked_mul(4) != Some(inner) {
            let allowed = "4 · embedding_length is computed";
            return Err(keys.unsupported("gpt2.feed_forward_length", inner.to_string(), allowed));
        }
        if let Some(eps) = keys.fraction("attention.layer_norm_epsilon")?.filter(|eps| !is_eps(*eps)) {
            return Err(keys.unsupported("gpt2.attention.layer_norm_epsilon", eps.to_string(), "1e-5 is computed"));
        }
        let vocab_size = keys.vocab_size(&Self::gguf_name(Tensor::Wte, None))?;
        let (n_layer, n_head) = (keys.need("block_count")?, keys.need_each_layer("attention.head_count")?);
        let config = Gpt2Config::new(vocab_size, n_layer, n_head, n_embd, keys.need("context_length")?)?;
        with_tie(config, !keys.holds(&Self::gguf_name(Tensor::Head, None)))
    }

    fn gguf_keys(&self) -> Vec<(String, Value)> {
        let whole = |rest, v| whole(Self::ARCHITECTURE, rest, v);
        vec![
            whole("block_count", self.n_layer()),
            whole("context_length", self.seq_len()),
            whole("embedding_length", self.n_embd()),
            whole("feed_forward_length", 4 * self.n_embd()),
            whole("vocab_size", self.vocab_size()),
            whole("attention.head_count", self.n_head()),
            fraction(Self::ARCHITECTURE, "attention.layer_norm_epsilon", EPS),
        ]
    }

    fn gguf_name(tensor: Tensor, layer: Option<usize>) -> String {
        let rest = match tensor {
            Tensor::Wte => "token_embd.weight",
            Tensor::Wpe => "position_embd.weight",
            Tensor::Ln1W => "attn_norm.weight",
            Tensor::Ln1B => "attn_norm.bias",
            Tensor::QkvW => "attn_qkv.weight",
            Tensor::QkvB => "attn_qkv.bias",
            Tensor::AttProjW => "attn_output.weight",
            Tensor::AttProjB => "attn_output.bias",
            Tensor::Ln2W => "ffn_norm.weight",
            Tensor::Ln2B => "ffn_norm.bias",
            Tensor::FcW => "ffn_up.weight",
            Tensor::FcB => "ffn_up.bias",
            Tensor::FcProjW => "ffn_down.weight",
            Tensor::FcProjB => "ffn_down.bias",
            Tensor::LnFW => "output_norm.weight",
            Tensor::LnFB => "output_norm.bias",
            Tensor::Head => "output.weight",
        };
        layer.map_or_else(|| rest.to_owned(), |layer| format!("blk.{layer}.{rest}"))
    }

    fn gguf_order(&self, _tensor: Tensor) -> RowOrder {
        RowOrder::AsStored
    }

    fn gguf_format(spec: &ParamSpec<Tensor>, format: WeightFormat) -> WeightFormat {
        // llama.cpp adds positions in F32 only.
        if spec.vector || spec.parts[0].tensor == Tensor::Wpe { WeightFormat::F32 } else { format }
    }
}
