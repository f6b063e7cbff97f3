//! What can be wrong with a model file: one variant per cause, with where it was found.

use std::path::{Path, PathBuf};

use super::sniff::{LFS_POINTER, SAFETENSORS};

/// A model file that cannot be read, with the place and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {cause}", path.display(), offset.map(|o| format!(" at byte {o}")).unwrap_or_default())]
pub struct FormatError {
    /// The file.
    pub path: PathBuf,
    /// Where in the file, if the cause has a place.
    pub offset: Option<u64>,
    /// What is wrong.
    #[source]
    pub cause: Cause,
}

/// Why a model file cannot be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages name: found, allowed, and the place in the file")]
pub enum Cause {
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing is in it.
    #[error("the file is empty")]
    Empty,
    /// Another kind of file.
    #[error("not a {expected} file: it begins with {found}{}", looks_like.map(|l| format!(", as {l} does")).unwrap_or_default())]
    BadMagic { expected: &'static str, found: String, looks_like: Option<&'static str> },
    /// A version that is not read.
    #[error("version {found}; {supported} are read")]
    UnsupportedVersion { found: u64, supported: &'static str },
    /// Written by a big-endian machine.
    #[error("written by a big-endian machine; little-endian files are read")]
    UnsupportedEndianness,
    /// A number of records that the rest of the file cannot hold.
    #[error("{field} = {found}, but the rest of the file holds at most {allowed}")]
    CountTooLarge { field: &'static str, found: u64, allowed: u64 },
    /// A length that points behind the end of the file, or above a fixed limit.
    #[error("{field} has length {found}; at most {allowed} is possible here")]
    LengthBeyondFile { field: String, found: u64, allowed: u64 },
    /// The file ends inside its header.
    #[error("the file ends inside {field}")]
    Truncated { field: String },
    /// A key or tensor name of length 0.
    #[error("{field} is empty")]
    EmptyKey { field: &'static str },
    /// A key or tensor name that stands twice.
    #[error("{name} stands twice{}", first.map(|o| format!(", first at byte {o}")).unwrap_or_default())]
    DuplicateName { name: String, first: Option<u64> },
    /// Text that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 { field: String },
    /// A type number that the format does not have, or that is not read.
    #[error("{field} has type {found}; {allowed}")]
    UnknownType { field: String, found: String, allowed: &'static str },
    /// The alignment of the data section.
    #[error("general.alignment is {found}; a power of two from 1 to 65536 is allowed, as a 32-bit number")]
    BadAlignment { found: String },
    /// More dimensions than the format has.
    #[error("tensor {tensor} has {found} dimensions; 1 to 4 are allowed")]
    TooManyDims { tensor: String, found: u32 },
    /// An array inside an array.
    #[error("{key} is an array of arrays; arrays are read one level deep")]
    NestingTooDeep { key: String },
    /// A dimension of 0.
    #[error("tensor {tensor} has a dimension of 0: {dims:?}")]
    ZeroDim { tensor: String, dims: Vec<u64> },
    /// A size that no file can have.
    #[error("tensor {tensor} of shape {dims:?} is larger than any file")]
    SizeOverflow { tensor: String, dims: Vec<u64> },
    /// A row that is not a whole number of blocks.
    #[error("tensor {tensor} has rows of {row} numbers; {encoding} packs {block} together")]
    RaggedRow { tensor: String, row: u64, encoding: &'static str, block: u64 },
    /// A tensor outside the data of the file.
    #[error("tensor {tensor} lies at {begin}..{end}, outside the {data} bytes of data")]
    TensorOutOfBounds { tensor: String, begin: u64, end: u64, data: u64 },
    /// Ranges that overlap, leave holes, or are not aligned.
    #[error("tensor {second} begins at {found} instead of {expected}, {}", first.as_ref().map_or("as the first tensor".to_owned(), |f| format!("behind {f}")))]
    BadLayout { first: Option<String>, second: String, found: u64, expected: u64 },
    /// A header longer than the file or the limit.
    #[error("a header of {found} bytes; at most {allowed} is possible here")]
    HeaderTooLarge { found: u64, allowed: u64 },
    /// More tensors than any model has.
    #[error("more than {allowed} tensors")]
    TooManyTensors { allowed: usize },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8")]
    HeaderNotUtf8,
    /// The header or a JSON file is not what the format says.
    #[error("bad JSON: {why}")]
    BadJson { why: String },
    /// JSON, but with a field that is lacking or of another type.
    #[error("the configuration lacks what is needed: {why}")]
    BadField { why: String },
    /// An offset or dimension that is not a whole number from 0 on.
    #[error("tensor {tensor}: {field} holds {found}, which is not a whole number from 0 on")]
    BadOffset { tensor: String, field: &'static str, found: String },
    /// Type and shape say another size than the range.
    #[error("tensor {tensor} of shape {dims:?} takes {expected} bytes, but its range has {found}")]
    SizeMismatch { tensor: String, dims: Vec<u64>, expected: u64, found: u64 },
    /// Bytes after the last tensor.
    #[error("{bytes} bytes behind the last tensor")]
    TrailingData { bytes: u64 },
    /// A shard that the index names is not there.
    #[error("shard {shard} is missing")]
    MissingShard { shard: String },
    /// A tensor in two shards.
    #[error("tensor {tensor} is in {first} and in {second}")]
    TensorInTwoShards { tensor: String, first: String, second: String },
    /// A tensor that its shard does not hold.
    #[error("tensor {tensor} is in no shard; the index says {shard}")]
    TensorInNoShard { tensor: String, shard: String },
    /// A shard name that leads out of the model's folder.
    #[error("shard name {name:?} leads out of the model's folder")]
    PathEscapes { name: String },
    /// A tensor that the model needs.
    #[error("tensor {tensor} is missing")]
    MissingTensor { tensor: String },
    /// A tensor that the model has no use for.
    #[error("tensor {tensor} belongs to no {family} that is computed; without it the model would be another")]
    UnknownTensor { tensor: String, family: &'static str },
    /// Weights under names that are not looked for.
    #[error("weights are read from model.safetensors, or the files that model.safetensors.index.json names; here are {}", found.join(", "))]
    OtherWeights { found: Vec<String> },
    /// A tensor of another shape than the configuration says.
    #[error("tensor {tensor} has shape {found:?}; the configuration says {expected:?}")]
    WrongShape { tensor: String, found: Vec<u64>, expected: Vec<u64> },
    /// A metadata key that the model needs.
    #[error("key {key} is missing")]
    MissingKey { key: String },
    /// A metadata key of another type.
    #[error("key {key} is {found}; {expected} is needed")]
    WrongKeyType { key: String, found: &'static str, expected: &'static str },
    /// A value that is computed in one way only.
    #[error("{field} is {found}; {allowed}")]
    Unsupported { field: String, found: String, allowed: String },
    /// A weight that is not a number.
    #[error("tensor {tensor} holds a value that is not finite, at index {index}")]
    NonFinite { tensor: String, index: u64 },
    /// The file was replaced or cut while it was being read.
    #[error("the file changed while it was being read")]
    FileChanged,
    /// A pickle, which can run code when it is opened.
    #[error("this is a pickle, which can run code when it is opened, and is never read")]
    PickleRefused,
}

impl Cause {
    /// What is wrong with a configuration: damaged JSON, or whole JSON without what is needed.
    pub fn of_config(error: &serde_json::Error) -> Cause {
        let why = error.to_string();
        if error.is_data() { Cause::BadField { why } } else { Cause::BadJson { why } }
    }

    /// At a place in a file.
    pub fn at(self, path: &Path, offset: u64) -> FormatError {
        FormatError { path: path.to_path_buf(), offset: Some(offset), cause: self }
    }

    /// In a file, where no place says more.
    pub fn of(self, path: &Path) -> FormatError {
        FormatError { path: path.to_path_buf(), offset: None, cause: self }
    }
}

impl FormatError {
    /// What to do about it, where something can be done.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match &self.cause {
            Cause::PickleRefused => {
                "convert it to safetensors where it came from, e.g. with transformers' save_pretrained"
            }
            Cause::Empty
            | Cause::Truncated { .. }
            | Cause::CountTooLarge { .. }
            | Cause::TensorOutOfBounds { .. }
            | Cause::LengthBeyondFile { .. } => {
                "the file may be cut short: compare its size with the source and fetch it again"
            }
            Cause::BadJson { .. } => "the file is damaged or cut short: fetch it again, or correct it",
            Cause::BadField { .. } => {
                "the field is lacking, or holds something else than it should: write it into the file, as the model's makers give it"
            }
            Cause::Unsupported { field, .. } if field.starts_with("split.") => {
                "a model in several files is opened by its first one, with the others beside it under their own names"
            }
            Cause::BadMagic { looks_like: Some(LFS_POINTER), .. } => {
                "`git lfs pull` in the repository that it lies in fetches the file itself"
            }
            Cause::BadMagic { looks_like: Some(SAFETENSORS), .. } => {
                "name the folder that it lies in: config.json, which belongs to it, is read from there"
            }
            Cause::MissingShard { .. } => "fetch the missing file into the same folder",
            Cause::OtherWeights { .. } => {
                "fetch model.safetensors, or save again with transformers' save_pretrained; a variant (model.fp16.safetensors) may be renamed, an adapter has to be merged into its model first"
            }
            Cause::FileChanged => "wait until whatever writes it has finished",
            Cause::UnsupportedVersion { .. } | Cause::UnsupportedEndianness => {
                "write the file again, in a version that is read"
            }
            Cause::NonFinite { .. } => "the file is damaged or the training diverged: fetch or train it again",
            Cause::BadMagic { .. } => {
                "MODEL is a run folder, a Hugging Face folder, a .gguf file, or an llm.c or llama2.c .bin"
            }
            _ => return None,
        })
    }
}
