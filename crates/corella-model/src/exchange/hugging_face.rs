//! Hugging Face folders: config.json and safetensors, as `transformers` writes and reads them.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use corella_ops::WeightFormat;

use super::encode::encode_ordered;
use super::{Exchange, each_part};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::formats::atomic::AtomicFile;
use crate::formats::safetensors::{self, NewTensor, SINGLE, Shards, TensorType};
use crate::formats::{Cause, FormatError, ModelFile};
use crate::params::ParamSpec;
use crate::place::{Place, RowOrder, computable};
use crate::source::Source;
use crate::special_ids::SpecialIds;

/// The file of a folder that holds its template for conversations.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Opens a folder.
pub fn open<C: Exchange>(dir: &Path) -> Result<Checkpoint<C>, ModelError> {
    let path = dir.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    let (config, mut special) = C::from_json(&text, &path)?;
    special.add(generation_ids(dir)?);
    let mut shards = Shards::open(dir)?;
    let files = std::mem::take(&mut shards.files);
    let paths: Vec<&Path> = files.iter().map(|file| file.path()).collect();
    let places = |config: &C, spec: &ParamSpec<_>, part| find(&shards, &paths, dir, config, spec, part);
    let config = with_head_of_files(config, &shards, &files, places)?;
    let left_out = left_out(&config, &shards)?;
    let found = Checkpoint::with_places(config, special, Vec::new(), places)?;
    Ok(Checkpoint { files, left_out, chat_template: chat_template(dir), ..found })
}

/// A configuration that ties the head is not followed where the files hold embedding and head with different values:
/// `transformers` takes the head of the files then, too.
fn with_head_of_files<C: Exchange>(
    config: C,
    shards: &Shards,
    files: &[ModelFile],
    find: impl Fn(&C, &ParamSpec<C::Tensor>, usize) -> Result<Place, FormatError>,
) -> Result<C, ModelError> {
    if !config.tied() {
        return Ok(config);
    }
    let untied = config.with_own_head()?;
    let table = untied.table();
    let mut both = Vec::new();
    for (_, spec, part) in each_part(&table) {
        let tensor = spec.parts[part].tensor;
        if tensor == C::EMBEDDING || tensor == C::HEAD {
            if !untied.hugging_face_names(tensor, None).iter().any(|name| shards.tensors.contains_key(name)) {
                return Ok(config);
            }
            both.push(find(&untied, spec, part)?);
        }
    }
    let mut same = true;
    for pair in both.windows(2) {
        same &= pair[0].holds_the_same(&pair[1], files)?;
    }
    Ok(if same { config } else { untied })
}

/// Buffers that old files hold: masks, and rotary angles that follow from the configuration.
const BUFFERS: [&str; 3] = [".inv_freq", ".attn.bias", ".attn.masked_bias"];

/// The names of tensors that the model does not have, apart from buffers.
fn left_out<C: Exchange>(config: &C, shards: &Shards) -> Result<Vec<String>, ModelError> {
    let table = config.table();
    let names = |(_, spec, part): (usize, &ParamSpec<C::Tensor>, usize)| {
        config.hugging_face_names(spec.parts[part].tensor, spec.layer)
    };
    let mut known: HashSet<String> = each_part(&table).flat_map(names).collect();
    // Of a tied model the head may be there as well; it was found to hold the same.
    known.extend(config.with_own_head()?.hugging_face_names(C::HEAD, None));
    let unknown = |name: &&String| !known.contains(*name) && !BUFFERS.iter().any(|ending| name.ends_with(ending));
    Ok(shards.tensors.keys().filter(unknown).cloned().collect())
}

/// Begin and end of a text as generation_config.json names them, which `transformers` goes by where it is there.
fn generation_ids(dir: &Path) -> Result<SpecialIds, ModelError> {
    let path = dir.join("generation_config.json");
    let text = match fs::read_to_string(&path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(SpecialIds::default()),
        read => read.map_err(ModelError::io(&path))?,
    };
    let config = serde_json::from_str(&text).map_err(|e| Cause::BadJson { why: e.to_string() }.of(&path))?;
    Ok(SpecialIds::from_generation_config(&config))
}

