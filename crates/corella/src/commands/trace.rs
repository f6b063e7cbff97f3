//! `corella trace`: which spans of a text stand in the training data, where and how often; and how much of a text a model
//! has by heart.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use corella_infer::{Engine, EngineOptions, RequestParams};
use corella_server::{Place, Span, Tracer};
use corella_text::tokenizer::Tokenizer;
use corella_trace::{Index, SpanRules, TokenSpan, WINDOW, Window, extraction, spans, starts, window};
use corella_train::{RunPlan, checkpoint, folder};
use serde_json::json;

use crate::cli::Common;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::{TINY_INTERNET, dataset, kept_tokenizer, read_as_trained};
use crate::meter::Meter;
use crate::model::{self, Invariance, Opened};
use crate::output::deliver;
use crate::printable::line_for_output;
use crate::terminal::in_shell;

/// Name of the index in a run folder.
const INDEX: &str = "trace.index";
/// Places of a span that are shown.
const PLACES: usize = 3;
/// Tokens shown around a place.
const AROUND: usize = 30;

/// Flags of `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What to do
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// Sort the training tokens of a run, so that spans are found at once
    Index {
        /// A run folder
        run: PathBuf,
    },
    /// The spans of a text that stand in the training data of a run
    Find {
        /// A run folder
        run: PathBuf,
        /// The text
        #[command(flatten)]
        text: TextArgs,
        /// Fewest tokens of a span
        #[arg(long, default_value_t = SpanRules::default().least)]
        least: usize,
    },
    /// How likely a model writes a text word for word, in windows of 50 tokens
    Memory {
        /// A run folder, a Hugging Face folder, a model file, or hf://owner/name
        model: PathBuf,
        /// The text
        #[command(flatten)]
        text: TextArgs,
        /// Tokenizer for a model file that carries none: `gpt2` or a tokenizer file
        #[arg(long)]
        tokenizer: Option<String>,
        /// Tokens from one window to the next
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        stride: u32,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TextArgs {
    /// The text itself
    #[arg(short, long, allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text (`-`: standard input)
    #[arg(long)]
    text: Option<PathBuf>,
}

impl TextArgs {
    fn read(&self) -> Result<String> {
        match (&self.prompt, &self.text) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(path)) => read_as_trained(path),
            (None, None) => Ok(String::new()),
        }
    }
}

/// Runs the command.
pub fn run(args: &TraceArgs, common: &Common) -> Result<()> {
    match &args.command {
        TraceCommand::Index { run } => index(run, common),
        TraceCommand::Find { run, text, least } => find(run, &text.read()?, *least, common),
        TraceCommand::Memory { model, text, tokenizer, stride } => {
            let text = text.read()?;
            memory(model::open(model, tokenizer.as_deref())?, &text, *stride as usize, common)
        }
    }
}

fn plan_of(run: &Path) -> Result<RunPlan> {
    let path = run.join(folder::PLAN);
    if !path.is_file() {
        return Err(Failure::new(format!("{} does not exist", path.display()))
            .hint("name a run folder, as `corella train` and `corella tour` write it"));
    }
    Ok(RunPlan::read(&path)?)
}

fn index(run: &Path, common: &Common) -> Result<()> {
    let tracer = RunTracer::build(run, &plan_of(run)?)?;
    let path = run.join(INDEX);
    tracer.index.write(&path)?;
    let (tokens, documents) = (tracer.index.len(), tracer.index.documents());
    if common.json {
        deliver(json!({"path": path.display().to_string(), "tokens": tokens, "documents": documents}))
    } else {
        deliver(format_args!("wrote {}: {tokens} tokens in {documents} documents", path.display()))
    }
}

fn find(run: &Path, text: &str, least: usize, common: &Common) -> Result<()> {
    let plan = plan_of(run)?;
    let mut tracer = match RunTracer::open(run, &plan)? {
        Some(tracer) => tracer,
        None => RunTracer::build(run, &plan)?,
    };
    tracer.rules.least = least;
    let found = tracer.find(text);
    if common.json {
        return deliver(json!({"spans": found}));
    }
    if found.is_empty() {
        return deliver(format_args!("no span of {least} tokens or more stands in the training data"));
    }
    let mut lines = Vec::new();
    let units: Vec<u16> = text.encode_utf16().collect();
    for span in &found {
        let stretch = String::from_utf16_lossy(&units[span.start..span.end]);
        let times = if span.count == 1 { "once".to_owned() } else { format!("{} times", span.count) };
        lines.push(format!("stands {times} in the training data, {} tokens: {stretch:?}", span.tokens));
        lines.extend(span.documents.iter().map(|place| {
            let [before, matched, after] = [&place.before, &place.matched, &place.after].map(|t| line_for_output(t));
            format!("    document {}: …{before}【{matched}】{after}…", place.document)
        }));
    }
    deliver(lines.join("\n"))
}

