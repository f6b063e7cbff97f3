//! GPT-2's own two files: `vocab.bpe` (merges) and `encoder.json` (ids), named `merges.txt` and `vocab.json` elsewhere.

use std::fs;
use std::path::Path;

use super::super::byte_level::ByteLevel;
use super::super::error::{FormatError, TokenizerError};
use super::super::names::Later;
use super::super::pretokenize::Split;
use super::super::special::{Roles, Specials};
use super::super::vocab::Vocab;
use super::super::{END_OF_TEXT, Level, Tokenizer};
use super::byte_chars::ByteNames;
use super::json_read::{Ids, resolve_merges, tokens_by_id};

/// Which files stand beside which.
const PAIRS: [(&str, &str); 2] = [("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")];

/// The contents of both files.
pub struct Pair {
    merges: Vec<u8>,
    ids: Vec<u8>,
}

/// Merges and ids, where `path` is one file of the pair; the other is read from beside it.
pub fn pair(path: &Path, bytes: &[u8]) -> Result<Option<Pair>, TokenizerError> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let beside = |other: &str| {
        let other = path.with_file_name(other);
        fs::read(&other).map_err(TokenizerError::io(&other))
    };
    for (merges, ids) in PAIRS {
        if name == merges {
            return Ok(Some(Pair { merges: bytes.to_vec(), ids: beside(ids)? }));
        }
        if name == ids {
            return Ok(Some(Pair { merges: beside(merges)?, ids: bytes.to_vec() }));
        }
    }
    Ok(None)
}

pub fn parse(pair: &Pair) -> Result<Tokenizer, FormatError> {
    let merges = std::str::from_utf8(&pair.merges).map_err(|e| FormatError::Syntax(e.to_string()))?;
    let Ids(ids) = serde_json::from_slice(&pair.ids).map_err(|e| FormatError::Syntax(e.to_string()))?;
    let end = ids.iter().find(|(name, _)| name == END_OF_TEXT).map(|(_, id)| *id);
    let end = end.ok_or_else(|| FormatError::MissingSpecial { name: END_OF_TEXT.to_owned() })?;
    let names = ByteNames::new();
    let tokens = tokens_by_id(&ids, &[], |name, id| if id == end { Some(name.into()) } else { names.bytes(name) })?;
    let pairs: Vec<(&str, &str)> = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(|line| line.split_once(' ').ok_or_else(|| FormatError::Syntax(format!("merge {line:?} is not a pair"))))
        .collect::<Result<_, _>>()?;
    let vocab = Vocab::of(tokens)?;
    let ordered = resolve_merges(&ids, &pairs)?;
    let split = Split::Gpt2 { single_digits: false };
    let level = ByteLevel::new(&vocab, |id| id != end, ordered, split, false)?;
    let specials = Specials::new([(END_OF_TEXT.to_owned(), end)]);
    Tokenizer::new(vocab, Level::Bytes(level), specials, Specials::default(), Later::default(), Roles::default())
}
