//! Writing a Llama: as a Hugging Face folder, or as a GGUF file.

use std::fs;
use std::io::Write;
use std::path::Path;

use corella_ops::WeightFormat;
use corella_ops::quant::quantize_row;

use super::checkpoint::LlamaCheckpoint;
use super::config::LlamaConfig;
use super::gguf::ARCHITECTURE;
use super::names::{self, GGUF_ROPE_DIVISORS};
use super::params::{ParamSpec, Tensor, param_specs};
use super::rope::RopeScaling;
use super::source::{LlamaSource, LlamaWeights};
use crate::checkpoint::neighbours;
use crate::formats::atomic::AtomicFile;
use crate::formats::gguf::{self, Value};
use crate::formats::safetensors;
use crate::formats::{Cause, Encoding};
use crate::text_model::{ModelFiles, ParamPart, TrainModel};
use crate::{ModelError, SpecialIds};

/// Writes a folder that `transformers` opens, in F32, F16 or BF16.
pub fn save_hugging_face(
    source: &dyn LlamaSource,
    special: &SpecialIds,
    format: WeightFormat,
    dir: &Path,
) -> Result<(), ModelError> {
    let config = source.config();
    let text = config_json(config, special, format)?;
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    let path = dir.join("config.json");
    AtomicFile::create(&path)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.commit()))
        .map_err(ModelError::io(&path))?;
    let table = param_specs(config);
    let tensors = each_part(&table).map(|(spec, part)| safetensors::NewTensor {
        name: names::hugging_face(spec.parts[part].tensor, spec.layer),
        shape: if spec.vector { vec![spec.cols] } else { vec![spec.parts[part].rows, spec.cols] },
        encoding: format.into(),
    });
    let mut out = safetensors::Writer::create(&dir.join(safetensors::SINGLE), tensors.collect())?;
    for (row, spec) in table.iter().enumerate() {
        for part in 0..spec.parts.len() {
            out.tensor(&encode(source, row, part, spec, format)?)?;
        }
    }
    Ok(out.finish()?)
}

