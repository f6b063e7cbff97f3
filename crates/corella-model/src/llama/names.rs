//! The key maps: what a tensor is called in the files of each kind.

use super::params::Tensor;

/// Hugging Face's name.
pub fn hugging_face(tensor: Tensor, layer: Option<usize>) -> String {
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
        Tensor::Head => return "lm_head.weight".to_owned(),
    };
    match layer {
        Some(layer) => format!("model.layers.{layer}.{rest}.weight"),
        None => format!("model.{rest}.weight"),
    }
}

/// GGUF's name.
pub fn gguf(tensor: Tensor, layer: Option<usize>) -> String {
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

/// The tensor of GGUF that holds a divisor for each rotary frequency.
pub const GGUF_ROPE_DIVISORS: &str = "rope_freqs.weight";
