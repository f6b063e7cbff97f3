//! `corella eval`: how well a model predicts texts, and how it does on tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use corella_eval::{Item, ItemScore, Shots, Task, TaskScore};
use corella_eval::{negative_log_likelihood, read_items, score_item, summary};
use corella_model::{OneSequence, StepOptions, TextModel};
use corella_text::data::Dataset;
use corella_text::tokenizer::Tokenizer;
use serde::Serialize;

use crate::cli::Common;
use crate::device::Device;
use crate::error::{Failure, Result, of_path};
use crate::inputs::{check_finished, read_as_trained};
use crate::meter::Meter;
use crate::model::{self, Invariance};
use crate::output::deliver;
use crate::unfinished::Unfinished;

/// Longest window where none is given: longer ones take memory and time, and change the figure little.
const LONGEST_WINDOW: usize = 2048;
/// Rows of logits at once.
const ROWS: usize = 64;

/// Flags of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run folder, a Hugging Face folder, a .gguf file, an llm.c or llama2.c .bin, or hf://owner/name
    pub model: PathBuf,
    /// Measure loss, perplexity and bits per byte on this text
    #[arg(long)]
    pub text: Option<PathBuf>,
    /// Measure them on the validation part of this prepared folder
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Score a task: a file, or TASK=FILE where the file's name does not begin with the task's (may be given several
    /// times; files of one task are joined): hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada_openai, mmlu
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
    /// Write the log-likelihoods of every item of the tasks to this file, as JSON lines
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

/// How well a stream of tokens is predicted.
#[derive(Clone, Copy, Debug, Serialize)]
struct Surprise {
    tokens: usize,
    nll: f64,
    perplexity: f64,
    bits_per_byte: f64,
    context: usize,
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
    let mut tasks = load_tasks(&args.task, args.limit)?;
    if args.shots > 0 {
        put_shots(&mut tasks, args)?;
    }
    // Scoring may take hours: whether its scores can be kept is known before.
    let unfinished = args.items.as_deref().map(Unfinished::beside).transpose()?;
    let model = model::open(&args.model, args.tokenizer.as_deref())?;
    let tokenizer = model.tokenizer()?;
    let context = args.context.unwrap_or(LONGEST_WINDOW).min(model.context_len());
    if context < 2 {
        return Err(Failure::usage("a context of fewer than two tokens predicts nothing").hint("--context 2 or more"));
    }
    let rows = context.min(ROWS);
    let device = Device::choose(common)?;
    let options = StepOptions { max_batch_tokens: rows, max_logit_rows: rows, ..model::to_score(context, &device) };
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
    let mut lines = Vec::new();
    let mut found = BTreeMap::new();
    for (task, items) in &tasks {
        let mut meter = Meter::new(items.len(), quiet);
        let mut scores = Vec::with_capacity(items.len());
        for item in items {
            scores.push(score_item(&mut model, &tokenizer, item));
            meter.at(scores.len(), || {
                let so_far = summary(*task, &scores).map(|score| format!(" so far: acc {:.4}", score.acc));
                format!("items of {}{}", task.name(), so_far.unwrap_or_default())
            });
        }
        drop(meter);
        for (number, score) in scores.iter().enumerate() {
            lines.push(serde_json::json!({"task": task.name(), "item": number, "score": score}).to_string());
        }
        found.insert(task.name(), summary(*task, &scores).ok_or_else(|| nothing_judged(*task))?);
    }
    if let (Some(path), Some(unfinished)) = (&args.items, unfinished) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(unfinished.path(), text).map_err(|e| of_path(path, e))?;
        unfinished.finish(path)?;
    }
    if common.json {
        return deliver(serde_json::to_string(&Document { surprise, tasks: found, backend })?);
    }
    if let Some(s) = surprise {
        deliver(format_args!(
            "{} tokens in windows of {}, loss {:.4} nats per token, perplexity {:.3}, {:.4} bits per byte",
            s.tokens,
            s.context,
            s.nll / s.tokens as f64,
            s.perplexity,
            s.bits_per_byte
        ))?;
    }
    for (name, score) in &found {
        let norm = score.acc_norm.map(|norm| format!(", acc_norm {norm:.4}")).unwrap_or_default();
        let perplexity = score.perplexity.map(|p| format!(", perplexity {p:.2}")).unwrap_or_default();
        let (items, acc, error) = (score.items, score.acc, score.acc_stderr);
        let left_out = match score.left_out {
            0 => String::new(),
            n => format!("; {n} more cannot be judged with this model and are left out"),
        };
        deliver(format_args!("{name:16} {items} items: acc {acc:.4} ± {error:.4}{norm}{perplexity}{left_out}"))?;
    }
    Ok(())
}

