//! Reading Hugging Face's tokenizer.json: BPE, byte-level or SentencePiece-style.

use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::super::byte_level::ByteLevel;
use super::super::char_level::{Pieces, SPACE};
use super::super::error::FormatError;
use super::super::names::Later;
use super::super::special::{Roles, Specials};
use super::super::vocab::{MOST_TOKENS, Vocab};
use super::super::{Level, Tokenizer};
use super::byte_chars::ByteNames;
use super::json_split::{byte_level_split, char_level_normalizer, names_are_symbols};
use super::scored::byte_of;

/// The parts of the file that decide about ids.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Older files write a merge as one string with a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

impl Merge {
    fn pair(&self) -> Result<(&str, &str), FormatError> {
        match self {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Text(text) => {
                text.split_once(' ').ok_or_else(|| FormatError::Syntax(format!("merge {text:?} is not a pair")))
            }
        }
    }
}

/// A JSON object of names and ids in the order of the file, in which no name may come twice.
pub struct Ids(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, u32)>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tokens and their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(all)
            }
        }
        from.deserialize_map(InOrder).map(Ids)
    }
}

/// What the files beside tokenizer.json say of the special tokens.
#[derive(Default)]
pub struct Named {
    bos: Option<String>,
    eos: Option<String>,
    unk: Option<String>,
    pad: Option<String>,
    add_bos: Option<bool>,
    /// Ids that end a text for the model, of which those count that are special tokens, where nothing else names one.
    model_eos: Vec<u32>,
}

impl Named {
    /// Whether a token that ends a text is known by its name.
    pub fn has_eos(&self) -> bool {
        self.eos.is_some()
    }

    /// Adds what another file says where nothing is known yet: tokenizer_config.json and special_tokens_map.json name tokens
    /// (by their names, or by objects that hold these), a model's config.json has ids.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let file: Value = serde_json::from_slice(bytes).map_err(|e| FormatError::Syntax(e.to_string()))?;
        let name = |key: &str| {
            let token = &file[key];
            token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
        };
        self.bos = self.bos.take().or_else(|| name("bos_token"));
        self.eos = self.eos.take().or_else(|| name("eos_token"));
        self.unk = self.unk.take().or_else(|| name("unk_token"));
        self.pad = self.pad.take().or_else(|| name("pad_token"));
        self.add_bos = self.add_bos.or_else(|| file["add_bos_token"].as_bool());
        let eos = &file["eos_token_id"];
        let ids = eos.as_array().map_or(std::slice::from_ref(eos), Vec::as_slice);
        self.model_eos.extend(ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
        Ok(())
    }
}

/// Whether the text begins as a JSON object does.
pub fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

