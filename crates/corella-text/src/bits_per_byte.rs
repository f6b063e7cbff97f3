//! Bits per byte: how well a text is predicted, whatever the vocabulary.

use crate::tokenizer::Tokenizer;

/// Bytes of the text that tokens stand for. The token between documents stands for none.
pub fn text_bytes(tokenizer: &Tokenizer, ids: &[u32]) -> u64 {
    let border = tokenizer.end_of_text();
    ids.iter().filter(|id| **id != border).map(|id| tokenizer.token_bytes(*id).len() as u64).sum()
}

/// Bits for each byte of a text of so many bytes that cost so many nats, or of their means for each token; `None` where there is
/// no text.
pub fn bits_per_byte(nats: f64, bytes: f64) -> Option<f64> {
    (bytes > 0.0).then(|| nats / std::f64::consts::LN_2 / bytes)
}
