//! llama2.c's model files, version 0: seven numbers, then f32 tensors, each for all layers.
//!
//! Layout (github.com/karpathy/llama2.c, run.c): dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative
//! where the output head is a matrix of its own), seq_len. Rotary pairs are neighbours.

use std::path::Path;

use corella_ops::WeightFormat;

use super::config::{LlamaConfig, LlamaShape};
use super::params::Tensor;
use super::rope::{Rope, RopeScaling};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::exchange::Exchange;
use crate::formats::{Cause, ModelFile};
use crate::place::Place;
use crate::special_ids::SpecialIds;

const WORDS: usize = 7;
/// Bytes of a number.
const F32: u64 = 4;

/// The tensors in the order of the file; between the last norm and the head lie two unused tables of rotary angles.
const ORDER: [Tensor; 12] = [
    Tensor::Embedding,
    Tensor::AttentionNorm,
    Tensor::Q,
    Tensor::K,
    Tensor::V,
    Tensor::O,
    Tensor::FeedForwardNorm,
    Tensor::Gate,
    Tensor::Down,
    Tensor::Up,
    Tensor::Norm,
    Tensor::Head,
];

/// Opens a file.
pub fn open(path: &Path) -> Result<Checkpoint<LlamaConfig>, ModelError> {
    let file = ModelFile::open(path)?;
    let mut header = [0; WORDS * 4];
    file.read_at(0, &mut header).map_err(|_| Cause::Truncated { field: "the header".to_owned() }.of(path))?;
    let words: Vec<i32> = header.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    // Negative numbers become 0, which no field allows.
    let field = |i: usize| usize::try_from(words[i]).unwrap_or(0);
    let (dim, heads) = (field(0), field(3));
    if heads == 0 || !dim.is_multiple_of(heads) {
        let rule = format!("must divide dim = {dim}");
        return Err(ModelError::BadConfig { field: "n_heads", value: words[3].to_string(), rule });
    }
    let config = LlamaConfig::new(LlamaShape {
        vocab_size: words[5].unsigned_abs() as usize,
        n_layer: field(2),
        n_head: heads,
        n_kv_head: field(4),
        head_size: dim / heads,
        n_embd: dim,
        n_ff: field(1),
        context_len: field(6),
        norm_eps: 1e-5,
        tied: words[5] > 0,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
    })?;
    let angles = (config.context_len * config.head_size) as u64;
    let expected = header.len() as u64 + (config.parameter_count() as u64 + angles) * F32;
    if file.size() != expected {
        let field = format!("a llama2.c model of this header with {expected} bytes");
        return Err(Cause::Unsupported {
            field: "the size of the file".to_owned(),
            found: file.size().to_string(),
            allowed: format!("{field} is read"),
        }
        .of(path)
        .into());
    }
    // The ids of the tokenizers that llama2.c trains.
    let special = SpecialIds { bos: Some(1), eos: vec![1, 2] };
    let checkpoint = Checkpoint::with_places(config, special, vec![file], |config, spec, part| {
        let part = spec.parts[part];
        Ok(Place {
            name: format!("{:?} {}", part.tensor, spec.layer.map(|l| l.to_string()).unwrap_or_default()),
            file: 0,
            begin: begin(config, part.tensor, spec.layer.unwrap_or(0), angles),
            format: WeightFormat::F32,
            rows: part.rows,
            cols: spec.cols,
            // Meta's order of the rotary pairs, as in GGUF.
            order: config.gguf_order(part.tensor),
        })
    });
    Ok(checkpoint?)
}

/// First byte of a tensor's layer.
fn begin(config: &LlamaConfig, wanted: Tensor, layer: usize, angles: u64) -> u64 {
    let mut numbers = 0;
    for tensor in ORDER {
        let (len, layers) = size(config, tensor);
        if tensor == Tensor::Head {
            numbers += angles;
        }
        if tensor == wanted {
            numbers += layer as u64 * len;
            break;
        }
        numbers += len * layers;
    }
    (WORDS * 4) as u64 + numbers * F32
}

/// Numbers of one layer of a tensor, and its layers.
fn size(config: &LlamaConfig, tensor: Tensor) -> (u64, u64) {
    let (c, f, v) = (config.n_embd as u64, config.n_ff as u64, config.vocab_size as u64);
    let kv = (config.n_kv_head * config.head_size) as u64;
    let layers = config.n_layer as u64;
    match tensor {
        Tensor::Embedding | Tensor::Head => (v * c, 1),
        Tensor::Norm => (c, 1),
        Tensor::AttentionNorm | Tensor::FeedForwardNorm => (c, layers),
        Tensor::Q | Tensor::O => (c * c, layers),
        Tensor::K | Tensor::V => (kv * c, layers),
        Tensor::Gate | Tensor::Up | Tensor::Down => (f * c, layers),
    }
}
