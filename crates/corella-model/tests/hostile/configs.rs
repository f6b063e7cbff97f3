//! Configurations that no model has, and weights that are no numbers: rows L16 and L18, in files of every kind.

use corella_model::exchange::gguf::save;
use corella_model::formats::gguf::{NewTensor, Value, create};
use corella_model::formats::{Cause, Encoding};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Weights};
use corella_model::llama::{LlamaCheckpoint, LlamaWeights};
use corella_model::{ModelError, Weights};
use corella_ops::WeightFormat;
use serde_json::json;

use crate::Folder;

/// The field that a bad configuration names, or the cause of a bad file.
fn refused(folder: &Folder, name: &str) -> String {
    field(LlamaCheckpoint::open(&folder.0.join(name)))
}

fn field<C: std::fmt::Debug>(opened: Result<corella_model::Checkpoint<C>, ModelError>) -> String {
    match opened {
        Err(ModelError::BadConfig { field, .. }) => field.to_owned(),
        Err(ModelError::Format(error)) => {
            format!("{:?}", error.cause).split([' ', '(', '{']).next().unwrap_or("").to_owned()
        }
        Err(other) => panic!("{other}"),
        Ok(checkpoint) => panic!("accepted {:?}", checkpoint.config),
    }
}

#[test]
fn l16_config_json() {
    let folder = Folder::new("config-json");
    let cases = [
        ("num_attention_heads", json!(0), "n_head"),
        ("num_attention_heads", json!(3), "n_head"),
        ("num_key_value_heads", json!(0), "n_kv_head"),
        ("num_key_value_heads", json!(3), "n_kv_head"),
        ("num_hidden_layers", json!(0), "n_layer"),
        ("num_hidden_layers", json!(2_147_483_648u64), "n_layer"),
        ("vocab_size", json!(0), "vocab_size"),
        ("max_position_embeddings", json!(0), "context_len"),
        ("rms_norm_eps", json!(0.0), "norm_eps"),
        ("rms_norm_eps", json!(-1.0), "norm_eps"),
        ("head_dim", json!(3), "head_size"),
        ("rope_theta", json!(0.0), "rope_theta"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "Unsupported"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), "MissingKey"),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0}), "rope factor"),
        ("model_type", json!("mamba"), "Unsupported"),
        ("hidden_act", json!("relu"), "Unsupported"),
        ("attention_bias", json!(true), "Unsupported"),
        ("mlp_bias", json!(true), "Unsupported"),
        ("hidden_size", json!(-8), "BadField"),
        ("hidden_size", json!(1e300), "BadField"),
        ("hidden_size", json!("8"), "BadField"),
    ];
    for (key, value, expected) in cases {
        let mut config = json!({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1});
        config[key] = value.clone();
        folder.write("config.json", config.to_string().as_bytes());
        assert_eq!(refused(&folder, ""), expected, "{key} = {value}");
    }
}

