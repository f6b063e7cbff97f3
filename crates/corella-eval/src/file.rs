//! Items out of JSON lines or Parquet, plain or packed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use corella_text::data::readers::read_records;

use crate::{EvalError, Item, Task};

/// The first `limit` items of several files of a task, one behind the other (0: all). Of MMLU, which is a group of tasks in
/// lm-eval, these are the first of each subject.
pub fn read_items(paths: &[&Path], task: Task, limit: usize) -> Result<Vec<Item>, EvalError> {
    let (mut items, mut taken) = (Vec::new(), BTreeMap::new());
    for path in paths {
        let mut found = false;
        each_item(path, task, &mut |item: Item| {
            found = true;
            // Of the other tasks no item has one.
            let of_subject: &mut usize = taken.entry(item.subject.clone()).or_default();
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
    read_records(path, &mut |number, record| {
        let wrong = |what: String| EvalError::Item { path: path.to_path_buf(), line: number, what };
        let item = task.item(&record).map_err(|e| wrong(e.to_string()))?;
        Ok(if take(item) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
}
