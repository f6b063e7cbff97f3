//! The file of `--items`: a line for each item as soon as it is scored. A run that was cut short goes on behind them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use corella_eval::{Item, ItemScore, Reader, Task, score_item};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result, of_path};

/// How far log-likelihoods may lie apart, as a part of their size, that are read back or computed again in other steps.
const SAME: f64 = 1e-6;
/// What every line begins with.
const BEGINNING: &[u8] = b"{\"task\":\"";

/// The score of an item, as it is written.
#[derive(Serialize, Deserialize)]
struct Line {
    task: String,
    /// Its number among the items of the task that are scored, from 0.
    item: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The right choice, and the likeliest: none of a cloze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gold: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pred: Option<usize>,
    /// [`Item::mark`].
    mark: String,
    score: Option<ItemScore>,
}

impl Line {
    fn new(task: Task, number: usize, item: &Item, score: &Option<ItemScore>) -> Line {
        let pred = score.as_ref().map(ItemScore::pred).filter(|_| item.gold().is_some());
        Line {
            task: task.name().to_owned(),
            item: number,
            subject: item.subject.clone(),
            gold: item.gold(),
            pred,
            mark: mark(item),
            score: score.clone(),
        }
    }
}

fn mark(item: &Item) -> String {
    format!("{:016x}", item.mark())
}

/// The open file.
pub struct KeptScores {
    path: PathBuf,
    /// Locked as long as this program writes into it.
    file: File,
    /// What an earlier run left.
    lines: Vec<Line>,
    /// Without a line, the file goes with this value.
    empty: bool,
}

impl KeptScores {
    /// Opens a file that is new, or that an earlier run with the same tasks began.
    pub fn open(path: &Path, tasks: &[(Task, Vec<Item>)]) -> Result<KeptScores> {
        let failed = |error| of_path(path, error);
        if path.exists() && !path.is_file() {
            return Err(foreign(path, "it is no file"));
        }
        if let Some(parent) = path.parent() {
            if parent.exists() && !parent.is_dir() {
                return Err(Failure::new(format!("{}: {} is no folder", path.display(), parent.display()))
                    .hint("name another path"));
            }
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!("{}: another program writes its scores there", path.display()))
                    .hint("wait until it ends, or give another name"));
            }
            // Where a file system has no locks, nothing can be known.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        // The last line of a program that was killed may be a part of one.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = &bytes[whole..];
        if !rest.starts_with(BEGINNING) && !BEGINNING.starts_with(rest) {
            return Err(foreign(path, "its end is none of a score"));
        }
        let parse = |(number, line): (usize, &[u8])| {
            serde_json::from_slice(line).map_err(|e| foreign(path, &format!("line {} is no score: {e}", number + 1)))
        };
        let lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate().map(parse);
        let lines: Vec<Line> = lines.collect::<Result<_>>()?;
        if let Some(line) = lines.iter().find(|line| tasks.iter().all(|(task, _)| task.name() != line.task)) {
            return Err(foreign(path, &format!("it holds scores of {}, which is not asked for", line.task)));
        }
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::Start(whole as u64))).map_err(failed)?;
        Ok(KeptScores { path: path.to_path_buf(), file, empty: lines.is_empty(), lines })
    }

    /// The scores of the first items of a task that are there. They must be of these items; that they are of this model is seen by
    /// one that is computed again.
    pub fn of(&self, task: Task, items: &[Item], reader: &mut Reader<'_>) -> Result<Vec<Option<ItemScore>>> {
        let mut scores: Vec<Option<ItemScore>> = Vec::new();
        for line in self.lines.iter().filter(|line| line.task == task.name()) {
            let here = items.get(line.item).filter(|item| mark(item) == line.mark);
            if here.is_none() || line.item != scores.len() {
                let what = format!("item {} of {} is not the one that is asked for now", line.item, line.task);
                return Err(foreign(&self.path, &what));
            }
            scores.push(line.score.clone());
        }
        let judged = scores.iter().zip(items).find_map(|(score, item)| Some((score.as_ref()?, item)));
        if let Some((score, item)) = judged {
            let again = score_item(reader, item)?;
            if !again.is_some_and(|again| is_same(score, &again)) {
                return Err(foreign(&self.path, &format!("its scores of {} are those of another model", task.name())));
            }
        }
        if !scores.is_empty() {
            let (path, there) = (self.path.display(), scores.len());
            eprintln!("note: {path}: {there} of {} items of {} are scored already", items.len(), task.name());
        }
        Ok(scores)
    }

    /// Adds the score of an item; it stays whatever happens to this program.
    pub fn add(&mut self, task: Task, number: usize, item: &Item, score: &Option<ItemScore>) -> Result<()> {
        let line = serde_json::to_string(&Line::new(task, number, item, score))? + "\n";
        self.empty = false;
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush()).map_err(|e| of_path(&self.path, e))
    }
}

impl Drop for KeptScores {
    fn drop(&mut self) {
        if self.empty {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_same(a: &ItemScore, b: &ItemScore) -> bool {
    let near = |(x, y): (&f64, &f64)| (x - y).abs() <= SAME * x.abs().max(1.0);
    a.log_probs.len() == b.log_probs.len() && a.log_probs.iter().zip(&b.log_probs).all(near)
}

fn foreign(path: &Path, what: &str) -> Failure {
    Failure::new(format!("{} exists already, and cannot be gone on with: {what}", path.display()))
        .hint("give a name that is not taken; nothing is overwritten")
}
