//! `corella tokenizer train`: a vocabulary of one's own.

use std::ops::ControlFlow;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use corella_text::data::readers::{ReadOptions, SourceFile, read_file};
use corella_text::data::{CleanOptions, Document, Flow, Problem, Sink, clean};
use corella_text::tokenizer::{TrainOptions, WordCounts};
use corella_train::console::grouped;

use super::args::TokenizerTrainArgs;
use crate::cli::Common;
use crate::commands::reader_flags::NAME_FIELD;
use crate::error::{Failure, Result, of_path};
use crate::inputs::{no_file, source_files};
use crate::output::deliver;
use crate::source_problems::SourceProblems;
use crate::unfinished::Unfinished;
use crate::units::megabytes;

/// Bytes of text that are counted at a time: more would only be held longer.
const BATCH: usize = 8 << 20;

/// Runs the command.
pub fn run(args: &TokenizerTrainArgs, common: &Common) -> Result<()> {
    let unfinished = Unfinished::beside(&args.out)?;
    let threads = common.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let mut files = Vec::new();
    for source in &args.sources {
        let found = source_files(source, common.json)?;
        if found.is_empty() {
            return Err(no_file(source));
        }
        files.extend(found);
    }
    let counts = WordCounts::new(TrainOptions { single_digits: !args.number_words });
    let mut sample = Sample::new(counts, threads);
    let (whole, begin) = (sample.read(&files, args.sample, &args.reader.options()), Instant::now());
    sample.problems.end(sample.documents, if args.reader.field.is_none() { NAME_FIELD } else { "is --field right?" });
    if sample.documents == 0 {
        return Err(Failure::new(format!("{}: holds no text", files[0].name)).hint(
            "the warnings say what is wrong with the sources; name files in a format that `corella prepare` reads",
        ));
    }
    let (words, bytes) = (sample.counts.len(), sample.bytes);
    let (read, count) = (sample.reading.as_secs_f64(), sample.counting.as_secs_f64());
    let tokenizer = sample.counts.train(args.vocab_size)?;
    let merge = begin.elapsed().as_secs_f64();
    std::fs::write(unfinished.path(), tokenizer.to_json()).map_err(|e| of_path(&args.out, e))?;
    unfinished.finish(&args.out)?;
    let size = tokenizer.vocab_size();
    if common.json {
        let report = serde_json::json!({
            "out": args.out, "vocab_size": size, "bytes": bytes, "whole": whole, "words": words,
            "read_seconds": read, "count_seconds": count, "merge_seconds": merge
        });
        deliver(report)?;
    } else {
        println!("{}: {size} tokens from {bytes} bytes, {words} different words", args.out.display());
        println!("reading {read:.1} s, counting {count:.1} s on {threads} threads, merging {merge:.1} s");
        if !whole {
            println!(
                "the beginnings of {} files were counted, {} in all; --sample counts more",
                grouped(files.len() as u64),
                megabytes(bytes as u64)
            );
        }
        if size < args.vocab_size {
            println!("the text holds no more pairs: {} tokens fewer than asked for", args.vocab_size - size);
        }
    }
    Ok(())
}

/// The words of the texts that are read, and how long that takes.
struct Sample {
    counts: WordCounts,
    threads: usize,
    /// Texts that are not counted yet, and their bytes.
    batch: Vec<String>,
    held: usize,
    /// Bytes of text of the file that is read, and how many there may be.
    taken: usize,
    room: usize,
    documents: usize,
    bytes: usize,
    problems: SourceProblems,
    reading: Duration,
    counting: Duration,
}

impl Sample {
    fn new(counts: WordCounts, threads: usize) -> Sample {
        Sample {
            counts,
            threads,
            batch: Vec::new(),
            held: 0,
            taken: 0,
            room: 0,
            documents: 0,
            bytes: 0,
            problems: SourceProblems::default(),
            reading: Duration::ZERO,
            counting: Duration::ZERO,
        }
    }

    /// Counts up to `most` bytes of text, from every file as its size asks for; whether that was all of them.
    fn read(&mut self, files: &[SourceFile], most: usize, options: &ReadOptions) -> bool {
        let begin = Instant::now();
        let mut sizes: u128 = files.iter().map(likely_size).sum();
        let (mut left, mut whole) = (most, true);
        for file in files {
            let size = likely_size(file);
            // What a file does not need is for those behind it.
            self.room = usize::try_from(left as u128 * size / sizes.max(1)).unwrap_or(left);
            self.taken = 0;
            whole &= read_file(&file.path, &file.name, options, self).is_continue();
            left -= self.taken.min(left);
            sizes -= size;
        }
        self.count();
        self.reading = begin.elapsed().saturating_sub(self.counting);
        whole
    }

    fn count(&mut self) {
        let begin = Instant::now();
        self.counts.add_all(&self.batch, self.threads);
        self.batch.clear();
        self.held = 0;
        self.counting += begin.elapsed();
    }
}

impl Sink for Sample {
    fn document(&mut self, document: Document) -> Flow {
        let mut text = clean(&document.text, CleanOptions::default()).into_owned();
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        let is_cut = text.len() > self.room - self.taken;
        text.truncate(text.floor_char_boundary(self.room - self.taken));
        self.documents += usize::from(!text.is_empty());
        self.bytes += text.len();
        self.taken += text.len();
        self.held += text.len();
        self.batch.push(text);
        if self.held >= BATCH {
            self.count();
        }
        if is_cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn problem(&mut self, problem: Problem) -> Flow {
        self.problems.tell(&problem);
        ControlFlow::Continue(())
    }
}

/// About how much text a file holds, by its size: what is packed holds more than its bytes.
fn likely_size(file: &SourceFile) -> u128 {
    let packed = ["gz", "tgz", "zst", "zip", "parquet"];
    let ending = file.path.extension().unwrap_or_default().to_ascii_lowercase();
    let times = if packed.iter().any(|packed| ending == *packed) { 4 } else { 1 };
    // One that tells no size, such as a pipe, is read too.
    times * std::fs::metadata(&file.path).map_or(0, |meta| u128::from(meta.len())).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_file_as_much_is_counted_as_its_size_asks_for() {
        let dir = std::env::temp_dir().join(format!("corella-sample-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("made");
        let file = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).expect("written");
            SourceFile::at(&dir.join(name))
        };
        let files = [
            file("a.txt", "a ".repeat(3000)),
            file("b.txt", "ä<|endoftext|>".repeat(100)),
            file("c.txt", "c ".repeat(500)),
        ];
        let counted = |most: usize| {
            let mut sample = Sample::new(WordCounts::new(TrainOptions::default()), 2);
            let whole = sample.read(&files, most, &ReadOptions::default());
            (sample.documents, sample.bytes, whole)
        };
        assert_eq!(counted(1 << 20), (102, 5999 + 200 + 999, true));
        // Of b, whose separators are no text, all, and c has what a and b leave.
        let (documents, bytes, whole) = counted(4000);
        assert!(!whole && documents == 102 && (3900..=4000).contains(&bytes), "{documents} {bytes}");
        assert_eq!(counted(10).1, 10);
        let _ = std::fs::remove_dir_all(dir);
    }
}
