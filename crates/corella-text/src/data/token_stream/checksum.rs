//! Whether files of tokens are as they were written, and whether all tokens are those of another time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::{Shard, Source, TokenStream, read_at};
use crate::data::DataError;
use crate::data::shard::{shard_header, token_bytes, width};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// Sizes of a vocabulary whose tokens take two bytes, and four.
const NARROW: usize = 1 << 16;
const WIDE: usize = usize::MAX;

/// A checksum of all tokens of a stream, in their order and however they are divided among files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Bytes of a token, 2 or 4: checksums of unlike widths say nothing about each other.
    pub width: u8,
    /// CRC-32 of the tokens' bytes, the lowest first.
    pub crc: u32,
}

impl Checksum {
    /// Whether these are surely not the tokens of `other`.
    pub fn contradicts(self, other: Checksum) -> bool {
        self.width == other.width && self.crc != other.crc
    }
}

impl TokenStream {
    /// As [`TokenStream::open`]: shards with the checksums (CRC-32 of the whole file) that were noted when they were written.
    pub fn open_noted(shards: &[(PathBuf, u32)], vocab_size: usize) -> Result<TokenStream, DataError> {
        let paths: Vec<PathBuf> = shards.iter().map(|(path, _)| path.clone()).collect();
        TokenStream::open_with(&paths, vocab_size, |i| Some(shards[i].1))
    }

    /// The checksum of all tokens as far as it is known without reading a file: of tokens in memory, and of shards with
    /// checksums that were noted.
    pub fn checksum(&self) -> Option<Checksum> {
        match &*self.source {
            Source::Memory(tokens) => {
                let (vocab_size, width) =
                    if tokens.iter().all(|t| (*t as usize) < NARROW) { (NARROW, 2) } else { (WIDE, 4) };
                let mut all = Hasher::new();
                tokens.chunks(PIECE).for_each(|piece| all.update(&token_bytes(piece, vocab_size)));
                Some(Checksum { width, crc: all.finalize() })
            }
            Source::Files { shards, vocab_size } => {
                of_all(shards.iter().map(|shard| Some((shard, shard.noted_tokens(*vocab_size)?))))
            }
        }
    }

    /// Reads every file from its beginning to its end. A shard that differs from the checksum noted for it is an error that
    /// names it. Returns the checksum of all tokens; `None` where `stop` was raised before the end.
    pub fn read_through(&self, stop: &AtomicBool) -> Result<Option<Checksum>, DataError> {
        let Source::Files { shards, .. } = &*self.source else { return Ok(self.checksum()) };
        let mut read = Vec::new();
        for shard in shards {
            match shard.read_through(stop)? {
                Some(tokens) => read.push((shard, tokens)),
                None => return Ok(None),
            }
        }
        Ok(of_all(read.into_iter().map(Some)))
    }
}

/// The checksum of all tokens from those of each shard; `None` where one is not known, or where widths differ.
fn of_all<'a>(shards: impl Iterator<Item = Option<(&'a Shard, u32)>>) -> Option<Checksum> {
    let (mut all, mut width) = (Hasher::new(), None);
    for each in shards {
        let (shard, crc) = each?;
        if *width.get_or_insert(shard.width) != shard.width {
            return None;
        }
        all.combine(&Hasher::new_with_initial_len(crc, shard.bytes()));
    }
    Some(Checksum { width: width? as u8, crc: all.finalize() })
}

impl Shard {
    /// Bytes of its tokens.
    fn bytes(&self) -> u64 {
        self.tokens * self.width as u64
    }

    /// CRC-32 of its tokens, from that noted for the whole file.
    fn noted_tokens(&self, vocab_size: usize) -> Option<u32> {
        let count = u32::try_from(self.tokens).ok().filter(|_| width(vocab_size) == self.width)?;
        // The checksum of two parts is that of the first, moved by the length of the second, and that of the second.
        let mut head = Hasher::new();
        head.update(&shard_header(count, vocab_size));
        head.combine(&Hasher::new_with_initial_len(0, self.bytes()));
        Some(self.noted? ^ head.finalize())
    }

    fn read_through(&self, stop: &AtomicBool) -> Result<Option<u32>, DataError> {
        let mut head = vec![0; self.header as usize];
        read_at(&self.file, &mut head, 0).map_err(DataError::io(&self.path))?;
        let (mut whole, mut tokens) = (Hasher::new(), Hasher::new());
        whole.update(&head);
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.bytes() {
            if stop.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let here = &mut piece[..(self.bytes() - at).min(PIECE as u64) as usize];
            read_at(&self.file, here, self.header + at).map_err(DataError::io(&self.path))?;
            tokens.update(here);
            at += here.len() as u64;
        }
        whole.combine(&tokens);
        let found = whole.finalize();
        match self.noted.filter(|noted| *noted != found) {
            Some(noted) => Err(DataError::Damaged { path: self.path.clone(), found, noted }),
            None => Ok(Some(tokens.finalize())),
        }
    }
}
