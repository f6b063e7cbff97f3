//! Hugging Face's tokenizer.json, for byte-level BPE.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::pretokenize::Split;
use super::{END_OF_TEXT, Tokenizer, TokenizerError};

/// The printable character that stands for each byte in the file: itself where it is printable, else one from 256 on.
fn byte_chars() -> [char; 256] {
    let mut spare = 256u32;
    std::array::from_fn(|b| {
        if matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            char::from(b as u8)
        } else {
            spare += 1;
            char::from_u32(spare - 1).unwrap_or_default()
        }
    })
}

/// The text of the file.
pub fn to_json(tokenizer: &Tokenizer) -> String {
    let chars = byte_chars();
    let name = |id: u32| -> String {
        if id == tokenizer.end_of_text() {
            return END_OF_TEXT.to_owned();
        }
        tokenizer.token_bytes(id).iter().map(|b| chars[*b as usize]).collect()
    };
    let inner = &*tokenizer.inner;
    let vocab: BTreeMap<String, u32> = (0..inner.bytes.len() as u32).map(|id| (name(id), id)).collect();
    let merges: Vec<[String; 2]> = inner.ordered.iter().map(|(a, b)| [name(*a), name(*b)]).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let pre = if inner.split.single_digits {
        json!({"type": "Sequence", "pretokenizers": [digits, byte_level]})
    } else {
        byte_level.clone()
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": tokenizer.end_of_text(), "content": END_OF_TEXT, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        }],
        "normalizer": null,
        "pre_tokenizer": pre,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges
        }
    })
    .to_string()
}

#[derive(Deserialize)]
struct File {
    pre_tokenizer: serde_json::Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Older files write a merge as one string with a space.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Text(String),
}

/// Reads the file, or the tokenizer.json of a folder.
pub fn load(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
    let text = std::fs::read_to_string(&path).map_err(|source| TokenizerError::Io { path: path.clone(), source })?;
    parse(&text).map_err(|what| TokenizerError::Bad { path, what })
}

fn parse(text: &str) -> Result<Tokenizer, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let pre = file.pre_tokenizer.to_string();
    if !pre.contains("\"ByteLevel\"") {
        return Err("the pre-tokenizer is not ByteLevel; byte-level BPE is read".to_owned());
    }
    if pre.contains("\"Split\"") {
        return Err("the pre-tokenizer has a split pattern of its own; GPT-2's is computed".to_owned());
    }
    let bytes_of: HashMap<char, u8> = byte_chars().into_iter().zip(0..=255).collect();
    let mut bytes = vec![None; file.model.vocab.len()];
    for (name, id) in &file.model.vocab {
        let slot = bytes.get_mut(*id as usize).ok_or(format!("token {name:?} has id {id}, outside the vocabulary"))?;
        let decoded: Option<Vec<u8>> = name.chars().map(|c| bytes_of.get(&c).copied()).collect();
        let value = if name == END_OF_TEXT { Some(name.clone().into_bytes()) } else { decoded };
        if slot.replace(value.ok_or(format!("token {name:?} is not written in byte characters"))?).is_some() {
            return Err(format!("id {id} is given twice"));
        }
    }
    let bytes: Vec<Vec<u8>> = bytes.into_iter().collect::<Option<_>>().ok_or("the ids have a gap")?;
    let end_of_text = *file.model.vocab.get(END_OF_TEXT).ok_or(format!("no {END_OF_TEXT} token"))?;
    let mut byte_ids = [None; 256];
    for (id, b) in bytes.iter().enumerate() {
        if let [byte] = b[..] {
            byte_ids[byte as usize] = Some(id as u32);
        }
    }
    let mut all = [0; 256];
    for (byte, id) in byte_ids.into_iter().enumerate() {
        all[byte] = id.ok_or(format!("byte {byte} has no token"))?;
    }
    let mut ordered = Vec::with_capacity(file.model.merges.len());
    for merge in &file.model.merges {
        let (left, right) = match merge {
            Merge::Pair([left, right]) => (left.as_str(), right.as_str()),
            Merge::Text(text) => text.split_once(' ').ok_or(format!("merge {text:?} is not a pair"))?,
        };
        let id = |name: &str| file.model.vocab.get(name).copied().ok_or(format!("merge of unknown piece {name:?}"));
        ordered.push((id(left)?, id(right)?));
    }
    let split = Split { single_digits: pre.contains("\"individual_digits\":true") };
    Ok(Tokenizer::new(bytes, all, ordered, split, end_of_text))
}
