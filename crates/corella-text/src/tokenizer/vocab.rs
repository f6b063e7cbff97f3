//! The bytes of every token.

use rustc_hash::FxHashMap;

use super::error::FormatError;

/// Longest token, in bytes. The longest in use (runs of spaces, of equal signs) have 256 or fewer.
pub const LONGEST_TOKEN: usize = 4096;
/// Most tokens of a vocabulary.
pub const MOST_TOKENS: usize = 1 << 24;

/// Bytes of each id, one behind another.
#[derive(Clone, Debug, Default)]
pub struct Vocab {
    bytes: Vec<u8>,
    /// Where each token ends.
    ends: Vec<usize>,
}

impl Vocab {
    /// Adds the next id.
    pub fn push(&mut self, token: &[u8]) -> Result<u32, FormatError> {
        let id = self.ends.len();
        if token.len() > LONGEST_TOKEN {
            return Err(FormatError::TokenTooLong { id, bytes: token.len(), limit: LONGEST_TOKEN });
        }
        if id >= MOST_TOKENS {
            return Err(FormatError::TooManyTokens { found: id + 1, limit: MOST_TOKENS });
        }
        self.bytes.extend_from_slice(token);
        self.ends.push(self.bytes.len());
        Ok(id as u32)
    }

    /// A vocabulary of these tokens in their order.
    pub fn of<T: AsRef<[u8]>>(tokens: impl IntoIterator<Item = T>) -> Result<Vocab, FormatError> {
        let mut vocab = Vocab::default();
        for token in tokens {
            vocab.push(token.as_ref())?;
        }
        Ok(vocab)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of a token; none for an id outside the vocabulary.
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..*end]
    }

    /// Tokens with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.len() as u32).map(|id| (id, self.get(id)))
    }

    /// Ids by bytes, of the tokens that `wanted` names; each must be there once.
    pub fn ids(&self, wanted: impl Fn(u32) -> bool) -> Result<FxHashMap<&[u8], u32>, FormatError> {
        let mut ids = FxHashMap::with_capacity_and_hasher(self.len(), Default::default());
        for (id, token) in self.iter().filter(|(id, _)| wanted(*id)) {
            if let Some(first) = ids.insert(token, id) {
                let token = String::from_utf8_lossy(token).into_owned();
                return Err(FormatError::DuplicateToken { token, first, second: id });
            }
        }
        Ok(ids)
    }
}
