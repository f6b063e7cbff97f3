//! GPT-2's vocabulary, from the package that carries it, so that nothing has to be downloaded.

use std::collections::HashMap;

use super::bpe::{Merges, encode_piece};
use super::pretokenize::Split;
use super::{END_OF_TEXT, Tokenizer};

/// Ordinary tokens; the end of text follows.
const RANKS: u32 = 50_256;

/// The vocabulary. Ranks alone are published there; the pair that each token was merged from is what the merges of lower
/// rank make of its bytes.
pub fn gpt2() -> Tokenizer {
    let package = tiktoken_rs::r50k_base_singleton();
    let mut bytes: Vec<Vec<u8>> = (0..RANKS).map(|id| package.decode_bytes(&[id]).unwrap_or_default()).collect();
    let mut byte_ids = [0; 256];
    let mut ids = HashMap::new();
    for (id, b) in bytes.iter().enumerate() {
        if let [byte] = b[..] {
            byte_ids[byte as usize] = id as u32;
        }
        ids.insert(b.clone(), id as u32);
    }
    let (mut merges, mut ordered) = (Merges::default(), Vec::new());
    for (id, b) in bytes.iter().enumerate().filter(|(_, b)| b.len() > 1) {
        let mut parts = Vec::new();
        encode_piece(b, &byte_ids, &merges, &mut parts);
        if let [left, right] = parts[..] {
            merges.insert((left, right), (ordered.len() as u32, id as u32));
            ordered.push((left, right));
        }
    }
    bytes.push(END_OF_TEXT.as_bytes().to_vec());
    Tokenizer::new(bytes, byte_ids, ordered, Split { single_digits: false }, RANKS)
}
