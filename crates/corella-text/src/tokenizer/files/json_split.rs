//! What a tokenizer.json asks to be done to a text before BPE, where it is something that is computed here.

use serde_json::Value;

use super::super::char_level::{Normalizer, Prefix, SPACE};
use super::super::error::FormatError;
use super::super::pretokenize::Split;
use super::json_write::{SYMBOLS, squeeze};

/// A pre-tokenizer's or normalizer's parts: itself, or the members of a sequence.
fn parts<'a>(value: &'a Value, members: &str) -> Vec<&'a Value> {
    match value {
        Value::Null => Vec::new(),
        _ if value["type"] == "Sequence" => {
            value[members].as_array().map(|list| list.iter().collect()).unwrap_or_default()
        }
        single => vec![single],
    }
}

fn unsupported(part: &'static str, value: &Value, allowed: &'static str) -> FormatError {
    FormatError::Unsupported { part, found: value.to_string(), allowed }
}

/// The split of byte-level BPE; `None` where the file is not byte-level.
pub fn byte_level_split(normalizer: &Value, pre: &Value) -> Result<Option<Split>, FormatError> {
    let list = parts(pre, "pretokenizers");
    let Some(byte_level) = list.iter().find(|part| part["type"] == "ByteLevel") else { return Ok(None) };
    const ALLOWED: &str = "ByteLevel alone, behind Digits with individual_digits, or behind Split with Llama 3's or Qwen's pattern can be used";
    if !parts(normalizer, "normalizers").is_empty() {
        return Err(unsupported("the normalizer", normalizer, "none can be used with ByteLevel"));
    }
    if byte_level["add_prefix_space"] == true {
        return Err(unsupported("the pre-tokenizer", pre, "ByteLevel without a prefix space can be used"));
    }
    let own_pattern = byte_level["use_regex"] != false;
    let split = match &list[..] {
        [_] if own_pattern => Some(Split::Gpt2 { single_digits: false }),
        [first, _] if own_pattern && first["type"] == "Digits" && first["individual_digits"] == true => {
            Some(Split::Gpt2 { single_digits: true })
        }
        [splits @ .., last] if !own_pattern && last == byte_level && splits.iter().all(|part| is_plain_split(part)) => {
            let patterns: Option<Vec<&str>> = splits.iter().map(|part| part["pattern"]["Regex"].as_str()).collect();
            patterns.and_then(|patterns| Split::of_patterns(&patterns))
        }
        _ => None,
    };
    split.map(Some).ok_or_else(|| unsupported("the pre-tokenizer", pre, ALLOWED))
}

fn is_plain_split(part: &Value) -> bool {
    part["type"] == "Split" && part["behavior"] == "Isolated" && part["invert"] != true
}

/// Whether added tokens are SentencePiece's symbols, as files that are written here say it.
pub fn names_are_symbols(normalizer: &Value) -> bool {
    parts(normalizer, "normalizers").last().is_some_and(|step| step[SYMBOLS] == true)
}

/// How spaces are written in SentencePiece-style BPE.
pub fn char_level_normalizer(normalizer: &Value, pre: &Value) -> Result<Normalizer, FormatError> {
    const ALLOWED: &str = "spaces written as U+2581, with or without one in front, can be used";
    let space = SPACE.to_string();
    if *pre == Value::Null {
        let is_replace =
            |v: &Value| v["type"] == "Replace" && v["pattern"]["String"] == " " && v["content"] == space.as_str();
        let steps = parts(normalizer, "normalizers");
        let squeezing = squeeze();
        let squeezed = steps.len() > 2 && *steps[0] == squeezing[0] && *steps[1] == squeezing[1];
        let prefix = match steps[if squeezed { 2 } else { 0 }..] {
            [prepend, replace] if prepend["type"] == "Prepend" && prepend["prepend"] == space.as_str() => {
                is_replace(replace).then_some(Prefix::Always)
            }
            [replace] if is_replace(replace) => Some(Prefix::Never),
            _ => None,
        };
        let prefix = prefix.ok_or_else(|| unsupported("the normalizer", normalizer, ALLOWED))?;
        return Ok(Normalizer { prefix, unless_space: false, squeeze: squeezed });
    }
    let no_normalizer = parts(normalizer, "normalizers").is_empty();
    let metaspace = pre["type"] == "Metaspace" && pre["replacement"] == space.as_str() && pre["split"] == false;
    let prefix = match pre["prepend_scheme"].as_str() {
        Some("first") => Some(Prefix::First),
        Some("always") => Some(Prefix::Always),
        Some("never") => Some(Prefix::Never),
        _ => None,
    };
    match prefix {
        Some(prefix) if no_normalizer && metaspace => Ok(Normalizer { prefix, unless_space: true, squeeze: false }),
        _ => Err(unsupported("the pre-tokenizer", pre, ALLOWED)),
    }
}
