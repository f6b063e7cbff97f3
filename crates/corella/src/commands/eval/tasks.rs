//! The tasks that the user names, and their scores during training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use corella_eval::{EvalError, Item, Reader, Shots, Task, read_items, score_item, summary};
use corella_model::TextModel;
use corella_text::data::DataError;
use corella_text::tokenizer::Tokenizer;

use super::EvalArgs;
use crate::error::{Failure, Result};
use crate::fetch::fetch;

/// The tasks of the flags, each with its first items (0: all) and the examples in front of them.
pub fn asked(args: &EvalArgs) -> Result<Vec<(Task, Vec<Item>)>> {
    let files = files_by_task(&args.task)?;
    let mut tasks = read_tasks(&files, args.limit)?;
    if args.shots > 0 {
        put_shots(&mut tasks, &files, args)?;
    }
    Ok(tasks)
}

/// The tasks of several `FILE` or `TASK=FILE`, each with its first items (0: all).
pub fn load_tasks(texts: &[String], limit: usize) -> Result<Vec<(Task, Vec<Item>)>> {
    read_tasks(&files_by_task(texts)?, limit)
}

fn read_tasks(files: &[(Task, Vec<PathBuf>)], limit: usize) -> Result<Vec<(Task, Vec<Item>)>> {
    files
        .iter()
        .map(|(task, paths)| Ok((*task, read_items(&borrowed(paths), *task, limit).map_err(of_file)?)))
        .collect()
}

/// What is wrong with a file of a task, with what it should be.
fn of_file(error: EvalError) -> Failure {
    let form = matches!(error, EvalError::Item { .. } | EvalError::Data(DataError::Bad { .. }));
    let failure = Failure::from(error);
    if !form {
        return failure;
    }
    failure.hint("items are JSON lines or rows of Parquet, plain or packed with gzip or zstd; docs/evaluation.md names their forms")
}

/// Puts examples in front of the items of every task; `of_items` are the files that those come from.
fn put_shots(tasks: &mut [(Task, Vec<Item>)], of_items: &[(Task, Vec<PathBuf>)], args: &EvalArgs) -> Result<()> {
    let files = files_by_task(&args.shots_from)?;
    for (task, items) in tasks {
        let of =
            |files: &[(Task, Vec<PathBuf>)]| files.iter().find(|(of, _)| of == task).map(|(_, paths)| paths.clone());
        let Some(paths) = of(&files) else {
            return Err(Failure::usage(format!("--shots-from names no file for {}", task.name()))
                .hint(format!("--shots-from {}=FILE", task.name())));
        };
        let items_from = of(of_items).unwrap_or_default();
        let shots = Shots::read(&borrowed(&paths), &borrowed(&items_from), *task, args.shots).map_err(of_file)?;
        items.iter_mut().try_for_each(|item| shots.put_before(item))?;
    }
    Ok(())
}

/// The files of each task, in the order in which they are named; those on the hub are fetched.
fn files_by_task(texts: &[String]) -> Result<Vec<(Task, Vec<PathBuf>)>> {
    let mut tasks: Vec<(Task, Vec<PathBuf>)> = Vec::new();
    for text in texts {
        let (task, path) = task_file(text)?;
        let found = match path.to_str().filter(|name| name.starts_with(corella_hub::PREFIX)) {
            Some(name) => fetch(name, false)?.into_iter().map(|file| file.path).collect(),
            None => vec![path.to_path_buf()],
        };
        match tasks.iter_mut().find(|(known, _)| *known == task) {
            Some((_, paths)) => paths.extend(found),
            None => tasks.push((task, found)),
        }
    }
    Ok(tasks)
}

fn borrowed(paths: &[PathBuf]) -> Vec<&Path> {
    paths.iter().map(PathBuf::as_path).collect()
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
    let (mut scores, mut reader) = (BTreeMap::new(), Reader::new(model, tokenizer));
    'tasks: for (task, items) in tasks {
        let (name, all) = (task.name(), items.len());
        let mut each = Vec::with_capacity(all);
        for item in items {
            if stop.load(Ordering::SeqCst) {
                return None;
            }
            match score_item(&mut reader, item) {
                Ok(score) => each.push(score),
                Err(error) => {
                    eprintln!("warning: {name}: {error}; training goes on without this score");
                    continue 'tasks;
                }
            }
        }
        let left_out = each.iter().filter(|score| score.is_none()).count();
        if warn && left_out > 0 {
            eprintln!("warning: {name}: {left_out} of {all} items cannot be judged with this model and are left out");
        }
        let Some(found) = summary(*task, items, &each) else { continue };
        if warn && found.truncated > 0 {
            let cut = found.truncated;
            eprintln!(
                "warning: {name}: {cut} of {all} items are longer than the model's context and lose their beginning"
            );
        }
        scores.insert(format!("{name}/acc"), found.acc);
        scores.extend(found.acc_norm.map(|norm| (format!("{name}/acc_norm"), norm)));
    }
    Some(scores)
}
