//! Files as other programs write them: what stands in them beside or instead of what is written here is computed as those
//! programs compute it, said, or refused.

mod common;
#[path = "common/llama.rs"]
mod small;

use std::path::{Path, PathBuf};

use common::Folder;
use corella_model::exchange::{gguf, hugging_face};
use corella_model::formats::gguf::{Array, NewTensor as GgufTensor, Value, create, open};
use corella_model::formats::safetensors::{NewTensor, SafeTensors, create as create_safetensors};
use corella_model::formats::{Cause, Encoding};
use corella_model::gpt2::{Gpt2Config, Gpt2Weights};
use corella_model::llama::{LlamaCheckpoint, LlamaConfig, LlamaShape, LlamaWeights, Rope, RopeScaling};
use corella_model::params::ModelConfig;
use corella_model::{AnyModel, ModelError, SpecialIds, Weights};
use corella_ops::WeightFormat;
use serde_json::{Value as Json, json};
use small::llama;

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The GGUF of a Llama with further keys (in place of those of the same name) and F32 vectors.
fn llama_gguf(folder: &Folder, keys: &[(&str, Value)], vectors: &[(&str, &[f32])]) -> PathBuf {
    changed_gguf(
        folder,
        &llama(true),
        |metadata| {
            metadata.retain(|(key, _)| keys.iter().all(|(k, _)| k != key));
            metadata.extend(keys.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        },
        vectors,
    )
}

/// The GGUF of a Llama with other keys and further F32 vectors.
fn changed_gguf(
    folder: &Folder,
    weights: &LlamaWeights,
    change: impl FnOnce(&mut Vec<(String, Value)>),
    vectors: &[(&str, &[f32])],
) -> PathBuf {
    let (plain, path) = (folder.path("plain.gguf"), folder.path("m.gguf"));
    gguf::save(weights, "m", Vec::new(), WeightFormat::F32, &plain).expect("written");
    let (file, header) = open(&plain).expect("a right file");
    let mut metadata = header.metadata.clone();
    change(&mut metadata);
    let table = |t: &corella_model::formats::gguf::TensorInfo| (t.name.clone(), t.dims.clone());
    let new = |(name, dims): (String, Vec<u64>)| GgufTensor { name, dims, encoding: Encoding::F32 };
    let more = vectors.iter().map(|(name, values)| ((*name).to_owned(), vec![values.len() as u64]));
    let all: Vec<GgufTensor> = header.tensors.iter().map(table).chain(more).map(new).collect();
    let mut out = create(&path, &metadata, &all).expect("writable");
    for tensor in &header.tensors {
        let mut bytes = vec![0; tensor.bytes as usize];
        file.read_at(tensor.begin, &mut bytes).expect("readable");
        out.tensor(&bytes).expect("written");
    }
    for (_, values) in vectors {
        out.tensor(&bytes(values)).expect("written");
    }
    out.finish().expect("written");
    path
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

#[test]
fn rotary_factors_of_a_gguf_are_those_of_llama_cpp() {
    let folder = Folder::new("rope");
    let factor = |factor: f32| ("llama.rope.scaling.factor", Value::F32(factor));
    let old = |factor: f32| ("llama.rope.scale_linear", Value::F32(factor));
    let kind = |kind: &str| ("llama.rope.scaling.type", text(kind));
    let divisors: &[(&str, &[f32])] = &[("rope_freqs.weight", &[2.0, 5.0])];
    /// Keys, vectors, radians per position of the two pairs.
    type Case<'a> = (Vec<(&'a str, Value)>, &'a [(&'a str, &'a [f32])], [f32; 2]);
    let cases: [Case; 12] = [
        (vec![], &[], [1.0, 0.01]),
        (vec![kind("linear"), factor(4.0)], &[], [0.25, 0.0025]),
        (vec![factor(4.0)], &[], [0.25, 0.0025]),
        (vec![old(4.0)], &[], [0.25, 0.0025]),
        (vec![kind("linear"), old(4.0)], &[], [0.25, 0.0025]),
        (vec![factor(2.0), old(4.0)], &[], [0.5, 0.005]),
        (vec![kind("none"), factor(4.0)], &[], [1.0, 0.01]),
        (vec![kind("linear"), factor(0.0)], &[], [1.0, 0.01]),
        (vec![kind("linear")], &[], [1.0, 0.01]),
        (vec![], divisors, [0.5, 0.002]),
        (vec![factor(4.0)], divisors, [0.125, 0.0005]),
        (vec![kind("none"), factor(4.0)], divisors, [0.5, 0.002]),
    ];
    for (keys, vectors, expected) in cases {
        let path = llama_gguf(&folder, &keys, vectors);
        let found = LlamaCheckpoint::open(&path).unwrap_or_else(|e| panic!("{keys:?}: {e}")).config.rope.frequencies(4);
        let close = found.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6);
        assert!(close && found.len() == 2, "{keys:?} {vectors:?}: {found:?}");
    }
    for (key, value) in [kind("yarn"), kind("longrope"), ("llama.rope.scaling.attn_factor", Value::F32(2.0))] {
        for vectors in [&[], divisors] {
            let refused = LlamaCheckpoint::open(&llama_gguf(&folder, &[(key, value.clone())], vectors));
            let said = refused.expect_err("another rule").to_string();
            assert!(said.contains(key), "{said}");
        }
    }
}

