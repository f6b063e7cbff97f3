//! The tokenizer that a user names: a file of any kind, a model's folder, or a GGUF file that carries its vocabulary.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use corella_model::formats::gguf;
use corella_text::tokenizer::{Tokenizer, TokenizerError};

use crate::error::{Failure, Result};
use crate::gguf_vocab;

/// Files that can be named where a tokenizer is asked for.
pub const KINDS: &str = "name `gpt2`, a tokenizer.json, tiktoken ranks, vocab.bpe beside encoder.json, a SentencePiece .model, a llama2.c tokenizer .bin, a .gguf, or a model's folder";

/// `gpt2`, a file, or a folder with a tokenizer file.
pub fn load(name: &str) -> Result<Tokenizer> {
    if name == "gpt2" {
        return Ok(Tokenizer::gpt2());
    }
    let path = Path::new(name);
    if !path.exists() {
        return Err(Failure::new(format!("{name} does not exist")).hint(KINDS));
    }
    if is_gguf(path) {
        let (_, gguf) = gguf::open(path)?;
        let tokenizer = gguf_vocab::tokenizer(&gguf, path)
            .ok_or_else(|| Failure::new(format!("{name} carries no vocabulary")).hint(KINDS))?;
        return tokenizer.map_err(|e| Failure::new(format!("{name}: {e}")).hint(KINDS));
    }
    Tokenizer::load(path).map_err(|error| {
        let unreadable = matches!(error, TokenizerError::Format { .. });
        let failure = Failure::from(error);
        if unreadable { failure.hint(KINDS) } else { failure }
    })
}

/// Whether a file begins as GGUF files do.
pub fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok_and(|()| &magic == b"GGUF")
}
