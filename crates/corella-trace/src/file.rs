//! The index on disk: magic, version, number of tokens, CRC-32 of the tokens and of the array, the mark of what the tokens were
//! made of (two numbers), the tokens, then the array; all numbers are little-endian u32.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use crc32fast::Hasher;

use crate::error::TraceError;

const MAGIC: u32 = 0x5458_4443; // "CDXT"
const VERSION: u32 = 2;
const HEADER: usize = 7;
/// Numbers written and read at a time.
const PIECE: usize = 1 << 14;

/// What a file holds.
pub(crate) struct Content {
    pub tokens: Vec<u32>,
    pub order: Vec<u32>,
    /// What [`write`] was told of the tokens' source.
    pub mark: u64,
}

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn crc(numbers: &[u32]) -> u32 {
    let mut hasher = Hasher::new();
    numbers.chunks(PIECE).for_each(|piece| hasher.update(&bytes(piece)));
    hasher.finalize()
}

pub(crate) fn write(path: &Path, tokens: &[u32], order: &[u32], mark: u64) -> Result<(), TraceError> {
    let partial = path.with_extension("partial");
    let header = [MAGIC, VERSION, order.len() as u32, crc(tokens), crc(order), mark as u32, (mark >> 32) as u32];
    let written = File::create(&partial).and_then(|mut file| {
        for piece in std::iter::once(&header[..]).chain(tokens.chunks(PIECE)).chain(order.chunks(PIECE)) {
            file.write_all(&bytes(piece))?;
        }
        file.sync_all()
    });
    written.map_err(TraceError::io(&partial))?;
    fs::rename(&partial, path).map_err(TraceError::io(path))
}

/// The head of an index, compared with the file's size.
struct Head {
    count: usize,
    crc: [u32; 2],
    mark: u64,
}

fn head(path: &Path, file: &mut File) -> Result<Head, TraceError> {
    let bad = |what: String| TraceError::Bad { path: path.to_path_buf(), what };
    let size = file.metadata().map_err(TraceError::io(path))?.len();
    if size < HEADER as u64 * 4 {
        return Err(bad(format!("{size} bytes are too short for an index")));
    }
    let mut header = Vec::with_capacity(HEADER);
    numbers(file, HEADER, &mut header).map_err(TraceError::io(path))?;
    let [magic, version, count, tokens, order, low, high] = header[..] else {
        return Err(bad(format!("{size} bytes are too short for an index")));
    };
    if magic != MAGIC {
        return Err(bad("this is no index of training tokens".to_owned()));
    }
    if version != VERSION {
        return Err(bad(format!("version {version}; this program reads version {VERSION}; make it again")));
    }
    // The size is compared before anything is made as large as the file says.
    let expected = (HEADER as u64 + 2 * u64::from(count)) * 4;
    if size != expected {
        return Err(bad(format!("{size} bytes, but an index of {count} tokens has {expected}; make it again")));
    }
    Ok(Head { count: count as usize, crc: [tokens, order], mark: u64::from(high) << 32 | u64::from(low) })
}

/// Reads `count` numbers piece by piece, so that they are in memory once; returns their checksum.
fn numbers(file: &mut File, count: usize, into: &mut Vec<u32>) -> std::io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; 4 * PIECE.min(count)];
    let mut left = count;
    while left > 0 {
        let here = &mut piece[..4 * PIECE.min(left)];
        file.read_exact(here)?;
        hasher.update(here);
        into.extend(here.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)));
        left -= here.len() / 4;
    }
    Ok(hasher.finalize())
}

pub(crate) fn read(path: &Path) -> Result<Content, TraceError> {
    let bad = || TraceError::Bad {
        path: path.to_path_buf(),
        what: "the index is damaged (checksum differs); make it again".to_owned(),
    };
    let mut file = File::open(path).map_err(TraceError::io(path))?;
    let Head { count, crc, mark } = head(path, &mut file)?;
    let mut part = |crc: u32| {
        let mut all = Vec::with_capacity(count);
        let found = numbers(&mut file, count, &mut all).map_err(TraceError::io(path))?;
        if found == crc { Ok(all) } else { Err(bad()) }
    };
    let (tokens, order) = (part(crc[0])?, part(crc[1])?);
    if order.iter().any(|at| *at as usize >= count) {
        return Err(bad());
    }
    Ok(Content { tokens, order, mark })
}