pub fn parse(bytes: &[u8], named: &Named) -> Result<Tokenizer, FormatError> {
    let syntax = |e: serde_json::Error| FormatError::Syntax(e.to_string());
    // The vocabulary is read by itself, because a map would forget names that come twice.
    let file: File = serde_json::from_slice(bytes).map_err(syntax)?;
    check_model(&file.model)?;
    let Ids(ids) = vocab_of(bytes)?;
    if file.added_tokens.iter().any(|t| t.single_word || t.lstrip || t.rstrip) {
        return Err(FormatError::Unsupported {
            part: "an added token",
            found: "marked single_word, lstrip or rstrip".to_owned(),
            allowed: "tokens that take nothing of the text around them can be used",
        });
    }
    let added: Vec<(&str, u32)> = file.added_tokens.iter().map(|t| (t.content.as_str(), t.id)).collect();
    let by_kind = |special: bool| {
        Specials::new(file.added_tokens.iter().filter(|t| t.special == special).map(|t| (t.content.clone(), t.id)))
    };
    let (specials, always) = (by_kind(true), by_kind(false));
    let added_ids: FxHashMap<u32, &str> = added.iter().map(|(name, id)| (*id, *name)).collect();
    let merges: Vec<(&str, &str)> = file.model.merges.iter().map(Merge::pair).collect::<Result<_, _>>()?;
    let symbols = names_are_symbols(&file.normalizer);
    let is_text = |id: u32| !added_ids.contains_key(&id);

    let (vocab, level) = if let Some(split) = byte_level_split(&file.normalizer, &file.pre_tokenizer)? {
        let names = ByteNames::new();
        let tokens = tokens_by_id(&ids, &added, |name, id| match added_ids.get(&id) {
            Some(name) => Some(name.as_bytes().to_vec()),
            None => names.bytes(name),
        })?;
        let vocab = Vocab::of(tokens)?;
        let ordered = resolve_merges(&ids, &merges)?;
        let level = ByteLevel::new(&vocab, is_text, ordered, split, file.model.ignore_merges)?;
        (vocab, Level::Bytes(level))
    } else {
        let normalizer = char_level_normalizer(&file.normalizer, &file.pre_tokenizer)?;
        let bytes_of = |name: &str, id: u32| match (added_ids.get(&id), byte_of(name)) {
            (Some(name), _) if symbols && always.has(id) => name.replace(SPACE, " ").into_bytes(),
            (Some(name), _) => name.as_bytes().to_vec(),
            (None, Some(byte)) if file.model.byte_fallback => vec![byte],
            _ => name.replace(SPACE, " ").into_bytes(),
        };
        let vocab = Vocab::of(tokens_by_id(&ids, &added, |name, id| Some(bytes_of(name, id)))?)?;
        let unk = file.model.unk_token.as_deref();
        let find = |name: &str| ids.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let pieces = Pieces {
            vocab_size: vocab.len(),
            ids: ids.iter().filter(|(_, id)| is_text(*id)).map(|(name, id)| (name.as_str(), *id)).collect(),
            byte_ids: if file.model.byte_fallback { byte_ids(&ids) } else { None },
            unk: unk.and_then(find),
            fuse_unk: file.model.fuse_unk,
            normalizer,
        };
        if let (Some(name), None) = (unk, pieces.unk) {
            return Err(FormatError::MissingSpecial { name: name.to_owned() });
        }
        (vocab, Level::Chars(pieces.with_merges(&merges)?))
    };

    let role = |name: &Option<String>| match name {
        None => Ok(None),
        Some(name) => {
            let id = specials.id(name).or_else(|| ids.iter().find(|(n, _)| n == name).map(|(_, id)| *id));
            id.map(Some).ok_or_else(|| FormatError::MissingSpecial { name: name.clone() })
        }
    };
    // Nothing is encoded with these: a file may name some that it does not have.
    let named_special = |name: &Option<String>| name.as_ref().and_then(|name| specials.id(name));
    let unk = match &level {
        Level::Chars(level) => level.unk(),
        Level::Bytes(_) => named_special(&named.unk),
    };
    let pad = named_special(&named.pad);
    let front = template_front(&file.post_processor);
    let bos = role(&named.bos.clone().or_else(|| front.map(str::to_owned)))?;
    let add_bos = named.add_bos.or(front.map(|_| true));
    let mut roles = Roles { bos, eos: role(&named.eos)?, unk, pad, add_bos }.complete(&specials);
    roles.eos = roles.eos.or_else(|| named.model_eos.iter().copied().find(|id| specials.has(*id)));
    let later = if symbols {
        Later::symbols(&always)
    } else {
        Later::normalized(file.added_tokens.iter().filter(|t| t.normalized).map(|t| t.id))
    };
    Tokenizer::new(vocab, level, specials, always, later, roles)
}

/// The special token that the file's template puts in front of a text.
fn template_front(post_processor: &Value) -> Option<&str> {
    let inner = post_processor["processors"].as_array().map_or(&[][..], Vec::as_slice);
    let steps = || std::iter::once(post_processor).chain(inner);
    steps().find_map(|step| step["single"].get(0)?["SpecialToken"]["id"].as_str())
}

