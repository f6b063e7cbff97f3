//! A checkpoint in one safetensors file, or in several that an index names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{SafeTensor, SafeTensors};
use crate::formats::error::{Cause, FormatError};
use crate::formats::file::ModelFile;

/// The only file of a small checkpoint.
pub const SINGLE: &str = "model.safetensors";
/// The index of a large one.
pub const INDEX: &str = "model.safetensors.index.json";
/// Longest index that is read: some hundred bytes for each of the most tensors.
const LONGEST_INDEX: u64 = 100_000_000;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which of [`Shards::files`].
    pub file: usize,
    /// Its type, shape and range.
    pub tensor: SafeTensor,
}

/// All tensors of a checkpoint, each in exactly one file.
#[derive(Debug)]
pub struct Shards {
    /// The open files.
    pub files: Vec<ModelFile>,
    /// Every tensor by name.
    pub tensors: BTreeMap<String, Placed>,
}

impl Shards {
    /// Opens a folder's `model.safetensors`, or the files that its index names.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        let single = dir.join(SINGLE);
        if single.is_file() {
            return Shards::merge(vec![SafeTensors::open(&single)?]);
        }
        let index_path = dir.join(INDEX);
        if !index_path.is_file() {
            let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"];
            if let Some(name) = pickle.into_iter().find(|name| dir.join(name).exists()) {
                return Err(Cause::PickleRefused.of(&dir.join(name)));
            }
            let found = weights_in(dir);
            return Err(match found.is_empty() {
                true => Cause::MissingShard { shard: SINGLE.to_owned() },
                false => Cause::OtherWeights { found },
            }
            .of(dir));
        }
        let index = read_index(&index_path)?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        let files = names
            .iter()
            .map(|name| {
                let path = shard_path(dir, name).map_err(|cause| cause.of(&index_path))?;
                SafeTensors::open(&path)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let shards = Shards::merge(files)?;
        for (tensor, shard) in &index.weight_map {
            let place = shards.tensors.get(tensor);
            if place.is_none_or(|p| names[p.file] != shard) {
                let cause = Cause::TensorInNoShard { tensor: tensor.clone(), shard: shard.clone() };
                return Err(cause.of(&index_path));
            }
        }
        Ok(shards)
    }

    /// Values of a tensor of the expected shape, stored as F32, F16 or BF16, as f32. Panics if there is no such tensor.
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, FormatError> {
        let place = &self.tensors[name];
        place.tensor.read_f32(&self.files[place.file], name, expected)
    }

    fn merge(shards: Vec<SafeTensors>) -> Result<Self, FormatError> {
        let (mut files, mut tensors): (Vec<ModelFile>, BTreeMap<String, Placed>) = Default::default();
        for shard in shards {
            for (name, tensor) in shard.tensors {
                if let Some(other) = tensors.get(&name) {
                    let first = files[other.file].path().display().to_string();
                    let second = shard.file.path().display().to_string();
                    return Err(Cause::TensorInTwoShards { tensor: name, first, second }.of(shard.file.path()));
                }
                tensors.insert(name, Placed { file: files.len(), tensor });
            }
            files.push(shard.file);
        }
        Ok(Shards { files, tensors })
    }
}

/// Most files that are named in a message.
const NAMED: usize = 5;

/// The first safetensors files of a folder, by name.
fn weights_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    found.sort();
    found.truncate(NAMED);
    found
}

fn read_index(path: &Path) -> Result<Index, FormatError> {
    let file = ModelFile::open(path)?;
    if file.size() > LONGEST_INDEX {
        return Err(Cause::HeaderTooLarge { found: file.size(), allowed: LONGEST_INDEX }.of(path));
    }
    let bytes = file.head(LONGEST_INDEX as usize)?;
    serde_json::from_slice(&bytes).map_err(|e| Cause::BadJson { why: e.to_string() }.of(path))
}

/// The path of a shard: a plain name inside the folder, also behind links.
///
/// The one way out that is allowed is that of the usual download cache, whose `snapshots/REVISION` folder links into
/// the `blobs` folder beside `snapshots`.
fn shard_path(dir: &Path, name: &str) -> Result<PathBuf, Cause> {
    let escapes = || Cause::PathEscapes { name: name.to_owned() };
    let plain = !name.is_empty() && !name.contains(['/', '\\', '\0', ':']) && name != "." && name != "..";
    if !plain {
        return Err(escapes());
    }
    let missing = |_| Cause::MissingShard { shard: name.to_owned() };
    let real = fs::canonicalize(dir.join(name)).map_err(missing)?;
    let home = fs::canonicalize(dir).map_err(missing)?;
    let blobs = home
        .parent()
        .filter(|parent| parent.file_name() == Some("snapshots".as_ref()))
        .and_then(Path::parent)
        .map(|repository| repository.join("blobs"));
    let inside = |root: &Path| real.parent() == Some(root);
    if inside(&home) || blobs.is_some_and(|b| inside(&b)) { Ok(real) } else { Err(escapes()) }
}
