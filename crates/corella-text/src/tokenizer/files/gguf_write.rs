//! A vocabulary of characters as a GGUF file keeps it: with scores instead of merges.

use std::collections::HashMap;

use super::super::char_level::{CharLevel, Prefix, SPACE};
use super::super::{Inner, Level};
use super::gguf::{BYTE, CONTROL, GgufVocab, NORMAL, UNKNOWN, USER_DEFINED, from_gguf};

/// The vocabulary with scores that give its merges. `None` for byte-level vocabularies, and where no scores do: a GGUF file lets
/// any two pieces merge that make a token, which vocabularies converted from SentencePiece's do too, but those that were
/// trained with merges do not.
pub fn to_gguf(inner: &Inner) -> Option<GgufVocab> {
    let Level::Chars(level) = &inner.level else { return None };
    let scores = scores(inner, level);
    let (tokens, kinds) = (0..inner.vocab.len() as u32).map(|id| named(inner, level, id)).unzip();
    let vocab = GgufVocab {
        model: "llama".to_owned(),
        pre: None,
        tokens,
        scores: Some(scores),
        token_types: Some(kinds),
        merges: None,
        bos: inner.roles.bos,
        eos: inner.roles.eos,
        unk: level.unk(),
        pad: inner.roles.pad,
        add_bos: inner.roles.add_bos,
        add_space_prefix: Some(level.normalizer.prefix == Prefix::Always),
    };
    let read = from_gguf(&vocab).ok()?;
    matches!(&read.inner.level, Level::Chars(read) if level.same_rule(read)).then_some(vocab)
}

/// Name and kind of a token.
fn named(inner: &Inner, level: &CharLevel, id: u32) -> (String, i32) {
    let text = String::from_utf8_lossy(inner.vocab.get(id));
    if let Some(byte) = level.byte_ids().and_then(|ids| ids.iter().position(|byte| *byte == id)) {
        return (format!("<0x{byte:02X}>"), BYTE);
    }
    if level.unk() == Some(id) {
        return (text.into_owned(), UNKNOWN);
    }
    if inner.specials.has(id) {
        return (text.into_owned(), CONTROL);
    }
    if let Some(name) = inner.added.name(id) {
        return (name.to_owned(), USER_DEFINED);
    }
    (text.replace(' ', &SPACE.to_string()), NORMAL)
}

/// The sooner a token is merged, the higher; 0 is the first. What is never merged stands behind all.
fn scores(inner: &Inner, level: &CharLevel) -> Vec<f32> {
    let bytes = level.byte_ids().map_or(&[][..], |ids| &ids[..]);
    let ids = (0..inner.vocab.len() as u32).filter(|id| !bytes.contains(id));
    let ids: HashMap<&[u8], u32> = ids.map(|id| (inner.vocab.get(id), id)).collect();
    let ranks = level.ordered.iter().filter_map(|pair| {
        let text = [inner.vocab.get(pair.0), inner.vocab.get(pair.1)].concat();
        Some((*ids.get(text.as_slice())?, level.rank(*pair)))
    });
    let mut scores = vec![f32::NAN; inner.vocab.len()];
    let mut last = 0;
    for (id, rank) in ranks {
        if scores[id as usize].is_nan() {
            scores[id as usize] = -(rank as f32);
        }
        last = last.max(rank);
    }
    scores.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = -(last as f32) - 1.0);
    scores
}
