//! `corella eval`: how well a model predicts texts, and how it does on tasks.

mod kept;
mod surprise;
mod tasks;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use corella_eval::{Item, NotNumbers, Reader, Task, TaskScore, score_item, summary};
use corella_model::{OneSequence, StepOptions, TextModel};
use corella_text::tokenizer::Tokenizer;
use kept::KeptScores;
use serde::Serialize;
use surprise::{Surprise, of_data, of_text};
pub use tasks::{load_tasks, task_scores};

use crate::cli::Common;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::meter::Meter;
use crate::model::{self, Invariance};
use crate::output::deliver;

/// Longest window where none is given: longer ones take memory and time, and change the figure little.
const LONGEST_WINDOW: usize = 2048;
/// Rows of logits at once, on the processor.
const ROWS: usize = 64;
/// Tokens of a step on a card, and most logits of one: a quarter of a gibibyte.
const CARD_TOKENS: usize = 2048;
const CARD_LOGITS: usize = 1 << 26;

/// Flags of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin, or hf://owner/name
    pub model: PathBuf,
    /// Measure loss, perplexity and bits per byte on this text: a file, folder or pattern of text, JSON lines or Parquet (also
    /// packed), hf://datasets/OWNER/NAME, or - for standard input
    #[arg(long)]
    pub text: Option<PathBuf>,
    /// Measure them on the validation part of this prepared folder
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Score a task: a file of JSON lines or Parquet (also hf://datasets/OWNER/NAME/FILE), or TASK=FILE where the file's name
    /// does not begin with the task's (may be given several times; files of one task are joined): hellaswag, arc_easy,
    /// arc_challenge, piqa, winogrande, lambada_openai, mmlu, openbookqa, boolq
    #[arg(long)]
    pub task: Vec<String>,
    /// Put so many solved examples in front of each item of a task
    #[arg(long, default_value_t = 0, requires = "shots_from")]
    pub shots: usize,
    /// Where they come from, in the form of --task: the first ones of the file, of MMLU those of the item's subject, without
    /// the item itself
    #[arg(long, requires = "shots")]
    pub shots_from: Vec<String>,
    /// Most items of a task (of each subject of MMLU), or tokens of --data (0: all)
    #[arg(long, default_value_t = 0)]
    pub limit: usize,
    /// Write the log-likelihoods of every item of the tasks to this file, as JSON lines; what an interrupted run left there is
    /// gone on with
    #[arg(long, requires = "task")]
    pub items: Option<PathBuf>,
    /// Tokens of a window [default: the model's context, at most 2048]
    #[arg(long)]
    pub context: Option<usize>,
    /// Do not put the token in front of each window of --text that marks the start of a text; it is there unless the
    /// tokenizer's file forbids it
    #[arg(long, requires = "text")]
    pub no_bos: bool,
    /// Tokenizer for a model file that carries none: `gpt2` or a tokenizer.json
    #[arg(long)]
    pub tokenizer: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    surprise: Option<Surprise>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tasks: BTreeMap<&'static str, TaskScore>,
    backend: String,
}

/// Runs the command.
pub fn run(args: &EvalArgs, common: &Common) -> Result<()> {
    if args.text.is_none() && args.data.is_none() && args.task.is_empty() {
        return Err(Failure::usage("nothing to measure").hint("give --text FILE, --data DIR, or --task FILE"));
    }
    if args.text.is_some() && args.data.is_some() {
        return Err(Failure::usage("--text and --data cannot be measured at once").hint("run the command twice"));
    }
    if args.limit > 0 && args.data.is_none() && args.task.is_empty() {
        return Err(Failure::usage("--limit counts items of a task or tokens of --data; a --text is measured whole")
            .hint("leave --limit out, or cut the text"));
    }
    let tasks = tasks::asked(args)?;
    // Scoring may take hours: whether its scores can be kept is known before.
    let mut kept = args.items.as_deref().map(|path| KeptScores::open(path, &tasks)).transpose()?;
    let model = model::open(&args.model, args.tokenizer.as_deref())?;
    let tokenizer = model.tokenizer()?;
    let context = args.context.unwrap_or(LONGEST_WINDOW).min(model.context_len());
    if context < 2 {
        return Err(Failure::usage("a context of fewer than two tokens predicts nothing").hint("--context 2 or more"));
    }
    let device = Device::choose(common)?;
    let options = step_options(context, tokenizer.vocab_size(), &device);
    let step = model.load(device, options, Invariance::AsFast)?;
    let backend = step.backend_name();
    let mut model = OneSequence::new(step);
    let front = tokenizer.front().filter(|_| !args.no_bos);
    let quiet = common.json;
    let surprise = match (&args.text, &args.data) {
        (Some(path), _) => Some(of_text(&mut model, &tokenizer, path, context, front, quiet)?),
        (None, Some(dir)) => Some(of_data(&mut model, &tokenizer, dir, context, args.limit, quiet)?),
        (None, None) => None,
    };
    let mut found = BTreeMap::new();
    for task in &tasks {
        found.insert(task.0.name(), score_task(task, &mut model, &tokenizer, kept.as_mut(), quiet)?);
    }
    if common.json {
        return deliver(serde_json::to_string(&Document { surprise, tasks: found, backend })?);
    }
    print(surprise, &found)
}