fn memory(opened: Opened, text: &str, stride: usize, common: &Common) -> Result<()> {
    let (tokens, found) = scores(opened, text, stride, common)?;
    let share = extraction(&found);
    if common.json {
        let rows: Vec<_> = found.iter().map(|w| json!({"start": w.start, "log_p": w.log_p, "p": w.p()})).collect();
        return deliver(json!({"tokens": tokens, "window": WINDOW, "windows": rows, "memorised_share": share}));
    }
    if found.is_empty() {
        let what = format!("the text has {tokens} tokens; a window of {WINDOW} needs {WINDOW} more in front of it");
        return Err(Failure::usage(what).hint("give a longer text"));
    }
    let row = |w: &Window| {
        let bar = "█".repeat((w.p() * 40.0).round() as usize);
        format!("token {:6}  p = {:<12.3e} {bar}\n", w.start, w.p())
    };
    deliver(format_args!(
        "{}{} of {} windows have p > 0.5: that part of the text it knows by heart",
        found.iter().map(row).collect::<String>(),
        (share * found.len() as f64).round(),
        found.len()
    ))
}

/// The number of a text's tokens, and its windows, each read with nothing but its prefix in front of it.
fn scores(opened: Opened, text: &str, stride: usize, common: &Common) -> Result<(usize, Vec<Window>)> {
    let tokenizer = opened.tokenizer()?;
    let ids = tokenizer.encode(text);
    // The token that marks the start of a text, the prefix, the window.
    let length = 1 + 2 * WINDOW;
    if opened.context_len() < length {
        let what = format!("the context holds {} tokens; a window with its prefix has {length}", opened.context_len());
        return Err(Failure::usage(what).hint("only a model with a longer context can be asked"));
    }
    let bytes = opened.token_bytes();
    let device = Device::choose(common)?;
    let options = model::to_score(length, &device);
    let model = opened.load(device, options, Invariance::AsFast)?;
    let engine = Engine::start(model, bytes, EngineOptions::default())?;
    let handle = engine.handle();
    let front: Vec<u32> = tokenizer.front().into_iter().collect();
    let score = |start: usize| -> Result<Window> {
        let prompt = [&front, &ids[start - WINDOW..start + WINDOW]].concat();
        let params = RequestParams { prompt, max_tokens: 0, prompt_logprobs: Some(0), ..RequestParams::default() };
        let completion = handle.complete(handle.check(params).map_err(Failure::usage)?)?;
        if let Some(error) = completion.error {
            return Err(Failure::new(error));
        }
        let log_probs: Vec<f32> =
            completion.prompt.iter().skip(front.len() + WINDOW).filter_map(|t| t.logprob).collect();
        Ok(window(start, &log_probs))
    };
    let starts: Vec<usize> = starts(ids.len(), stride).collect();
    let mut meter = Meter::new(starts.len(), common.json);
    let mut found = Vec::with_capacity(starts.len());
    for start in starts {
        found.push(score(start)?);
        meter.at(found.len(), || "windows".to_owned());
    }
    Ok((ids.len(), found))
}

/// The index of a run's training tokens, with the tokenizer that made them.
struct RunTracer {
    index: Index,
    tokenizer: Tokenizer,
    rules: SpanRules,
}

impl RunTracer {
    /// Reads the index that `corella trace index` wrote, where there is one.
    fn open(run: &Path, plan: &RunPlan) -> Result<Option<RunTracer>> {
        let path = run.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        let (tokens, tokenizer) = training_tokens(run, plan)?;
        let index = Index::read(&path, tokens, tokenizer.end_of_text())?;
        Ok(Some(RunTracer { index, tokenizer, rules: SpanRules::default() }))
    }

    fn build(run: &Path, plan: &RunPlan) -> Result<RunTracer> {
        let (tokens, tokenizer) = training_tokens(run, plan)?;
        let index = Index::build(tokens, tokenizer.end_of_text())?;
        Ok(RunTracer { index, tokenizer, rules: SpanRules::default() })
    }

    fn find(&self, text: &str) -> Vec<Span> {
        let ids = self.tokenizer.encode(text);
        let units = token_units(text, &ids, &self.tokenizer);
        let found = spans(&self.index, &ids, self.tokenizer.end_of_text(), self.rules);
        found.iter().map(|span| self.show(span, &ids, &units)).collect()
    }

    fn show(&self, span: &TokenSpan, ids: &[u32], units: &[usize]) -> Span {
        let (start, end) = (span.range.start, span.range.end);
        let places = self.index.positions(&span.found, PLACES);
        // The token at a document's end is no part of its text.
        let border = self.tokenizer.end_of_text();
        let text = |range| {
            let ids: Vec<u32> = self.index.tokens(range).iter().copied().filter(|id| *id != border).collect();
            self.tokenizer.decode(&ids)
        };
        let documents: Vec<Place> = places
            .iter()
            .map(|at| {
                let (document, inside) = self.index.document(*at);
                let behind = at + (end - start);
                Place {
                    document: document as u64,
                    before: text(inside.start.max(at.saturating_sub(AROUND))..*at),
                    matched: text(*at..behind),
                    after: text(behind..inside.end.min(behind + AROUND).max(behind)),
                }
            })
            .collect();
        let leaves = documents.first().map(|d| d.after.clone()).filter(|after| !after.is_empty() && end < ids.len());
        Span { start: units[start], end: units[end], tokens: end - start, count: span.found.count(), documents, leaves }
    }
}

