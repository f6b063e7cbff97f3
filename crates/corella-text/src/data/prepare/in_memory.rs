//! Documents that are in memory already: tokenised on the spot, or written as a prepared folder.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use super::super::{DataError, Document, duplicates::text_hash};
use super::choice::{Lots, Part};
use super::state::{Folder, write_synced, write_tokenizer};
use super::writer::{PartState, PartWriter};
use super::{DatasetInfo, PrepareReport, finish};
use crate::tokenizer::Tokenizer;

/// The documents' tokens, each document behind an end-of-text token: (train, its size, val, its size).
///
/// What is for validation is decided as in a prepared folder: by the documents' hashes, and by a cut where that misses the part
/// that was asked for.
pub fn tokens_of(
    documents: &[Document],
    tokenizer: &Tokenizer,
    val_fraction: f64,
) -> (Vec<u32>, PrepareReport, Vec<u32>, PrepareReport) {
    let mut lots = Lots::new(val_fraction);
    for (document, number) in documents.iter().zip(0..) {
        lots.add(number, lot(document), document.text.len() as u64);
    }
    let choice = lots.decide();
    let mut pieces = Vec::new();
    for (document, number) in documents.iter().zip(0..) {
        match choice.of(number, lot(document)) {
            Part::Train => pieces.push((0, &document.text[..])),
            Part::Val => pieces.push((1, &document.text[..])),
            Part::Split(part) => {
                let (train, val) = split(&document.text, part);
                pieces.extend([(0, train), (1, val)].into_iter().filter(|(_, text)| !text.is_empty()));
            }
        }
    }
    let texts: Vec<&str> = pieces.iter().map(|(_, text)| *text).collect();
    let mut parts = [(Vec::new(), PrepareReport::default()), (Vec::new(), PrepareReport::default())];
    for ((part, text), ids) in pieces.into_iter().zip(encode_all(&texts, tokenizer)) {
        let (tokens, report): &mut (Vec<u32>, PrepareReport) = &mut parts[part];
        tokens.push(tokenizer.end_of_text());
        tokens.extend(ids);
        report.documents += 1;
        report.bytes += text.len() as u64;
        report.tokens = tokens.len() as u64;
    }
    let [train, val] = parts;
    (train.0, train.1, val.0, val.1)
}

fn lot(document: &Document) -> u64 {
    (text_hash(&document.text) >> 64) as u64
}

/// Cuts a text where validation begins: at the nearest line's end, unless that would make the part to validate on more than
/// a tenth longer or shorter (a text whose lines are books); then between two characters. Something is always trained on.
pub(super) fn split(text: &str, val_fraction: f64) -> (&str, &str) {
    let target = text.floor_char_boundary((text.len() as f64 * (1.0 - val_fraction)) as usize);
    let near = (text.len() - target) / 10;
    let line_ends = [
        memchr::memrchr(b'\n', &text.as_bytes()[..target]).map(|i| i + 1),
        memchr::memchr(b'\n', &text.as_bytes()[target..]).map(|i| target + i + 1),
    ];
    let nearest = line_ends.into_iter().flatten().min_by_key(|cut| cut.abs_diff(target));
    let cut = nearest.filter(|cut| cut.abs_diff(target) <= near).unwrap_or(target);
    text.split_at(if cut == 0 { text.len() } else { cut })
}

/// The ids of every text, in their order, on all processors.
fn encode_all(texts: &[&str], tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); texts.len()]));
    let work = || {
        while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < texts.len()) {
            let ids = tokenizer.encode(texts[i]);
            done.lock().unwrap_or_else(PoisonError::into_inner)[i] = ids;
        }
    };
    let threads = available_parallelism().map_or(1, usize::from).min(texts.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a prepared folder of documents whose parts are decided. A data set that stands there is replaced only with
/// `overwrite`, and the folder counts as finished again when all is written.
pub fn prepare_documents(
    train: &[Document],
    val: &[Document],
    tokenizer: &Tokenizer,
    out: &Path,
    shard_tokens: usize,
    overwrite: bool,
) -> Result<DatasetInfo, DataError> {
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    let folder = Folder::open_anew(out, overwrite)?;
    let mut sources: Vec<&str> = Vec::new();
    let mut parts = Vec::new();
    for (name, documents) in [("train", train), ("val", val)] {
        let mut writer = PartWriter::new(out, name, tokenizer.vocab_size(), shard_tokens, PartState::default())?;
        let texts: Vec<&str> = documents.iter().map(|document| &document.text[..]).collect();
        for (document, ids) in documents.iter().zip(encode_all(&texts, tokenizer)) {
            if sources.last() != Some(&&*document.origin.source) {
                sources.push(&document.origin.source);
            }
            let source = u32::try_from(sources.len() - 1).unwrap_or(u32::MAX);
            let ids = [&[tokenizer.end_of_text()], &ids[..]].concat();
            writer.append(&document.origin, source, lot(document), document.text.len(), &ids)?;
        }
        parts.push(writer.finish()?);
    }
    let lines: String = sources.iter().map(|s| format!("{}\n", serde_json::Value::from(*s))).collect();
    write_synced(&out.join("sources.txt"), &lines)?;
    write_tokenizer(out, tokenizer)?;
    let val = parts.pop().unwrap_or_default();
    let info = finish(out, tokenizer, parts.pop().unwrap_or_default(), val)?;
    folder.remove()?;
    Ok(info)
}