#[test]
fn keys_that_a_gguf_lacks_have_the_values_of_llama_cpp() {
    let folder = Folder::new("absent-keys");
    let every_head = LlamaShape { n_kv_head: 2, ..LlamaShape::clone(&llama(true).config) };
    let weights: LlamaWeights = Weights::random(&LlamaConfig::new(every_head).expect("valid"), 3);
    let absent = [
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.rope.dimension_count",
        "llama.rope.freq_base",
        "llama.vocab_size",
    ];
    let remove = |keys: &mut Vec<(String, Value)>| {
        let before = keys.len();
        keys.retain(|(key, _)| !absent.contains(&key.as_str()));
        assert_eq!(keys.len(), before - absent.len());
    };
    let found = LlamaCheckpoint::open(&changed_gguf(&folder, &weights, remove, &[])).expect("a right file");
    assert_eq!(found.config, weights.config);
}

/// llama.cpp reads these keys as a number or as one for each layer (`get_key_or_arr`).
#[test]
fn a_gguf_may_give_a_size_for_each_layer() {
    let folder = Folder::new("each-layer");
    let shape = LlamaShape { n_layer: 2, ..LlamaShape::clone(&llama(true).config) };
    let weights: LlamaWeights = Weights::random(&LlamaConfig::new(shape.clone()).expect("valid"), 3);
    let open = |key: &str, list: Array| {
        let change = |metadata: &mut Vec<(String, Value)>| {
            metadata.retain(|(k, _)| k != key);
            metadata.push((key.to_owned(), Value::Array(list)));
        };
        LlamaCheckpoint::open(&changed_gguf(&folder, &weights, change, &[]))
    };
    let (layers, heads, kv_heads, inner) =
        (shape.n_layer, shape.n_head as i32, shape.n_kv_head as u32, shape.n_ff as u64);
    let found = [
        open("llama.attention.head_count", Array::I32(vec![heads; layers])),
        open("llama.attention.head_count_kv", Array::U32(vec![kv_heads; layers])),
        open("llama.feed_forward_length", Array::U64(vec![inner; layers])),
    ];
    for (i, found) in found.into_iter().enumerate() {
        assert_eq!(found.expect("equal numbers").config, weights.config, "{i}");
    }
    let mut unequal = vec![kv_heads; layers];
    unequal[layers - 1] += 1;
    for (list, words) in [
        (Array::U32(unequal), "layers of different sizes are not computed"),
        (Array::U32(vec![kv_heads; layers + 1]), "layers"),
        (Array::U32(Vec::new()), "layers"),
        (Array::F32(vec![1.0; layers]), "a whole number for each layer is needed"),
    ] {
        let said = open("llama.attention.head_count_kv", list).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_gguf_with_what_would_not_be_computed_is_refused() {
    let folder = Folder::new("not-computed");
    for name in [
        "blk.0.attn_q.bias",
        "blk.0.attn_output.bias",
        "blk.0.ffn_down.bias",
        "blk.0.attn_q_norm.weight",
        "blk.1.attn_norm.weight",
        "extra",
    ] {
        let refused = LlamaCheckpoint::open(&llama_gguf(&folder, &[], &[(name, &[1.0; 8])]));
        let Err(ModelError::Format(error)) = refused else { panic!("{name} was accepted") };
        assert!(matches!(&error.cause, Cause::UnknownTensor { tensor, .. } if tensor == name), "{error}");
    }
    for (key, value) in [
        ("llama.attention.causal", Value::Bool(false)),
        ("llama.expert_count", Value::U32(4)),
        ("llama.vocab_size", Value::U32(10)),
    ] {
        let refused = LlamaCheckpoint::open(&llama_gguf(&folder, &[(key, value)], &[]));
        let said = refused.expect_err("another model").to_string();
        assert!(said.contains(key), "{said}");
    }
    let usual = [
        ("llama.attention.causal", Value::Bool(true)),
        ("llama.expert_count", Value::U32(0)),
        ("llama.vocab_size", Value::U32(11)),
        ("llama.rope.scaling.attn_factor", Value::F32(1.0)),
    ];
    LlamaCheckpoint::open(&llama_gguf(&folder, &usual, &[])).expect("a usual file");
    // Where the file lists its tokens, the embedding counts them, whatever the key says.
    let tokens = corella_model::formats::gguf::Array::String((0..11).map(|i| i.to_string()).collect());
    let listed = [("llama.vocab_size", Value::U32(10)), ("tokenizer.ggml.tokens", Value::Array(tokens))];
    assert_eq!(LlamaCheckpoint::open(&llama_gguf(&folder, &listed, &[])).expect("a usual file").config.vocab_size, 11);
}

/// A folder with the Llama's files, config.json changed.
fn llama_folder(folder: &Folder, tied: bool, change: impl FnOnce(&mut Json)) -> PathBuf {
    let dir = folder.path("llama");
    let _ = std::fs::remove_dir_all(&dir);
    hugging_face::save(&llama(tied), &SpecialIds { bos: Some(0), eos: vec![1] }, WeightFormat::F32, &dir)
        .expect("written");
    change_config(&dir, change);
    dir
}

fn change_config(dir: &Path, change: impl FnOnce(&mut Json)) {
    let path = dir.join("config.json");
    let mut config: Json = serde_json::from_str(&std::fs::read_to_string(&path).expect("read")).expect("JSON");
    change(&mut config);
    std::fs::write(path, config.to_string()).expect("written");
}

/// Writes a folder's weights again, under other names (none: without it), with F32 tensors behind them.
fn change_tensors(dir: &Path, rename: impl Fn(&str) -> Option<String>, more: &[(&str, &[usize], Vec<f32>)]) {
    let path = dir.join("model.safetensors");
    let file = SafeTensors::open(&path).expect("a right file");
    let mut kept = Vec::new();
    for (name, tensor) in &file.tensors {
        if let Some(name) = rename(name) {
            let mut bytes = vec![0; tensor.bytes as usize];
            file.file.read_at(tensor.begin, &mut bytes).expect("readable");
            kept.push((name, tensor.shape.iter().map(|d| *d as usize).collect(), bytes));
        }
    }
    kept.extend(more.iter().map(|(name, shape, values)| ((*name).to_owned(), shape.to_vec(), bytes(values))));
    let table: Vec<NewTensor> = kept
        .iter()
        .map(|(name, shape, _): &(String, Vec<usize>, Vec<u8>)| NewTensor {
            name: name.clone(),
            shape: shape.clone(),
            encoding: Encoding::F32,
        })
        .collect();
    let mut out = create_safetensors(&path, &table).expect("writable");
    kept.iter().for_each(|(.., bytes)| out.tensor(bytes).expect("written"));
    out.finish().expect("whole");
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[test]
fn the_family_of_a_folder_is_known_or_named() {
    let folder = Folder::new("family");
    let remove = |config: &mut Json| drop(config.as_object_mut().expect("an object").remove("model_type"));
    assert!(matches!(AnyModel::open(&llama_folder(&folder, false, |_| {})), Ok(AnyModel::Llama(_))));
    assert!(matches!(AnyModel::open(&llama_folder(&folder, false, remove)), Ok(AnyModel::Llama(_))));
    let dir = folder.path("gpt2");
    let gpt2: Gpt2Weights = Weights::random(&Gpt2Config::new(11, 1, 2, 8, 16).expect("valid"), 3);
    hugging_face::save(&gpt2, &SpecialIds::default(), WeightFormat::F32, &dir).expect("written");
    assert!(matches!(AnyModel::open(&dir), Ok(AnyModel::Gpt2(_))));
    change_config(&dir, remove);
    assert!(matches!(AnyModel::open(&dir), Ok(AnyModel::Gpt2(_))));
    for name in ["mistral", "qwen3", "gemma3_text", "phi3", "gpt_neox"] {
        let refused = AnyModel::open(&llama_folder(&folder, false, |config| config["model_type"] = json!(name)));
        let said = refused.expect_err("another family").to_string();
        assert!(said.contains(&format!("model_type is {name}; llama and gpt2 are computed")), "{said}");
    }
    std::fs::write(dir.join("config.json"), "{}").expect("written");
    let said = AnyModel::open(&dir).expect_err("no family").to_string();
    assert!(said.contains("key model_type is missing"), "{said}");
}

#[test]
fn every_end_of_a_text_that_the_files_name_is_known() {
    let folder = Folder::new("ends");
    let special = |eos: Json, bos: Json, generation: Option<&str>| {
        let dir = llama_folder(&folder, false, |config| {
            config["eos_token_id"] = eos;
            config["bos_token_id"] = bos;
        });
        if let Some(text) = generation {
            std::fs::write(dir.join("generation_config.json"), text).expect("written");
        }
        AnyModel::open(&dir).map(|model| model.special())
    };
    let cases = [
        (json!(1), json!(0), None, Some(0), vec![1]),
        (json!(1), json!(0), Some(r#"{"eos_token_id": [1, 7]}"#), Some(0), vec![1, 7]),
        (json!([2, 1]), json!(0), Some(r#"{"eos_token_id": 7}"#), Some(0), vec![2, 1, 7]),
        (json!(null), json!(0), Some(r#"{"eos_token_id": 7}"#), Some(0), vec![7]),
        (json!(1), json!(0), Some(r#"{"eos_token_id": null}"#), Some(0), vec![1]),
        (json!(1), json!(0), Some("{}"), Some(0), vec![1]),
        // No token has these ids.
        (json!(-1), json!(-1), None, None, vec![]),
        (json!([-1, 3]), json!([5]), None, Some(5), vec![3]),
    ];
    for (eos, bos, generation, expected_bos, expected) in cases {
        let found = special(eos.clone(), bos, generation).expect("a right folder");
        assert_eq!((found.bos, found.eos), (expected_bos, expected), "{eos} {generation:?}");
    }
    let said = special(json!("</s>"), json!(0), None).expect_err("no id").to_string();
    assert!(said.contains("token id"), "{said}");
    let said = special(json!(1), json!(0), Some("{")).expect_err("no JSON").to_string();
    assert!(said.contains("generation_config.json"), "{said}");
}

#[test]
fn a_head_beside_a_tied_embedding_is_taken_where_it_differs() {
    let folder = Folder::new("head");
    let dir = llama_folder(&folder, true, |_| {});
    let tied = llama(true);
    let embedding = tied.tensors[tied.config.head()].clone();
    let mut head = embedding.clone();
    head[87] += 1.0;
    let read = || LlamaWeights::read(&LlamaCheckpoint::open(&dir).expect("a right folder")).expect("readable");
    change_tensors(&dir, same, &[("lm_head.weight", &[11, 8], embedding.clone())]);
    assert!(read() == tied);
    assert!(LlamaCheckpoint::open(&dir).expect("a right folder").left_out.is_empty());
    let without = |name: &str| Some(name.to_owned()).filter(|name| name != "lm_head.weight");
    change_tensors(&dir, without, &[("lm_head.weight", &[11, 8], head.clone())]);
    let found = read();
    assert!(!found.config.tied);
    assert_eq!(found.tensors[found.config.head()], head);
    assert_eq!(found.tensors[0], embedding);
    // The one matrix of a tied model may stand under the name of the head alone.
    change_tensors(&dir, |name| same(name).filter(|name| name != "model.embed_tokens.weight"), &[]);
    assert_eq!(read().tensors[0], head);
    // The same for a GPT-2.
    let gpt2: Gpt2Weights = Weights::random(&Gpt2Config::new(11, 1, 2, 8, 16).expect("valid"), 3);
    let dir = folder.path("gpt2");
    hugging_face::save(&gpt2, &SpecialIds::default(), WeightFormat::F32, &dir).expect("written");
    change_tensors(&dir, same, &[("lm_head.weight", &[11, 8], head.clone())]);
    let AnyModel::Gpt2(found) = AnyModel::open(&dir).expect("a right folder") else { panic!("a GPT-2") };
    let found = Gpt2Weights::read(&*found).expect("readable");
    assert_eq!(found.tensors[found.config.head()], head);
}

#[test]
fn tensors_of_a_folder_that_are_left_out_are_named() {
    let folder = Folder::new("left-out");
    let dir = llama_folder(&folder, false, |_| {});
    let more: [(&str, &[usize], Vec<f32>); 4] = [
        ("model.layers.0.self_attn.q_proj.bias", &[8], vec![1.0; 8]),
        ("model.layers.0.self_attn.q_norm.weight", &[4], vec![1.0; 4]),
        // Follow from the configuration.
        ("model.layers.0.self_attn.rotary_emb.inv_freq", &[2], vec![1.0; 2]),
        ("h.0.attn.bias", &[1], vec![1.0]),
    ];
    change_tensors(&dir, same, &more);
    let left_out = AnyModel::open(&dir).expect("a right folder").left_out().to_vec();
    assert_eq!(left_out, ["model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.q_proj.bias"]);
}

#[test]
fn a_llama_without_the_prefix_of_its_names_is_read() {
    let folder = Folder::new("prefix");
    let dir = llama_folder(&folder, true, |_| {});
    change_tensors(&dir, |name| name.strip_prefix("model.").map(str::to_owned), &[]);
    let found = LlamaCheckpoint::open(&dir).expect("a right folder");
    assert!(LlamaWeights::read(&found).expect("readable") == llama(true) && found.left_out.is_empty());
}

/// Expected bases as `transformers` 5.24 has them in `config.rope_parameters`.
#[test]
fn the_base_of_the_rotary_positions_is_that_of_transformers() {
    let folder = Folder::new("theta");
    let linear = |theta: Option<f64>| match theta {
        None => json!({"rope_type": "linear", "factor": 2.0}),
        Some(theta) => json!({"rope_type": "linear", "factor": 2.0, "rope_theta": theta}),
    };
    let default = json!({"rope_type": "default", "rope_theta": 300.0});
    for (top, scaling, parameters, expected, factor) in [
        (json!(null), json!(null), json!(null), 10_000.0, None),
        (json!(100.0), json!(null), json!(null), 100.0, None),
        (json!(100.0), json!(null), default.clone(), 300.0, None),
        (json!(100.0), linear(None), json!(null), 100.0, Some(2.0)),
        (json!(100.0), linear(Some(200.0)), json!(null), 200.0, Some(2.0)),
        (json!(null), linear(Some(200.0)), json!(null), 200.0, Some(2.0)),
        (json!(100.0), linear(Some(200.0)), default.clone(), 200.0, Some(2.0)),
        (json!(100.0), linear(None), default.clone(), 100.0, Some(2.0)),
        (json!(100.0), json!({}), default.clone(), 300.0, None),
    ] {
        let dir = llama_folder(&folder, true, |config| {
            for (key, value) in [("rope_theta", &top), ("rope_scaling", &scaling), ("rope_parameters", &parameters)] {
                config[key] = value.clone();
                if value.is_null() {
                    config.as_object_mut().expect("an object").remove(key);
                }
            }
        });
        let rope = LlamaCheckpoint::open(&dir).expect("a right folder").config.rope.clone();
        let scaled = factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor });
        assert_eq!(rope, Rope { theta: expected, scaling: scaled }, "{top} {scaling} {parameters}");
    }
}

#[test]
fn weights_under_other_names_are_said_to_be_there() {
    let folder = Folder::new("other-weights");
    for name in ["consolidated.safetensors", "model.fp16.safetensors", "adapter_model.safetensors"] {
        let dir = llama_folder(&folder, true, |_| {});
        std::fs::rename(dir.join("model.safetensors"), dir.join(name)).expect("renamed");
        let Err(ModelError::Format(error)) = AnyModel::open(&dir) else { panic!("{name} was read") };
        assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn later_versions_of_llama2c_are_named() {
    let folder = Folder::new("llama2c");
    let path = folder.path("m.bin");
    for version in [1u8, 2] {
        std::fs::write(&path, [b"24ka", &[version, 0, 0, 0][..], &[1; 300]].concat()).expect("written");
        let said = AnyModel::open(&path).expect_err("not read").to_string();
        assert!(said.contains(&format!("version {version}; llama2.c's files of version 0 are read")), "{said}");
    }
}
