//! GGUF files of either family, as llama.cpp writes and reads them, in one file or split over several.

use std::collections::HashSet;
use std::path::Path;

use corella_ops::WeightFormat;

use super::encode::encode_ordered;
use super::{Exchange, each_part};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::formats::gguf::{NewTensor, Shards, TensorInfo, Value, create};
use crate::formats::{Cause, Encoding, FormatError};
use crate::params::ParamSpec;
use crate::place::{Place, RowOrder, computable};
use crate::source::Source;
use crate::special_ids::SpecialIds;

/// What tells the family.
pub const ARCHITECTURE: &str = "general.architecture";

/// The key of the template for conversations.
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Opens a file, or the first of several.
pub fn open<C: Exchange>(path: &Path) -> Result<Checkpoint<C>, ModelError> {
    let shards = Shards::open(path)?;
    let keys = Keys { shards: &shards, architecture: C::ARCHITECTURE, path };
    let found = keys.text(ARCHITECTURE)?.ok_or_else(|| keys.missing(ARCHITECTURE))?;
    if found != C::ARCHITECTURE {
        return Err(keys.unsupported(ARCHITECTURE, found, "llama and gpt2 are computed"));
    }
    keys.check_usual()?;
    let config = C::from_gguf(&keys)?;
    let find = |config: &C, spec: &ParamSpec<C::Tensor>, part: usize| keys.place(config, spec, part);
    let found = Checkpoint::with_places(config, special_ids(&keys), Vec::new(), find)?;
    keys.check_all_read::<C>(&found.config)?;
    let template = shards.header.get(CHAT_TEMPLATE);
    let chat_template = template.map(|template| template.as_str().unwrap_or_default().to_owned());
    Ok(Checkpoint { files: shards.files, chat_template, ..found })
}

/// Metadata and tensors of a model, with errors that name the file.
pub struct Keys<'a> {
    shards: &'a Shards,
    architecture: &'static str,
    path: &'a Path,
}

