//! Files of every kind bring back the weights that were written into them, in every number format that is written.

mod common;

use std::path::{Path, PathBuf};

use common::Folder;
use corella_model::exchange::{Exchange, gguf, hugging_face};
use corella_model::formats::gguf::{NewTensor, Shards, Value, create, open};
use corella_model::formats::{Cause, Encoding, safetensors};
use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Config, Gpt2Weights, save_llmc};
use corella_model::llama::{LlamaConfig, LlamaShape, LlamaWeights, Rope, RopeScaling};
use corella_model::params::ModelConfig;
use corella_model::{Checkpoint, ModelError, SpecialIds, Weights};
use corella_ops::WeightFormat;

fn gpt2() -> Gpt2Weights {
    Weights::random(&Gpt2Config::new(131, 3, 2, 32, 20).expect("valid"), 11)
}

fn llama() -> LlamaWeights {
    let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
    let shape = LlamaShape {
        vocab_size: 131,
        n_layer: 2,
        n_head: 4,
        n_kv_head: 2,
        head_size: 16,
        n_embd: 64,
        n_ff: 96,
        context_len: 20,
        norm_eps: 1e-5,
        tied: false,
        rope,
    };
    Weights::random(&LlamaConfig::new(shape).expect("valid"), 11)
}

/// Number formats that are written, and how far rounding moves a weight of a row whose largest is `max`.
const FORMATS: [(WeightFormat, f32); 5] = [
    (WeightFormat::F32, 0.0),
    (WeightFormat::F16, 1.0 / 2048.0),
    (WeightFormat::Bf16, 1.0 / 256.0),
    (WeightFormat::Q8_0, 1.0 / 200.0),
    (WeightFormat::Q4_0, 1.0 / 7.5),
];

fn assert_close<C: Exchange>(path: &Path, expected: &Weights<C>, rounding: f32) {
    let found = Weights::read(&Checkpoint::<C>::open(path).unwrap_or_else(|e| panic!("{e}"))).expect("readable");
    assert_eq!(found.config, expected.config);
    for (row, (ours, theirs)) in found.tensors.iter().zip(&expected.tensors).enumerate() {
        let max = theirs.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let close = ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= rounding * max);
        assert!(close && ours.len() == theirs.len(), "{}: row {row}", path.display());
    }
}

fn there_and_back<C: Exchange>(folder: &Folder, weights: &Weights<C>) {
    for (format, rounding) in FORMATS {
        let file = folder.path(&format!("{}.gguf", format.name()));
        gguf::save(weights, "test", Vec::new(), format, &file).expect("written");
        assert_close(&file, weights, rounding);
        let (_, header) = open(&file).expect("a header");
        assert_eq!(header.get(gguf::ARCHITECTURE).and_then(Value::as_str), Some(C::ARCHITECTURE));
        if format.block_len() == 1 {
            let dir = folder.path(format.name());
            hugging_face::save(weights, &SpecialIds::default(), format, &dir).expect("written");
            assert_close(&dir, weights, rounding);
            // What a GGUF file brings back is what a folder of the same format brings back.
            let again = folder.path(&format!("{}-again", format.name()));
            hugging_face::save(&Checkpoint::<C>::open(&file).expect("read"), &SpecialIds::default(), format, &again)
                .expect("written");
            assert_close(&again, weights, rounding);
        }
    }
}

