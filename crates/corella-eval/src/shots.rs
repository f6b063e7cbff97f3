//! Solved examples in front of each item: the first ones of a file, as lm-eval's sampler `first_n` takes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{EvalError, Item, Task, read_items};

/// Examples of a task. Items with a description (MMLU's subjects) get those with the same one.
pub struct Shots {
    path: PathBuf,
    count: usize,
    /// Solved items by their description, in the order of the file.
    solved: BTreeMap<String, Vec<String>>,
}

impl Shots {
    /// Reads the file that `count` examples for each item come from.
    pub fn read(path: &Path, task: Task, count: usize) -> Result<Shots, EvalError> {
        let mut solved: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for item in read_items(path, task, 0)? {
            solved.entry(item.preamble.clone()).or_default().push(item.solved());
        }
        Ok(Shots { path: path.to_path_buf(), count, solved })
    }

    /// Puts the examples in front of an item; an error where there are too few.
    pub fn put_before(&self, item: &mut Item) -> Result<(), EvalError> {
        let found = self.solved.get(&item.preamble).map_or(&[][..], Vec::as_slice);
        let Some(examples) = found.get(..self.count) else {
            let of = Some(item.preamble.trim().to_owned()).filter(|of| !of.is_empty());
            return Err(EvalError::FewShots { path: self.path.clone(), of, found: found.len(), wanted: self.count });
        };
        item.preamble += &examples.concat();
        Ok(())
    }
}
