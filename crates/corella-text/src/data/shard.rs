//! llm.c's token shards: a header of 256 words (magic, version, number of tokens), then the tokens.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::DataError;

/// Magic and version of shards with 16-bit tokens, and with 32-bit tokens.
const NARROW: (u32, u32) = (20240520, 1);
const WIDE: (u32, u32) = (20240801, 7);
const HEADER: usize = 1024;

/// Writes a shard under a temporary name, syncs it, and renames it. 16-bit tokens if `vocab_size` allows.
/// Returns the checksum (CRC-32) of the file.
pub fn write_shard(path: &Path, tokens: &[u32], vocab_size: usize) -> Result<u32, DataError> {
    let narrow = vocab_size <= 1 << 16;
    let (magic, version) = if narrow { NARROW } else { WIDE };
    let count = u32::try_from(tokens.len()).map_err(|_| DataError::bad(path, "more than 2^32 tokens in one shard"))?;
    let mut bytes = Vec::with_capacity(HEADER + tokens.len() * 4);
    for word in [magic, version, count] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.resize(HEADER, 0);
    for token in tokens {
        let all = token.to_le_bytes();
        bytes.extend_from_slice(if narrow { &all[..2] } else { &all });
    }
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
            return Err(DataError::bad(path, format!("magic {magic} version {version} is not a token shard")));
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
