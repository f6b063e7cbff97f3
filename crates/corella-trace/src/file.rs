//! The index on disk: magic, version, number of tokens, CRC-32 of the tokens and of the array, then the array; all numbers
//! are little-endian u32.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::TraceError;

const MAGIC: u32 = 0x5458_4443; // "CDXT"
const VERSION: u32 = 1;
const HEADER: usize = 5;

fn crc(numbers: &[u32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for block in numbers.chunks(1 << 14) {
        let bytes: Vec<u8> = block.iter().flat_map(|n| n.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize()
}

pub(crate) fn write(path: &Path, tokens: &[u32], order: &[u32]) -> Result<(), TraceError> {
    let partial = path.with_extension("partial");
    let header = [MAGIC, VERSION, order.len() as u32, crc(tokens), crc(order)];
    let written = File::create(&partial).and_then(|mut file| {
        for block in std::iter::once(&header[..]).chain(order.chunks(1 << 14)) {
            let bytes: Vec<u8> = block.iter().flat_map(|n| n.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        file.sync_all()
    });
    written.map_err(TraceError::io(&partial))?;
    fs::rename(&partial, path).map_err(TraceError::io(path))
}

pub(crate) fn read(path: &Path, tokens: &[u32]) -> Result<Vec<u32>, TraceError> {
    let bad = |what: String| TraceError::Bad { path: path.to_path_buf(), what };
    let expected = (HEADER + tokens.len()) as u64 * 4;
    let size = fs::metadata(path).map_err(TraceError::io(path))?.len();
    if size < HEADER as u64 * 4 {
        return Err(bad(format!("{size} bytes are too short for an index")));
    }
    // The size is compared before anything of it is read.
    if size != expected {
        return Err(bad(format!(
            "{size} bytes, but an index of {} tokens has {expected}; make it again",
            tokens.len()
        )));
    }
    let bytes = fs::read(path).map_err(TraceError::io(path))?;
    let (words, _) = bytes.as_chunks::<4>();
    let numbers: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
    let (header, order) = numbers.split_at(HEADER.min(numbers.len()));
    if header.len() < HEADER || header[0] != MAGIC {
        return Err(bad("this is no index of training tokens".to_owned()));
    }
    if header[1] != VERSION {
        return Err(bad(format!("version {}; this program reads version {VERSION}", header[1])));
    }
    let own = crc(tokens);
    if header[3] != own {
        return Err(TraceError::OtherTokens { path: path.to_path_buf(), found: header[3], expected: own });
    }
    if header[4] != crc(order) || order.iter().any(|at| *at as usize >= tokens.len()) {
        return Err(bad("the index is damaged (checksum differs); make it again".to_owned()));
    }
    Ok(order.to_vec())
}
