//! llm.c's token shards: a header of 256 words (magic, version, number of tokens), then the tokens.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::DataError;

/// Magic and version of shards with 16-bit tokens, and with 32-bit tokens.
const NARROW: (u32, u32) = (20240520, 1);
const WIDE: (u32, u32) = (20240801, 7);
/// Bytes of the header.
pub(super) const HEADER: usize = 1024;

/// Bytes of a token: two if `vocab_size` allows.
pub(super) fn width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

/// Bytes of a token of the shard that begins with `head`; `None` if no shard does.
pub(super) fn token_width(head: &[u8]) -> Option<usize> {
    let word = |i: usize| Some(u32::from_le_bytes(head.get(4 * i..4 * i + 4)?.try_into().ok()?));
    match (word(0)?, word(1)?) {
        NARROW => Some(2),
        WIDE => Some(4),
        _ => None,
    }
}

/// Why a file that begins with `head` is no shard that can be read, where llm.c's magic number stands there: its tokens
/// would be taken for something else.
pub(super) fn unread_version(head: &[u8]) -> Option<String> {
    let word = |i: usize| Some(u32::from_le_bytes(head.get(4 * i..4 * i + 4)?.try_into().ok()?));
    let (magic, version) = (word(0)?, word(1)?);
    let known = [NARROW, WIDE].into_iter().find(|(known, _)| *known == magic)?.1;
    (version != known).then(|| format!("a token shard of llm.c in version {version}; {known} is read"))
}

/// The header of a shard of `count` tokens.
pub(super) fn shard_header(count: u32, vocab_size: usize) -> [u8; HEADER] {
    let (magic, version) = if width(vocab_size) == 2 { NARROW } else { WIDE };
    let mut header = [0; HEADER];
    for (i, word) in [magic, version, count].into_iter().enumerate() {
        header[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// Tokens as they stand in a shard.
pub(super) fn token_bytes(tokens: &[u32], vocab_size: usize) -> Vec<u8> {
    let width = width(vocab_size);
    let mut bytes = Vec::with_capacity(tokens.len() * width);
    tokens.iter().for_each(|token| bytes.extend_from_slice(&token.to_le_bytes()[..width]));
    bytes
}

/// Writes a shard under a temporary name, syncs it, and renames it. 16-bit tokens if `vocab_size` allows.
/// Returns the checksum (CRC-32) of the file.
pub fn write_shard(path: &Path, tokens: &[u32], vocab_size: usize) -> Result<u32, DataError> {
    let count = u32::try_from(tokens.len()).map_err(|_| DataError::bad(path, "more than 2^32 tokens in one shard"))?;
    let bytes = [&shard_header(count, vocab_size)[..], &token_bytes(tokens, vocab_size)].concat();
    let temporary = path.with_extension("bin.partial");
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(&temporary)?);
        out.write_all(&bytes)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(DataError::io(path))?;
    Ok(crc32fast::hash(&bytes))
}

/// Reads a shard; every id must be below `vocab_size`.
pub fn read_shard(path: &Path, vocab_size: usize) -> Result<Vec<u32>, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path))?;
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(DataError::bad(path, format!("{} bytes are too short for a header of {HEADER}", bytes.len())));
    };
    let word = |i: usize| u32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]]);
    let width = match (word(0), word(1)) {
        NARROW => 2,
        WIDE => 4,
        (magic, version) => {
            let no_shard = || format!("magic {magic} version {version} is not a token shard");
            return Err(DataError::bad(path, unread_version(header).unwrap_or_else(no_shard)));
        }
    };
    if body.len() as u64 != u64::from(word(2)) * width {
        let why = format!("{} bytes of tokens, but the header says {} tokens of {width}", body.len(), word(2));
        return Err(DataError::bad(path, why));
    }
    let tokens: Vec<u32> = if width == 2 {
        body.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect()
    } else {
        body.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    if let Some(at) = tokens.iter().position(|t| *t as usize >= vocab_size) {
        let why = format!("token {} at place {at} is outside the vocabulary of {vocab_size}", tokens[at]);
        return Err(DataError::bad(path, why));
    }
    Ok(tokens)
}