#[test]
fn gpt2_survives_every_kind_of_file_in_every_format() {
    let (folder, weights) = (Folder::new("gpt2"), gpt2());
    there_and_back(&folder, &weights);
    for (format, rounding) in [FORMATS[0], FORMATS[2]] {
        let bin = folder.path(&format!("{}.bin", format.name()));
        save_llmc(&weights, format, &bin).expect("written");
        assert_close(&bin, &weights, rounding);
        // From llm.c to GGUF and back to llm.c, byte by byte.
        let (file, again) = (folder.path("way.gguf"), folder.path("again.bin"));
        gguf::save(&Gpt2Checkpoint::open(&bin).expect("read"), "test", Vec::new(), format, &file).expect("written");
        save_llmc(&Gpt2Checkpoint::open(&file).expect("read"), format, &again).expect("written");
        assert!(std::fs::read(&bin).expect("read") == std::fs::read(&again).expect("read"), "{}", format.name());
    }
    for format in [WeightFormat::F16, WeightFormat::Q8_0] {
        let error = save_llmc(&weights, format, &folder.path("no.bin")).expect_err("llm.c has no such version");
        assert!(error.to_string().contains("F32 or BF16"), "{error}");
    }
}

#[test]
fn llama_survives_every_kind_of_file_in_every_format() {
    there_and_back(&Folder::new("llama"), &llama());
}

#[test]
fn a_tensor_that_is_written_in_several_pieces_survives() {
    let folder = Folder::new("pieces");
    // 4.2 MB of token embedding: it is read in two pieces.
    there_and_back(&folder, &Weights::random(&Gpt2Config::new(33_001, 1, 1, 32, 20).expect("valid"), 3));
    let values: Vec<f32> = (0..600_001u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761) >> 2)).collect();
    let tensor = |name: &str| safetensors::NewTensor {
        name: name.to_owned(),
        shape: vec![values.len()],
        encoding: Encoding::F32,
    };
    let path = folder.path("moments.safetensors");
    let mut out = safetensors::create(&path, &[tensor("m"), tensor("v")]).expect("created");
    out.f32_tensor(&values).expect("written");
    out.f32_tensor(&values).expect("written");
    out.finish().expect("whole");
    let file = safetensors::SafeTensors::open(&path).expect("a header");
    for name in ["m", "v"] {
        assert!(file.read_f32(name, &[values.len()]).expect("there") == values, "{name}");
    }
}

#[test]
fn turned_matrices_of_several_pieces_lie_as_they_should() {
    // Hugging Face's Conv1D keeps (inputs, outputs), memory (outputs, inputs); pieces of 1 MiB end within these matrices.
    const C: usize = 320;
    let value = |input: usize, output: usize| (input * 2048 + output) as f32;
    let matrices =
        [("attn.c_attn", [C, 3 * C]), ("attn.c_proj", [C, C]), ("mlp.c_fc", [C, 4 * C]), ("mlp.c_proj", [4 * C, C])];
    let vectors = ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"];
    let mut table: Vec<(String, Vec<usize>)> =
        vec![("wte.weight".into(), vec![3, C]), ("wpe.weight".into(), vec![2, C])];
    table.extend(vectors.map(|name| (format!("h.0.{name}"), vec![C])));
    for (name, shape) in matrices {
        table.push((format!("h.0.{name}.weight"), shape.to_vec()));
        table.push((format!("h.0.{name}.bias"), vec![shape[1]]));
    }
    table.extend(["ln_f.weight", "ln_f.bias"].map(|name| (name.to_owned(), vec![C])));
    let new = |(name, shape): &(String, Vec<usize>)| safetensors::NewTensor {
        name: name.clone(),
        shape: shape.clone(),
        encoding: Encoding::F32,
    };
    let folder = Folder::new("turned");
    let json = r#"{"model_type": "gpt2", "vocab_size": 3, "n_layer": 1, "n_head": 5, "n_embd": 320, "n_positions": 2}"#;
    std::fs::write(folder.path("config.json"), json).expect("written");
    let path = folder.path("model.safetensors");
    let mut out = safetensors::create(&path, &table.iter().map(new).collect::<Vec<_>>()).expect("created");
    for (_, shape) in &table {
        let cols = *shape.last().expect("a dimension");
        let numbers = (0..shape.iter().product()).map(|i: usize| value(i / cols, i % cols));
        out.f32_tensor(&numbers.collect::<Vec<f32>>()).expect("written");
    }
    out.finish().expect("whole");
    let found = Weights::read(&Gpt2Checkpoint::open(&folder.0).expect("a folder")).expect("readable");
    for (name, [inputs, outputs]) in matrices {
        let name = format!("h.0.{name}.weight");
        let row = found.config.table().iter().position(|spec| spec.name == name).expect("in the table");
        let expected: Vec<f32> = (0..outputs * inputs).map(|i| value(i % inputs, i / inputs)).collect();
        assert!(found.tensors[row] == expected, "{name}");
    }
}

