//! Tokenizer files of every kind, told apart by their content.

mod byte_chars;
mod gguf;
mod gguf_pre;
mod gguf_write;
mod gpt2_pair;
mod json_read;
mod json_split;
mod json_write;
mod llama2c;
mod scored;
mod sentencepiece;
mod tiktoken;

use std::path::{Path, PathBuf};

pub use gguf::{GgufVocab, from_gguf};
pub use gguf_pre::pre_of;
pub use gguf_write::to_gguf;
pub use json_write::{to_config_json, write_earlier_json, write_ids_json, write_json};
pub use tiktoken::from_ranks;

use self::json_read::Named;
use super::Tokenizer;
use super::error::{FormatError, TokenizerError};

/// Names of tokenizer files in a model's folder, the best first.
const NAMES: [&str; 4] = ["tokenizer.json", "tokenizer.model", "vocab.bpe", "merges.txt"];

/// Files that may say what tokenizer.json does not, the one that counts most first; the last is a model's own.
const BESIDE: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", MODEL_CONFIG];
const MODEL_CONFIG: &str = "config.json";

/// Reads a file, or the first tokenizer file of a folder.
pub fn load(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = if path.is_dir() { in_folder(path) } else { path.to_path_buf() };
    let bytes = std::fs::read(&path).map_err(TokenizerError::io(&path))?;
    if let Some(pair) = gpt2_pair::pair(&path, &bytes)? {
        return gpt2_pair::parse(&pair).map_err(TokenizerError::format(&path));
    }
    if sentencepiece::is_vocab_file(&path) {
        return sentencepiece::parse_vocab(&bytes).map_err(TokenizerError::format(&path));
    }
    if json_read::is_json(&bytes) {
        let named = named_beside(&path)?;
        return json_read::parse(&bytes, &named).map_err(TokenizerError::format(&path));
    }
    parse(&bytes).map_err(TokenizerError::format(&path))
}

/// What the files beside a tokenizer.json say of BOS and EOS, which it does not name itself.
fn named_beside(path: &Path) -> Result<Named, TokenizerError> {
    let mut named = Named::default();
    for name in BESIDE {
        let beside = path.with_file_name(name);
        let needed = name != MODEL_CONFIG || !named.has_eos();
        if needed && beside.is_file() {
            let text = std::fs::read(&beside).map_err(TokenizerError::io(&beside))?;
            named.add(&text).map_err(TokenizerError::format(&beside))?;
        }
    }
    Ok(named)
}

fn in_folder(dir: &Path) -> PathBuf {
    let found = NAMES.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| dir.join(NAMES[0]))
}

/// Reads the bytes of a file that needs no other beside it.
pub fn parse(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    if json_read::is_json(bytes) {
        json_read::parse(bytes, &Named::default())
    } else if tiktoken::is_ranks(bytes) {
        tiktoken::parse(bytes)
    } else if sentencepiece::is_model(bytes) {
        sentencepiece::parse_model(bytes)
    } else if llama2c::is_llama2c(bytes) {
        llama2c::parse(bytes)
    } else {
        Err(FormatError::UnknownKind)
    }
}
