//! Writing Hugging Face's tokenizer.json, and the tokenizer_config.json beside it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::super::char_level::{CharLevel, Prefix, SPACE};
use super::super::pretokenize::Split;
use super::super::special::Specials;
use super::super::{ByteLevel, Inner, Level};
use super::byte_chars::byte_chars;

/// A field of the step that writes spaces: that added tokens are looked for behind it, by their names. The format has no word for
/// that; other programs pass over the field, and look for the names before, as in files that are converted from SentencePiece.
pub const SYMBOLS: &str = "then_added_tokens";

/// See [`super::super::Tokenizer::write_json`]. The names of the tokens are made one by one as they are written: as a whole the
/// file of a large vocabulary is several times what the vocabulary takes.
pub fn write_json(inner: &Inner, out: impl Write) -> io::Result<()> {
    write(inner, template(inner), true, out)
}

/// The same without what is put around the ids of a text.
pub fn write_ids_json(inner: &Inner, out: impl Write) -> io::Result<()> {
    write(inner, Value::Null, true, out)
}

/// What earlier versions wrote: with or without what is put in front of the ids, and which names are looked for later.
pub fn write_earlier_json(inner: &Inner, later: bool, front: bool, out: impl Write) -> io::Result<()> {
    write(inner, if front { template(inner) } else { Value::Null }, later, out)
}

fn write(inner: &Inner, post_processor: Value, later: bool, out: impl Write) -> io::Result<()> {
    let names = Names::of(inner);
    let (normalizer, pre_tokenizer, decoder, model) = match &inner.level {
        Level::Bytes(level) => {
            let model = Model {
                ignore_merges: level.takes_whole_pieces(),
                ..Model::plain(Merges { names: &names, pairs: &level.ordered })
            };
            (Value::Null, byte_level_pre(level), byte_level(true), model)
        }
        Level::Chars(level) => {
            let model = Model {
                byte_fallback: level.byte_ids().is_some(),
                fuse_unk: level.fuse_unk,
                unk_token: level.unk().map(|id| names.whole(id)),
                ..Model::plain(Merges { names: &names, pairs: &level.ordered })
            };
            let (normalizer, pre) = spaces(level, later && inner.names.later.has_symbols());
            (normalizer, pre, char_level_decoder(level), model)
        }
    };
    let file = File {
        added_tokens: added_tokens(inner, later),
        decoder,
        model,
        normalizer,
        padding: (),
        post_processor,
        pre_tokenizer,
        truncation: (),
        version: "1.0",
    };
    serde_json::to_writer(out, &file).map_err(io::Error::from)
}

/// The file. Fields stand in the order of their names, so that the same vocabulary always gives the same bytes.
#[derive(Serialize)]
struct File<'a> {
    added_tokens: Value,
    decoder: Value,
    model: Model<'a>,
    normalizer: Value,
    padding: (),
    post_processor: Value,
    pre_tokenizer: Value,
    truncation: (),
    version: &'static str,
}

#[derive(Serialize)]
struct Model<'a> {
    byte_fallback: bool,
    continuing_subword_prefix: (),
    dropout: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    ignore_merges: bool,
    merges: Merges<'a>,
    r#type: &'static str,
    unk_token: Option<String>,
    vocab: Ids<'a>,
}

impl<'a> Model<'a> {
    fn plain(merges: Merges<'a>) -> Model<'a> {
        Model {
            byte_fallback: false,
            continuing_subword_prefix: (),
            dropout: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            ignore_merges: false,
            vocab: Ids { names: merges.names },
            merges,
            r#type: "BPE",
            unk_token: None,
        }
    }
}

/// How tokens are written.
struct Names<'a> {
    inner: &'a Inner,
    /// Special tokens go by their names.
    added: HashMap<u32, &'a str>,
    spelling: Spelling,
}

enum Spelling {
    /// A printable character for each byte.
    Bytes(Box<[char; 256]>),
    /// Characters; these ids are single bytes.
    Chars(HashMap<u32, usize>),
}

