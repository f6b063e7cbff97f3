//! The parameter table: the one list of Llama's tensors.
//!
//! It drives allocation, initialisation, weight decay, the names in files, the parameter count and the gradient tests.
//! A row of the table is a matrix in memory; q, k and v lie in one, gate and up in another, because they read the same
//! input. Files keep them apart: these are the [`Part`]s of a row.

use super::config::LlamaConfig;
use crate::text_model::ParamInfo;

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

/// Rows of a matrix in memory that files keep as a tensor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which tensor.
    pub tensor: Tensor,
    /// Its rows; 1 for a vector.
    pub rows: usize,
}

/// One row of the table: one matrix or vector in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Block, if it belongs to one.
    pub layer: Option<usize>,
    /// Name in memory: the Hugging Face name where files keep it whole.
    pub name: String,
    /// Columns of a matrix, length of a vector.
    pub cols: usize,
    /// Whether it is a vector (a norm); vectors start at 1 and have no weight decay.
    pub vector: bool,
    /// Standard deviation of its random start.
    pub std: f32,
    /// What files keep, in the order of the rows.
    pub parts: Vec<Part>,
}

impl ParamSpec {
    /// Rows of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|p| p.rows).sum()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows() * self.cols
    }

    /// Whether it has no elements; a valid configuration has no such tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As the trainer sees it.
    pub fn info(&self) -> ParamInfo {
        let shape = if self.vector { vec![self.cols] } else { vec![self.rows(), self.cols] };
        ParamInfo { name: self.name.clone(), shape, decay: !self.vector }
    }
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

/// Index of the output head, which is the token embedding where tied.
pub fn head(config: &LlamaConfig) -> usize {
    if config.tied { EMBEDDING } else { last_norm(config) + 1 }
}

/// The table for a shape.
pub fn param_specs(config: &LlamaConfig) -> Vec<ParamSpec> {
    let (v, c, f) = (config.vocab_size, config.n_embd, config.n_ff);
    let (q, kv) = (config.n_head * config.head_size, config.n_kv_head * config.head_size);
    let normal = 0.02;
    // The projections that add to the residual stream start smaller, by the number of additions, as in GPT-2.
    let residual = 0.02 / (2.0 * config.n_layer as f32).sqrt();
    let row = |layer, tensor, parts: &[(Tensor, usize)], cols, std| ParamSpec {
        layer,
        name: tensor,
        cols,
        vector: false,
        std,
        parts: parts.iter().map(|(tensor, rows)| Part { tensor: *tensor, rows: *rows }).collect(),
    };
    let norm = |layer, name: String, tensor| ParamSpec { vector: true, ..row(layer, name, &[(tensor, 1)], c, 0.0) };
    let mut table = vec![row(None, "model.embed_tokens.weight".to_owned(), &[(Tensor::Embedding, v)], c, normal)];
    for layer in 0..config.n_layer {
        let n = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        let l = Some(layer);
        table.extend([
            norm(l, n("input_layernorm"), Tensor::AttentionNorm),
            row(l, n("self_attn.qkv_proj"), &[(Tensor::Q, q), (Tensor::K, kv), (Tensor::V, kv)], c, normal),
            row(l, n("self_attn.o_proj"), &[(Tensor::O, c)], q, residual),
            norm(l, n("post_attention_layernorm"), Tensor::FeedForwardNorm),
            row(l, n("mlp.gate_up_proj"), &[(Tensor::Gate, f), (Tensor::Up, f)], c, normal),
            row(l, n("mlp.down_proj"), &[(Tensor::Down, c)], f, residual),
        ]);
    }
    table.push(norm(None, "model.norm.weight".to_owned(), Tensor::Norm));
    if !config.tied {
        table.push(row(None, "lm_head.weight".to_owned(), &[(Tensor::Head, v)], c, normal));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_parameter_once() {
        for name in ["llama-3.2-1b", "llama-3.1-8b", "llama-3.1-405b"] {
            let config = LlamaConfig::preset(name).expect(name);
            let table = param_specs(&config);
            assert_eq!(table.iter().map(ParamSpec::len).sum::<usize>(), config.parameter_count(), "{name}");
            assert_eq!(table[at(2, Block::Down)].name, "model.layers.2.mlp.down_proj.weight");
            assert_eq!(table[at(3, Block::GateUp)].rows(), 2 * config.n_ff);
            assert_eq!(table[last_norm(&config)].name, "model.norm.weight");
            assert_eq!(table[head(&config)].parts[0].rows, config.vocab_size);
            assert_eq!(table.len(), head(&config).max(last_norm(&config)) + 1);
        }
    }
}