/// Puts examples in front of the items of every task.
fn put_shots(tasks: &mut [(Task, Vec<Item>)], args: &EvalArgs) -> Result<()> {
    let (files, of_items) = (files_by_task(&args.shots_from)?, files_by_task(&args.task)?);
    for (task, items) in tasks {
        let of =
            |files: &[(Task, Vec<PathBuf>)]| files.iter().find(|(of, _)| of == task).map(|(_, paths)| paths.clone());
        let Some(paths) = of(&files) else {
            return Err(Failure::usage(format!("--shots-from names no file for {}", task.name()))
                .hint(format!("--shots-from {}=FILE", task.name())));
        };
        let items_from = of(&of_items).unwrap_or_default();
        let shots = Shots::read(&borrowed(&paths), &borrowed(&items_from), *task, args.shots)?;
        items.iter_mut().try_for_each(|item| shots.put_before(item))?;
    }
    Ok(())
}

/// The tasks of several `FILE` or `TASK=FILE`, each with its first items (0: all).
pub fn load_tasks(texts: &[String], limit: usize) -> Result<Vec<(Task, Vec<Item>)>> {
    let load = |(task, paths): (Task, Vec<PathBuf>)| Ok((task, read_items(&borrowed(&paths), task, limit)?));
    files_by_task(texts)?.into_iter().map(load).collect()
}

/// The files of each task, in the order in which they are named.
fn files_by_task(texts: &[String]) -> Result<Vec<(Task, Vec<PathBuf>)>> {
    let mut tasks: Vec<(Task, Vec<PathBuf>)> = Vec::new();
    for text in texts {
        let (task, path) = task_file(text)?;
        match tasks.iter_mut().find(|(known, _)| *known == task) {
            Some((_, paths)) => paths.push(path.to_path_buf()),
            None => tasks.push((task, vec![path.to_path_buf()])),
        }
    }
    Ok(tasks)
}

fn borrowed(paths: &[PathBuf]) -> Vec<&Path> {
    paths.iter().map(PathBuf::as_path).collect()
}

fn nothing_judged(task: Task) -> Failure {
    Failure::new(format!("{}: no item can be judged with this model", task.name())).hint(
        "its tokenizer joins every continuation to the last token of its context, or the continuations are longer than its context",
    )
}

/// The task and the path of `FILE` or `TASK=FILE`.
fn task_file(text: &str) -> Result<(Task, &Path)> {
    let unknown = |asked: &str| {
        Failure::usage(corella_eval::EvalError::UnknownTask { asked: asked.to_owned() })
            .hint("name the task: hellaswag=FILE")
    };
    match text.split_once('=') {
        Some((name, path)) => Ok((Task::from_name(name).ok_or_else(|| unknown(name))?, Path::new(path))),
        None => {
            let path = Path::new(text);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let task = Task::of_file(&name).ok_or_else(|| unknown(&name))?;
            Ok((task, path))
        }
    }
}

/// Scores of loaded tasks with the weights of a model, by name: what `--eval-every` logs. `None` where `stop` is raised
/// before all are known. With `warn` says which items cannot be judged.
pub fn task_scores(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    tasks: &[(Task, Vec<Item>)],
    stop: &AtomicBool,
    warn: bool,
) -> Option<BTreeMap<String, f64>> {
    let mut scores = BTreeMap::new();
    for (task, items) in tasks {
        let mut score = |item| (!stop.load(Ordering::SeqCst)).then(|| score_item(model, tokenizer, item));
        let each: Vec<Option<ItemScore>> = items.iter().map(&mut score).collect::<Option<_>>()?;
        let left_out = each.iter().filter(|score| score.is_none()).count();
        if warn && left_out > 0 {
            let (name, all) = (task.name(), each.len());
            eprintln!("warning: {name}: {left_out} of {all} items cannot be judged with this model and are left out");
        }
        let Some(found) = summary(*task, &each) else { continue };
        scores.insert(format!("{}/acc", task.name()), found.acc);
        scores.extend(found.acc_norm.map(|norm| (format!("{}/acc_norm", task.name()), norm)));
    }
    Some(scores)
}