impl<'a> Names<'a> {
    fn of(inner: &'a Inner) -> Names<'a> {
        let added = [&inner.specials, &inner.added].into_iter().flat_map(Specials::sorted);
        let spelling = match &inner.level {
            Level::Bytes(_) => Spelling::Bytes(Box::new(byte_chars())),
            Level::Chars(level) => {
                let bytes = level.byte_ids().into_iter().flatten().enumerate();
                Spelling::Chars(bytes.map(|(byte, id)| (*id, byte)).collect())
            }
        };
        Names { inner, added: added.map(|(name, id)| (id, name)).collect(), spelling }
    }

    /// A token as part of a merge.
    fn piece(&self, id: u32) -> String {
        let token = self.inner.vocab.get(id);
        match &self.spelling {
            Spelling::Bytes(chars) => token.iter().map(|b| chars[*b as usize]).collect(),
            Spelling::Chars(bytes) => match bytes.get(&id) {
                Some(byte) => format!("<0x{byte:02X}>"),
                None => String::from_utf8_lossy(token).replace(' ', &SPACE.to_string()),
            },
        }
    }

    /// A token of the vocabulary.
    fn whole(&self, id: u32) -> String {
        self.added.get(&id).map_or_else(|| self.piece(id), |name| (*name).to_owned())
    }
}

/// The pairs that merge, in their order.
struct Merges<'a> {
    names: &'a Names<'a>,
    pairs: &'a [(u32, u32)],
}

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.pairs.iter().map(|(a, b)| [self.names.piece(*a), self.names.piece(*b)]))
    }
}

/// Every token and its id, in the order of the names. Of two tokens with one name the later counts.
struct Ids<'a> {
    names: &'a Names<'a>,
}

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut ids: Vec<(String, u32)> =
            (0..self.names.inner.vocab.len() as u32).map(|id| (self.names.whole(id), id)).collect();
        ids.sort_unstable();
        let last = |i: usize| ids.get(i + 1).is_none_or(|next| next.0 != ids[i].0);
        to.collect_map((0..ids.len()).filter(|i| last(*i)).map(|i| (&ids[i].0, ids[i].1)))
    }
}

/// See [`super::super::Tokenizer::to_config_json`].
pub fn to_config_json(inner: &Inner) -> String {
    let roles = &inner.roles;
    let names = [
        ("bos_token", roles.bos),
        ("eos_token", Some(inner.end_of_text)),
        ("unk_token", roles.unk),
        ("pad_token", roles.pad),
    ];
    let named = names.into_iter().filter_map(|(key, id)| Some((key.to_owned(), json!(special_name(inner, id?)?))));
    let mut config: serde_json::Map<String, Value> = named.collect();
    // What puts BOS in front stands in tokenizer.json too; that nothing does only here.
    if let Some(add) = roles.add_bos {
        config.insert("add_bos_token".to_owned(), json!(add));
    }
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    Value::Object(config).to_string()
}

fn special_name(inner: &Inner, id: u32) -> Option<&str> {
    let mut all = [&inner.specials, &inner.added].into_iter().flat_map(Specials::sorted);
    all.find(|(_, special)| *special == id).map(|(name, _)| name)
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

fn added_tokens(inner: &Inner, later: bool) -> Value {
    let token = |special: bool| {
        move |(content, id): (&str, u32)| {
            let entry = json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": later && inner.names.later.is_normalized(id), "special": special
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
    let patterns = level.split.patterns();
    let split =
        |pattern| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut steps: Vec<Value> = patterns.iter().map(split).collect();
    match level.split {
        Split::Gpt2 { single_digits: true } => steps.push(json!({"type": "Digits", "individual_digits": true})),
        Split::Gpt2 { single_digits: false } => return byte_level(true),
        _ => {}
    }
    steps.push(byte_level(patterns.is_empty()));
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// Spaces in a row become one, those at the ends go, as SentencePiece's `remove_extra_whitespaces` does it.
pub fn squeeze() -> [Value; 2] {
    [(" {2,}", " "), ("\\A +|[ \u{2581}]+\\z", "")]
        .map(|(pattern, content)| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content}))
}

/// Normalizer and pre-tokenizer that write spaces as U+2581.
fn spaces(level: &CharLevel, then_symbols: bool) -> (Value, Value) {
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
        steps.extend(squeeze());
    }
    if rule.prefix != Prefix::Never {
        steps.push(json!({"type": "Prepend", "prepend": space}));
    }
    let mut replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
    if then_symbols {
        replace[SYMBOLS] = true.into();
    }
    steps.push(replace);
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
