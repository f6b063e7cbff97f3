//! Items out of JSON lines, plain or in gzip.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{EvalError, Item, Task};

/// The first `limit` items of a file (0: all).
pub fn read_items(path: &Path, task: Task, limit: usize) -> Result<Vec<Item>, EvalError> {
    let io = |source| EvalError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let reader: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut items = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.map_err(io)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| EvalError::Item { path: path.to_path_buf(), line: number + 1, what };
        let value = serde_json::from_str(&line).map_err(|e| wrong(e.to_string()))?;
        items.push(task.item(&value).map_err(wrong)?);
        if items.len() == limit {
            break;
        }
    }
    if items.is_empty() { Err(EvalError::Empty { path: path.to_path_buf() }) } else { Ok(items) }
}
