//! A GPT-2's weights on the host, and finding out what kind of file holds them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::config::Gpt2Config;
use super::{hugging_face, llmc};
use crate::ModelError;

/// Configuration and tensors, in the order of the parameter table and the layout of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Weights {
    /// The shape.
    pub config: Gpt2Config,
    /// One per row of the parameter table.
    pub tensors: Vec<Vec<f32>>,
}

/// Reads a Hugging Face folder or a llm.c file.
pub fn load(path: &Path) -> Result<Gpt2Weights, ModelError> {
    if path.is_dir() {
        return hugging_face::load(path);
    }
    let mut magic = [0; 4];
    File::open(path).and_then(|mut f| f.read_exact(&mut magic)).map_err(ModelError::io(path))?;
    if u32::from_le_bytes(magic) == llmc::MAGIC {
        return llmc::load(path);
    }
    let guess = match &magic {
        b"GGUF" => "this is a GGUF file; GPT-2 is read from Hugging Face folders and llm.c files",
        [b'P', b'K', ..] | [0x80, ..] => {
            "this looks like a pickle, which can run code and is never opened; convert it to safetensors"
        }
        _ => "expected a folder with config.json and model.safetensors, or a llm.c file (magic 20240326)",
    };
    Err(ModelError::bad(path, guess))
}
