//! `corella tokenizer train`: a vocabulary of one's own.

use std::thread::available_parallelism;
use std::time::Instant;

use corella_text::tokenizer::{TrainOptions, WordCounts};

use super::args::TokenizerTrainArgs;
use crate::cli::Common;
use crate::error::{Result, of_path};
use crate::inputs::documents;
use crate::output::deliver;
use crate::unfinished::Unfinished;

/// Runs the command.
pub fn run(args: &TokenizerTrainArgs, common: &Common) -> Result<()> {
    let unfinished = Unfinished::beside(&args.out)?;
    let threads = common.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let mut counts = WordCounts::new(TrainOptions { single_digits: !args.number_words });
    let (mut bytes, mut read, mut count) = (0, 0.0, 0.0);
    for source in &args.sources {
        let begin = Instant::now();
        let texts: Vec<String> = documents(source, None)?.into_iter().map(|document| document.text).collect();
        read += begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        counts.add_all(&texts, threads);
        count += begin.elapsed().as_secs_f64();
        bytes += texts.iter().map(String::len).sum::<usize>();
    }
    let (words, begin) = (counts.len(), Instant::now());
    let tokenizer = counts.train(args.vocab_size)?;
    let merge = begin.elapsed().as_secs_f64();
    std::fs::write(unfinished.path(), tokenizer.to_json()).map_err(|e| of_path(&args.out, e))?;
    unfinished.finish(&args.out)?;
    let size = tokenizer.vocab_size();
    if common.json {
        let report = serde_json::json!({
            "out": args.out, "vocab_size": size, "bytes": bytes, "words": words,
            "read_seconds": read, "count_seconds": count, "merge_seconds": merge
        });
        deliver(report)?;
    } else {
        println!("{}: {size} tokens from {bytes} bytes, {words} different words", args.out.display());
        println!("reading {read:.1} s, counting {count:.1} s on {threads} threads, merging {merge:.1} s");
        if size < args.vocab_size {
            println!("the text holds no more pairs: {} tokens fewer than asked for", args.vocab_size - size);
        }
    }
    Ok(())
}
