//! A prepared folder, or the same in memory.

use std::path::Path;
use std::sync::Arc;

use super::{DataError, DatasetInfo, read_shard};
use crate::tokenizer::Tokenizer;

/// Tokens in their order. Cheap to clone.
pub type TokenStream = Arc<Vec<u32>>;

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
    /// Opens a folder written by [`super::prepare`].
    pub fn open(dir: &Path) -> Result<Dataset, DataError> {
        let path = dir.join("dataset.json");
        let text = std::fs::read_to_string(&path).map_err(DataError::io(&path))?;
        let info: DatasetInfo = serde_json::from_str(&text).map_err(|e| DataError::bad(&path, e.to_string()))?;
        let tokenizer = Tokenizer::load(dir)?;
        if tokenizer.fingerprint() != info.tokenizer {
            return Err(DataError::bad(dir, "tokenizer.json is not the one that the shards were made with"));
        }
        let part = |name: &str| -> Result<TokenStream, DataError> {
            let mut tokens = Vec::new();
            for (shard, _) in info.shards.iter().filter(|(shard, _)| shard.starts_with(name)) {
                if Path::new(shard).file_name() != Some(shard.as_ref()) {
                    return Err(DataError::bad(&path, format!("shard {shard} is not a plain file name")));
                }
                tokens.extend(read_shard(&dir.join(shard), info.vocab_size)?);
            }
            Ok(Arc::new(tokens))
        };
        Ok(Dataset { train: part("train_")?, val: part("val_")?, tokenizer })
    }

    /// A data set that was never on disk.
    pub fn from_parts(tokenizer: Tokenizer, train: Vec<u32>, val: Vec<u32>) -> Dataset {
        Dataset { tokenizer, train: Arc::new(train), val: Arc::new(val) }
    }
}