/// Writes a GGUF file that llama.cpp opens. Matrices are stored in `format`, norms in F32; `tokenizer` holds the keys
/// that begin with `tokenizer.`.
pub fn save_gguf(
    source: &dyn LlamaSource,
    name: &str,
    tokenizer: Vec<(String, Value)>,
    format: WeightFormat,
    path: &Path,
) -> Result<(), ModelError> {
    let config = source.config();
    let table = param_specs(config);
    let divisors = config.rope.divisors(config.head_size);
    let stored = |spec: &ParamSpec| if spec.vector { WeightFormat::F32 } else { format };
    let mut tensors = Vec::new();
    if let Some(divisors) = &divisors {
        let dims = vec![divisors.len() as u64];
        tensors.push(gguf::NewTensor { name: GGUF_ROPE_DIVISORS.to_owned(), dims, encoding: Encoding::F32 });
    }
    for (spec, part) in each_part(&table) {
        stored(spec).check_row(spec.cols, &spec.name)?;
        let rows = (!spec.vector).then_some(spec.parts[part].rows as u64);
        tensors.push(gguf::NewTensor {
            name: names::gguf(spec.parts[part].tensor, spec.layer),
            dims: std::iter::once(spec.cols as u64).chain(rows).collect(),
            encoding: stored(spec).into(),
        });
    }
    let mut metadata = metadata(config, name, format);
    metadata.extend(tokenizer);
    let mut out = gguf::Writer::create(path, &metadata, tensors)?;
    if let Some(divisors) = divisors {
        out.tensor(&divisors.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    for (row, spec) in table.iter().enumerate() {
        for part in 0..spec.parts.len() {
            let bytes = encode(source, row, part, spec, stored(spec))?;
            if !matches!(spec.parts[part].tensor, Tensor::Q | Tensor::K) {
                out.tensor(&bytes)?;
                continue;
            }
            // Rotary pairs are neighbours in the file.
            let row_bytes = bytes.len() / spec.parts[part].rows;
            let mut turned = Vec::with_capacity(bytes.len());
            bytes.chunks_exact(config.head_size * row_bytes).for_each(|head| neighbours(head, row_bytes, &mut turned));
            out.tensor(&turned)?;
        }
    }
    Ok(out.finish()?)
}

/// Every part of every row, in the order of the table.
fn each_part(table: &[ParamSpec]) -> impl Iterator<Item = (&ParamSpec, usize)> {
    table.iter().flat_map(|spec| (0..spec.parts.len()).map(move |part| (spec, part)))
}

/// The bytes of a part in a format: as they are where it has this format, else rounded from their values.
fn encode(
    source: &dyn LlamaSource,
    row: usize,
    part: usize,
    spec: &ParamSpec,
    format: WeightFormat,
) -> Result<Vec<u8>, ModelError> {
    let from = source.format(row, part);
    let (cols, mut out) = (spec.cols, Vec::new());
    if from == format {
        source.read_rows(row, part, &mut |_, bytes| out.extend_from_slice(bytes))?;
        return Ok(out);
    }
    let row_bytes = cols / from.block_len() * from.block_bytes();
    let (mut values, mut written) = (vec![0.0; cols], true);
    source.read_rows(row, part, &mut |_, bytes| {
        for row in bytes.chunks_exact(row_bytes) {
            corella_ops::quant::dequantize_row(from, row, &mut values);
            written &= quantize_row(format, &values, &mut out);
        }
    })?;
    if written {
        return Ok(out);
    }
    Err(ModelError::BadConfig {
        field: "format",
        value: format.name().to_owned(),
        rule: "F32, F16, BF16, Q8_0 and Q4_0 are written".to_owned(),
    })
}

/// The keys that say what the model is.
fn metadata(config: &LlamaConfig, name: &str, format: WeightFormat) -> Vec<(String, Value)> {
    // llama.cpp's `llama_ftype`: what most of the file is stored in.
    let file_type = match format {
        WeightFormat::F32 => 0,
        WeightFormat::F16 => 1,
        WeightFormat::Q4_0 => 2,
        WeightFormat::Q8_0 => 7,
        _ => 32,
    };
    // A validated configuration holds values up to 2^24.
    let whole = |rest: &str, v: usize| (format!("{ARCHITECTURE}.{rest}"), Value::U32(v as u32));
    let fraction = |rest: &str, v: f32| (format!("{ARCHITECTURE}.{rest}"), Value::F32(v));
    let general = |rest: &str, v: Value| (format!("general.{rest}"), v);
    let mut keys = vec![
        general("architecture", Value::String(ARCHITECTURE.to_owned())),
        general("name", Value::String(name.to_owned())),
        general("file_type", Value::U32(file_type)),
        general("quantization_version", Value::U32(2)),
        whole("block_count", config.n_layer),
        whole("context_length", config.context_len),
        whole("embedding_length", config.n_embd),
        whole("feed_forward_length", config.n_ff),
        whole("vocab_size", config.vocab_size),
        whole("attention.head_count", config.n_head),
        whole("attention.head_count_kv", config.n_kv_head),
        whole("attention.key_length", config.head_size),
        whole("attention.value_length", config.head_size),
        whole("rope.dimension_count", config.head_size),
        fraction("attention.layer_norm_rms_epsilon", config.norm_eps),
        fraction("rope.freq_base", config.rope.theta as f32),
    ];
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        keys.push((format!("{ARCHITECTURE}.rope.scaling.type"), Value::String("linear".to_owned())));
        keys.push(fraction("rope.scaling.factor", factor));
    }
    keys
}

fn config_json(config: &LlamaConfig, special: &SpecialIds, format: WeightFormat) -> Result<String, ModelError> {
    let dtype = match format {
        WeightFormat::F16 => "float16",
        WeightFormat::Bf16 => "bfloat16",
        _ => "float32",
    };
    let rope = config.rope.with_regimes(config.head_size).ok_or_else(|| ModelError::BadConfig {
        field: "rope_freqs",
        value: "divisors of another rule".to_owned(),
        rule: "must be those of Llama 3.1, which alone config.json can say".to_owned(),
    })?;
    let scaling = match rope.scaling {
        RopeScaling::Linear { factor } => serde_json::json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => serde_json::json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context as u64,
        }),
        RopeScaling::None | RopeScaling::Divisors(_) => serde_json::Value::Null,
    };
    let value = serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_len,
        // The shortest text of the f32, so that another reader gets the same number.
        "rms_norm_eps": config.norm_eps.to_string().parse::<f64>().unwrap_or(f64::from(config.norm_eps)),
        "rope_theta": config.rope.theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos_value(),
        "torch_dtype": dtype,
    });
    Ok(format!("{value:#}\n"))
}

/// How a Llama under training is kept in a checkpoint: as a Hugging Face folder in F32.
#[derive(Clone, Debug)]
pub struct LlamaFiles {
    /// The shape under training.
    pub config: LlamaConfig,
    /// Ids of the tokenizer that it is trained with.
    pub special: SpecialIds,
}

impl ModelFiles for LlamaFiles {
    fn save(&self, model: &dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        let tensors = (0..model.params().len()).map(|i| model.read(i, ParamPart::Value)).collect();
        let weights = LlamaWeights { config: self.config.clone(), tensors };
        save_hugging_face(&weights, &self.special, WeightFormat::F32, dir)
    }

    fn load(&self, model: &mut dyn TrainModel, dir: &Path) -> Result<(), ModelError> {
        let checkpoint = LlamaCheckpoint::open(dir)?;
        if checkpoint.config != self.config {
            let found = format!("{:?}", checkpoint.config);
            let allowed = format!("this run has {:?}", self.config);
            return Err(Cause::Unsupported { field: "the configuration".to_owned(), found, allowed }.of(dir).into());
        }
        for row in 0..model.params().len() {
            model.write(row, ParamPart::Value, &checkpoint.values(row)?);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        config_json(&self.config, &self.special, WeightFormat::F32).unwrap_or_default()
    }
}