impl Keys<'_> {
    /// The error for a key that is not there.
    pub fn missing(&self, key: &str) -> FormatError {
        Cause::MissingKey { key: key.to_owned() }.of(self.path)
    }

    /// The error for a value that is computed in one way only.
    pub fn unsupported(&self, field: &str, found: String, allowed: &str) -> ModelError {
        Cause::Unsupported { field: field.to_owned(), found, allowed: allowed.to_owned() }.of(self.path).into()
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        to: fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.shards.header.get(key) else { return Ok(None) };
        let wrong = || Cause::WrongKeyType { key: key.to_owned(), found: value.kind(), expected };
        to(value).map(Some).ok_or_else(|| wrong().of(self.path))
    }

    /// The key of this architecture that ends with `rest`.
    pub fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    /// A whole number of this architecture, if it is there.
    pub fn whole(&self, rest: &str) -> Result<Option<usize>, FormatError> {
        self.typed(&self.name(rest), "a whole number from 0 on", |v| usize::try_from(v.as_u64()?).ok())
    }

    /// A whole number of this architecture that every model has.
    pub fn need(&self, rest: &str) -> Result<usize, FormatError> {
        self.whole(rest)?.ok_or_else(|| self.missing(&self.name(rest)))
    }

    /// A whole number that may be given for each layer, if it is there: one, or a list of as many equal ones as there are
    /// layers, as some converters write it.
    pub fn each_layer(&self, rest: &str) -> Result<Option<usize>, ModelError> {
        let key = self.name(rest);
        let Some(Value::Array(list)) = self.shards.header.get(&key) else { return Ok(self.whole(rest)?) };
        let wrong =
            || Cause::WrongKeyType { key: key.clone(), found: "an array", expected: "a whole number for each layer" };
        let numbers = list.as_u64s().ok_or_else(|| wrong().of(self.path))?;
        let (layers, said) = (self.need("block_count")?, numbers.len());
        let Some(first) = numbers.first().copied().filter(|_| said == layers) else {
            let found = format!("a list of {said} numbers");
            return Err(self.unsupported(&key, found, &format!("the model has {layers} layers")));
        };
        match numbers.into_iter().find(|other| *other != first) {
            Some(other) => {
                let found = format!("{first} in one layer and {other} in another");
                Err(self.unsupported(&key, found, "layers of different sizes are not computed"))
            }
            None => usize::try_from(first).map(Some).map_err(|_| wrong().of(self.path).into()),
        }
    }

    /// The same for a number that every model has.
    pub fn need_each_layer(&self, rest: &str) -> Result<usize, ModelError> {
        Ok(self.each_layer(rest)?.ok_or_else(|| self.missing(&self.name(rest)))?)
    }

    /// A number of this architecture, if it is there.
    pub fn fraction(&self, rest: &str) -> Result<Option<f64>, FormatError> {
        self.typed(&self.name(rest), "a number", Value::as_f64)
    }

    /// A text by its whole key, if it is there.
    pub fn text(&self, key: &str) -> Result<Option<String>, FormatError> {
        self.typed(key, "a text", |v| v.as_str().map(str::to_owned))
    }

    /// Refuses what llama.cpp computes in another way for files of any family.
    fn check_usual(&self) -> Result<(), ModelError> {
        let causal = self.typed(&self.name("attention.causal"), "a truth value", Value::as_bool)?;
        if causal == Some(false) {
            return Err(self.unsupported(&self.name("attention.causal"), "false".to_owned(), "true is computed"));
        }
        match self.whole("expert_count")?.filter(|n| *n > 0) {
            Some(n) => Err(self.unsupported(&self.name("expert_count"), n.to_string(), "no experts are computed")),
            None => Ok(()),
        }
    }

    /// Refuses tensors that the model does not have: without them it would compute something else.
    fn check_all_read<C: Exchange>(&self, config: &C) -> Result<(), ModelError> {
        let table = config.table();
        let names = each_part(&table).map(|(_, spec, part)| C::gguf_name(spec.parts[part].tensor, spec.layer));
        let known: HashSet<String> = names.chain(C::GGUF_EXTRA.map(str::to_owned)).collect();
        match self.shards.names().filter(|name| !known.contains(*name)).min() {
            Some(name) => {
                let (file, info) = self.found(name)?;
                let (tensor, family) = (info.name.clone(), self.architecture);
                Err(Cause::UnknownTensor { tensor, family }.of(self.shards.files[file].path()).into())
            }
            None => Ok(()),
        }
    }

    /// Tokens of the vocabulary: rows of the embedding. Where the file carries no tokenizer, the key that counts them must agree,
    /// as in llama.cpp.
    pub fn vocab_size(&self, embedding: &str) -> Result<usize, ModelError> {
        let rows = self.rows(embedding)?;
        let counted = self.whole("vocab_size")?.filter(|n| *n != rows);
        match counted.filter(|_| self.shards.header.get("tokenizer.ggml.tokens").is_none()) {
            Some(n) => {
                let allowed = format!("{embedding} has {rows} rows");
                Err(self.unsupported(&self.name("vocab_size"), n.to_string(), &allowed))
            }
            None => Ok(rows),
        }
    }

    /// Whether the files hold a tensor.
    pub fn holds(&self, name: &str) -> bool {
        self.shards.tensor(name).is_some()
    }

    /// Rows of a matrix that the model needs; 0 for one without a second dimension, which no configuration allows.
    pub fn rows(&self, name: &str) -> Result<usize, FormatError> {
        let (_, info) = self.found(name)?;
        Ok(info.dims.get(1).and_then(|rows| usize::try_from(*rows).ok()).unwrap_or(0))
    }

    fn found(&self, name: &str) -> Result<(usize, &TensorInfo), FormatError> {
        self.shards.tensor(name).ok_or_else(|| Cause::MissingTensor { tensor: name.to_owned() }.of(self.path))
    }

    /// The values of a vector, if it is there.
    pub fn vector(&self, name: &str) -> Result<Option<Vec<f32>>, FormatError> {
        if !self.holds(name) {
            return Ok(None);
        }
        let (file, info) = self.found(name)?;
        let format = computable(info.encoding, name).map_err(|cause| cause.of(self.path))?;
        // Its size was compared with the file's.
        let cols = usize::try_from(info.dims[0]).unwrap_or(usize::MAX);
        let (begin, order) = (info.begin, RowOrder::AsStored);
        let place = Place { name: name.to_owned(), file, begin, format, rows: 1, cols, order };
        place.read_f32(&self.shards.files).map(Some)
    }

    fn place<C: Exchange>(&self, config: &C, spec: &ParamSpec<C::Tensor>, part: usize) -> Result<Place, FormatError> {
        let tensor = spec.parts[part].tensor;
        let (file, info) = self.found(&C::gguf_name(tensor, spec.layer))?;
        let path = self.shards.files[file].path();
        let expected = dims(spec, part);
        // Trailing dimensions of 1 say nothing.
        let used = info.dims.iter().rposition(|d| *d != 1).map_or(1, |last| last + 1);
        if info.dims[..used.max(expected.len()).min(info.dims.len())] != expected {
            let cause = Cause::WrongShape { tensor: info.name.clone(), found: info.dims.clone(), expected };
            return Err(cause.of(path));
        }
        Ok(Place {
            name: info.name.clone(),
            file,
            begin: info.begin,
            format: computable(info.encoding, &info.name).map_err(|cause| cause.of(path))?,
            rows: spec.parts[part].rows,
            cols: spec.cols,
            order: config.gguf_order(tensor),
        })
    }
}

