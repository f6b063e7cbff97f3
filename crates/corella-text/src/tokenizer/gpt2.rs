//! GPT-2's vocabulary, from the package that carries it, so that nothing has to be downloaded.

use std::sync::OnceLock;

use super::Tokenizer;
use super::files::from_ranks;

/// Ordinary tokens; the end of text follows.
const RANKS: u32 = 50_256;

/// The vocabulary, made at the first call.
pub fn gpt2() -> Tokenizer {
    static GPT2: OnceLock<Tokenizer> = OnceLock::new();
    GPT2.get_or_init(|| {
        let package = tiktoken_rs::r50k_base_singleton();
        let tokens = (0..RANKS).map(|id| package.decode_bytes(&[id]).unwrap_or_default()).collect();
        from_ranks(tokens).expect("the package's vocabulary is whole: a test encodes with it")
    })
    .clone()
}
