//! Model files to try the program on.

use std::path::{Path, PathBuf};

use corella_model::formats::gguf;
use corella_model::llama::{LlamaCheckpoint, LlamaWeights};
use serde_json::Value;

pub fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name).display().to_string()
}

/// The folder of real checkpoints, where it is there.
pub fn checkpoints() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/checkpoints");
    if !dir.is_dir() {
        eprintln!("skipped: {} is not here", dir.display());
        return None;
    }
    Some(dir)
}

pub fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("readable")).expect("JSON")
}

/// All weights of a Llama, as numbers.
pub fn weights(model: &str) -> LlamaWeights {
    LlamaWeights::read(&LlamaCheckpoint::open(Path::new(model)).expect("a right file")).expect("readable")
}

/// Writes the tensors of a GGUF that `wanted` takes by their number, with other keys, and says the size of the file.
pub fn part_of(whole: &Path, keys: &[(String, gguf::Value)], wanted: impl Fn(usize) -> bool, path: &Path) -> u64 {
    let (file, header) = gguf::open(whole).expect("a right file");
    let own: Vec<_> = header.tensors.iter().enumerate().filter(|(i, _)| wanted(*i)).map(|(_, t)| t).collect();
    let table =
        own.iter().map(|t| gguf::NewTensor { name: t.name.clone(), dims: t.dims.clone(), encoding: t.encoding });
    let mut out = gguf::create(path, keys, &table.collect::<Vec<_>>()).expect("writable");
    for tensor in own {
        let mut bytes = vec![0; tensor.bytes as usize];
        file.read_at(tensor.begin, &mut bytes).expect("readable");
        out.tensor(&bytes).expect("written");
    }
    out.finish().expect("written");
    std::fs::metadata(path).expect("there").len()
}

/// A folder with the Llama of the fixtures, its configuration changed by `config` and its weights by `weight`.
pub fn changed_llama(folder: &Path, config: impl Fn(&mut Value), weight: impl Fn(usize, f32) -> f32) -> String {
    let mut text = json_file(&PathBuf::from(fixture("llama/model/config.json")));
    config(&mut text);
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("config.json"), text.to_string()).expect("written");
    let mut bytes = std::fs::read(fixture("llama/model/model.safetensors")).expect("readable");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    for (i, x) in bytes[header..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *x = weight(i, f32::from_le_bytes(*x)).to_le_bytes();
    }
    std::fs::write(folder.join("model.safetensors"), bytes).expect("written");
    folder.display().to_string()
}

pub const IDS: [&str; 7] = ["--prompt-ids", "1,2,3", "--max-tokens", "4", "--seed", "42", "--json"];
