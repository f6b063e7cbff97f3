//! `corella trace`: which spans of a text stand in the training data, where and how often; and how much of a text a model
//! has by heart.

mod source;
mod tracer;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use corella_infer::{Engine, EngineOptions, RequestParams};
use corella_trace::{SpanRules, WINDOW, Window, extraction, starts, window};
use corella_train::{RunPlan, folder};
use serde_json::json;

use crate::cli::Common;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::read_as_trained;
use crate::meter::Meter;
use crate::model::{self, Invariance, Opened};
use crate::output::deliver;
use crate::printable::line_for_output;

use tracer::RunTracer;
pub use tracer::Traced;

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
    let plan = plan_of(run)?;
    // What is changed while the data are read is noticed later.
    let mark = source::mark(run, &plan);
    let tracer = RunTracer::build(run, &plan)?;
    let path = tracer.write(run, mark)?;
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
    if found.is_empty() {
        let what = format!("the text has {tokens} tokens; a window of {WINDOW} needs {WINDOW} more in front of it");
        return Err(Failure::usage(what).hint("give a longer text"));
    }
    let share = extraction(&found);
    if common.json {
        let rows: Vec<_> = found.iter().map(|w| json!({"start": w.start, "log_p": w.log_p, "p": w.p()})).collect();
        return deliver(json!({"tokens": tokens, "window": WINDOW, "windows": rows, "memorised_share": share}));
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