/// The training data of a run as a server searches them. The tiny internet is made and sorted in seconds; other data are
/// searched from when an index of them is there, which may be made while the server runs.
pub struct Traced {
    run: PathBuf,
    plan: RunPlan,
    known: Mutex<Known>,
}

/// The index that was read last.
struct Known {
    /// When it was written; none of one that was made here.
    written: Option<SystemTime>,
    /// It, or why it cannot be used.
    tracer: std::result::Result<RunTracer, String>,
}

impl Traced {
    /// Of the run in this folder, with what can be searched already.
    pub fn new(run: &Path, plan: RunPlan) -> Traced {
        let known = if plan.data.path == TINY_INTERNET && !run.join(INDEX).is_file() {
            let tracer = RunTracer::build(run, &plan).map_err(|failure| failure.to_string());
            Known { written: None, tracer }
        } else {
            Known { written: None, tracer: Err(missing(run)) }
        };
        let traced = Traced { run: run.to_path_buf(), plan, known: Mutex::new(known) };
        traced.look_again(&mut traced.lock());
        traced
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A search that failed left the index as it was.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the index where there is another one than the last time.
    fn look_again(&self, known: &mut Known) {
        let written = std::fs::metadata(self.run.join(INDEX)).and_then(|meta| meta.modified()).ok();
        if written.is_none() || written == known.written {
            return;
        }
        known.written = written;
        known.tracer = match RunTracer::open(&self.run, &self.plan) {
            Ok(Some(tracer)) => Ok(tracer),
            Ok(None) => Err(missing(&self.run)),
            Err(failure) => Err(format!("The index of the training data cannot be used: {}.", failure.message())),
        };
    }
}

/// What to do where no index is.
fn missing(run: &Path) -> String {
    let run = in_shell(&run.to_string_lossy());
    format!("The training data are not indexed: run `corella trace index {run}`, and ask again.")
}

impl Tracer for Traced {
    fn spans(&self, text: &str) -> std::result::Result<Vec<Span>, String> {
        let mut known = self.lock();
        self.look_again(&mut known);
        known.tracer.as_ref().map(|tracer| tracer.find(text)).map_err(Clone::clone)
    }
}

/// The tokens that a run was trained on, as it saw them: by its own tokenizer, and refused where they are others by now.
fn training_tokens(run: &Path, plan: &RunPlan) -> Result<(Vec<u32>, Tokenizer)> {
    let source = Path::new(&plan.data.path);
    let tokenizer = kept_tokenizer(run)?.map_or(plan.data.tokenizer.clone(), |(path, _)| path.display().to_string());
    let data = dataset(source, &tokenizer, plan.model.vocab_size, plan.train.seed, run)?;
    if let Some(newest) = checkpoint::latest(&folder::checkpoints(run))? {
        let (mark, checksum) = (data.train.mark()?, data.train.checksum());
        let other = checkpoint::check_tokenizer(&newest, &data.tokenizer).is_err()
            || newest.state.data.is_some_and(|was| was != mark)
            || newest.state.checksum.zip(checksum).is_some_and(|(was, is)| is.contradicts(was));
        if other {
            return Err(Failure::new(format!(
                "{} is not what {} was trained on: it has changed since",
                source.display(),
                run.display()
            ))
            .hint("bring the data back as they were; the run's run.toml names them"));
        }
    }
    Ok((data.train.to_vec()?, data.tokenizer))
}

/// Where each token begins, and where the last ends, in UTF-16 units of `text`, whose tokens they are. A border inside a character counts as the
/// character's beginning.
fn token_units(text: &str, ids: &[u32], tokenizer: &Tokenizer) -> Vec<usize> {
    let mut units = vec![0; text.len() + 1];
    let mut count = 0;
    for (at, c) in text.char_indices() {
        units[at..at + c.len_utf8()].fill(count);
        count += c.len_utf16();
    }
    units[text.len()] = count;
    let mut at = 0;
    let mut starts = vec![0];
    for (i, id) in ids.iter().enumerate() {
        at += tokenizer.token_bytes_after(&ids[..i], *id).len();
        starts.push(units[at.min(text.len())]);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SentencePiece puts a space in front of a text, which is a part of the first token and not of the text.
    #[test]
    fn tokens_stand_where_their_words_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/eval/llama");
        let tokenizer = Tokenizer::load(&path).expect("a vocabulary");
        let text = "The red fox saw nine geese";
        let ids = tokenizer.encode(text);
        let units = token_units(text, &ids, &tokenizer);
        for (i, unit) in units.iter().enumerate() {
            assert_eq!(text[..*unit], tokenizer.decode(&ids[..i]), "in front of token {i}");
        }
        assert_eq!(*units.last().expect("an end"), text.len());
    }
}
