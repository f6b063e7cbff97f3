//! Documents that are in memory already: tokenised on the spot, or written as a prepared folder.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use super::super::{DataError, Document, duplicates::text_hash};
use super::state::{Folder, write_synced, write_tokenizer};
use super::writer::{PartState, PartWriter};
use super::{DatasetInfo, PrepareReport, chosen, finish};
use crate::tokenizer::Tokenizer;

/// The documents' tokens, each document behind an end-of-text token: (train, its size, val, its size).
///
/// A single document is split in two; of several, those are for validation on whose hash the lot falls, but never
/// all, and, where a part is asked for, never none.
pub fn tokens_of(
    documents: &[Document],
    tokenizer: &Tokenizer,
    val_fraction: f64,
) -> (Vec<u32>, PrepareReport, Vec<u32>, PrepareReport) {
    let mut parts = [(Vec::new(), PrepareReport::default()), (Vec::new(), PrepareReport::default())];
    let mut put = |part: usize, text: &str, ids: Vec<u32>| {
        let (tokens, report) = &mut parts[part];
        tokens.push(tokenizer.end_of_text());
        tokens.extend(ids);
        report.documents += 1;
        report.bytes += text.len() as u64;
        report.tokens = tokens.len() as u64;
    };
    if let [only] = documents {
        let (train, val) = split(&only.text, val_fraction);
        put(0, train, tokenizer.encode(train));
        if !val.is_empty() {
            put(1, val, tokenizer.encode(val));
        }
    } else {
        let mut for_val: Vec<bool> = documents.iter().map(|document| chosen(lot(document), val_fraction)).collect();
        // Where the lot falls on all, one is left to train on; where it falls on none, one is taken.
        let lot_of = |i: &usize| lot(&documents[*i]);
        if let Some(highest) = (0..documents.len()).max_by_key(lot_of).filter(|_| !for_val.contains(&false)) {
            for_val[highest] = false;
        }
        let none = val_fraction > 0.0 && !for_val.contains(&true);
        if let Some(lowest) = (0..documents.len()).min_by_key(lot_of).filter(|_| none) {
            for_val[lowest] = true;
        }
        for ((document, ids), for_val) in documents.iter().zip(encode_all(documents, tokenizer)).zip(for_val) {
            put(usize::from(for_val), &document.text, ids);
        }
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

/// The ids of every document, in their order, on all processors.
fn encode_all(documents: &[Document], tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![Vec::new(); documents.len()]));
    let work = || {
        while let Some(i) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < documents.len()) {
            let ids = tokenizer.encode(&documents[i].text);
            done.lock().unwrap_or_else(PoisonError::into_inner)[i] = ids;
        }
    };
    let threads = available_parallelism().map_or(1, usize::from).min(documents.len());
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
        for (document, ids) in documents.iter().zip(encode_all(documents, tokenizer)) {
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