/// Dimensions of a part, the fastest first.
fn dims<T>(spec: &ParamSpec<T>, part: usize) -> Vec<u64> {
    spec.part_shape(part).into_iter().rev().map(|d| d as u64).collect()
}

fn special_ids(keys: &Keys<'_>) -> SpecialIds {
    let id = |name: &str| {
        let value = keys.shards.header.get(&format!("tokenizer.ggml.{name}_token_id"))?;
        u32::try_from(value.as_u64()?).ok()
    };
    let mut special = SpecialIds { bos: id("bos"), eos: Vec::new() };
    special.add(SpecialIds { bos: None, eos: ["eos", "eot", "eom"].into_iter().filter_map(id).collect() });
    special
}

/// The format that a part is to have. What the head multiplies by decides between all tokens, so four bits are too few for it:
/// llama.cpp gives it more too.
fn wanted<C: Exchange>(config: &C, spec: &ParamSpec<C::Tensor>, part: usize, format: WeightFormat) -> WeightFormat {
    let tensor = spec.parts[part].tensor;
    let head = tensor == C::HEAD || (tensor == C::EMBEDDING && config.tied());
    C::gguf_format(spec, if head && format == WeightFormat::Q4_0 { WeightFormat::Q8_0 } else { format })
}

/// How it is stored: where its rows are no whole blocks of that format in F16, as llama.cpp's converter does it.
fn stored<C: Exchange>(config: &C, spec: &ParamSpec<C::Tensor>, part: usize, format: WeightFormat) -> WeightFormat {
    let wanted = wanted(config, spec, part, format);
    if spec.cols.is_multiple_of(wanted.block_len()) { wanted } else { WeightFormat::F16 }
}

/// Writes a file that llama.cpp opens. Matrices are stored in `format`, the head beside Q4_0 in Q8_0, vectors in F32; `tokenizer` holds the keys that begin
/// with `tokenizer.`. Returns the names of the tensors that are stored in F16 because their rows are no whole blocks of `format`.
pub fn save<C: Exchange>(
    source: &dyn Source<C>,
    name: &str,
    tokenizer: Vec<(String, Value)>,
    format: WeightFormat,
    path: &Path,
) -> Result<Vec<String>, ModelError> {
    let config = source.config();
    let table = config.table();
    let extra = C::GGUF_EXTRA.zip(config.gguf_extra());
    let (mut tensors, mut ragged) = (Vec::new(), Vec::new());
    if let Some((name, values)) = &extra {
        let dims = vec![values.len() as u64];
        tensors.push(NewTensor { name: (*name).to_owned(), dims, encoding: Encoding::F32 });
    }
    for (_, spec, part) in each_part(&table) {
        let stored = stored(config, spec, part, format);
        let name = C::gguf_name(spec.parts[part].tensor, spec.layer);
        if stored != wanted(config, spec, part, format) {
            ragged.push(name.clone());
        }
        tensors.push(NewTensor { name, dims: dims(spec, part), encoding: stored.into() });
    }
    let general = |rest: &str, v: Value| (format!("general.{rest}"), v);
    let mut metadata = vec![
        general("architecture", Value::String(C::ARCHITECTURE.to_owned())),
        general("name", Value::String(name.to_owned())),
        general("file_type", Value::U32(file_type(format))),
        general("quantization_version", Value::U32(2)),
    ];
    metadata.extend(config.gguf_keys());
    metadata.extend(tokenizer);
    let mut out = create(path, &metadata, &tensors)?;
    if let Some((_, values)) = extra {
        out.tensor(&values.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    for (row, spec, part) in each_part(&table) {
        let stored = stored(config, spec, part, format);
        let order = config.gguf_order(spec.parts[part].tensor);
        encode_ordered(source, (row, part, spec.cols), stored, order, &mut |bytes| out.tensor(bytes))?;
    }
    out.finish()?;
    Ok(ragged)
}

/// llama.cpp's `llama_ftype`: what most of the file is stored in.
fn file_type(format: WeightFormat) -> u32 {
    match format {
        WeightFormat::F32 => 0,
        WeightFormat::F16 => 1,
        WeightFormat::Q4_0 => 2,
        WeightFormat::Q8_0 => 7,
        _ => 32,
    }
}

/// A whole number under a key. A validated configuration holds values up to 2^24.
pub fn whole(architecture: &str, rest: &str, v: usize) -> (String, Value) {
    (format!("{architecture}.{rest}"), Value::U32(v as u32))
}

/// A fraction under a key.
pub fn fraction(architecture: &str, rest: &str, v: f32) -> (String, Value) {
    (format!("{architecture}.{rest}"), Value::F32(v))
}
