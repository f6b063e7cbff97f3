//! The index beside a token shard: where each document begins in it, and where the document comes from.
//!
//! `train_000000.idx` stands beside `train_000000.bin`. All numbers are little-endian.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | 8 bytes | `CORINDEX` |
//! | 8 | u32 | version, 1 |
//! | 12 | u32 | bytes of an entry, 40 |
//! | 16 | u64 | entries: documents that begin in this shard |
//! | 24 | u64 | tokens of the shard |
//! | 32 | u32 | CRC-32 of the entries |
//! | 36 | | zero up to 64 |
//! | 64 | entries | in the order of their first tokens |
//!
//! A document runs from its first token, which is the end-of-text token before its text, to the next document's; the last of
//! a shard may go on in the next shard, which then begins with tokens that belong to no entry of its own. `sources.txt` in
//! the same folder holds the names of the sources, one JSON string a line; an entry's `source` counts from 0.

use std::path::Path;

use super::DataError;

const MAGIC: &[u8; 8] = b"CORINDEX";
const VERSION: u32 = 1;
/// Bytes of the header.
pub(super) const INDEX_HEADER: usize = 64;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 40;

/// A document of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Place of its first token, the end-of-text token, in the shard.
    pub start: u64,
    /// Record in the source.
    pub record: u64,
    /// Byte in the source (for Parquet: the row group).
    pub offset: u64,
    /// The upper half of the hash of its text; chooses the documents to validate on.
    pub hash: u64,
    /// Line of `sources.txt`, from 0.
    pub source: u32,
    /// Tokens, the end-of-text token included; those in the next shard too.
    pub tokens: u32,
}

impl IndexEntry {
    pub(super) fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        for (i, word) in [self.start, self.record, self.offset, self.hash].into_iter().enumerate() {
            bytes[8 * i..8 * i + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..36].copy_from_slice(&self.source.to_le_bytes());
        bytes[36..].copy_from_slice(&self.tokens.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> IndexEntry {
        IndexEntry {
            start: u64_at(bytes, 0),
            record: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            hash: u64_at(bytes, 24),
            source: u32_at(bytes, 32),
            tokens: u32_at(bytes, 36),
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The header of an index.
pub(super) fn index_header(entries: u64, tokens: u64, crc: u32) -> [u8; INDEX_HEADER] {
    let mut header = [0; INDEX_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(ENTRY as u32).to_le_bytes());
    header[16..24].copy_from_slice(&entries.to_le_bytes());
    header[24..32].copy_from_slice(&tokens.to_le_bytes());
    header[32..36].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Reads the index of a shard; `tokens` is the number of tokens that the shard holds.
pub fn read_index(path: &Path, tokens: u64) -> Result<Vec<IndexEntry>, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let bad = |what: String| Err(DataError::bad(path, what));
    let Some((header, body)) = bytes.split_at_checked(INDEX_HEADER) else {
        return bad(format!("{} bytes are too short for a header of {INDEX_HEADER}", bytes.len()));
    };
    if &header[..8] != MAGIC || u32_at(header, 8) != VERSION || u32_at(header, 12) as usize != ENTRY {
        return bad(format!("not an index of version {VERSION} with entries of {ENTRY} bytes"));
    }
    if body.len() % ENTRY != 0 || (body.len() / ENTRY) as u64 != u64_at(header, 16) {
        return bad(format!("{} bytes of entries, but the header says {} entries", body.len(), u64_at(header, 16)));
    }
    if u64_at(header, 24) != tokens {
        return bad(format!("made for a shard of {} tokens, not {tokens}", u64_at(header, 24)));
    }
    let crc = crc32fast::hash(body);
    if crc != u32_at(header, 32) {
        return bad(format!("the checksum of the entries is {crc:08x}, the header says {:08x}", u32_at(header, 32)));
    }
    let entries: Vec<IndexEntry> = body.chunks_exact(ENTRY).map(IndexEntry::from_bytes).collect();
    let ordered = entries.windows(2).all(|pair| pair[0].start < pair[1].start);
    if !ordered || entries.last().is_some_and(|e| e.start >= tokens) {
        return bad(format!("the documents' places do not ascend below {tokens}"));
    }
    Ok(entries)
}
