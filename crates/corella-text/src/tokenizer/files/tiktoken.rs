//! tiktoken's rank files: one token a line, in base64, and its rank. Meta's `tokenizer.model` of Llama 3 is one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::byte_level::ByteLevel;
use super::super::error::FormatError;
use super::super::names::Later;
use super::super::pretokenize::Split;
use super::super::special::{Roles, Specials};
use super::super::vocab::Vocab;
use super::super::{END_OF_TEXT, Level, Tokenizer};

/// Ranks of GPT-2's vocabulary and of Llama 3's: the files do not hold the special tokens or the pattern, their number
/// of ranks tells which they are.
const GPT2_RANKS: usize = 50_256;
const LLAMA3_RANKS: usize = 128_000;
const LLAMA3_SPECIALS: usize = 256;

/// Whether the first line is base64, a space and 0.
pub fn is_ranks(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_end();
    line.strip_suffix(b" 0").is_some_and(|token| STANDARD.decode(token).is_ok())
}

pub fn parse(bytes: &[u8]) -> Result<Tokenizer, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|e| FormatError::Syntax(e.to_string()))?;
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let bad = |what: &str| FormatError::Syntax(format!("line {}: {what}", number + 1));
        let (token, rank) = line.split_once(' ').ok_or_else(|| bad("no rank"))?;
        let token = STANDARD.decode(token).map_err(|e| bad(&e.to_string()))?;
        let rank: u64 = rank.trim_ascii_end().parse().map_err(|_| bad("the rank is no number"))?;
        if rank != tokens.len() as u64 {
            let token = String::from_utf8_lossy(&token).into_owned();
            return Err(FormatError::IdOutOfRange { token, id: rank, size: tokens.len() });
        }
        tokens.push(token);
    }
    from_ranks(tokens)
}

/// A vocabulary of tokens by rank.
pub fn from_ranks(mut tokens: Vec<Vec<u8>>) -> Result<Tokenizer, FormatError> {
    let ranks = tokens.len();
    let (split, names) = match ranks {
        GPT2_RANKS => (Split::Gpt2 { single_digits: false }, vec![END_OF_TEXT.to_owned()]),
        LLAMA3_RANKS => (Split::Llama3 { digits: 3 }, llama3_specials()),
        _ => {
            return Err(FormatError::Unsupported {
                part: "number of ranks",
                found: ranks.to_string(),
                allowed: "50256 (GPT-2) or 128000 (Llama 3): the file says neither its pattern nor its special tokens",
            });
        }
    };
    tokens.extend(names.iter().map(|name| name.clone().into_bytes()));
    let vocab = Vocab::of(tokens)?;
    let level = ByteLevel::from_ranks(&vocab, |id| (id as usize) < ranks, split)?;
    let specials = Specials::new(names.into_iter().zip(ranks as u32..));
    Tokenizer::new(vocab, Level::Bytes(level), specials, Specials::default(), Later::default(), Roles::default())
}

/// Names of Llama 3.1's special tokens, from id 128,000 on, as Hugging Face's files have them.
fn llama3_specials() -> Vec<String> {
    let named = [
        (0, "begin_of_text"),
        (1, "end_of_text"),
        (4, "finetune_right_pad_id"),
        (6, "start_header_id"),
        (7, "end_header_id"),
        (8, "eom_id"),
        (9, "eot_id"),
        (10, "python_tag"),
    ];
    let mut reserved = 0;
    (0..LLAMA3_SPECIALS)
        .map(|i| match named.iter().find(|(at, _)| *at == i) {
            Some((_, name)) => format!("<|{name}|>"),
            None => {
                reserved += 1;
                format!("<|reserved_special_token_{}|>", reserved - 1)
            }
        })
        .collect()
}
