//! Vocabularies whose tokens carry scores: SentencePiece's, and those made from them.

use rustc_hash::FxHashMap;

use super::super::Level;
use super::super::char_level::{Normalizer, Pieces, SPACE};
use super::super::error::FormatError;
use super::super::vocab::Vocab;

/// The byte of a token like `<0x0A>`.
pub fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// What a token of a vocabulary with scores is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of a text.
    Text,
    /// One byte, `<0x0A>`.
    Byte,
    /// A part of a text that is never merged, and is looked for by its name.
    Symbol,
    /// Anything else.
    Other,
}

/// Vocabulary and rule of tokens with scores; spaces in the tokens are written U+2581.
pub fn scored(
    tokens: &[String],
    kind: impl Fn(u32) -> Kind,
    scores: &[f32],
    unk: Option<u32>,
    normalizer: Normalizer,
) -> Result<(Vocab, Level), FormatError> {
    let mut vocab = Vocab::default();
    let mut byte_ids = [None; 256];
    let mut pieces =
        Pieces { vocab_size: tokens.len(), ids: Default::default(), byte_ids: None, unk, fuse_unk: true, normalizer };
    let mut written = FxHashMap::default();
    for (token, id) in tokens.iter().zip(0u32..) {
        let byte = byte_of(token).filter(|_| kind(id) == Kind::Byte);
        // As other files write it: there each name has one id.
        let name =
            byte.map_or_else(|| token.replace(' ', SPACE.encode_utf8(&mut [0; 4])), |byte| format!("<0x{byte:02X}>"));
        if let Some(first) = written.insert(name, id) {
            return Err(FormatError::DuplicateToken { token: token.clone(), first, second: id });
        }
        match byte {
            Some(byte) => {
                byte_ids[usize::from(byte)] = Some(id);
                vocab.push(&[byte])?;
            }
            None if kind(id) == Kind::Text => {
                vocab.push(token.replace(SPACE, " ").as_bytes())?;
                pieces.ids.insert(token, id);
            }
            None if kind(id) == Kind::Symbol => {
                vocab.push(token.replace(SPACE, " ").as_bytes())?;
            }
            None => {
                vocab.push(token.as_bytes())?;
            }
        }
    }
    if byte_ids.iter().any(Option::is_some) {
        // Where one byte is a token, all must be.
        let mut all = [0; 256];
        for ((byte, id), to) in (0..=255u8).zip(byte_ids).zip(&mut all) {
            *to = id.ok_or(FormatError::MissingByte { byte })?;
        }
        pieces.byte_ids = Some(all);
    }
    let score = |id: u32| scores.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    Ok((vocab, Level::Chars(pieces.with_scores(score))))
}
