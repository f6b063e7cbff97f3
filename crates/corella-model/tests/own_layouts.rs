//! The files of llama2.c and llm.c, number by number.

mod common;

use common::Folder;
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Weights, save_llmc};
use corella_model::llama::{LlamaCheckpoint, LlamaWeights, Rope, RopeScaling, Tensor};
use corella_model::params::ModelConfig;
use corella_model::{SpecialIds, Weights};
use corella_ops::WeightFormat;

/// Two layers, two heads of four numbers, one head of keys and values, and a head of its own: each number of the file is its
/// index. The layout is that of `memory_map_weights` in llama2.c's run.c.
#[test]
fn every_number_of_a_llama2c_file_comes_to_its_place() {
    let folder = Folder::new("llama2c-own-head");
    let path = folder.path("m.bin");
    let (c, f, layers, kv, v, context) = (8, 12, 2, 4, 11, 6);
    let mut next = 0;
    let mut tensor = |len: usize| {
        next += len;
        next - len
    };
    let embedding = tensor(v * c);
    let attention_norm = tensor(layers * c);
    let q = tensor(layers * c * c);
    let k = tensor(layers * kv * c);
    let value = tensor(layers * kv * c);
    let o = tensor(layers * c * c);
    let feed_forward_norm = tensor(layers * c);
    let gate = tensor(layers * f * c);
    let down = tensor(layers * c * f);
    let up = tensor(layers * f * c);
    let norm = tensor(c);
    // Cosines and sines of the rotary angles, which nobody reads.
    tensor(2 * context * 2);
    let head = tensor(v * c);
    let header = [c as i32, f as i32, layers as i32, 2, 1, -(v as i32), context as i32];
    let words = header.into_iter().flat_map(i32::to_le_bytes);
    let bytes: Vec<u8> = words.chain((0..next).flat_map(|i| (i as f32).to_le_bytes())).collect();
    std::fs::write(&path, bytes).expect("written");

    let checkpoint = LlamaCheckpoint::open(&path).expect("a model");
    assert_eq!(checkpoint.special, SpecialIds { bos: Some(1), eos: vec![1, 2] });
    let config = &checkpoint.config;
    assert!(!config.tied);
    assert_eq!((config.n_kv_head, config.head_size, config.context_len, config.vocab_size), (1, 4, 6, 11));
    assert_eq!(config.norm_eps, 1e-5, "as rmsnorm in run.c");
    assert_eq!(config.rope, Rope { theta: 10_000.0, scaling: RopeScaling::None });
    let weights = LlamaWeights::read(&checkpoint).expect("readable");
    let mut seen = 0;
    for (spec, found) in config.table().iter().zip(&weights.tensors) {
        let layer = spec.layer.unwrap_or(0);
        let mut expected = Vec::new();
        for part in &spec.parts {
            let (begin, rows, cols, rotary) = match part.tensor {
                Tensor::Embedding => (embedding, v, c, false),
                Tensor::AttentionNorm => (attention_norm, 1, c, false),
                Tensor::Q => (q, c, c, true),
                Tensor::K => (k, kv, c, true),
                Tensor::V => (value, kv, c, false),
                Tensor::O => (o, c, c, false),
                Tensor::FeedForwardNorm => (feed_forward_norm, 1, c, false),
                Tensor::Gate => (gate, f, c, false),
                Tensor::Down => (down, c, f, false),
                Tensor::Up => (up, f, c, false),
                Tensor::Norm => (norm, 1, c, false),
                Tensor::Head => (head, v, c, false),
            };
            for row in 0..rows {
                // In the file the rows of a rotary pair are neighbours; in memory they are two apart.
                let stored = if rotary { row / 4 * 4 + [0, 2, 1, 3][row % 4] } else { row };
                let first = begin + (layer * rows + stored) * cols;
                expected.extend((first..first + cols).map(|i| i as f32));
            }
        }
        assert_eq!(*found, expected, "{}", spec.name);
        seen += found.len();
    }
    assert_eq!(seen, next - 2 * context * 2, "all but the angles");
}

#[test]
fn a_vocabulary_of_llm_c_is_padded_to_whole_128s() {
    let folder = Folder::new("llmc-padding");
    let path = folder.path("m.bin");
    let weights: Gpt2Weights = Weights::random(&Gpt2Config::new(131, 1, 2, 32, 20).expect("valid"), 11);
    for (format, version, size) in [(WeightFormat::F32, 3u32, 4), (WeightFormat::Bf16, 5, 2)] {
        save_llmc(&weights, format, &path).expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let word = |i: usize| u32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(word), [20_240_326, version, 20, 131, 1, 2, 32, 256]);
        // 12·C² + 13·C of the layer, the last norm, positions, and 256 rows of the embedding, of which 125 are zeros.
        let numbers = 12 * 32 * 32 + 13 * 32 + 2 * 32 + 20 * 32 + 256 * 32;
        assert_eq!(bytes.len(), 1024 + numbers * size);
        let embedding = &bytes[1024..1024 + 256 * 32 * size];
        assert!(embedding[131 * 32 * size..].iter().all(|byte| *byte == 0));
        assert!(embedding[130 * 32 * size..131 * 32 * size].iter().any(|byte| *byte != 0));
    }
}

#[test]
fn files_of_llm_c_end_texts_as_gpt2_does_where_they_have_its_token() {
    let folder = Folder::new("llmc-ends");
    let path = folder.path("m.bin");
    for (vocab_size, end) in [(50_257, Some(50_256)), (50_256, None)] {
        let weights: Gpt2Weights = Weights::random(&Gpt2Config::new(vocab_size, 1, 1, 8, 4).expect("valid"), 1);
        save_llmc(&weights, WeightFormat::Bf16, &path).expect("written");
        let found = Gpt2Checkpoint::open(&path).expect("a model").special;
        assert_eq!(found, SpecialIds { bos: end, eos: end.into_iter().collect() });
    }
}
