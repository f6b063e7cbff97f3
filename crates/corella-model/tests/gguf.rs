//! GGUF files in detail: keys and formats as llama.cpp writes and expects them.

mod common;
#[path = "common/llama.rs"]
mod small;

use std::path::{Path, PathBuf};

use common::Folder;
use corella_model::exchange::gguf;
use corella_model::formats::Encoding;
use corella_model::formats::gguf::{Gguf, NewTensor, Value, create, open};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Weights};
use corella_model::llama::{LlamaCheckpoint, LlamaWeights};
use corella_model::{Checkpoint, SpecialIds, Weights};
use corella_ops::WeightFormat;
use small::llama;

fn gpt2() -> Gpt2Weights {
    Weights::random(&Gpt2Config::new(40, 1, 2, 32, 20).expect("valid"), 11)
}

/// The GGUF of the Llama in F32, with its header changed.
fn changed(folder: &Folder, change: impl FnOnce(&mut Gguf)) -> PathBuf {
    let (plain, path) = (folder.path("plain.gguf"), folder.path("m.gguf"));
    gguf::save(&llama(true), "m", Vec::new(), WeightFormat::F32, &plain).expect("written");
    let (file, mut header) = open(&plain).expect("a right file");
    change(&mut header);
    let new = |t: &corella_model::formats::gguf::TensorInfo| NewTensor {
        name: t.name.clone(),
        dims: t.dims.clone(),
        encoding: t.encoding,
    };
    let mut out =
        create(&path, &header.metadata, &header.tensors.iter().map(new).collect::<Vec<_>>()).expect("writable");
    for tensor in &header.tensors {
        let mut bytes = vec![0; tensor.bytes as usize];
        file.read_at(tensor.begin, &mut bytes).expect("readable");
        out.tensor(&bytes).expect("written");
    }
    out.finish().expect("written");
    path
}

/// `llama_ftype` in llama.h.
#[test]
fn a_file_names_its_format_by_the_number_of_llama_cpp() {
    let folder = Folder::new("gguf-type");
    let path = folder.path("m.gguf");
    for (format, number) in [
        (WeightFormat::F32, 0),
        (WeightFormat::F16, 1),
        (WeightFormat::Q4_0, 2),
        (WeightFormat::Q8_0, 7),
        (WeightFormat::Bf16, 32),
    ] {
        gguf::save(&gpt2(), "m", Vec::new(), format, &path).expect("written");
        let (_, header) = open(&path).expect("a right file");
        assert_eq!(header.get("general.file_type"), Some(&Value::U32(number)), "{}", format.name());
        assert_eq!(header.get("general.quantization_version"), Some(&Value::U32(2)));
    }
}

/// Be it the embedding, or a tensor of its own beside an embedding that is only looked up.
#[test]
fn the_head_keeps_more_bits_than_four() {
    let folder = Folder::new("gguf-head");
    let path = folder.path("m.gguf");
    let encoding = |name: &str| {
        let (_, header) = open(&path).expect("a right file");
        header.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.encoding)
    };
    gguf::save(&gpt2(), "m", Vec::new(), WeightFormat::Q4_0, &path).expect("written");
    assert_eq!(encoding("token_embd.weight"), Some(Encoding::Q8_0));
    assert_eq!(encoding("blk.0.ffn_up.weight"), Some(Encoding::Q4_0));
    let untied = Gpt2Config::new(40, 1, 2, 32, 20).and_then(|config| config.with_own_head()).expect("valid");
    gguf::save(&Weights::random(&untied, 11), "m", Vec::new(), WeightFormat::Q4_0, &path).expect("written");
    assert_eq!(encoding("token_embd.weight"), Some(Encoding::Q4_0));
    assert_eq!(encoding("output.weight"), Some(Encoding::Q8_0));
}

#[test]
fn vectors_and_positions_stay_in_f32() {
    let folder = Folder::new("gguf-positions");
    let path = folder.path("m.gguf");
    gguf::save(&gpt2(), "m", Vec::new(), WeightFormat::Q8_0, &path).expect("written");
    let (_, header) = open(&path).expect("a right file");
    let matrices = ["token_embd", "blk.0.attn_qkv", "blk.0.attn_output", "blk.0.ffn_up", "blk.0.ffn_down"];
    for tensor in &header.tensors {
        let matrix = matrices.iter().any(|name| tensor.name == format!("{name}.weight"));
        assert_eq!(tensor.encoding, if matrix { Encoding::Q8_0 } else { Encoding::F32 }, "{}", tensor.name);
    }
    assert!(header.tensors.iter().any(|tensor| tensor.name == "position_embd.weight"));
}