#[test]
fn a_gpt2_with_a_head_of_its_own_keeps_it() {
    let folder = Folder::new("own-head");
    let config = Gpt2Config::new(64, 1, 2, 32, 20).expect("valid").with_own_head().expect("valid");
    let weights: Gpt2Weights = Weights::random(&config, 5);
    there_and_back(&folder, &weights);
    assert!(save_llmc(&weights, WeightFormat::F32, &folder.path("no.bin")).is_err(), "llm.c's files have no such head");
}

#[test]
fn broken_files_of_a_gpt2_are_refused() {
    let (folder, weights) = (Folder::new("broken"), gpt2());
    let dir = folder.path("hf");
    hugging_face::save(&weights, &SpecialIds::default(), WeightFormat::F32, &dir).expect("written");
    let file = dir.join("model.safetensors");
    let whole = std::fs::read(&file).expect("read");
    let huge = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
    for broken in [&whole[..whole.len() - 4], &whole[..5], &huge, &[&whole[..], &[0; 4]].concat()] {
        std::fs::write(&file, broken).expect("written");
        assert!(Gpt2Checkpoint::open(&dir).is_err());
    }
    let path = folder.path("model.bin");
    save_llmc(&weights, WeightFormat::F32, &path).expect("written");
    let bin = std::fs::read(&path).expect("read");
    for (at, word) in [(0, 1u32), (4, 9), (12, u32::MAX), (16, 0), (20, 3), (28, 7), (28, u32::MAX)] {
        let mut broken = bin.clone();
        broken[at..at + 4].copy_from_slice(&word.to_le_bytes());
        std::fs::write(&path, &broken).expect("written");
        assert!(Gpt2Checkpoint::open(&path).is_err(), "header word {}", at / 4);
    }
    for len in [0, 3, 1023, bin.len() - 1] {
        std::fs::write(&path, &bin[..len]).expect("written");
        assert!(Gpt2Checkpoint::open(&path).is_err(), "{len} bytes");
    }
}

/// Splits a file into `count`, each tensor into the next file, as llama.cpp's gguf-split writes them. `change` may lie about
/// the keys of a file.
fn split(whole: &Path, folder: &Folder, count: usize, change: impl Fn(usize, &mut Vec<(String, Value)>)) -> PathBuf {
    let (file, header) = open(whole).expect("a right file");
    let all = header.tensors.len();
    for index in 0..count {
        let mut keys = vec![
            ("split.no".to_owned(), Value::U16(index as u16)),
            ("split.count".to_owned(), Value::U16(count as u16)),
            ("split.tensors.count".to_owned(), Value::I32(all as i32)),
        ];
        if index == 0 {
            keys.extend(header.metadata.clone());
        }
        change(index, &mut keys);
        let own: Vec<_> = header.tensors.iter().skip(index).step_by(count).collect();
        let table = own.iter().map(|t| NewTensor { name: t.name.clone(), dims: t.dims.clone(), encoding: t.encoding });
        let path = folder.path(&format!("m-{:05}-of-{count:05}.gguf", index + 1));
        let mut out = create(&path, &keys, &table.collect::<Vec<_>>()).expect("writable");
        for tensor in own {
            let mut bytes = vec![0; tensor.bytes as usize];
            file.read_at(tensor.begin, &mut bytes).expect("readable");
            out.tensor(&bytes).expect("written");
        }
        out.finish().expect("written");
    }
    folder.path(&format!("m-00001-of-{count:05}.gguf"))
}

