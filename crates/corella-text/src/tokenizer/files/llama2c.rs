//! llama2.c's `tokenizer.bin`: i32 longest token; then for each id f32 score, i32 length, bytes.

use super::super::Tokenizer;
use super::super::char_level::{Normalizer, Prefix, SPACE};
use super::super::error::FormatError;
use super::super::names::Later;
use super::super::special::{Roles, Specials};
use super::super::vocab::{LONGEST_TOKEN, MOST_TOKENS};
use super::scored::{Kind, byte_of, scored};

/// The file lists the unknown token, BOS and EOS first, then the bytes.
const NAMES: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Whether the file begins with a plausible length, and the first token is the unknown one.
pub fn is_llama2c(bytes: &[u8]) -> bool {
    let longest = bytes.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    longest.is_some_and(|n| n as usize <= LONGEST_TOKEN) && bytes.get(8..).is_some_and(|b| b.starts_with(&[5, 0, 0, 0]))
}

pub fn parse(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    let mut at = 0usize;
    let mut take = |n: usize, field: &'static str| {
        let end = at.checked_add(n).filter(|end| *end <= bytes.len());
        let end = end.ok_or(FormatError::Truncated { offset: at, field })?;
        let taken = &bytes[at..end];
        at = end;
        Ok::<_, FormatError>((taken, end == bytes.len()))
    };
    let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    take(4, "longest token")?;
    let (mut tokens, mut scores) = (Vec::new(), Vec::new());
    loop {
        let id = tokens.len();
        let (head, _) = take(8, "score and length of a token")?;
        let (score, len) = (f32::from_bits(word(head)), word(&head[4..]) as usize);
        if len > LONGEST_TOKEN {
            return Err(FormatError::TokenTooLong { id, bytes: len, limit: LONGEST_TOKEN });
        }
        if id == MOST_TOKENS {
            return Err(FormatError::TooManyTokens { found: id + 1, limit: MOST_TOKENS });
        }
        let (token, last) = take(len, "a token")?;
        let token = std::str::from_utf8(token).map_err(|e| FormatError::Syntax(format!("token {id}: {e}")))?;
        // BOS and EOS are written with line ends around them.
        let name = NAMES.get(id).filter(|name| token.trim() == **name);
        tokens.push(name.map_or_else(|| token.replace(' ', &SPACE.to_string()), |name| (*name).to_owned()));
        scores.push(score);
        if last {
            break;
        }
    }
    let id_of = |name: &str| tokens.iter().take(NAMES.len()).position(|token| token == name).map(|id| id as u32);
    let named: Vec<(String, u32)> = NAMES.iter().filter_map(|n| Some(((*n).to_owned(), id_of(n)?))).collect();
    let is_named = |id: u32| named.iter().any(|(_, i)| *i == id);
    let kind = |id: u32| {
        let token = &tokens[id as usize];
        match byte_of(token) {
            _ if is_named(id) => Kind::Other,
            Some(_) => Kind::Byte,
            None => Kind::Text,
        }
    };
    let roles = Roles { bos: id_of("<s>"), eos: id_of("</s>"), unk: id_of("<unk>"), pad: None, add_bos: Some(true) };
    let rule = Normalizer { prefix: Prefix::Always, unless_space: false, squeeze: false };
    let (vocab, level) = scored(&tokens, kind, &scores, roles.unk, rule)?;
    Tokenizer::new(vocab, level, Specials::new(named), Specials::default(), Later::default(), roles)
}
