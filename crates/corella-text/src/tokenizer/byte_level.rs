//! Byte-level BPE (GPT-2, Llama 3): text is split into pieces, each piece is merged from its bytes.

use rustc_hash::FxHashMap;

use super::bpe::{Merge, Merges};
use super::cache::{Key, PieceCache};
use super::error::FormatError;
use super::pretokenize::Split;
use super::vocab::Vocab;

/// What encodes, beside the vocabulary.
#[derive(Clone, Debug)]
pub struct ByteLevel {
    /// Id of each single byte.
    byte_ids: Box<[u32; 256]>,
    merges: Merges,
    /// Merged pairs in the order of their ranks, as files list them.
    pub ordered: Vec<(u32, u32)>,
    pub split: Split,
    /// Tokens that are taken whole where a piece is one, whatever the merges say.
    whole: Option<FxHashMap<Box<[u8]>, u32>>,
}

impl ByteLevel {
    /// `ordered` are the pairs by rank. Of the `vocab`, the ids that `is_text` names are no special tokens. With
    /// `whole_pieces`, a piece that is a token is not merged from its bytes (`ignore_merges`).
    pub fn new(
        vocab: &Vocab,
        is_text: impl Fn(u32) -> bool,
        ordered: Vec<(u32, u32)>,
        split: Split,
        whole_pieces: bool,
    ) -> Result<Self, FormatError> {
        let ids = vocab.ids(is_text)?;
        let byte_ids = byte_ids(&ids)?;
        let mut merges = Merges::default();
        for (rank, (left, right)) in ordered.iter().enumerate() {
            let merged = [vocab.get(*left), vocab.get(*right)].concat();
            let id = *ids.get(&merged[..]).ok_or_else(|| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let merge = format!("{} {}", text(vocab.get(*left)), text(vocab.get(*right)));
                FormatError::UnknownMerge { merge, piece: text(&merged) }
            })?;
            merges.insert((*left, *right), Merge { rank: rank as u32, id });
        }
        let whole = whole_pieces.then(|| ids.iter().map(|(bytes, id)| (Box::from(*bytes), *id)).collect());
        Ok(ByteLevel { byte_ids, merges, ordered, split, whole })
    }

    /// Tokens whose id is their rank (tiktoken): two neighbours are merged where their bytes together are a token, the
    /// lowest id first.
    pub fn from_ranks(vocab: &Vocab, is_text: impl Fn(u32) -> bool, split: Split) -> Result<Self, FormatError> {
        let ids = vocab.ids(is_text)?;
        let byte_ids = byte_ids(&ids)?;
        let mut by_rank: Vec<(u32, &[u8])> = ids.iter().map(|(bytes, id)| (*id, *bytes)).collect();
        by_rank.sort_unstable();
        if let Some((merges, ordered)) = trained_merges(&by_rank, &byte_ids) {
            // There, every token is what the merges make of its bytes.
            return Ok(ByteLevel { byte_ids, merges, ordered, split, whole: None });
        }
        let whole = Some(ids.iter().map(|(bytes, id)| (Box::from(*bytes), *id)).collect());
        let (mut merges, mut ordered) = (Merges::default(), Vec::new());
        for (id, bytes) in by_rank.into_iter().filter(|(_, bytes)| bytes.len() > 1) {
            let mut halves: Vec<(u32, u32)> =
                (1..bytes.len()).filter_map(|cut| Some((*ids.get(&bytes[..cut])?, *ids.get(&bytes[cut..])?))).collect();
            halves.sort_unstable();
            for pair in halves {
                // One rank for all halves of a token: then the leftmost pair of those goes first, as in tiktoken.
                merges.insert(pair, Merge { rank: id, id });
                ordered.push(pair);
            }
        }
        Ok(ByteLevel { byte_ids, merges, ordered, split, whole })
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, cache: &mut PieceCache, out: &mut Vec<u32>) {
        let bytes = text.as_bytes();
        let mut start = 0;
        while let Some(end) = self.split.piece_end(text, start) {
            let key = Key::of(bytes, start, end);
            if let Some(ids) = key.and_then(|key| cache.get(key)) {
                out.extend_from_slice(ids);
            } else {
                let first = out.len();
                self.encode_piece(&bytes[start..end], out);
                if let Some(key) = key {
                    cache.put(key, &out[first..]);
                }
            }
            start = end;
        }
    }

    fn encode_piece(&self, piece: &[u8], out: &mut Vec<u32>) {
        match self.whole.as_ref().and_then(|whole| whole.get(piece)) {
            Some(id) => out.push(*id),
            None => self.merges.apply(piece.iter().map(|b| self.byte_ids[*b as usize]), out),
        }
    }

    /// Whether a piece that is a token is taken whole.
    pub fn takes_whole_pieces(&self) -> bool {
        self.whole.is_some()
    }

    /// Pairs that merge.
    pub fn merge_count(&self) -> usize {
        self.merges.len()
    }
}

fn byte_ids(ids: &FxHashMap<&[u8], u32>) -> Result<Box<[u32; 256]>, FormatError> {
    let mut all = Box::new([0; 256]);
    for (byte, id) in (0..=255u8).zip(all.iter_mut()) {
        *id = *ids.get(&[byte][..]).ok_or(FormatError::MissingByte { byte })?;
    }
    Ok(all)
}

/// The one pair of every token, where the vocabulary was trained by merging pairs and nothing was added: what the merges
/// of lower rank make of a token's bytes is then two parts. `None` for other vocabularies.
fn trained_merges(by_rank: &[(u32, &[u8])], byte_ids: &[u32; 256]) -> Option<(Merges, Vec<(u32, u32)>)> {
    let (mut merges, mut ordered) = (Merges::default(), Vec::with_capacity(by_rank.len()));
    let mut parts = Vec::new();
    for (id, bytes) in by_rank.iter().filter(|(_, bytes)| bytes.len() > 1) {
        parts.clear();
        merges.apply(bytes.iter().map(|b| byte_ids[*b as usize]), &mut parts);
        let [left, right] = parts[..] else { return None };
        merges.insert((left, right), Merge { rank: *id, id: *id });
        ordered.push((left, right));
    }
    Some((merges, ordered))
}
