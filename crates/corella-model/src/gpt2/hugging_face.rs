//! Hugging Face folders: config.json and model.safetensors, as `transformers.GPT2LMHeadModel` writes and reads them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::Gpt2Config;
use super::params::{ParamSpec, param_specs};
use super::weights::Gpt2Weights;
use crate::formats::safetensors::{NewTensor, Shards, Writer};
use crate::formats::{Cause, Encoding};
use crate::special_ids::OneOrMany;
use crate::text_model::{ModelFiles, ParamPart, TrainModel};
use crate::{ModelError, SpecialIds};

#[derive(Deserialize)]
struct ConfigFile {
    model_type: Option<String>,
    vocab_size: usize,
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    n_positions: usize,
    #[serde(default = "default_eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "default_activation")]
    activation_function: String,
    n_inner: Option<usize>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

fn default_eps() -> f64 {
    1e-5
}

fn default_activation() -> String {
    "gelu_new".to_owned()
}

/// Reads a folder.
pub fn load(dir: &Path) -> Result<Gpt2Weights, ModelError> {
    let (config, special) = load_config(dir)?;
    let shards = Shards::open(dir)?;
    let mut tensors = Vec::new();
    for spec in param_specs(&config) {
        // Files saved from the language-model class have the prefix; the published ones have not.
        let names = [format!("transformer.{}", spec.name), spec.name.clone()];
        let Some(name) = names.into_iter().find(|n| shards.tensors.contains_key(n)) else {
            return Err(Cause::MissingTensor { tensor: spec.name }.of(dir).into());
        };
        let values = shards.read_f32(&name, &file_shape(&spec))?;
        tensors.push(if spec.transposed { transpose(&values, spec.cols, spec.rows) } else { values });
    }
    Ok(Gpt2Weights { config, special, tensors })
}

fn load_config(dir: &Path) -> Result<(Gpt2Config, SpecialIds), ModelError> {
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    let file: ConfigFile = serde_json::from_str(&text).map_err(|e| ModelError::bad(&path, e.to_string()))?;
    let wrong = |what: String| Err(ModelError::bad(&path, what));
    match file.model_type.as_deref() {
        None | Some("gpt2") => {}
        Some(other) => return wrong(format!("model_type {other}; gpt2 is read")),
    }
    if !matches!(file.activation_function.as_str(), "gelu_new" | "gelu_pytorch_tanh") {
        return wrong(format!("activation_function {}; gelu_new is computed", file.activation_function));
    }
    if (file.layer_norm_epsilon - 1e-5).abs() > 1e-9 {
        return wrong(format!("layer_norm_epsilon {}; 1e-5 is computed", file.layer_norm_epsilon));
    }
    if file.n_inner.is_some_and(|n| n != 4 * file.n_embd) {
        return wrong(format!("n_inner {:?}; 4 · n_embd is computed", file.n_inner));
    }
    let config = Gpt2Config::new(file.vocab_size, file.n_layer, file.n_head, file.n_embd, file.n_positions)?;
    Ok((config, SpecialIds::from_config(file.bos_token_id, file.eos_token_id)))
}

/// Shape in the file: a transposed matrix is (in, out).
fn file_shape(spec: &ParamSpec) -> Vec<usize> {
    if spec.transposed { vec![spec.cols, spec.rows] } else { spec.shape() }
}

/// A row-major (rows, cols) matrix as (cols, rows).
fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (r, row) in values.chunks_exact(cols).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * rows + r] = *value;
        }
    }
    out
}

/// Writes a folder that `transformers` opens.
pub fn save(weights: &Gpt2Weights, dir: &Path) -> Result<(), ModelError> {
    write_folder(&weights.config, &weights.special, |i| weights.tensors[i].clone(), dir)
}

fn write_folder(
    config: &Gpt2Config,
    special: &SpecialIds,
    tensor: impl Fn(usize) -> Vec<f32>,
    dir: &Path,
) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let path = dir.join("config.json");
    let text = config_json(config, special);
    fs::File::create(&path)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
        .map_err(ModelError::io(&path))?;
    let table = param_specs(config);
    let tensors = table.iter().map(|spec| NewTensor {
        name: format!("transformer.{}", spec.name),
        shape: file_shape(spec),
        encoding: Encoding::F32,
    });
    let mut out = Writer::create(&dir.join("model.safetensors"), tensors.collect())?;
    for (i, spec) in table.iter().enumerate() {
        let values = tensor(i);
        let values = if spec.transposed { transpose(&values, spec.rows, spec.cols) } else { values };
        out.f32_tensor(&values)?;
    }
    Ok(out.finish()?)
}

fn config_json(config: &Gpt2Config, special: &SpecialIds) -> String {
    let value = serde_json::json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size(),
        "n_layer": config.n_layer(),
        "n_head": config.n_head(),
        "n_embd": config.n_embd(),
        "n_positions": config.seq_len(),
        "n_ctx": config.seq_len(),
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": true,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos_value(),
        "torch_dtype": "float32",
    });
    format!("{value:#}\n")
}

/// How a GPT-2 under training is kept in a checkpoint: as a Hugging Face folder.
#[derive(Clone, Debug)]
pub struct Gpt2Files {
    /// The shape under training.
    pub config: Gpt2Config,
    /// Ids of the tokenizer that it is trained with.
    pub special: SpecialIds,
}

impl ModelFiles for Gpt2Files {
    fn save(&self, model: &dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        write_folder(&self.config, &self.special, |i| model.read(i, ParamPart::Value), dir)
    }

    fn load(&self, model: &mut dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        let weights = load(dir)?;
        if weights.config != self.config {
            let what = format!("holds {:?} instead of {:?}", weights.config, self.config);
            return Err(ModelError::bad(&PathBuf::from(dir), what));
        }
        for (i, tensor) in weights.tensors.iter().enumerate() {
            model.write(i, ParamPart::Value, tensor);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        config_json(&self.config, &self.special)
    }
}
