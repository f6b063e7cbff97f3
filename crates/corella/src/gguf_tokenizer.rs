//! A tokenizer as the metadata of a GGUF file.

use std::collections::HashMap;

use corella_model::SpecialIds;
use corella_model::formats::gguf::{Array, Value};
use corella_text::tokenizer::{GgufVocab, Tokenizer};
use serde::Deserialize;

use crate::error::{Failure, Result};

/// Kinds of token (`llama_token_type`).
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
/// The token whose place in a file is that of the end of a message.
const END_OF_MESSAGE: &str = "<|eom_id|>";

/// The parts of a tokenizer.json that GGUF keeps.
#[derive(Deserialize)]
struct TokenizerFile {
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
}

/// The keys `tokenizer.ggml.*` of a tokenizer for a model of `vocab_size` tokens, those behind the tokenizer's own unused.
/// Tokenizers of characters are written where scores say what their merges say. `special` is what the model's own files say:
/// all that end a text for the model do so in the file.
pub fn metadata(tokenizer: &Tokenizer, special: &SpecialIds, vocab_size: usize) -> Result<Vec<(String, Value)>> {
    let ends = Ends::of(tokenizer, special);
    if let Some(vocab) = tokenizer.to_gguf() {
        return Ok([with_scores(vocab, vocab_size), ends.keys()].concat());
    }
    let Some(pre) = tokenizer.gguf_pre() else {
        return Err(Failure::new(format!(
            "a {} tokenizer cannot be written into a GGUF file: no scores give its merges",
            tokenizer.kind()
        ))
        .hint("convert from a GGUF file that carries it, or keep the tokenizer.json and name it with --tokenizer"));
    };
    let file: TokenizerFile = serde_json::from_str(&tokenizer.to_json())?;
    let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; vocab_size];
    for (name, id) in file.model.vocab {
        if let (Some(token), Some(kind)) = (tokens.get_mut(id as usize), kinds.get_mut(id as usize)) {
            (*token, *kind) = (name, NORMAL);
        }
    }
    for added in file.added_tokens {
        if let Some(kind) = kinds.get_mut(added.id as usize) {
            *kind = if added.special { CONTROL } else { USER_DEFINED };
        }
    }
    let merges = file.model.merges.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
    let key = |rest: &str, value: Value| (format!("tokenizer.ggml.{rest}"), value);
    let mut keys = vec![
        key("model", Value::String("gpt2".to_owned())),
        key("pre", Value::String(pre.to_owned())),
        key("tokens", Value::Array(Array::String(tokens))),
        key("token_type", Value::Array(Array::I32(kinds))),
        key("merges", Value::Array(Array::String(merges))),
        key("bos_token_id", Value::U32(tokenizer.start_of_text())),
        key("eos_token_id", Value::U32(tokenizer.end_of_text())),
    ];
    // Where the tokenizer's files do not say it, neither does this one.
    let roles = tokenizer.roles();
    keys.extend(roles.unk.map(|id| key("unknown_token_id", Value::U32(id))));
    keys.extend(roles.pad.map(|id| key("padding_token_id", Value::U32(id))));
    keys.extend(roles.add_bos.map(|add| key("add_bos_token", Value::Bool(add))));
    keys.extend(ends.keys());
    Ok(keys)
}

/// The keys of a file without a tokenizer: what begins and ends a text for the model.
pub fn bare(special: &SpecialIds) -> Vec<(String, Value)> {
    let mut ends = special.eos.iter().copied();
    let id = |name: &str, id: Option<u32>| id.map(|id| (format!("tokenizer.ggml.{name}"), Value::U32(id)));
    let model = ("tokenizer.ggml.model".to_owned(), Value::String("none".to_owned()));
    let named = [id("bos_token_id", special.bos), id("eos_token_id", ends.next())];
    let others = Ends::beside(ends.collect(), None, &[]);
    [model].into_iter().chain(named.into_iter().flatten()).chain(others.keys()).collect()
}

/// What ends a text for the model beside the tokenizer's end of text: a file has two more places.
struct Ends {
    turn: Option<u32>,
    message: Option<u32>,
}

