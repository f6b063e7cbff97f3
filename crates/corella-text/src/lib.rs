//! Text in, tokens out: tokenizers, documents, token shards, the loader, and the tiny internet.

pub mod data;
mod splitmix;
pub mod tiny_internet;
pub mod tokenizer;
