//! Solved examples in front of each item: the first ones of a file, as lm-eval's sampler `first_n` takes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{EvalError, Item, Task, read_items};

/// Examples of a task. Items with a description (MMLU's subjects) get those with the same one.
pub struct Shots {
    /// Names of the files.
    files: String,
    count: usize,
    /// Whether one of the files holds the items themselves.
    own: bool,
    /// Items by their description, in the order of the files.
    examples: BTreeMap<String, Vec<Item>>,
}

impl Shots {
    /// Reads the files that `count` examples for each item of the files `of` come from.
    pub fn read(paths: &[&Path], of: &[&Path], task: Task, count: usize) -> Result<Shots, EvalError> {
        let mut examples: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in read_items(paths, task, 0)? {
            examples.entry(item.preamble.clone()).or_default().push(item);
        }
        let place = |path: &&Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let items: Vec<_> = of.iter().map(place).collect();
        let own = paths.iter().any(|path| items.contains(&place(path)));
        let files = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        Ok(Shots { files, count, own, examples })
    }

    /// Puts the examples in front of an item; an error where there are too few. From the items' own file an example that is
    /// the item itself is passed over: it would hold the answer.
    pub fn put_before(&self, item: &mut Item) -> Result<(), EvalError> {
        let of_subject = self.examples.get(&item.preamble).map_or(&[][..], Vec::as_slice);
        let others = of_subject.iter().filter(|example| !(self.own && *example == item));
        let examples: Vec<String> = others.take(self.count).map(Item::solved).collect();
        if examples.len() < self.count {
            let of = Some(item.preamble.trim().to_owned()).filter(|of| !of.is_empty());
            let (files, found) = (self.files.clone(), examples.len());
            return Err(EvalError::FewShots { files, of, found, wanted: self.count });
        }
        item.preamble += &examples.concat();
        Ok(())
    }
}