impl Ends {
    fn of(tokenizer: &Tokenizer, special: &SpecialIds) -> Ends {
        let others = special.eos.iter().copied().filter(|id| *id != tokenizer.end_of_text());
        let message = tokenizer.special_tokens().into_iter().find(|(name, _)| *name == END_OF_MESSAGE);
        let mut others: Vec<u32> = others.collect();
        // These are found by their names where no place is left for their ids.
        let named = tokenizer.stop_ids();
        others.sort_by_key(|id| named.contains(id));
        Ends::beside(others, message.map(|(_, id)| id), named)
    }

    /// Puts ids in the places; `message` is the one that has its own, and those in `named` need none.
    fn beside(mut others: Vec<u32>, message: Option<u32>, named: &[u32]) -> Ends {
        let message = others.iter().position(|id| Some(*id) == message).map(|at| others.remove(at));
        let mut others = others.into_iter();
        let turn = others.next();
        let ends = Ends { turn, message: message.or_else(|| others.next()) };
        let left: Vec<String> = others.filter(|id| !named.contains(id)).map(|id| id.to_string()).collect();
        if !left.is_empty() {
            eprintln!("note: a GGUF file names three tokens that end a text; it does not name {}", left.join(", "));
        }
        ends
    }

    fn keys(&self) -> Vec<(String, Value)> {
        let named = [("eot_token_id", self.turn), ("eom_token_id", self.message)].into_iter();
        named.filter_map(|(name, id)| Some((format!("tokenizer.ggml.{name}"), Value::U32(id?)))).collect()
    }
}

/// The keys of a vocabulary with scores.
fn with_scores(vocab: GgufVocab, vocab_size: usize) -> Vec<(String, Value)> {
    let GgufVocab { model, mut tokens, scores, token_types, bos, eos, unk, pad, add_bos, add_space_prefix, .. } = vocab;
    let (mut scores, mut kinds) = (scores.unwrap_or_default(), token_types.unwrap_or_default());
    tokens.extend((tokens.len()..vocab_size).map(|id| format!("[PAD{id}]")));
    scores.resize(tokens.len(), f32::MIN);
    kinds.resize(tokens.len(), UNUSED);
    let id = |name: &str, id: Option<u32>| id.map(|id| (name.to_owned(), Value::U32(id)));
    let truth = |name: &str, truth: Option<bool>| truth.map(|truth| (name.to_owned(), Value::Bool(truth)));
    let keys = [
        Some(("model".to_owned(), Value::String(model))),
        Some(("tokens".to_owned(), Value::Array(Array::String(tokens)))),
        Some(("scores".to_owned(), Value::Array(Array::F32(scores)))),
        Some(("token_type".to_owned(), Value::Array(Array::I32(kinds)))),
        id("bos_token_id", bos),
        id("eos_token_id", eos),
        id("unknown_token_id", unk),
        id("padding_token_id", pad),
        truth("add_bos_token", add_bos),
        truth("add_space_prefix", add_space_prefix),
    ];
    keys.into_iter().flatten().map(|(name, value)| (format!("tokenizer.ggml.{name}"), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpt2s_tokenizer_is_written_with_its_merges_and_padding() {
        let tokenizer = Tokenizer::gpt2();
        let keys = metadata(&tokenizer, &SpecialIds::default(), 50_304).expect("byte-level");
        let get = |name: &str| keys.iter().find(|(k, _)| k == &format!("tokenizer.ggml.{name}")).map(|(_, v)| v);
        let Some(Value::Array(Array::String(tokens))) = get("tokens") else { panic!("no tokens") };
        assert_eq!((tokens.len(), &tokens[15496][..], &tokens[50256][..]), (50_304, "Hello", "<|endoftext|>"));
        assert_eq!(tokens[262], "\u{120}the");
        let Some(Value::Array(Array::I32(kinds))) = get("token_type") else { panic!("no kinds") };
        assert_eq!((kinds[0], kinds[50256], kinds[50257]), (NORMAL, CONTROL, UNUSED));
        let Some(Value::Array(Array::String(merges))) = get("merges") else { panic!("no merges") };
        assert_eq!((merges.len(), &merges[0][..]), (50_000, "\u{120} t"));
        assert_eq!(get("pre").and_then(Value::as_str), Some("gpt-2"));
    }
}