#[test]
fn a_model_split_over_several_files_is_one_model() {
    let folder = Folder::new("split");
    let whole = folder.path("whole.gguf");
    let (gpt2, llama) = (gpt2(), llama());
    for count in [2, 3, 7] {
        gguf::save(&gpt2, "test", Vec::new(), WeightFormat::Q8_0, &whole).expect("written");
        let first = split(&whole, &folder, count, |_, _| {});
        let read = |path: &Path| Weights::read(&Gpt2Checkpoint::open(path).expect("a model")).expect("readable");
        assert!(read(&first) == read(&whole), "{count} files");
        gguf::save(&llama, "test", Vec::new(), WeightFormat::F32, &whole).expect("written");
        assert_close(&split(&whole, &folder, count, |_, _| {}), &llama, 0.0);
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = Folder::new("split-broken");
    let whole = folder.path("whole.gguf");
    gguf::save(&gpt2(), "test", Vec::new(), WeightFormat::F32, &whole).expect("written");
    let cause = |path: &Path| Shards::open(path).expect_err("refused").cause;
    let set = |key: &str, value: Value| {
        let key = key.to_owned();
        move |keys: &mut Vec<(String, Value)>| {
            keys.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, v)| *v = value.clone())
        }
    };
    let unsupported =
        |cause: Cause, expected: &str| matches!(cause, Cause::Unsupported { field, .. } if field == expected);
    // A file with another number or another count, a count that does not fit, a missing file, a part by itself.
    let first = split(&whole, &folder, 3, |i, keys| {
        if i == 1 {
            set("split.no", Value::U16(2))(keys)
        }
    });
    assert!(unsupported(cause(&first), "split.no"));
    let first = split(&whole, &folder, 3, |i, keys| {
        if i == 2 {
            set("split.count", Value::U16(4))(keys)
        }
    });
    assert!(unsupported(cause(&first), "split.count"));
    let first = split(&whole, &folder, 3, |_, keys| set("split.tensors.count", Value::I32(7))(keys));
    assert!(unsupported(cause(&first), "split.tensors.count"));
    let first = split(&whole, &folder, 3, |_, keys| set("split.count", Value::U32(u32::MAX))(keys));
    assert!(unsupported(cause(&first), "split.count"));
    let first = split(&whole, &folder, 3, |_, _| {});
    assert!(unsupported(cause(&folder.path("m-00002-of-00003.gguf")), "split.no"));
    // The same tensors twice.
    std::fs::copy(folder.path("m-00002-of-00003.gguf"), folder.path("kept")).expect("copied");
    let (file, header) = open(&first).expect("right");
    let keys = [("split.no", 1), ("split.count", 3)].map(|(k, v)| (k.to_owned(), Value::U16(v)));
    let t = &header.tensors[0];
    let again = NewTensor { name: t.name.clone(), dims: t.dims.clone(), encoding: Encoding::F32 };
    let mut out = create(&folder.path("m-00002-of-00003.gguf"), &keys, &[again]).expect("writable");
    let mut bytes = vec![0; t.bytes as usize];
    file.read_at(t.begin, &mut bytes).expect("readable");
    out.tensor(&bytes).expect("written");
    out.finish().expect("written");
    assert!(matches!(cause(&first), Cause::TensorInTwoShards { .. }));
    std::fs::remove_file(folder.path("m-00002-of-00003.gguf")).expect("removed");
    assert!(matches!(cause(&first), Cause::MissingShard { shard } if shard == "m-00002-of-00003.gguf"));
    // Under another name the others cannot be found.
    std::fs::rename(&first, folder.path("other.gguf")).expect("renamed");
    assert!(unsupported(cause(&folder.path("other.gguf")), "split.count"));
    let refused: Result<Gpt2Checkpoint, ModelError> = Checkpoint::open(&folder.path("other.gguf"));
    assert!(refused.is_err());
}