/// The text is cut into windows. Each starts with the token that marks the start of a text (`bos`), which predicts the
/// window's first token, so every token of the text is predicted exactly once; without it the first token of each window is
/// not predicted.
fn of_text(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    path: &Path,
    context: usize,
    bos: Option<u32>,
    quiet: bool,
) -> Result<Surprise> {
    let text = read_as_trained(path)?;
    let ids = tokenizer.encode(&text);
    if ids.is_empty() {
        return Err(Failure::new(format!("{} is empty", path.display())).hint("give a file with text in it"));
    }
    let start: Vec<u32> = bos.into_iter().collect();
    let windows = ids.chunks(context - start.len()).map(|chunk| [&start[..], chunk].concat());
    let windows: Vec<Vec<u32>> = windows.filter(|window| window.len() > 1).collect();
    if windows.is_empty() {
        return Err(Failure::new(format!("{} is a single token, which nothing predicts", path.display()))
            .hint("give a longer text, or leave --no-bos out: the token in front predicts the first one"));
    }
    // Of what is predicted: without the token in front that is not all of the text.
    let bytes = if bos.is_some() { text.len() } else { bytes_of_targets(tokenizer, &windows) };
    Ok(surprise(model, windows, bytes, context, quiet))
}

/// The validation part of a prepared folder in windows of the context length, of which each begins with the last token of the
/// one before: every token is predicted once but the first of all. The last window may be shorter.
fn of_data(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    dir: &Path,
    context: usize,
    limit: usize,
    quiet: bool,
) -> Result<Surprise> {
    check_finished(dir)?;
    let data = Dataset::open(dir)?;
    if data.tokenizer.fingerprint() != tokenizer.fingerprint() {
        return Err(Failure::new(format!("{} was prepared with another tokenizer than the model's", dir.display()))
            .hint("measure on the text with --text, or prepare it with the model's tokenizer.json"));
    }
    let most = if limit > 0 { limit as u64 + 1 } else { u64::MAX };
    let mut val = vec![0; data.val.len().min(most) as usize];
    data.val.read(0, &mut val)?;
    if val.len() < 2 {
        return Err(Failure::new(format!("{} holds no validation tokens", dir.display())));
    }
    let t = context.min(val.len() - 1);
    let window = |i: usize| val[i * t..val.len().min((i + 1) * t + 1)].to_vec();
    let windows: Vec<Vec<u32>> = (0..(val.len() - 1).div_ceil(t)).map(window).collect();
    let bytes = bytes_of_targets(tokenizer, &windows);
    Ok(surprise(model, windows, bytes, t, quiet))
}

/// Bytes of the tokens that windows predict: all but the first of each. The token between documents stands for none.
fn bytes_of_targets(tokenizer: &Tokenizer, windows: &[Vec<u32>]) -> usize {
    let end = tokenizer.end_of_text();
    let targets = windows.iter().flat_map(|w| &w[1..]).filter(|id| **id != end);
    targets.map(|id| tokenizer.token_bytes(*id).len()).sum()
}

fn surprise(model: &mut dyn TextModel, windows: Vec<Vec<u32>>, bytes: usize, context: usize, quiet: bool) -> Surprise {
    let (mut tokens, mut nll) = (0, 0.0);
    let mut meter = Meter::new(windows.len(), quiet);
    for (number, window) in windows.iter().enumerate() {
        nll += negative_log_likelihood(model, window);
        tokens += window.len() - 1;
        meter.at(number + 1, || format!("windows so far: loss {:.4}", nll / tokens as f64));
    }
    drop(meter);
    let perplexity = (nll / tokens as f64).exp();
    let bits_per_byte = nll / std::f64::consts::LN_2 / bytes.max(1) as f64;
    Surprise { tokens, nll, perplexity, bits_per_byte, context }
}
