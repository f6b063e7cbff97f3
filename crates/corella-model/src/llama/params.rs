//! The parameter table: the one list of Llama's tensors. q, k and v lie in one matrix, gate and up in another, because they
//! read the same input; files keep them apart.

use corella_ops::KvKind;

use super::config::LlamaConfig;
use crate::params::{Init, ModelConfig, ParamSpec};
use crate::role::Role;

/// What a tensor of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tensor {
    /// Token embedding (V, C).
    Embedding,
    /// Norm before attention (C).
    AttentionNorm,
    /// Queries (NH·HS, C).
    Q,
    /// Keys (NKV·HS, C).
    K,
    /// Values (NKV·HS, C).
    V,
    /// Attention's output (C, NH·HS).
    O,
    /// Norm before the feed-forward layer (C).
    FeedForwardNorm,
    /// Gate of the feed-forward layer (F, C).
    Gate,
    /// Feed-forward up (F, C).
    Up,
    /// Feed-forward down (C, F).
    Down,
    /// Last norm (C).
    Norm,
    /// Output head (V, C); absent where tied.
    Head,
}

/// Index of the token embedding in the table.
pub const EMBEDDING: usize = 0;
/// Rows before the first block.
const BEFORE: usize = 1;
/// Rows of a block, in the order of [`Block`].
const PER_BLOCK: usize = 6;

/// Places of a block's rows in the table.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// Norm before attention.
    AttentionNorm,
    /// Queries, keys and values, ((NH + 2·NKV)·HS, C).
    Qkv,
    /// Attention's output (C, NH·HS).
    O,
    /// Norm before the feed-forward layer.
    FeedForwardNorm,
    /// Gate and up (2F, C).
    GateUp,
    /// Down (C, F).
    Down,
}

/// Index of a block's row in the table.
pub fn at(layer: usize, which: Block) -> usize {
    BEFORE + layer * PER_BLOCK + which as usize
}

/// Index of the last norm.
pub fn last_norm(config: &LlamaConfig) -> usize {
    BEFORE + config.n_layer * PER_BLOCK
}

impl ModelConfig for LlamaConfig {
    type Tensor = Tensor;
    const LOOKED_UP: &'static [usize] = &[EMBEDDING];

    fn table(&self) -> Vec<ParamSpec<Tensor>> {
        let (v, c, f) = (self.vocab_size, self.n_embd, self.n_ff);
        let (q, kv) = (self.n_head * self.head_size, self.n_kv_head * self.head_size);
        let normal = 0.02;
        // The projections that add to the residual stream start smaller, by the number of additions, as in GPT-2.
        let residual = 0.02 / (2.0 * self.n_layer as f32).sqrt();
        let matrix = ParamSpec::matrix;
        let norm = |layer, name, tensor| ParamSpec::vector(layer, name, tensor, c, Init::Ones);
        let embedding = &[(Tensor::Embedding, v)];
        let mut table = vec![matrix(None, "model.embed_tokens.weight".to_owned(), embedding, c, normal)];
        for layer in 0..self.n_layer {
            let n = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            let l = Some(layer);
            let qkv = &[(Tensor::Q, q), (Tensor::K, kv), (Tensor::V, kv)];
            table.extend([
                norm(l, n("input_layernorm"), Tensor::AttentionNorm),
                matrix(l, n("self_attn.qkv_proj"), qkv, c, normal),
                matrix(l, n("self_attn.o_proj"), &[(Tensor::O, c)], q, residual),
                norm(l, n("post_attention_layernorm"), Tensor::FeedForwardNorm),
                matrix(l, n("mlp.gate_up_proj"), &[(Tensor::Gate, f), (Tensor::Up, f)], c, normal),
                matrix(l, n("mlp.down_proj"), &[(Tensor::Down, c)], f, residual),
            ]);
        }
        table.push(norm(None, "model.norm.weight".to_owned(), Tensor::Norm));
        if !self.tied {
            table.push(matrix(None, "lm_head.weight".to_owned(), &[(Tensor::Head, v)], c, normal));
        }
        table
    }

    fn role(tensor: Tensor) -> Role {
        match tensor {
            Tensor::Embedding => Role::TokenEmbedding,
            Tensor::AttentionNorm => Role::AttentionNorm,
            Tensor::Q => Role::Query,
            Tensor::K => Role::Key,
            Tensor::V => Role::Value,
            Tensor::O => Role::AttentionOutput,
            Tensor::FeedForwardNorm => Role::FeedForwardNorm,
            Tensor::Gate => Role::Gate,
            Tensor::Up => Role::Up,
            Tensor::Down => Role::Down,
            Tensor::Norm => Role::FinalNorm,
            Tensor::Head => Role::Head,
        }
    }

    fn head(&self) -> usize {
        if self.tied { EMBEDDING } else { last_norm(self) + 1 }
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn width(&self) -> usize {
        self.n_embd
    }

    fn head_size(&self) -> usize {
        self.head_size
    }

    fn parameter_count(&self) -> usize {
        LlamaConfig::parameter_count(self)
    }

    fn kv_token_bytes(&self, kind: KvKind) -> u64 {
        2 * (self.n_layer * self.n_kv_head * kind.bytes(self.head_size)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_parameter_once() {
        for name in ["llama-3.2-1b", "llama-3.1-8b", "llama-3.1-405b"] {
            let config = LlamaConfig::preset(name).expect(name);
            let table = config.table();
            assert_eq!(table.iter().map(ParamSpec::len).sum::<usize>(), config.parameter_count(), "{name}");
            assert_eq!(table[at(2, Block::Down)].name, "model.layers.2.mlp.down_proj.weight");
            assert_eq!(table[at(3, Block::GateUp)].rows(), 2 * config.n_ff);
            assert_eq!(table[last_norm(&config)].name, "model.norm.weight");
            assert_eq!(table[config.head()].parts[0].rows, config.vocab_size);
            assert_eq!(table.len(), config.head().max(last_norm(&config)) + 1);
        }
    }
}