/// Scores every item of a task, but those that an earlier run scored; each goes into the file as soon as it is known.
fn score_task(
    (task, items): &(Task, Vec<Item>),
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    mut kept: Option<&mut KeptScores>,
    quiet: bool,
) -> Result<TaskScore> {
    let mut reader = Reader::new(model, tokenizer);
    let mut scores = match &kept {
        Some(kept) => kept.of(*task, items, &mut reader)?,
        None => Vec::new(),
    };
    let there = scores.len();
    let mut meter = Meter::new(items.len() - there, quiet);
    for (number, item) in items.iter().enumerate().skip(there) {
        let score = score_item(&mut reader, item).map_err(with_way_out)?;
        if let Some(kept) = &mut kept {
            kept.add(*task, number, item, &score)?;
        }
        scores.push(score);
        meter.at(scores.len() - there, || {
            let so_far = summary(*task, items, &scores).map(|score| format!(" so far: acc {:.4}", score.acc));
            format!("items of {}{}", task.name(), so_far.unwrap_or_default())
        });
    }
    drop(meter);
    summary(*task, items, &scores).ok_or_else(|| nothing_judged(*task))
}

fn nothing_judged(task: Task) -> Failure {
    Failure::new(format!("{}: no item can be judged with this model", task.name())).hint(
        "its tokenizer joins every continuation to the last token of its context, or the continuations are longer than its context",
    )
}

fn with_way_out(error: NotNumbers) -> Failure {
    Failure::from(error).hint("the weights are damaged, or those of a run that diverged: take an earlier checkpoint")
}

/// What is computed at once. A card is idle with few rows; on the processor more rows than these bring nothing, and logits take
/// memory.
fn step_options(context: usize, vocab_size: usize, device: &Device) -> StepOptions {
    let options = model::to_score(context, device);
    let (tokens, rows) = match device {
        Device::Cuda(..) => (CARD_TOKENS, (CARD_LOGITS / vocab_size.max(1)).clamp(ROWS, CARD_TOKENS)),
        Device::Cpu(_) => (options.max_batch_tokens, ROWS),
    };
    let tokens = tokens.min(context);
    StepOptions { max_batch_tokens: tokens, max_logit_rows: rows.min(tokens), ..options }
}

fn print(surprise: Option<Surprise>, tasks: &BTreeMap<&str, TaskScore>) -> Result<()> {
    if let Some(s) = surprise {
        let bits = s.bits_per_byte.map(|bits| format!(", {bits:.4} bits per byte")).unwrap_or_default();
        deliver(format_args!(
            "{} tokens in windows of {}, loss {:.4} nats per token, perplexity {:.3}{bits}",
            s.tokens,
            s.context,
            s.nll / s.tokens as f64,
            s.perplexity,
        ))?;
    }
    for (name, score) in tasks {
        let norm = score.acc_norm.map(|norm| format!(", acc_norm {norm:.4}")).unwrap_or_default();
        let perplexity = score.perplexity.map(|p| format!(", perplexity {p:.2}")).unwrap_or_default();
        let (items, acc, error) = (score.items, score.acc, score.acc_stderr);
        let truncated = match score.truncated {
            0 => String::new(),
            n => format!("; {n} of them are longer than the model's context and lost their beginning"),
        };
        let left_out = match score.left_out {
            0 => String::new(),
            n => format!("; {n} more cannot be judged with this model and are left out"),
        };
        deliver(format_args!(
            "{name:16} {items} items: acc {acc:.4} ± {error:.4}{norm}{perplexity}{truncated}{left_out}"
        ))?;
    }
    Ok(())
}
