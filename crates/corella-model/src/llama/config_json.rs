//! config.json, as `transformers.LlamaForCausalLM` reads and writes it.

use std::path::Path;

use serde::Deserialize;

use super::config::{LlamaConfig, LlamaShape};
use super::rope::{Rope, RopeScaling};
use crate::ModelError;
use crate::formats::Cause;
use crate::special_ids::{OneOrMany, SpecialIds};

#[derive(Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_context")]
    max_position_embeddings: usize,
    #[serde(default = "default_eps")]
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFile>,
    /// Where newer files keep base and scaling.
    rope_parameters: Option<RopeFile>,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    bos_token_id: Option<OneOrMany>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Default, Deserialize, PartialEq)]
struct RopeFile {
    rope_type: Option<String>,
    /// The name that older files have for it; files of some versions have both.
    #[serde(rename = "type")]
    old_rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
}

// The defaults of transformers' LlamaConfig.
fn default_context() -> usize {
    2048
}
fn default_eps() -> f32 {
    1e-6
}
const DEFAULT_THETA: f64 = 10_000.0;

/// The shape that the text says.
pub fn read(text: &str, path: &Path) -> Result<(LlamaConfig, SpecialIds), ModelError> {
    let file: ConfigFile = serde_json::from_str(text).map_err(|e| Cause::of_config(&e).of(path))?;
    let only = |field: &str, found: String, allowed: &str, ok: bool| {
        let cause = || Cause::Unsupported { field: field.to_owned(), found, allowed: allowed.to_owned() };
        if ok { Ok(()) } else { Err(cause().of(path)) }
    };
    let kind = file.model_type.unwrap_or_else(|| "llama".to_owned());
    only("model_type", kind.clone(), "llama and gpt2 are computed", kind == "llama")?;
    let act = file.hidden_act.unwrap_or_else(|| "silu".to_owned());
    only("hidden_act", act.clone(), "silu is computed", act == "silu" || act == "swish")?;
    let bias = file.attention_bias || file.mlp_bias;
    only("attention_bias or mlp_bias", "true".to_owned(), "Llama has no biases", !bias)?;
    let rope = rope(file.rope_theta, file.rope_scaling, file.rope_parameters, file.max_position_embeddings)
        .map_err(|cause| cause.of(path))?;
    let heads = file.num_attention_heads;
    let head_size = match file.head_dim {
        Some(size) => size,
        None if heads > 0 && file.hidden_size.is_multiple_of(heads) => file.hidden_size / heads,
        None => {
            let rule = format!("must divide hidden_size = {}", file.hidden_size);
            return Err(ModelError::BadConfig { field: "n_head", value: heads.to_string(), rule });
        }
    };
    let config = LlamaConfig::new(LlamaShape {
        vocab_size: file.vocab_size,
        n_layer: file.num_hidden_layers,
        n_head: heads,
        n_kv_head: file.num_key_value_heads.unwrap_or(heads),
        head_size,
        n_embd: file.hidden_size,
        n_ff: file.intermediate_size,
        context_len: file.max_position_embeddings,
        norm_eps: file.rms_norm_eps,
        tied: file.tie_word_embeddings,
        rope,
    })?;
    Ok((config, SpecialIds::from_config(file.bos_token_id, file.eos_token_id)))
}

fn rope(
    theta: Option<f64>,
    scaling: Option<RopeFile>,
    parameters: Option<RopeFile>,
    context_len: usize,
) -> Result<Rope, Cause> {
    // As transformers has it: rope_scaling replaces rope_parameters, and a base inside it that beside it.
    let file = scaling.filter(|file| *file != RopeFile::default()).or(parameters);
    let theta = file.as_ref().and_then(|file| file.rope_theta).or(theta).unwrap_or(DEFAULT_THETA);
    let Some(file) = file else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    let need = |field: &str, value: Option<f32>| {
        value.ok_or_else(|| Cause::MissingKey { key: format!("rope_scaling.{field}") })
    };
    let scaling = match file.rope_type.as_deref().or(file.old_rope_type.as_deref()) {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: need("factor", file.factor)? },
        Some("llama3") => RopeScaling::Llama3 {
            factor: need("factor", file.factor)?,
            low_freq_factor: need("low_freq_factor", file.low_freq_factor)?,
            high_freq_factor: need("high_freq_factor", file.high_freq_factor)?,
            original_context: file.original_max_position_embeddings.unwrap_or(context_len as f32),
        },
        Some(other) => {
            return Err(Cause::Unsupported {
                field: "rope_scaling.rope_type".to_owned(),
                found: other.to_owned(),
                allowed: "default, linear and llama3 are computed".to_owned(),
            });
        }
    };
    Ok(Rope { theta, scaling })
}

/// The text for a shape.
pub fn write(config: &LlamaConfig, special: &SpecialIds, dtype: &str) -> Result<serde_json::Value, ModelError> {
    let rope = config.rope.with_regimes(config.head_size).ok_or_else(|| ModelError::BadConfig {
        field: "rope_freqs",
        value: "divisors of another rule".to_owned(),
        rule: "must be those of Llama 3.1, which alone config.json can say".to_owned(),
    })?;
    let scaling = match rope.scaling {
        RopeScaling::Linear { factor } => serde_json::json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => serde_json::json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context as u64,
        }),
        RopeScaling::None | RopeScaling::Divisors { .. } => serde_json::Value::Null,
    };
    Ok(serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_len,
        "rms_norm_eps": config.norm_eps_in_text(),
        "rope_theta": config.rope.theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos_value(),
        "torch_dtype": dtype,
    }))
}
