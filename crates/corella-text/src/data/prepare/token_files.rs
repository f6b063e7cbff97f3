//! Ready-made tokens: shards of llm.c and files of nanoGPT, brought into the form of a prepared folder.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use super::super::readers::SourceFile;
use super::super::shard::{HEADER, token_width, unread_version};
use super::super::{DataError, Origin};
use super::state::{Folder, write_synced, write_tokenizer};
use super::writer::{PartState, PartWriter};
use super::{DatasetInfo, finish};
use crate::tokenizer::Tokenizer;

/// Tokens read at a time.
const CHUNK: usize = 1 << 16;
/// Longest document in tokens; what comes after is a document of its own.
const LONGEST: usize = 16 << 20;

/// Whether a file holds tokens: a shard of llm.c by its first bytes, a file of nanoGPT (which has no header) by its ending.
pub fn is_token_file(path: &Path) -> bool {
    is_llm_c_shard(path) || path.extension().is_some_and(|e| e == "bin")
}

/// Whether a file begins as llm.c's shards do, in whatever version.
pub fn is_llm_c_shard(path: &Path) -> bool {
    let mut head = [0; 12];
    let read = File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok();
    read && (token_width(&head).is_some() || unread_version(&head).is_some())
}

/// Whether the name of a file of tokens says that it is to validate on: one of its words is `val`, `valid`, `validation`,
/// `eval` or `test`, also with a number behind (`medieval` and `latest` are other words).
pub(crate) fn is_to_validate_on(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric()).map(|w| w.trim_end_matches(|c: char| c.is_numeric()));
    words.any(|word| matches!(word, "val" | "valid" | "validation" | "eval" | "test"))
}

/// Writes a prepared folder of files of tokens. Those with `val` or `test` as a word in their names are for validation. A document
/// begins at every end-of-text token. A data set that stands there is replaced only with `overwrite`, and the folder counts
/// as finished again when all is written.
pub fn prepare_tokens(
    files: &[SourceFile],
    tokenizer: &Tokenizer,
    out: &Path,
    shard_tokens: usize,
    overwrite: bool,
) -> Result<DatasetInfo, DataError> {
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    let folder = Folder::open_anew(out, overwrite)?;
    let (mut sources, mut parts) = (String::new(), Vec::new());
    let mut source = 0u32;
    for part in ["train", "val"] {
        let mut writer = PartWriter::new(out, part, tokenizer.vocab_size(), shard_tokens, PartState::default())?;
        for file in files.iter().filter(|f| is_to_validate_on(&f.path) == (part == "val")) {
            one_file(file, source, tokenizer, &mut writer)?;
            sources.push_str(&format!("{}\n", serde_json::Value::from(&file.name[..])));
            source += 1;
        }
        parts.push(writer.finish()?);
    }
    write_synced(&out.join("sources.txt"), &sources)?;
    write_tokenizer(out, tokenizer)?;
    let val = parts.pop().unwrap_or_default();
    let info = finish(out, tokenizer, parts.pop().unwrap_or_default(), val)?;
    folder.remove()?;
    Ok(info)
}

fn one_file(file: &SourceFile, source: u32, tokenizer: &Tokenizer, writer: &mut PartWriter) -> Result<(), DataError> {
    let path = &file.path;
    let opened = File::open(path).map_err(DataError::io(path))?;
    let length = opened.metadata().map_err(DataError::io(path))?.len();
    let mut reader = BufReader::with_capacity(1 << 18, opened);
    let mut head = Vec::new();
    reader.by_ref().take(HEADER as u64).read_to_end(&mut head).map_err(DataError::io(path))?;
    if let Some(why) = unread_version(&head) {
        return Err(DataError::bad(path, why));
    }
    let (width, count) = match token_width(&head) {
        Some(width) => {
            let count = u64::from(u32::from_le_bytes([head[8], head[9], head[10], head[11]]));
            if length != HEADER as u64 + count * width as u64 {
                let why = format!("{length} bytes, but the header says {count} tokens of {width}");
                return Err(DataError::bad(path, why));
            }
            head.clear();
            (width, count)
        }
        // nanoGPT: 16-bit tokens and nothing else.
        None if length % 2 == 0 => (2, length / 2),
        None => return Err(DataError::bad(path, format!("{length} bytes are no whole number of 16-bit tokens"))),
    };
    let mut reader = std::io::Read::chain(&head[..], reader);
    let (mut document, mut start, mut record, mut at) = (Vec::<u32>::new(), 0u64, 0u64, 0u64);
    let mut bytes = vec![0; CHUNK * width];
    let mut put = |document: &mut Vec<u32>, start: u64| -> Result<(), DataError> {
        if document.is_empty() {
            return Ok(());
        }
        let raw: Vec<u8> = document.iter().flat_map(|t| t.to_le_bytes()).collect();
        let hash = twox_hash::XxHash3_64::oneshot(&raw);
        let text = document.iter().filter(|t| **t != tokenizer.end_of_text());
        let length = text.map(|t| tokenizer.token_bytes(*t).len()).sum();
        let origin = Origin { source: file.name.as_str().into(), record, offset: start };
        record += 1;
        writer.append(&origin, source, hash, length, document)?;
        document.clear();
        Ok(())
    };
    while at < count {
        let now = ((count - at) as usize).min(CHUNK);
        let chunk = &mut bytes[..now * width];
        reader.read_exact(chunk).map_err(DataError::io(path))?;
        for token in chunk.chunks_exact(width) {
            let token = token.iter().rev().fold(0u32, |t, b| t << 8 | u32::from(*b));
            if token as usize >= tokenizer.vocab_size() {
                let why =
                    format!("token {token} at place {at} is outside the vocabulary of {}", tokenizer.vocab_size());
                return Err(DataError::bad(path, why));
            }
            if token == tokenizer.end_of_text() || document.len() == LONGEST {
                put(&mut document, start)?;
                start = at;
            }
            document.push(token);
            at += 1;
        }
    }
    put(&mut document, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_not_letters_say_what_is_to_validate_on() {
        let is_val = |name: &str| is_to_validate_on(Path::new(name));
        for name in
            ["val.bin", "tiny_shakespeare_val.bin", "fineweb-Validation-000001.bin", "a/test01.bin", "x.valid.bin"]
        {
            assert!(is_val(name), "{name}");
        }
        for name in ["medieval.bin", "latest.bin", "val/train.bin", "festivals_000000.bin", "contest.bin"] {
            assert!(!is_val(name), "{name}");
        }
    }
}
