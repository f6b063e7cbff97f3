//! A prepared folder, or the same in memory.

use std::path::{Path, PathBuf};

use super::folder::{DATASET, TRAIN, VAL, read_info};
use super::prepare::is_to_validate_on;
use super::{DataError, TokenStream};
use crate::tokenizer::Tokenizer;

/// Tokens to train and to validate on, and the tokenizer that made them.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Turns text into ids and back.
    pub tokenizer: Tokenizer,
    /// To train on.
    pub train: TokenStream,
    /// To validate on; may be empty.
    pub val: TokenStream,
}

impl Dataset {
    /// Opens a folder written by [`super::prepare`]. The sizes of the shards must be those that `dataset.json` says; whether
    /// their content is what was written is known when all of it was read: [`TokenStream::read_through`].
    pub fn open(dir: &Path) -> Result<Dataset, DataError> {
        let info = read_info(dir)?;
        let tokenizer = Tokenizer::load(dir)?;
        if !tokenizer.has_fingerprint(&info.tokenizer) {
            return Err(DataError::bad(dir, "tokenizer.json is not the one that the shards were made with"));
        }
        let part = |name: &str, tokens: u64| -> Result<TokenStream, DataError> {
            let mut shards = Vec::new();
            for (shard, crc) in info.shards.iter().filter(|(shard, _)| shard.starts_with(name)) {
                if Path::new(shard).file_name() != Some(shard.as_ref()) {
                    return Err(DataError::bad(&dir.join(DATASET), format!("shard {shard} is not a plain file name")));
                }
                shards.push((dir.join(shard), *crc));
            }
            let part = TokenStream::open_noted(&shards, info.vocab_size)?;
            if part.len() != tokens {
                let found = part.len();
                let what = format!("the shards {name}* hold {found} tokens, {DATASET} says {tokens}; prepare it again");
                return Err(DataError::bad(dir, what));
            }
            Ok(part)
        };
        let (train, val) = (part(TRAIN, info.train.tokens)?, part(VAL, info.val.tokens)?);
        Ok(Dataset { tokenizer, train, val })
    }

    /// A data set that was never on disk.
    pub fn from_parts(tokenizer: Tokenizer, train: Vec<u32>, val: Vec<u32>) -> Dataset {
        Dataset { tokenizer, train: TokenStream::in_memory(train), val: TokenStream::in_memory(val) }
    }

    /// Files of tokens that were prepared elsewhere, used where they are: a llm.c shard or a nanoGPT file, or a folder of
    /// them. Those with `val` or `test` as a word in their names are to validate on; the others are taken in the order of their names.
    pub fn open_token_files(path: &Path, tokenizer: Tokenizer) -> Result<Dataset, DataError> {
        let mut files = vec![path.to_path_buf()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(DataError::io(path))?;
            files = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(DataError::io(path))?;
            files.retain(|file| file.extension().is_some_and(|e| e == "bin"));
            files.sort();
        }
        if files.is_empty() {
            return Err(DataError::bad(path, "holds no .bin files of tokens"));
        }
        let (val, train): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|file| is_to_validate_on(file));
        let open = |files: &[PathBuf]| TokenStream::open(files, tokenizer.vocab_size());
        Ok(Dataset { train: open(&train)?, val: open(&val)?, tokenizer })
    }
}
