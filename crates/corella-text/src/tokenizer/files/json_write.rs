//! Writing Hugging Face's tokenizer.json, and the tokenizer_config.json beside it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::super::char_level::{CharLevel, Prefix, SPACE};
use super::super::pretokenize::Split;
use super::super::special::Specials;
use super::super::{ByteLevel, Inner, Level};
use super::byte_chars::byte_chars;

/// See [`super::super::Tokenizer::to_json`].
pub fn to_json(inner: &Inner) -> String {
    let added: HashMap<u32, &str> =
        [&inner.specials, &inner.added].into_iter().flat_map(Specials::sorted).map(|(name, id)| (id, name)).collect();
    let model = |names: &dyn Fn(u32) -> String, ordered: &[(u32, u32)], more: Value| {
        let name = |id: u32| added.get(&id).map_or_else(|| names(id), |name| (*name).to_owned());
        let vocab: BTreeMap<String, u32> = (0..inner.vocab.len() as u32).map(|id| (name(id), id)).collect();
        let merges: Vec<[String; 2]> = ordered.iter().map(|(a, b)| [names(*a), names(*b)]).collect();
        let mut model = json!({
            "type": "BPE", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "vocab": vocab, "merges": merges
        });
        if let (Value::Object(model), Value::Object(more)) = (&mut model, more) {
            model.extend(more);
        }
        model
    };
    let (normalizer, pre_tokenizer, decoder, model) = match &inner.level {
        Level::Bytes(level) => {
            let chars = byte_chars();
            let name = |id: u32| inner.vocab.get(id).iter().map(|b| chars[*b as usize]).collect();
            let more = json!({
                "unk_token": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": level.takes_whole_pieces()
            });
            (Value::Null, byte_level_pre(level), byte_level(true), model(&name, &level.ordered, more))
        }
        Level::Chars(level) => {
            let bytes: HashMap<u32, usize> =
                level.byte_ids().into_iter().flatten().enumerate().map(|(byte, id)| (*id, byte)).collect();
            let name = |id: u32| match bytes.get(&id) {
                Some(byte) => format!("<0x{byte:02X}>"),
                None => String::from_utf8_lossy(inner.vocab.get(id)).replace(' ', &SPACE.to_string()),
            };
            let unk = level.unk().map(|id| added.get(&id).map_or_else(|| name(id), |name| (*name).to_owned()));
            let more = json!({
                "unk_token": unk, "fuse_unk": level.fuse_unk, "byte_fallback": level.byte_ids().is_some(),
                "ignore_merges": false
            });
            let (normalizer, pre) = spaces(level);
            (normalizer, pre, char_level_decoder(level), model(&name, &level.ordered, more))
        }
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(inner),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": template(inner),
        "decoder": decoder,
        "model": model
    })
    .to_string()
}

/// See [`super::super::Tokenizer::to_config_json`].
pub fn to_config_json(inner: &Inner) -> String {
    let roles = &inner.roles;
    let names = [("bos_token", roles.bos), ("eos_token", Some(inner.end_of_text)), ("unk_token", roles.unk)];
    let named = names.into_iter().filter_map(|(key, id)| Some((key.to_owned(), json!(special_name(inner, id?)?))));
    let mut config: serde_json::Map<String, Value> = named.collect();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    Value::Object(config).to_string()
}

fn special_name(inner: &Inner, id: u32) -> Option<&str> {
    inner.specials.sorted().into_iter().find(|(_, special)| *special == id).map(|(name, _)| name)
}

/// The template that puts BOS in front of a text, where the vocabulary wants it there.
fn template(inner: &Inner) -> Value {
    let bos = inner.roles.bos.filter(|_| inner.roles.add_bos == Some(true));
    let Some((id, name)) = bos.and_then(|id| Some((id, special_name(inner, id)?))) else { return Value::Null };
    let (special, text) = (
        json!({"SpecialToken": {"id": name, "type_id": 0}}),
        |which: &str| json!({"Sequence": {"id": which, "type_id": 0}}),
    );
    json!({
        "type": "TemplateProcessing",
        "single": [special, text("A")],
        "pair": [special, text("A"), text("B")],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}}
    })
}

fn added_tokens(inner: &Inner) -> Value {
    let token = |special: bool| {
        move |(content, id): (&str, u32)| {
            let entry = json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special
            });
            (id, entry)
        }
    };
    let special = inner.specials.sorted().into_iter().map(token(true));
    let all: BTreeMap<u32, Value> = special.chain(inner.added.sorted().into_iter().map(token(false))).collect();
    all.into_values().collect()
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn byte_level_pre(level: &ByteLevel) -> Value {
    let first = match (level.split, level.split.pattern()) {
        (_, Some(pattern)) => {
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
        }
        (Split::Gpt2 { single_digits: true }, None) => json!({"type": "Digits", "individual_digits": true}),
        _ => return byte_level(true),
    };
    let own_pattern = level.split.pattern().is_none();
    json!({"type": "Sequence", "pretokenizers": [first, byte_level(own_pattern)]})
}

/// Normalizer and pre-tokenizer that write spaces as U+2581.
fn spaces(level: &CharLevel) -> (Value, Value) {
    let space = SPACE.to_string();
    let rule = level.normalizer;
    if rule.unless_space {
        let scheme = match rule.prefix {
            Prefix::Never => "never",
            Prefix::Always => "always",
            Prefix::First => "first",
        };
        let pre = json!({"type": "Metaspace", "replacement": space, "prepend_scheme": scheme, "split": false});
        return (Value::Null, pre);
    }
    let mut steps = Vec::new();
    if rule.squeeze {
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
        steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
    }
    if rule.prefix != Prefix::Never {
        steps.push(json!({"type": "Prepend", "prepend": space}));
    }
    steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": space}));
    (json!({"type": "Sequence", "normalizers": steps}), Value::Null)
}

fn char_level_decoder(level: &CharLevel) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE.to_string()}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if level.normalizer.prefix != Prefix::Never {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}
