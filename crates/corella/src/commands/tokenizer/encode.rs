//! `corella tokenizer encode` and `decode`: text to ids and back.

use std::io::{BufWriter, Read, Write};
use std::path::Path;

use corella_text::data::write_shard;
use corella_text::tokenizer::Tokenizer;

use super::args::{DecodeArgs, EncodeArgs};
use crate::cli::Common;
use crate::error::{Failure, Result};
use crate::tokenizers;

/// Turns text into ids.
pub fn encode(args: &EncodeArgs, common: &Common) -> Result<()> {
    let tokenizer = tokenizers::load(&args.tokenizer)?;
    let text = text_of(args.text.as_deref(), args.file.as_deref())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if args.json_lines {
        for (number, line) in text.lines().enumerate() {
            let text: String = serde_json::from_str(line)
                .map_err(|e| Failure::new(format!("line {}: {e}", number + 1)).hint("every line is a JSON string"))?;
            writeln!(out, "{}", serde_json::json!(ids_of(&tokenizer, args, &text)))?;
        }
        return Ok(out.flush()?);
    }
    let ids = ids_of(&tokenizer, args, &text);
    if let Some(path) = &args.out {
        write_shard(path, &ids, tokenizer.vocab_size())?;
        writeln!(out, "{}: {} tokens of {} bytes", path.display(), ids.len(), text.len())?;
    } else if common.json {
        let pieces: Vec<String> = ids.iter().map(|id| tokenizer.decode_continuation(&[*id])).collect();
        writeln!(out, "{}", serde_json::json!({"ids": ids, "tokens": pieces, "bytes": text.len()}))?;
    } else {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(out, "{}", ids.join(" "))?;
    }
    Ok(out.flush()?)
}

fn ids_of(tokenizer: &Tokenizer, args: &EncodeArgs, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    if args.bos {
        ids.push(tokenizer.start_of_text());
    }
    ids.extend(if args.special { tokenizer.encode_with_special(text) } else { tokenizer.encode(text) });
    ids
}

/// Turns ids into text.
pub fn decode(args: &DecodeArgs, common: &Common) -> Result<()> {
    let tokenizer = tokenizers::load(&args.tokenizer)?;
    let listed = if args.ids.is_empty() { text_of(None, args.file.as_deref())? } else { args.ids.join(" ") };
    let size = tokenizer.vocab_size();
    let mut ids = Vec::new();
    for word in listed.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()) {
        let id = word.parse().ok().filter(|id| (*id as usize) < size);
        let wrong = || Failure::usage(format!("{word:?} is no id")).hint(format!("ids are 0 to {}", size - 1));
        ids.push(id.ok_or_else(wrong)?);
    }
    let text = tokenizer.decode(&ids);
    if common.json {
        println!("{}", serde_json::json!({"ids": ids, "text": text}));
    } else {
        println!("{text}");
    }
    Ok(())
}

/// The text given, that of a file, or that of standard input.
fn text_of(text: Option<&str>, file: Option<&Path>) -> Result<String> {
    let named = |name: &Path, e: std::io::Error| Failure::new(format!("{}: {e}", name.display()));
    match (text, file) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(path)) if path != Path::new("-") => std::fs::read_to_string(path).map_err(|e| named(path, e)),
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| named(Path::new("standard input"), e))?;
            Ok(text)
        }
    }
}
