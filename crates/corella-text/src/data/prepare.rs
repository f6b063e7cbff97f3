//! Documents to a folder of token shards.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use super::{DataError, Document, write_shard};
use crate::tokenizer::Tokenizer;

/// How to prepare.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Share of the documents kept for validation; of a single document, its end.
    pub val_fraction: f64,
    /// Most tokens of a shard.
    pub shard_tokens: usize,
}

/// Size of a part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// Documents.
    pub documents: u64,
    /// Tokens, the end-of-text tokens included.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// What `dataset.json` says of a prepared folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetInfo {
    /// The part to train on.
    pub train: PrepareReport,
    /// The part to validate on.
    pub val: PrepareReport,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Checksum of the tokenizer.
    pub tokenizer: String,
    /// Names and CRC-32 checksums of the shards.
    pub shards: Vec<(String, u32)>,
}

/// The documents' tokens, each document behind an end-of-text token: (train, its size, val, its size).
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
        // A single document is cut at a line's end, as near as possible to where validation begins.
        let target = (only.text.len() as f64 * (1.0 - val_fraction)) as usize;
        let cut = only.text.bytes().take(target).rposition(|b| b == b'\n').map_or(only.text.len(), |i| i + 1);
        let (train, val) = only.text.split_at(cut);
        put(0, train, tokenizer.encode(train));
        if !val.is_empty() {
            put(1, val, tokenizer.encode(val));
        }
    } else {
        for (document, ids) in documents.iter().zip(encode_all(documents, tokenizer)) {
            put(usize::from(chosen(&document.text, val_fraction)), &document.text, ids);
        }
    }
    let [train, val] = parts;
    (train.0, train.1, val.0, val.1)
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

/// Whether a document is for validation: by a hash of its text, so that the choice does not move when others are added.
fn chosen(text: &str, val_fraction: f64) -> bool {
    let hash = twox_hash::XxHash3_64::oneshot(text.as_bytes());
    (hash >> 11) as f64 / (1u64 << 53) as f64 <= val_fraction && val_fraction > 0.0
}

/// Writes shards, tokenizer.json and, last, dataset.json: a folder without it is unfinished.
///
/// `fresh` are documents that are for validation whatever the fraction.
pub fn prepare(
    documents: &[Document],
    fresh: &[Document],
    tokenizer: &Tokenizer,
    out: &Path,
    options: PrepareOptions,
) -> Result<DatasetInfo, DataError> {
    fs::create_dir_all(out).map_err(DataError::io(out))?;
    let (train_tokens, train, mut val_tokens, mut val) = tokens_of(documents, tokenizer, options.val_fraction);
    for document in fresh {
        val_tokens.push(tokenizer.end_of_text());
        val_tokens.extend(tokenizer.encode(&document.text));
        val.documents += 1;
        val.bytes += document.text.len() as u64;
        val.tokens = val_tokens.len() as u64;
    }
    let mut shards = Vec::new();
    for (part, tokens) in [("train", train_tokens), ("val", val_tokens)] {
        for (i, tokens) in tokens.chunks(options.shard_tokens.max(1)).enumerate() {
            let name = format!("{part}_{i:06}.bin");
            shards.push((name.clone(), write_shard(&out.join(&name), tokens, tokenizer.vocab_size())?));
        }
    }
    write_synced(&out.join("tokenizer.json"), &tokenizer.to_json())?;
    let (vocab_size, fingerprint) = (tokenizer.vocab_size(), tokenizer.fingerprint());
    let info = DatasetInfo { train, val, vocab_size, tokenizer: fingerprint, shards };
    let path = out.join("dataset.json");
    let text = serde_json::to_string_pretty(&info).map_err(|e| DataError::bad(&path, e.to_string()))?;
    write_synced(&path, &text)?;
    Ok(info)
}

/// Writes a small file under a temporary name, syncs and renames it.
fn write_synced(path: &Path, text: &str) -> Result<(), DataError> {
    let temporary = path.with_extension("json.partial");
    let write = || -> std::io::Result<()> {
        fs::write(&temporary, text)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(DataError::io(path))
}
