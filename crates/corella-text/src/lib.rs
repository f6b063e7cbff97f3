//! Text in, tokens out: tokenizers, documents, token shards, the loader, and the tiny internet.

mod bits_per_byte;
pub mod data;
mod splitmix;
pub mod tiny_internet;
pub mod tokenizer;

pub use bits_per_byte::{bits_per_byte, text_bytes};