/// `model.vocab` of the file.
fn vocab_of(bytes: &[u8]) -> Result<Ids, FormatError> {
    #[derive(Deserialize)]
    struct Outer {
        model: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        vocab: Ids,
    }
    let outer: Outer = serde_json::from_slice(bytes).map_err(|e| FormatError::Syntax(e.to_string()))?;
    Ok(outer.model.vocab)
}

fn check_model(model: &Model) -> Result<(), FormatError> {
    let unsupported = |part, found: String, allowed| Err(FormatError::Unsupported { part, found, allowed });
    match model.kind.as_deref() {
        None | Some("BPE") => {}
        Some(other) => return unsupported("model.type", other.to_owned(), "BPE can be used"),
    }
    if !model.vocab.is_object() {
        return Err(FormatError::Syntax("model.vocab is not an object of tokens and ids".to_owned()));
    }
    if let Some(p) = model.dropout.filter(|p| *p > 0.0) {
        return unsupported("model.dropout", p.to_string(), "encoding is not random here");
    }
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if let Some(affix) = affixes.into_iter().flatten().find(|affix| !affix.is_empty()) {
        return unsupported("a prefix or suffix of parts of words", format!("{affix:?}"), "none can be used");
    }
    Ok(())
}

/// The tokens in the order of their ids. `bytes` gives a token's bytes, or `None` where its name stands for none.
pub fn tokens_by_id(
    ids: &[(String, u32)],
    added: &[(&str, u32)],
    bytes: impl Fn(&str, u32) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, FormatError> {
    let mut by_name: FxHashMap<&str, u32> = FxHashMap::default();
    let in_vocab = ids.iter().map(|(name, id)| (name.as_str(), *id, false));
    for (name, id, again) in in_vocab.chain(added.iter().map(|(name, id)| (*name, *id, true))) {
        match by_name.insert(name, id) {
            // Added tokens may stand in the vocabulary too, or behind it.
            Some(first) if !again || first != id => {
                return Err(FormatError::DuplicateToken { token: name.to_owned(), first, second: id });
            }
            _ => {}
        }
    }
    let size = by_name.len();
    if size > MOST_TOKENS {
        return Err(FormatError::TooManyTokens { found: size, limit: MOST_TOKENS });
    }
    let mut tokens: Vec<Option<Vec<u8>>> = vec![None; size];
    for (name, id) in by_name {
        let token = name.to_owned();
        let Some(slot) = tokens.get_mut(id as usize) else {
            return Err(FormatError::IdOutOfRange { token, id: u64::from(id), size });
        };
        if slot.is_some() {
            return Err(FormatError::DuplicateToken { token, first: id, second: id });
        }
        let unreadable = || FormatError::Syntax(format!("token {token:?} is not written in byte characters"));
        *slot = Some(bytes(name, id).ok_or_else(unreadable)?);
    }
    let whole = tokens.into_iter().enumerate();
    whole.map(|(id, token)| token.ok_or(FormatError::MissingId { id, size })).collect()
}

/// Merges as pairs of ids.
pub fn resolve_merges(ids: &[(String, u32)], merges: &[(&str, &str)]) -> Result<Vec<(u32, u32)>, FormatError> {
    let ids: FxHashMap<&str, u32> = ids.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    let resolve = |(left, right): &(&str, &str)| {
        let id = |piece: &str| {
            ids.get(piece)
                .copied()
                .ok_or_else(|| FormatError::UnknownMerge { merge: format!("{left} {right}"), piece: piece.to_owned() })
        };
        Ok((id(left)?, id(right)?))
    };
    merges.iter().map(resolve).collect()
}

/// Ids of the 256 byte tokens; `None` unless all are there.
fn byte_ids(ids: &[(String, u32)]) -> Option<[u32; 256]> {
    let mut found = [None; 256];
    for (name, id) in ids {
        if let Some(byte) = byte_of(name) {
            found[usize::from(byte)] = Some(*id);
        }
    }
    let mut all = [0; 256];
    for (to, id) in all.iter_mut().zip(found) {
        *to = id?;
    }
    Some(all)
}
