//! Byte-level BPE: text to token ids and back.

mod bpe;
mod gpt2;
mod json;
mod pretokenize;
mod stream;
mod train;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use stream::StreamDecoder;
pub use train::TrainOptions;

use bpe::Merges;
use pretokenize::Split;
use rustc_hash::FxHashMap;

/// The token that marks the border between documents.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Longest piece, in bytes, whose ids are kept while a text is encoded.
const LONGEST_KNOWN: usize = 64;

/// What can be wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a byte-level BPE tokenizer.json.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What was found and what is allowed.
        what: String,
    },
    /// A vocabulary of this size cannot be trained.
    #[error(
        "a vocabulary of {asked} tokens: at least 257 are needed (256 bytes and the end of text), at most 1,000,000"
    )]
    VocabSize {
        /// What was asked for.
        asked: usize,
    },
}

/// A byte-level BPE vocabulary. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bytes of each id; the end of text has its name's bytes.
    bytes: Vec<Vec<u8>>,
    /// Id of each single byte.
    byte_ids: [u32; 256],
    merges: Merges,
    /// Merged pairs in order of their rank, as the file format lists them.
    ordered: Vec<(u32, u32)>,
    split: Split,
    end_of_text: u32,
}

impl Tokenizer {
    /// GPT-2's vocabulary: 50,257 tokens, the end of text last.
    pub fn gpt2() -> Tokenizer {
        gpt2::gpt2()
    }

    /// Trains a vocabulary: the end of text is id 0, the bytes follow, then the merges in their order.
    pub fn train<'a>(
        docs: impl IntoIterator<Item = &'a str>,
        vocab_size: usize,
        options: TrainOptions,
    ) -> Result<Tokenizer, TokenizerError> {
        train::train(docs, vocab_size, options)
    }

    /// Reads a Hugging Face tokenizer.json, or the one in a folder.
    pub fn load(path: &Path) -> Result<Tokenizer, TokenizerError> {
        json::load(path)
    }

    /// The Hugging Face tokenizer.json with the same ids.
    pub fn to_json(&self) -> String {
        json::to_json(self)
    }

    fn new(
        bytes: Vec<Vec<u8>>,
        byte_ids: [u32; 256],
        ordered: Vec<(u32, u32)>,
        split: Split,
        end_of_text: u32,
    ) -> Self {
        let ids: HashMap<&[u8], u32> = bytes.iter().enumerate().map(|(id, b)| (&b[..], id as u32)).collect();
        let merges = ordered
            .iter()
            .enumerate()
            .filter_map(|(rank, pair)| {
                let merged = [&bytes[pair.0 as usize][..], &bytes[pair.1 as usize]].concat();
                Some((*pair, (rank as u32, *ids.get(&merged[..])?)))
            })
            .collect();
        drop(ids);
        Tokenizer { inner: Arc::new(Inner { bytes, byte_ids, merges, ordered, split, end_of_text }) }
    }

    /// Ids of a text. Strings that look like special tokens are ordinary text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let inner = &*self.inner;
        let mut known: FxHashMap<&str, std::ops::Range<usize>> = FxHashMap::default();
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3);
        for piece in inner.split.pieces(text) {
            if piece.len() <= LONGEST_KNOWN
                && let Some(range) = known.get(piece)
            {
                ids.extend_from_within(range.clone());
                continue;
            }
            let start = ids.len();
            bpe::encode_piece(piece.as_bytes(), &inner.byte_ids, &inner.merges, &mut ids);
            // Long pieces hardly ever come again.
            if piece.len() <= LONGEST_KNOWN {
                known.insert(piece, start..ids.len());
            }
        }
        ids
    }

    /// Text of ids; bytes that are not UTF-8 become the replacement character.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of a token; none for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.inner.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Number of ids.
    pub fn vocab_size(&self) -> usize {
        self.inner.bytes.len()
    }

    /// The id that marks the border between documents.
    pub fn end_of_text(&self) -> u32 {
        self.inner.end_of_text
    }

    /// A checksum of the vocabulary, to tell whether two tokenizers give the same ids.
    pub fn fingerprint(&self) -> String {
        format!("{:08x}", crc32fast::hash(self.to_json().as_bytes()))
    }
}
