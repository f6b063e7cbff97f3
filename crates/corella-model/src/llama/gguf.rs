//! GGUF files of architecture `llama`, as llama.cpp writes and reads them.

use std::path::Path;

use super::checkpoint::{LlamaCheckpoint, all_places};
use super::config::{LlamaConfig, LlamaShape};
use super::names::{GGUF_ROPE_DIVISORS, gguf as name_of};
use super::params::Tensor;
use super::rope::{Rope, RopeScaling};
use crate::checkpoint::{Place, RowOrder, computable};
use crate::formats::gguf::{self, Gguf, TensorInfo, Value};
use crate::formats::{Cause, FormatError, ModelFile};
use crate::{ModelError, SpecialIds};

/// Keys of this architecture begin with it.
pub const ARCHITECTURE: &str = "llama";

/// Opens a file.
pub fn open(path: &Path) -> Result<LlamaCheckpoint, ModelError> {
    let (file, header) = gguf::open(path)?;
    from_header(file, &header)
}

/// The checkpoint of a file whose header was read.
pub fn from_header(file: ModelFile, header: &Gguf) -> Result<LlamaCheckpoint, ModelError> {
    let path = file.path().to_path_buf();
    let keys = Keys { header, path: &path };
    let config = load_config(&keys, &file)?;
    let places = all_places(&config, |spec, part| {
        let part = spec.parts[part];
        let info = keys.tensor(&name_of(part.tensor, spec.layer))?;
        let expected: Vec<u64> =
            if spec.vector { vec![spec.cols as u64] } else { vec![spec.cols as u64, part.rows as u64] };
        // Trailing dimensions of 1 say nothing.
        let used = info.dims.iter().rposition(|d| *d != 1).map_or(1, |last| last + 1);
        if info.dims[..used.max(expected.len()).min(info.dims.len())] != expected {
            let cause = Cause::WrongShape { tensor: info.name.clone(), found: info.dims.clone(), expected };
            return Err(cause.of(&path));
        }
        let order = match part.tensor {
            Tensor::Q | Tensor::K => RowOrder::NeighboursToHalves { head_size: config.head_size },
            _ => RowOrder::AsStored,
        };
        Ok(Place {
            name: info.name.clone(),
            file: 0,
            begin: info.begin,
            format: computable(info.encoding, &info.name).map_err(|cause| cause.of(&path))?,
            rows: part.rows,
            cols: spec.cols,
            order,
        })
    })?;
    let special = special_ids(&keys);
    Ok(LlamaCheckpoint { config, special, files: vec![file], places })
}

/// Metadata with errors that name the file.
struct Keys<'a> {
    header: &'a Gguf,
    path: &'a Path,
}

impl Keys<'_> {
    fn missing(&self, key: &str) -> FormatError {
        Cause::MissingKey { key: key.to_owned() }.of(self.path)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        to: fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.header.get(key) else { return Ok(None) };
        let wrong = || Cause::WrongKeyType { key: key.to_owned(), found: value.kind(), expected };
        to(value).map(Some).ok_or_else(|| wrong().of(self.path))
    }

    fn whole(&self, rest: &str) -> Result<Option<usize>, FormatError> {
        let key = format!("{ARCHITECTURE}.{rest}");
        self.typed(&key, "a whole number from 0 on", |v| usize::try_from(v.as_u64()?).ok())
    }

    fn need(&self, rest: &str) -> Result<usize, FormatError> {
        self.whole(rest)?.ok_or_else(|| self.missing(&format!("{ARCHITECTURE}.{rest}")))
    }

    fn fraction(&self, rest: &str) -> Result<Option<f64>, FormatError> {
        self.typed(&format!("{ARCHITECTURE}.{rest}"), "a number", Value::as_f64)
    }

    fn text(&self, key: &str) -> Result<Option<String>, FormatError> {
        self.typed(key, "a text", |v| v.as_str().map(str::to_owned))
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.header.tensor(name).ok_or_else(|| Cause::MissingTensor { tensor: name.to_owned() }.of(self.path))
    }

    fn unsupported(&self, field: &str, found: String, allowed: &str) -> ModelError {
        Cause::Unsupported { field: field.to_owned(), found, allowed: allowed.to_owned() }.of(self.path).into()
    }
}