/// As llama.cpp's converter stores them: blocks hold 32 numbers.
#[test]
fn matrices_whose_rows_are_no_whole_blocks_are_stored_in_f16() {
    let folder = Folder::new("gguf-ragged");
    let path = folder.path("m.gguf");
    // Width 48, and 4 · 48 = 192 = 6 · 32 numbers in a row of the last product.
    let weights: Gpt2Weights = Weights::random(&Gpt2Config::new(40, 1, 2, 48, 20).expect("valid"), 11);
    let ragged = gguf::save(&weights, "m", Vec::new(), WeightFormat::Q8_0, &path).expect("written");
    let halves = ["token_embd", "blk.0.attn_qkv", "blk.0.attn_output", "blk.0.ffn_up"].map(|n| format!("{n}.weight"));
    assert_eq!(ragged, halves);
    let (_, header) = open(&path).expect("a right file");
    let encoding = |name: &str| header.tensors.iter().find(|t| t.name == name).map(|t| t.encoding);
    assert!(halves.iter().all(|name| encoding(name) == Some(Encoding::F16)));
    assert_eq!(encoding("blk.0.ffn_down.weight"), Some(Encoding::Q8_0));
    Gpt2Weights::read(&Gpt2Checkpoint::open(&path).expect("opened")).expect("read");
    assert_eq!(gguf::save(&gpt2(), "m", Vec::new(), WeightFormat::Q8_0, &path).expect("written"), [""; 0]);
}

#[test]
fn the_ends_of_a_text_are_those_of_its_tokenizer() {
    let folder = Folder::new("gguf-ends");
    let ids = |keys: &[(&str, Value)]| {
        let path = changed(&folder, |header| {
            let own = keys.iter().map(|(name, id)| (format!("tokenizer.ggml.{name}_token_id"), id.clone()));
            header.metadata.extend(own);
        });
        LlamaCheckpoint::open(&path).expect("a model").special
    };
    let all = [("bos", Value::U32(3)), ("eos", Value::U32(5)), ("eot", Value::U64(7)), ("eom", Value::I32(9))];
    assert_eq!(ids(&all), SpecialIds { bos: Some(3), eos: vec![5, 7, 9] });
    let same = [("eot", Value::U32(5)), ("eos", Value::U32(5))];
    assert_eq!(ids(&same), SpecialIds { bos: None, eos: vec![5] });
    assert_eq!(ids(&[("eot", Value::U32(7))]), SpecialIds { bos: None, eos: vec![7] });
}

#[test]
fn dimensions_of_one_behind_the_others_say_nothing() {
    let folder = Folder::new("gguf-dims");
    let path = changed(&folder, |header| {
        for (tensor, ones) in header.tensors.iter_mut().zip([1, 2].into_iter().cycle()) {
            tensor.dims.resize((tensor.dims.len() + ones).min(4), 1);
        }
    });
    let found = LlamaCheckpoint::open(&path).expect("a model");
    assert!(LlamaWeights::read(&found).expect("readable") == llama(true));
}

#[test]
fn numbers_of_either_width_are_read() {
    let folder = Folder::new("gguf-numbers");
    let path = changed(&folder, |header| {
        for (key, value) in &mut header.metadata {
            match key.as_str() {
                "llama.rope.freq_base" => *value = Value::F64(500.0),
                "llama.attention.layer_norm_rms_epsilon" => *value = Value::F64(0.25),
                "llama.block_count" => *value = Value::U64(1),
                "llama.context_length" => *value = Value::I16(16),
                _ => {}
            }
        }
    });
    let config = LlamaCheckpoint::open(&path).expect("a model").config;
    let found = (config.rope.theta, config.norm_eps, config.n_layer, config.context_len);
    assert_eq!(found, (500.0, 0.25, 1, 16));
}

/// The bytes of a tensor of a file.
fn stored(path: &Path, name: &str) -> Vec<u8> {
    let (file, header) = open(path).expect("a right file");
    let tensor = header.tensor(name).expect("it is there");
    let mut bytes = vec![0; tensor.bytes as usize];
    file.read_at(tensor.begin, &mut bytes).expect("readable");
    bytes
}

#[test]
fn what_has_the_format_already_is_copied_and_not_rounded_again() {
    let folder = Folder::new("gguf-copied");
    let (from, to) = (folder.path("from.gguf"), folder.path("to.gguf"));
    gguf::save(&gpt2(), "m", Vec::new(), WeightFormat::Q8_0, &from).expect("written");
    let (_, header) = open(&from).expect("a right file");
    let name = "blk.0.ffn_up.weight";
    let tensor = header.tensor(name).expect("it is there");
    // Blocks whose largest number is 31 with the scale 1: rounding would make it 127 with a smaller scale.
    let block: Vec<u8> = [0x00, 0x3c].into_iter().chain(0..32).collect();
    let mut bytes = std::fs::read(&from).expect("readable");
    bytes[tensor.begin as usize..][..tensor.bytes as usize].chunks_mut(34).for_each(|b| b.copy_from_slice(&block));
    std::fs::write(&from, bytes).expect("written");
    let read: Gpt2Checkpoint = Checkpoint::open(&from).expect("a model");
    gguf::save(&read, "m", Vec::new(), WeightFormat::Q8_0, &to).expect("written");
    assert!(stored(&to, name).chunks(34).all(|found| found == block));
}
