//! `corella tokenizer encode` and `decode`: text to ids and back.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use corella_text::data::write_shard;
use corella_text::tokenizer::Tokenizer;

use super::args::{DecodeArgs, EncodeArgs};
use crate::cli::Common;
use crate::error::{Failure, Result};
use crate::inputs::read_text;
use crate::output::{deliver, taken};
use crate::tokenizers;
use crate::unfinished::Unfinished;

/// Turns text into ids.
pub fn encode(args: &EncodeArgs, common: &Common) -> Result<()> {
    let tokenizer = tokenizers::load(&args.tokenizer)?;
    let text = text_of(args.text.as_deref(), args.file.as_deref())?;
    let shard = args.out.as_deref().map(Unfinished::beside).transpose()?;
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
    if let (Some(path), Some(unfinished)) = (&args.out, shard) {
        write_shard(&unfinished.path(), &ids, tokenizer.vocab_size())?;
        unfinished.finish(path)?;
        if common.json {
            let told = serde_json::json!({"out": path, "tokens": ids.len(), "bytes": text.len()});
            writeln!(out, "{told}")?;
        } else {
            writeln!(out, "{}: {} tokens of {} bytes", path.display(), ids.len(), text.len())?;
        }
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
    if common.json {
        return deliver(serde_json::json!({"ids": ids, "text": tokenizer.decode(&ids)}));
    }
    // To a file or a program goes what the ids stand for, byte for byte, also where that is a part of a character.
    let mut out = std::io::stdout().lock();
    let written = match out.is_terminal() {
        true => writeln!(out, "{}", tokenizer.decode(&ids)),
        false => out.write_all(&tokenizer.decode_bytes(&ids)),
    };
    taken(written.and_then(|()| out.flush())).map(drop)
}

/// The text given, that of a file, or that of standard input.
fn text_of(text: Option<&str>, file: Option<&Path>) -> Result<String> {
    text.map_or_else(|| read_text(file.unwrap_or(Path::new("-"))), |text| Ok(text.to_owned()))
}
