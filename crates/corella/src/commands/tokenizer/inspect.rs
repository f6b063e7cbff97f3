//! `corella tokenizer inspect`: what a vocabulary is, and what it makes of a text.

use corella_text::tokenizer::Tokenizer;

use super::args::InspectTokenizerArgs;
use crate::cli::Common;
use crate::error::Result;
use crate::output::deliver;
use crate::tokenizers;

/// Special tokens that are listed one by one.
const SPECIALS_SHOWN: usize = 12;

/// Runs the command.
pub fn run(args: &InspectTokenizerArgs, common: &Common) -> Result<()> {
    let tokenizer = tokenizers::load(&args.tokenizer)?;
    let lengths: Vec<usize> = (0..tokenizer.vocab_size() as u32)
        .filter(|id| !tokenizer.is_special(*id))
        .map(|id| tokenizer.token_bytes(id).len())
        .collect();
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
    if common.json {
        let report = serde_json::json!({
            "kind": tokenizer.kind(),
            "vocab_size": tokenizer.vocab_size(),
            "merges": tokenizer.merge_count(),
            "special_tokens": tokenizer.special_tokens().into_iter().map(|(name, id)| serde_json::json!({"id": id, "name": name})).collect::<Vec<_>>(),
            "start_of_text": tokenizer.start_of_text(),
            "end_of_text": tokenizer.end_of_text(),
            "stop_ids": tokenizer.stop_ids(),
            "longest_token_bytes": longest,
            "mean_token_bytes": mean,
            "fingerprint": tokenizer.fingerprint(),
            "pieces": args.text.as_deref().map(|text| pieces(&tokenizer, text)),
        });
        return deliver(report);
    }
    let (size, merges, checksum) = (tokenizer.vocab_size(), tokenizer.merge_count(), tokenizer.fingerprint());
    let mut lines = vec![
        tokenizer.kind(),
        format!("{size} tokens, {merges} merges, checksum {checksum}"),
        format!("tokens of text: {mean:.2} bytes in the mean, {longest} at most"),
    ];
    let specials = tokenizer.special_tokens();
    lines.extend(specials.iter().take(SPECIALS_SHOWN).map(|(name, id)| format!("{id:>8}  {name}")));
    if let Some(more) = specials.len().checked_sub(SPECIALS_SHOWN).filter(|n| *n > 0) {
        lines.push(format!("          and {more} more special tokens"));
    }
    lines.push(format!(
        "a text starts behind {}, ends at {}; generation stops at {:?}",
        tokenizer.start_of_text(),
        tokenizer.end_of_text(),
        tokenizer.stop_ids()
    ));
    let pieces = args.text.as_deref().map(|text| pieces(&tokenizer, text)).unwrap_or_default();
    lines.extend(pieces.into_iter().map(|(id, piece)| format!("{id:>8}  {piece:?}")));
    deliver(lines.join("\n"))
}

/// Ids of a text and what each stands for.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<(u32, String)> {
    let ids = tokenizer.encode(text);
    ids.into_iter().map(|id| (id, tokenizer.decode_continuation(&[id]))).collect()
}