/// The template in a file of its own, else the one in tokenizer_config.json: there it may be one of several with names, of
/// which that called "default" counts, else the first. A file that cannot be read has none: the tokenizer's reader
/// complains about it.
fn chat_template(dir: &Path) -> Option<String> {
    let own = dir.join(CHAT_TEMPLATE);
    if own.is_file() {
        return Some(fs::read_to_string(own).unwrap_or_default());
    }
    let text = fs::read_to_string(dir.join("tokenizer_config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    let template = config.get("chat_template").filter(|template| !template.is_null())?;
    let named = template.as_array().and_then(|all| {
        let default = all.iter().find(|one| one["name"] == "default");
        default.or(all.first())?["template"].as_str()
    });
    Some(template.as_str().or(named).unwrap_or_default().to_owned())
}

fn find<C: Exchange>(
    shards: &Shards,
    paths: &[&Path],
    dir: &Path,
    config: &C,
    spec: &ParamSpec<C::Tensor>,
    part: usize,
) -> Result<Place, FormatError> {
    let tensor = spec.parts[part].tensor;
    let names = config.hugging_face_names(tensor, spec.layer);
    let Some((name, placed)) = names.iter().find_map(|name| shards.tensors.get_key_value(name)) else {
        return Err(Cause::MissingTensor { tensor: names.into_iter().next().unwrap_or_default() }.of(dir));
    };
    let path = paths[placed.file];
    let encoding = match placed.tensor.dtype {
        TensorType::Weights(encoding) => encoding,
        TensorType::Other(found) => {
            let (field, allowed) = (format!("tensor {name}"), "F32, F16 and BF16 are computed");
            return Err(Cause::UnknownType { field, found: found.to_owned(), allowed }.of(path));
        }
    };
    let order = config.hugging_face_order(tensor);
    let expected: Vec<u64> = file_shape(spec, part, order).into_iter().map(|d| d as u64).collect();
    if placed.tensor.shape != expected {
        let found = placed.tensor.shape.clone();
        return Err(Cause::WrongShape { tensor: name.clone(), found, expected }.of(path));
    }
    Ok(Place {
        name: name.clone(),
        file: placed.file,
        begin: placed.tensor.begin,
        format: computable(encoding, name).map_err(|cause| cause.of(path))?,
        rows: spec.parts[part].rows,
        cols: spec.cols,
        order,
    })
}

/// Shape of a part in the file: a transposed matrix is (in, out).
fn file_shape<T>(spec: &ParamSpec<T>, part: usize, order: RowOrder) -> Vec<usize> {
    let mut shape = spec.part_shape(part);
    if order == RowOrder::Transposed {
        shape.reverse();
    }
    shape
}

/// Writes a folder that `transformers` opens, in F32, F16 or BF16.
pub fn save<C: Exchange>(
    source: &dyn Source<C>,
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
    let table = config.table();
    let tensors = each_part(&table).map(|(_, spec, part)| {
        let tensor = spec.parts[part].tensor;
        NewTensor {
            name: config.hugging_face_names(tensor, spec.layer).swap_remove(0),
            shape: file_shape(spec, part, config.hugging_face_order(tensor)),
            encoding: format.into(),
        }
    });
    let mut out = safetensors::create(&dir.join(SINGLE), &tensors.collect::<Vec<_>>())?;
    for (row, spec, part) in each_part(&table) {
        let order = config.hugging_face_order(spec.parts[part].tensor);
        encode_ordered(source, (row, part, spec.cols), format, order, &mut |bytes| out.tensor(bytes))?;
    }
    Ok(out.finish()?)
}

/// The text of config.json.
pub fn config_json<C: Exchange>(config: &C, special: &SpecialIds, format: WeightFormat) -> Result<String, ModelError> {
    let dtype = match format {
        WeightFormat::F16 => "float16",
        WeightFormat::Bf16 => "bfloat16",
        _ => "float32",
    };
    Ok(format!("{:#}\n", config.to_json(special, dtype)?))
}
