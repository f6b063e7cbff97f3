//! The vocabulary in a GGUF file's metadata (`tokenizer.ggml.*`).

use super::super::byte_level::ByteLevel;
use super::super::char_level::{Normalizer, Prefix};
use super::super::error::FormatError;
use super::super::names::Later;
use super::super::special::{Roles, Specials};
use super::super::vocab::Vocab;
use super::super::{Level, Tokenizer};
use super::byte_chars::ByteNames;
use super::gguf_pre::split_of;
use super::json_read::resolve_merges;
use super::scored::{Kind, scored};

/// The values of the keys `tokenizer.ggml.*`, as a reader of the container finds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece-style BPE).
    pub model: String,
    /// `pre`: which pattern splits the text, for `gpt2`; llama.cpp's own where the key is absent.
    pub pre: Option<String>,
    /// `tokens`.
    pub tokens: Vec<String>,
    /// `scores`, for `llama`.
    pub scores: Option<Vec<f32>>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// `merges`, for `gpt2`.
    pub merges: Option<Vec<String>>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`; true where the key is absent.
    pub add_space_prefix: Option<bool>,
}

/// Kinds of token, by their number in the file.
pub const NORMAL: i32 = 1;
pub const UNKNOWN: i32 = 2;
pub const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;
pub const UNUSED: i32 = 5;
pub const BYTE: i32 = 6;

impl GgufVocab {
    /// The kind of a token. What begins or ends a text is no text, also where the kinds are missing or call it normal.
    fn kind(&self, id: u32) -> i32 {
        let stated = self.token_types.as_ref().and_then(|types| types.get(id as usize)).copied().unwrap_or(NORMAL);
        if stated == NORMAL && [self.bos, self.eos].contains(&Some(id)) { CONTROL } else { stated }
    }

    fn named(&self, kind: i32) -> Specials {
        let tokens = self.tokens.iter().zip(0u32..);
        Specials::new(tokens.filter(|(_, id)| self.kind(*id) == kind).map(|(name, id)| (name.clone(), id)))
    }

    /// Number of tokens before the unused ones at the end: those pad the model's rows, and stand for nothing.
    fn used(&self) -> usize {
        let named = [self.bos, self.eos, self.unk];
        let used = |id: &u32| self.kind(*id) != UNUSED || named.contains(&Some(*id));
        (0..self.tokens.len() as u32).rev().find(used).map_or(0, |last| last as usize + 1)
    }

    /// The token that fills rows. One that is not there is none: files say so with ids that no token has.
    fn pad(&self) -> Option<u32> {
        self.pad.filter(|id| (*id as usize) < self.tokens.len())
    }

    fn check_lengths(&self) -> Result<(), FormatError> {
        let size = self.tokens.len();
        let lengths = [
            ("tokenizer.ggml.scores", self.scores.as_ref().map(Vec::len)),
            ("tokenizer.ggml.token_type", self.token_types.as_ref().map(Vec::len)),
        ];
        match lengths.into_iter().find_map(|(field, n)| Some((field, n.filter(|n| *n != size)?))) {
            Some((field, found)) => Err(FormatError::LengthMismatch { field, found, size }),
            None => Ok(()),
        }
    }
}

/// The vocabulary with its rule for encoding.
pub fn from_gguf(gguf: &GgufVocab) -> Result<Tokenizer, FormatError> {
    gguf.check_lengths()?;
    let used = gguf.used();
    if used < gguf.tokens.len() {
        let mut cut = gguf.clone();
        cut.tokens.truncate(used);
        cut.scores.iter_mut().for_each(|scores| scores.truncate(used));
        cut.token_types.iter_mut().for_each(|types| types.truncate(used));
        return from_gguf(&cut);
    }
    let (vocab, level) = match gguf.model.as_str() {
        "gpt2" => byte_level(gguf)?,
        "llama" => char_level(gguf)?,
        other => {
            return Err(FormatError::Unsupported {
                part: "tokenizer.ggml.model",
                found: other.to_owned(),
                allowed: "gpt2 and llama can be used",
            });
        }
    };
    let roles = Roles { bos: gguf.bos, eos: gguf.eos, unk: gguf.unk, pad: gguf.pad(), add_bos: gguf.add_bos };
    // llama.cpp looks for user-defined tokens in the text as it stands.
    Tokenizer::new(vocab, level, gguf.named(CONTROL), gguf.named(USER_DEFINED), Later::default(), roles)
}

fn byte_level(gguf: &GgufVocab) -> Result<(Vocab, Level), FormatError> {
    let (split, whole_pieces) = split_of(gguf.pre.as_deref())?;
    let is_text = |id: u32| !matches!(gguf.kind(id), CONTROL | USER_DEFINED | UNKNOWN | UNUSED);
    let names = ByteNames::new();
    let mut vocab = Vocab::default();
    for (name, id) in gguf.tokens.iter().zip(0u32..) {
        let bytes = if is_text(id) { names.bytes(name) } else { Some(name.clone().into_bytes()) };
        let unreadable = || FormatError::Syntax(format!("token {name:?} is not written in byte characters"));
        vocab.push(&bytes.ok_or_else(unreadable)?)?;
    }
    let missing = || FormatError::LengthMismatch { field: "tokenizer.ggml.merges", found: 0, size: gguf.tokens.len() };
    let merges: Vec<(&str, &str)> = gguf
        .merges
        .as_ref()
        .ok_or_else(missing)?
        .iter()
        .map(|m| m.split_once(' ').ok_or_else(|| FormatError::Syntax(format!("merge {m:?} is not a pair"))))
        .collect::<Result<_, _>>()?;
    let ids: Vec<(String, u32)> = gguf.tokens.iter().cloned().zip(0..).filter(|(_, id)| is_text(*id)).collect();
    let ordered = resolve_merges(&ids, &merges)?;
    let level = ByteLevel::new(&vocab, is_text, ordered, split, whole_pieces)?;
    Ok((vocab, Level::Bytes(level)))
}

fn char_level(gguf: &GgufVocab) -> Result<(Vocab, Level), FormatError> {
    let missing = || FormatError::LengthMismatch { field: "tokenizer.ggml.scores", found: 0, size: gguf.tokens.len() };
    let scores = gguf.scores.as_ref().ok_or_else(missing)?;
    let prefix = if gguf.add_space_prefix == Some(false) { Prefix::Never } else { Prefix::Always };
    let rule = Normalizer { prefix, unless_space: false, squeeze: false };
    scored(
        &gguf.tokens,
        |id| match gguf.kind(id) {
            NORMAL => Kind::Text,
            BYTE => Kind::Byte,
            _ => Kind::Other,
        },
        scores,
        gguf.unk,
        rule,
    )
}