fn load_config(keys: &Keys<'_>, file: &ModelFile) -> Result<LlamaConfig, ModelError> {
    let architecture = keys.text("general.architecture")?.ok_or_else(|| keys.missing("general.architecture"))?;
    if architecture != ARCHITECTURE {
        return Err(keys.unsupported("general.architecture", architecture, "llama is computed"));
    }
    if let Some(count) = keys.header.get("split.count").and_then(Value::as_u64).filter(|n| *n > 1) {
        return Err(keys.unsupported("split.count", count.to_string(), "models in one file are read"));
    }
    let (n_embd, n_head) = (keys.need("embedding_length")?, keys.need("attention.head_count")?);
    let n_kv_head = keys.whole("attention.head_count_kv")?.unwrap_or(n_head);
    let head_size = match keys.whole("attention.key_length")? {
        Some(size) => size,
        None if n_head > 0 && n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => {
            let rule = format!("must divide embedding_length = {n_embd}");
            return Err(ModelError::BadConfig { field: "n_head", value: n_head.to_string(), rule });
        }
    };
    for rest in ["rope.dimension_count", "attention.value_length"] {
        if let Some(found) = keys.whole(rest)?.filter(|found| *found != head_size) {
            return Err(ModelError::BadConfig {
                field: "head_size",
                value: format!("{found} in {ARCHITECTURE}.{rest}"),
                rule: format!("must be {head_size}: all of a head turns"),
            });
        }
    }
    let embedding = keys.tensor(&name_of(Tensor::Embedding, None))?;
    let vocab_size = embedding.dims.get(1).and_then(|d| usize::try_from(*d).ok()).unwrap_or(0);
    let eps = keys.fraction("attention.layer_norm_rms_epsilon")?;
    let eps = eps.ok_or_else(|| keys.missing("llama.attention.layer_norm_rms_epsilon"))?;
    LlamaConfig::new(LlamaShape {
        vocab_size,
        n_layer: keys.need("block_count")?,
        n_head,
        n_kv_head,
        head_size,
        n_embd,
        n_ff: keys.need("feed_forward_length")?,
        context_len: keys.need("context_length")?,
        norm_eps: eps as f32,
        tied: keys.header.tensor(&name_of(Tensor::Head, None)).is_none(),
        rope: rope(keys, file)?,
    })
}

fn rope(keys: &Keys<'_>, file: &ModelFile) -> Result<Rope, ModelError> {
    let theta = keys.fraction("rope.freq_base")?.unwrap_or(10_000.0);
    let kind = keys.text("llama.rope.scaling.type")?.unwrap_or_else(|| "none".to_owned());
    let scaling = if let Some(info) = keys.header.tensor(GGUF_ROPE_DIVISORS) {
        let cols = usize::try_from(info.dims[0]).unwrap_or(usize::MAX);
        let format = computable(info.encoding, &info.name).map_err(|cause| cause.of(keys.path))?;
        // Its size was compared with the file's.
        let place = Place {
            name: info.name.clone(),
            file: 0,
            begin: info.begin,
            format,
            rows: 1,
            cols,
            order: RowOrder::AsStored,
        };
        RopeScaling::Divisors(place.read_f32(std::slice::from_ref(file))?)
    } else if kind == "linear" {
        let factor = keys.fraction("rope.scaling.factor")?;
        RopeScaling::Linear { factor: factor.ok_or_else(|| keys.missing("llama.rope.scaling.factor"))? as f32 }
    } else if kind == "none" {
        RopeScaling::None
    } else {
        return Err(keys.unsupported("llama.rope.scaling.type", kind, "none and linear are computed"));
    };
    Ok(Rope { theta, scaling })
}

fn special_ids(keys: &Keys<'_>) -> SpecialIds {
    let id = |name: &str| {
        let value = keys.header.get(&format!("tokenizer.ggml.{name}_token_id"))?;
        u32::try_from(value.as_u64()?).ok()
    };
    let mut eos: Vec<u32> = ["eos", "eot", "eom"].into_iter().filter_map(id).collect();
    eos.dedup();
    SpecialIds { bos: id("bos"), eos }
}
