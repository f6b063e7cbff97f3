//! A model in one GGUF file, or in several: `NAME-00001-of-0000N.gguf` holds the metadata, the rest tensors only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Gguf, TensorInfo, Value, open};
use crate::formats::error::{Cause, FormatError};
use crate::formats::file::ModelFile;

/// Most files of a model: the format keeps their number in 16 bits.
const MOST_FILES: u64 = u16::MAX as u64;

/// All tensors of a model, each in exactly one file.
#[derive(Debug)]
pub struct Shards {
    /// The open files.
    pub files: Vec<ModelFile>,
    /// The header of the first, with the metadata.
    pub header: Gguf,
    /// File and row of each tensor.
    tensors: HashMap<String, (usize, TensorInfo)>,
}

impl Shards {
    /// Opens a file, and those that belong to it.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let (file, header) = open(path)?;
        let count = number(&header, "split.count").unwrap_or(1);
        let unsupported = |field: &str, found: u64, allowed: String| {
            Cause::Unsupported { field: field.to_owned(), found: found.to_string(), allowed }.of(path)
        };
        if count > MOST_FILES {
            return Err(unsupported("split.count", count, format!("at most {MOST_FILES} files are read")));
        }
        let mut shards = Shards { files: vec![file], tensors: HashMap::new(), header };
        shards.add(0, shards.header.tensors.clone())?;
        if count <= 1 {
            return Ok(shards);
        }
        if let Some(number) = number(&shards.header, "split.no").filter(|number| *number > 0) {
            let allowed = format!("name the first of the {count} files, …-00001-of-{count:05}.gguf");
            return Err(unsupported("split.no", number, allowed));
        }
        for index in 1..count {
            let next = sibling(path, index, count).ok_or_else(|| {
                let allowed = format!("the file must be called …-00001-of-{count:05}.gguf, to find the others");
                unsupported("split.count", count, allowed)
            })?;
            if !next.is_file() {
                let shard = next.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Cause::MissingShard { shard }.of(path));
            }
            let (file, header) = open(&next)?;
            for (field, expected) in [("split.no", index), ("split.count", count)] {
                let found = number(&header, field);
                if found != Some(expected) {
                    let found = found.map_or("missing".to_owned(), |n| n.to_string());
                    let allowed = format!("{expected} belongs here");
                    return Err(Cause::Unsupported { field: field.to_owned(), found, allowed }.of(&next));
                }
            }
            shards.files.push(file);
            shards.add(shards.files.len() - 1, header.tensors)?;
        }
        let all = shards.tensors.len() as u64;
        match number(&shards.header, "split.tensors.count").filter(|n| *n != all) {
            Some(found) => Err(unsupported("split.tensors.count", found, format!("the files hold {all} tensors"))),
            None => Ok(shards),
        }
    }

    fn add(&mut self, file: usize, tensors: Vec<TensorInfo>) -> Result<(), FormatError> {
        for info in tensors {
            if let Some((first, other)) = self.tensors.get(&info.name) {
                let name = |file: usize| self.files[file].path().display().to_string();
                let (first, second) = (name(*first), name(file));
                let cause = Cause::TensorInTwoShards { tensor: other.name.clone(), first, second };
                return Err(cause.of(self.files[file].path()));
            }
            self.tensors.insert(info.name.clone(), (file, info));
        }
        Ok(())
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor by name, and which of the files holds it.
    pub fn tensor(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        self.tensors.get(name).map(|(file, info)| (*file, info))
    }
}

fn number(header: &Gguf, key: &str) -> Option<u64> {
    header.get(key).and_then(Value::as_u64)
}

/// The file with number `index` (from 0) of `count`, beside the first; none if the first is not called as one.
fn sibling(first: &Path, index: u64, count: u64) -> Option<PathBuf> {
    let name = first.file_name()?.to_str()?.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some(first.with_file_name(format!("{name}-{:05}-of-{count:05}.gguf", index + 1)))
}
