//! Tokens in their order, in memory or in files that are read where they are needed: data may be larger than memory.

mod checksum;

pub use checksum::Checksum;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataError;
use super::shard::{HEADER, token_width, unread_version};

/// Tokens looked through at a time.
const BLOCK: usize = 1 << 18;

/// Most tokens that [`TokenStream::mark`] reads: 8 MB of a shard, and a corpus for a laptop whole.
const MARKED: u64 = 1 << 22;
/// Stretches that it reads of more than those.
const STRETCHES: u64 = 256;

/// Tokens of a corpus. Cheap to clone; may be read by several threads.
#[derive(Clone, Debug)]
pub struct TokenStream {
    source: Arc<Source>,
}

#[derive(Debug)]
enum Source {
    Memory(Vec<u32>),
    Files { shards: Vec<Shard>, vocab_size: usize },
}

/// A file of tokens that stays open.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    /// Place of its first token in the stream.
    first: u64,
    tokens: u64,
    /// Bytes of a token: 2 or 4.
    width: usize,
    /// Bytes in front of the first token.
    header: u64,
    /// CRC-32 of the whole file that was noted when it was written.
    noted: Option<u32>,
}

impl TokenStream {
    /// Tokens in memory.
    pub fn in_memory(tokens: Vec<u32>) -> TokenStream {
        TokenStream { source: Arc::new(Source::Memory(tokens)) }
    }

    /// llm.c's shards (16-bit or 32-bit tokens) or nanoGPT's files (16-bit tokens without a header), one behind another.
    ///
    /// The headers are compared with the files' sizes now; that the tokens are inside the vocabulary is checked whenever
    /// some are read.
    pub fn open(paths: &[PathBuf], vocab_size: usize) -> Result<TokenStream, DataError> {
        TokenStream::open_with(paths, vocab_size, |_| None)
    }

    /// `noted` is the checksum that is known of each file.
    fn open_with(
        paths: &[PathBuf],
        vocab_size: usize,
        noted: impl Fn(usize) -> Option<u32>,
    ) -> Result<TokenStream, DataError> {
        let (mut shards, mut first) = (Vec::new(), 0);
        for (i, path) in paths.iter().enumerate() {
            let shard = Shard { noted: noted(i), ..Shard::open(path, first)? };
            first += shard.tokens;
            shards.push(shard);
        }
        Ok(TokenStream { source: Arc::new(Source::Files { shards, vocab_size }) })
    }

