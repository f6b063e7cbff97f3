//! SentencePiece's `.model` (a protocol buffer) and `.vocab` (text) files of BPE vocabularies.

use std::path::Path;

use super::super::Tokenizer;
use super::super::char_level::{Normalizer, Prefix};
use super::super::error::FormatError;
use super::super::names::Later;
use super::super::special::{Roles, Specials};
use super::scored::{Kind, byte_of, scored};

/// Kinds of piece in the file.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;
const BPE: u64 = 2;

/// One field of a protocol buffer message.
enum Field<'a> {
    Number(u64),
    Word(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers. (Encoding: protobuf.dev, "Encoding".)
struct Message<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Message<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Message { rest: bytes, total: bytes.len() }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], FormatError> {
        let truncated = FormatError::Truncated { offset: self.total - self.rest.len(), field: "a field of the model" };
        let n = usize::try_from(n).map_err(|_| truncated.clone())?;
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FormatError::Syntax("a number of more than ten bytes".to_owned()))
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, FormatError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let b = self.take(4)?;
                Field::Word(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            other => return Err(FormatError::Syntax(format!("a field of wire type {other}"))),
        };
        Ok(Some((tag >> 3, field)))
    }
}

/// Whether the file begins with a piece whose own first field is its text.
pub fn is_model(bytes: &[u8]) -> bool {
    matches!(bytes, [0x0a, _, 0x0a, ..] | [0x0a, _, _, 0x0a, ..])
}

/// Tokens with scores and kinds, and what to do to the text.
struct Model {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<u64>,
    normalizer: Normalizer,
    bos: Option<u32>,
    eos: Option<u32>,
}

pub fn parse_model(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    let rule = Normalizer { prefix: Prefix::Always, unless_space: false, squeeze: true };
    let mut model = Model {
        tokens: Vec::new(),
        scores: Vec::new(),
        kinds: Vec::new(),
        normalizer: rule,
        bos: Some(1),
        eos: Some(2),
    };
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(piece)) => read_piece(piece, &mut model)?,
            (2, Field::Bytes(spec)) => read_trainer(spec, &mut model)?,
            (3, Field::Bytes(spec)) => read_normalizer(spec, &mut model)?,
            _ => {}
        }
    }
    tokenizer(model)
}

fn read_piece(bytes: &[u8], model: &mut Model) -> Result<(), FormatError> {
    let (mut text, mut score, mut kind) = (&[][..], 0.0, 1);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(bytes)) => text = bytes,
            (2, Field::Word(bits)) => score = f32::from_bits(bits),
            (3, Field::Number(n)) => kind = n,
            _ => {}
        }
    }
    let id = model.tokens.len();
    let text = std::str::from_utf8(text).map_err(|e| FormatError::Syntax(format!("token {id}: {e}")))?;
    model.tokens.push(text.to_owned());
    model.scores.push(score);
    model.kinds.push(kind);
    Ok(())
}

fn read_trainer(bytes: &[u8], model: &mut Model) -> Result<(), FormatError> {
    let mut kind = 1;
    // Ids are int32; a negative one says that there is none.
    let id = |n: u64| u32::try_from(n as i32).ok();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (3, Field::Number(n)) => kind = n,
            (24, Field::Number(n)) if n != 0 => {
                return Err(FormatError::Unsupported {
                    part: "treat_whitespace_as_suffix",
                    found: "true".to_owned(),
                    allowed: "models that write spaces in front of words can be used",
                });
            }
            (41, Field::Number(n)) => model.bos = id(n),
            (42, Field::Number(n)) => model.eos = id(n),
            _ => {}
        }
    }
    if kind != BPE {
        return Err(FormatError::Unsupported {
            part: "model_type",
            found: kind.to_string(),
            allowed: "2 (BPE) can be used",
        });
    }
    Ok(())
}

fn read_normalizer(bytes: &[u8], model: &mut Model) -> Result<(), FormatError> {
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (2, Field::Bytes(map)) if !map.is_empty() => {
                return Err(FormatError::Unsupported {
                    part: "precompiled_charsmap",
                    found: format!("{} bytes", map.len()),
                    allowed: "models that leave characters as they are (identity) can be used",
                });
            }
            (3, Field::Number(n)) => model.normalizer.prefix = if n == 0 { Prefix::Never } else { Prefix::Always },
            (4, Field::Number(n)) => model.normalizer.squeeze = n != 0,
            _ => {}
        }
    }
    Ok(())
}

/// Whether the name says that the file is a `.vocab`.
pub fn is_vocab_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "vocab")
}

/// A `.vocab`: a token, a tab and its score on every line. It does not say what is done to the text: a space is put in
/// front, and spaces are squeezed, as SentencePiece does by default.
pub fn parse_vocab(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|e| FormatError::Syntax(e.to_string()))?;
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in text.split_terminator('\n').enumerate() {
        let bad = |what: &str| FormatError::Syntax(format!("line {}: {what}", number + 1));
        let (token, score) = line.rsplit_once('\t').ok_or_else(|| bad("no score"))?;
        scores.push(score.trim_end().parse().map_err(|_| bad("the score is no number"))?);
        kinds.push(match token {
            "<unk>" => UNKNOWN,
            "<s>" | "</s>" => CONTROL,
            token if byte_of(token).is_some() => BYTE,
            _ => 1,
        });
        tokens.push(token.to_owned());
    }
    let id_of = |name: &str| tokens.iter().position(|token| token == name).map(|id| id as u32);
    let (bos, eos) = (id_of("<s>"), id_of("</s>"));
    let normalizer = Normalizer { prefix: Prefix::Always, unless_space: false, squeeze: true };
    tokenizer(Model { tokens, scores, kinds, normalizer, bos, eos })
}

fn tokenizer(model: Model) -> Result<Tokenizer, FormatError> {
    let Model { tokens, scores, kinds, normalizer, bos, eos } = model;
    let named = |kind: u64| {
        let of_kind = tokens.iter().zip(&kinds).zip(0u32..).filter(move |((_, k), _)| **k == kind);
        of_kind.map(|((token, _), id)| (token.clone(), id))
    };
    let unk = named(UNKNOWN).next().map(|(_, id)| id);
    let (specials, added) = (Specials::new(named(CONTROL).chain(named(UNKNOWN))), Specials::new(named(USER_DEFINED)));
    let kind = |id: u32| match kinds.get(id as usize) {
        Some(1) => Kind::Text,
        Some(&BYTE) => Kind::Byte,
        Some(&USER_DEFINED) => Kind::Symbol,
        _ => Kind::Other,
    };
    let (vocab, level) = scored(&tokens, kind, &scores, unk, normalizer)?;
    let roles = Roles { bos, eos, unk, pad: None, add_bos: Some(true) };
    let later = Later::symbols(&added);
    Tokenizer::new(vocab, level, specials, added, later, roles)
}
