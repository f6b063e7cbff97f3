//! The printable characters that stand for bytes in GPT-2's files (openai/gpt-2, `bytes_to_unicode`).

use std::collections::HashMap;

/// The character of each byte: itself where it is printable, else one from 256 on.
pub fn byte_chars() -> [char; 256] {
    let mut spare = 256u32;
    std::array::from_fn(|b| {
        if matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            char::from(b as u8)
        } else {
            spare += 1;
            char::from_u32(spare - 1).unwrap_or_default()
        }
    })
}

/// Turns names of tokens into their bytes.
pub struct ByteNames(HashMap<char, u8>);

impl ByteNames {
    pub fn new() -> Self {
        ByteNames(byte_chars().into_iter().zip(0..=255).collect())
    }

    /// The bytes that a name stands for; `None` where a character stands for no byte.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        name.chars().map(|c| self.0.get(&c).copied()).collect()
    }
}
