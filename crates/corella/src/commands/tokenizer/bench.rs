//! `corella tokenizer bench`: how fast text becomes ids.

use std::thread::available_parallelism;
use std::time::Instant;

use corella_text::tokenizer::{Encoder, Tokenizer};

use super::args::TokenizerBenchArgs;
use crate::cli::Common;
use crate::error::{Failure, Result, of_path};
use crate::output::deliver;
use crate::tokenizers;

/// Bytes of text that a thread takes at a time, about: it ends with a line. Small, so that no thread waits long for the last part.
const PART: usize = 1 << 18;

/// Runs the command. `scripts/bench_tokenizer.py` runs it in turns with tiktoken.
pub fn run(args: &TokenizerBenchArgs, common: &Common) -> Result<()> {
    let tokenizer = tokenizers::load(&args.tokenizer)?;
    let text = std::fs::read_to_string(&args.text).map_err(|e| of_path(&args.text, e))?;
    // Nothing is timed that was not first checked.
    let ids = tokenizer.encode(&text);
    if text.is_empty() || (tokenizer.decode(&ids) != text && !ids.contains(&tokenizer.roles().unk.unwrap_or(u32::MAX)))
    {
        return Err(Failure::new(format!("{}: the text does not come back from its ids", args.text.display())));
    }
    let threads = common.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let parts = parts(&text);
    let mut results = Vec::new();
    for threads in [1, threads].into_iter().take(if threads > 1 { 2 } else { 1 }) {
        let mut seconds: Vec<f64> = (0..args.repeat).map(|_| time(&tokenizer, &parts, threads)).collect();
        seconds.sort_by(f64::total_cmp);
        let rate = text.len() as f64 / seconds[seconds.len() / 2] / 1e6;
        if !common.json {
            println!(
                "{threads:3} threads {rate:8.1} MB/s, {:.2} bytes per token",
                text.len() as f64 / ids.len() as f64
            );
        }
        results.push(serde_json::json!({"threads": threads, "mb_per_second": rate}));
    }
    deliver(serde_json::json!({"bytes": text.len(), "tokens": ids.len(), "results": results}))
}

/// Seconds to encode all parts.
fn time(tokenizer: &Tokenizer, parts: &[&str], threads: usize) -> f64 {
    let begin = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let (mut encoder, mut ids) = (Encoder::new(tokenizer), Vec::new());
        while let Some(part) = parts.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            ids.clear();
            encoder.encode(part, &mut ids);
            std::hint::black_box(&ids);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    begin.elapsed().as_secs_f64()
}

/// The text in parts of about [`PART`] bytes that end with a line.
fn parts(text: &str) -> Vec<&str> {
    let (mut rest, mut parts) = (text, Vec::new());
    while !rest.is_empty() {
        let end = rest.bytes().skip(PART).position(|b| b == b'\n').map_or(rest.len(), |i| PART + i + 1);
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    parts
}
