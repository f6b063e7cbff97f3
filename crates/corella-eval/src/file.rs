//! Items out of JSON lines, plain or in gzip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{EvalError, Item, Task};

/// The first `limit` items of several files of a task, one behind the other (0: all). Of MMLU, which is a group of tasks in
/// lm-eval, these are the first of each subject.
pub fn read_items(paths: &[&Path], task: Task, limit: usize) -> Result<Vec<Item>, EvalError> {
    let (mut items, mut taken) = (Vec::new(), BTreeMap::new());
    for path in paths {
        let mut found = false;
        each_item(path, task, &mut |item: Item| {
            found = true;
            // Of the other tasks all items have the same.
            let of_subject: &mut usize = taken.entry(item.preamble.clone()).or_default();
            *of_subject += 1;
            if limit == 0 || *of_subject <= limit {
                items.push(item);
            }
            task == Task::Mmlu || items.len() != limit
        })?;
        if !found {
            return Err(EvalError::Empty { path: path.to_path_buf() });
        }
        if task != Task::Mmlu && items.len() == limit {
            break;
        }
    }
    Ok(items)
}

/// Gives the items of a file in their order, as long as more are wanted.
fn each_item(path: &Path, task: Task, take: &mut dyn FnMut(Item) -> bool) -> Result<(), EvalError> {
    let io = |source| EvalError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let reader: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.map_err(io)?;
        // Some editors put a mark of the byte order in front of a file.
        let line = if number == 0 { line.trim_start_matches('\u{feff}') } else { &line };
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| EvalError::Item { path: path.to_path_buf(), line: number + 1, what };
        let value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if !take(task.item(&value).map_err(|e| wrong(e.to_string()))?) {
            break;
        }
    }
    Ok(())
}