/// A GGUF of a Llama with some keys replaced, and a value put into its first norm.
fn gguf(folder: &Folder, replaced: &[(&str, Value)], norm: f32) {
    let mut keys = vec![("general.architecture", Value::String("llama".to_owned()))];
    for (key, value) in [
        ("llama.block_count", 1),
        ("llama.context_length", 16),
        ("llama.embedding_length", 8),
        ("llama.feed_forward_length", 12),
        ("llama.attention.head_count", 2),
        ("llama.attention.head_count_kv", 1),
    ] {
        keys.push((key, Value::U32(value)));
    }
    keys.push(("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)));
    keys.retain(|(key, _)| replaced.iter().all(|(k, _)| k != key));
    keys.extend(replaced.iter().cloned());
    let metadata: Vec<(String, Value)> = keys.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let shapes: [(&str, &[u64]); 11] = [
        ("blk.0.attn_norm.weight", &[8]),
        ("token_embd.weight", &[8, 11]),
        ("blk.0.attn_q.weight", &[8, 8]),
        ("blk.0.attn_k.weight", &[8, 4]),
        ("blk.0.attn_v.weight", &[8, 4]),
        ("blk.0.attn_output.weight", &[8, 8]),
        ("blk.0.ffn_norm.weight", &[8]),
        ("blk.0.ffn_gate.weight", &[8, 12]),
        ("blk.0.ffn_up.weight", &[8, 12]),
        ("blk.0.ffn_down.weight", &[12, 8]),
        ("output_norm.weight", &[8]),
    ];
    let tensor = |(name, dims): &(&str, &[u64])| NewTensor {
        name: (*name).to_owned(),
        dims: dims.to_vec(),
        encoding: Encoding::F32,
    };
    let mut out =
        create(&folder.0.join("m.gguf"), &metadata, &shapes.iter().map(tensor).collect::<Vec<_>>()).expect("writable");
    for (i, (_, dims)) in shapes.iter().enumerate() {
        let mut values = vec![0.5f32; dims.iter().product::<u64>() as usize];
        if i == 0 {
            values[5] = norm;
        }
        out.tensor(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).expect("written");
    }
    out.finish().expect("written");
}

#[test]
fn l16_gguf_metadata() {
    let folder = Folder::new("config-gguf");
    gguf(&folder, &[], 1.0);
    LlamaCheckpoint::open(&folder.0.join("m.gguf")).expect("a right file");
    let cases = [
        ("llama.attention.head_count", Value::U32(0), "n_head"),
        ("llama.attention.head_count_kv", Value::U32(0), "n_kv_head"),
        ("llama.attention.head_count_kv", Value::U32(3), "n_kv_head"),
        ("llama.block_count", Value::U32(0), "n_layer"),
        ("llama.block_count", Value::U32(1 << 31), "n_layer"),
        ("llama.context_length", Value::U32(0), "context_len"),
        ("llama.rope.dimension_count", Value::U32(64), "head_size"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0), "norm_eps"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "norm_eps"),
        ("llama.block_count", Value::I32(-1), "WrongKeyType"),
        ("llama.block_count", Value::String("1".to_owned()), "WrongKeyType"),
        ("llama.block_count", Value::U32(2), "MissingTensor"),
        ("llama.embedding_length", Value::U32(16), "WrongShape"),
        ("llama.rope.scaling.type", Value::String("yarn".to_owned()), "Unsupported"),
        ("split.count", Value::U16(3), "Unsupported"),
        ("split.count", Value::U64(u64::MAX), "Unsupported"),
        ("general.architecture", Value::String("gptj".to_owned()), "Unsupported"),
    ];
    for (key, value, expected) in cases {
        gguf(&folder, &[(key, value.clone())], 1.0);
        assert_eq!(refused(&folder, "m.gguf"), expected, "{key} = {value:?}");
    }
}

#[test]
fn l16_config_json_of_a_gpt2() {
    let folder = Folder::new("config-gpt2");
    let cases = [
        ("n_head", json!(0), "n_head"),
        ("n_head", json!(3), "n_head"),
        ("n_layer", json!(0), "n_layer"),
        ("n_layer", json!(2_147_483_648u64), "n_layer"),
        ("vocab_size", json!(0), "vocab_size"),
        ("n_positions", json!(0), "seq_len"),
        ("n_embd", json!(0), "n_embd"),
        ("n_embd", json!(u64::MAX), "Unsupported"),
        ("n_inner", json!(7), "Unsupported"),
        ("layer_norm_epsilon", json!(0.0), "Unsupported"),
        ("activation_function", json!("relu"), "Unsupported"),
        ("model_type", json!("mamba"), "Unsupported"),
        ("scale_attn_weights", json!(false), "Unsupported"),
        ("scale_attn_by_inverse_layer_idx", json!(true), "Unsupported"),
        ("add_cross_attention", json!(true), "Unsupported"),
        ("n_embd", json!(-8), "BadField"),
        ("vocab_size", json!("8"), "BadField"),
    ];
    for (key, value, expected) in cases {
        let mut config = json!({"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2,
            "n_positions": 16});
        config[key] = value.clone();
        folder.write("config.json", config.to_string().as_bytes());
        assert_eq!(field(Gpt2Checkpoint::open(&folder.0)), expected, "{key} = {value}");
    }
}

#[test]
fn l16_gguf_metadata_of_a_gpt2() {
    let folder = Folder::new("config-gpt2-gguf");
    let path = folder.0.join("m.gguf");
    let weights: Gpt2Weights = Weights::random(&Gpt2Config::new(40, 1, 2, 32, 8).expect("valid"), 1);
    save(&weights, "m", Vec::new(), WeightFormat::F32, &path).expect("written");
    let whole = std::fs::read(&path).expect("read");
    for (key, value, expected) in [
        ("gpt2.attention.head_count", 0u32, "n_head"),
        ("gpt2.attention.head_count", 5, "n_head"),
        ("gpt2.block_count", 0, "n_layer"),
        ("gpt2.block_count", 1 << 31, "n_layer"),
        ("gpt2.block_count", 2, "MissingTensor"),
        ("gpt2.context_length", 0, "seq_len"),
        ("gpt2.context_length", 9, "WrongShape"),
        ("gpt2.embedding_length", 64, "Unsupported"),
        ("gpt2.feed_forward_length", 31, "Unsupported"),
    ] {
        // The four bytes behind the key and its type.
        let at = whole.windows(key.len()).position(|w| w == key.as_bytes()).expect("the key") + key.len() + 4;
        let mut broken = whole.clone();
        broken[at..at + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, broken).expect("written");
        assert_eq!(field(Gpt2Checkpoint::open(&path)), expected, "{key} = {value}");
    }
}

#[test]
fn l16_llama2c_headers() {
    let folder = Folder::new("config-bin");
    let write = |words: [i32; 7], floats: usize| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(bytes.len() + floats * 4, 0);
        folder.write("m.bin", &bytes);
    };
    for (words, expected) in [
        ([8, 12, 1, 3, 1, 11, 16], "n_heads"),
        ([8, 12, 1, 2, 0, 11, 16], "n_kv_head"),
        ([8, 12, 1, 2, -1, 11, 16], "n_kv_head"),
        ([8, 12, 1, 2, 1, 0, 16], "vocab_size"),
        ([8, 12, 1, 2, 1, i32::MIN, 16], "vocab_size"),
        ([8, 12, 1, 2, 1, 11, 0], "context_len"),
        ([8, 12, 1, 2, 1, 11, 16], "Unsupported"),
        ([8, 12, 1, 2, 1, 11, i32::MAX], "context_len"),
    ] {
        write(words, 100);
        assert_eq!(refused(&folder, "m.bin"), expected, "{words:?}");
    }
}

#[test]
fn l18_weights_that_are_no_numbers_and_subnormal_ones() {
    let folder = Folder::new("finite");
    let read = || LlamaWeights::read(&LlamaCheckpoint::open(&folder.0.join("m.gguf")).expect("a right header"));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        gguf(&folder, &[], bad);
        let Err(ModelError::Format(error)) = read() else { panic!("{bad} was accepted") };
        let found = matches!(&error.cause, Cause::NonFinite { tensor, index: 5 } if tensor == "blk.0.attn_norm.weight");
        assert!(found, "{error}");
    }
    gguf(&folder, &[], 1e-45);
    assert_eq!(read().expect("a right file").tensors[1][5], 1e-45);
}