    /// Number of tokens.
    pub fn len(&self) -> u64 {
        match &*self.source {
            Source::Memory(tokens) => tokens.len() as u64,
            Source::Files { shards, .. } => shards.last().map_or(0, |shard| shard.first + shard.tokens),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens of each shard.
    pub fn shards(&self) -> Vec<u64> {
        match &*self.source {
            Source::Memory(tokens) => vec![tokens.len() as u64],
            Source::Files { shards, .. } => shards.iter().map(|shard| shard.tokens).collect(),
        }
    }

    /// Fills `out` with the tokens from place `start` on.
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<(), DataError> {
        let beyond = start.checked_add(out.len() as u64).is_none_or(|end| end > self.len());
        if beyond {
            let asked = start.saturating_add(out.len() as u64);
            return Err(DataError::OtherData(format!("it reaches to token {asked}, there are {}", self.len())));
        }
        match &*self.source {
            Source::Memory(tokens) => {
                let start = start as usize;
                out.copy_from_slice(&tokens[start..start + out.len()]);
            }
            Source::Files { shards, vocab_size } => {
                let (mut at, mut rest) = (start, out);
                let mut index = shards.partition_point(|shard| shard.first + shard.tokens <= at);
                while !rest.is_empty() {
                    let shard = &shards[index];
                    let here = rest.len().min((shard.first + shard.tokens - at) as usize);
                    let (now, later) = rest.split_at_mut(here);
                    shard.read(at - shard.first, now, *vocab_size)?;
                    at += here as u64;
                    rest = later;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// All tokens.
    pub fn to_vec(&self) -> Result<Vec<u32>, DataError> {
        let mut all = vec![0; self.len() as usize];
        self.read(0, &mut all)?;
        Ok(all)
    }

    /// A checksum that tells other tokens from these: of their number, and of all of them or, where there are more than four
    /// million, of stretches from the first to the last that hold so many together.
    pub fn mark(&self) -> Result<u32, DataError> {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.len().to_le_bytes());
        let stretch = MARKED / STRETCHES;
        let starts: Vec<u64> = match self.len().checked_sub(stretch).filter(|_| self.len() > MARKED) {
            Some(last) => (0..STRETCHES).map(|i| last / (STRETCHES - 1) * i).chain([last]).collect(),
            None => (0..self.len()).step_by(stretch as usize).collect(),
        };
        let mut tokens = vec![0; stretch.min(self.len()) as usize];
        for start in starts {
            let here = &mut tokens[..(self.len() - start).min(stretch) as usize];
            self.read(start, here)?;
            checksum.update(&here.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(checksum.finalize())
    }

    /// Where each document begins: at the first token, and at every `end_of_text`, which stands in front of a document.
    /// Reads everything once.
    pub fn documents(&self, end_of_text: u32) -> Result<Vec<u64>, DataError> {
        let mut starts = Vec::new();
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < self.len() {
            let n = (self.len() - at).min(BLOCK as u64) as usize;
            self.read(at, &mut block[..n])?;
            let begins = block[..n].iter().zip(at..).filter(|(token, place)| **token == end_of_text || *place == 0);
            starts.extend(begins.map(|(_, place)| place));
            at += n as u64;
        }
        Ok(starts)
    }
}

impl Shard {
    fn open(path: &Path, first: u64) -> Result<Shard, DataError> {
        let file = File::open(path).map_err(DataError::io(path))?;
        let size = file.metadata().map_err(DataError::io(path))?.len();
        let mut head = [0; 12];
        let has_head = size >= 12;
        if has_head {
            read_at(&file, &mut head, 0).map_err(DataError::io(path))?;
        }
        if let Some(why) = unread_version(&head).filter(|_| has_head) {
            return Err(DataError::bad(path, why));
        }
        let path = path.to_path_buf();
        let Some(width) = token_width(&head).filter(|_| has_head) else {
            // nanoGPT: nothing but tokens.
            if size % 2 != 0 {
                return Err(DataError::bad(&path, format!("{size} bytes are no whole number of 16-bit tokens")));
            }
            return Ok(Shard { path, file, first, tokens: size / 2, width: 2, header: 0, noted: None });
        };
        let tokens = u64::from(u32::from_le_bytes([head[8], head[9], head[10], head[11]]));
        if size != HEADER as u64 + tokens * width as u64 {
            let why = format!("{size} bytes, but the header says {tokens} tokens of {width} behind {HEADER} bytes");
            return Err(DataError::bad(&path, why));
        }
        Ok(Shard { path, file, first, tokens, width, header: HEADER as u64, noted: None })
    }

    fn read(&self, start: u64, out: &mut [u32], vocab_size: usize) -> Result<(), DataError> {
        let mut bytes = vec![0; out.len() * self.width];
        let offset = self.header + start * self.width as u64;
        read_at(&self.file, &mut bytes, offset).map_err(DataError::io(&self.path))?;
        for (to, token) in out.iter_mut().zip(bytes.chunks_exact(self.width)) {
            *to = token.iter().rev().fold(0, |t, b| t << 8 | u32::from(*b));
        }
        match out.iter().position(|token| *token as usize >= vocab_size) {
            None => Ok(()),
            Some(i) => {
                let place = start + i as u64;
                let why = format!("token {} at place {place} is outside the vocabulary of {vocab_size}", out[i]);
                Err(DataError::bad(&self.path, why))
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}
