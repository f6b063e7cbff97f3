//! The free pages of an arena, as runs of pages that follow each other in memory: a text whose pages do is read faster by a third
//! (docs/log.md).

use std::collections::{BTreeMap, BTreeSet};

/// A set of pages that knows its runs: none begins where another ends.
#[derive(Debug, Default)]
pub struct FreePages {
    /// Length of each run, by its first page.
    runs: BTreeMap<u32, u32>,
    /// (length, first page) of the same runs.
    by_len: BTreeSet<(u32, u32)>,
    pages: usize,
}

impl FreePages {
    /// The pages 0 to `pages` - 1.
    pub fn all(pages: u32) -> FreePages {
        let mut free = FreePages::default();
        if pages > 0 {
            free.put(0, pages);
        }
        free
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Whether `page` is one of them.
    #[cfg(test)]
    pub fn contains(&self, page: u32) -> bool {
        self.run_of(page).is_some()
    }

    /// Joins a page that is not one of them.
    pub fn insert(&mut self, page: u32) {
        let (mut first, mut len) = (page, 1);
        if let Some((&before, &run)) = self.runs.range(..page).next_back()
            && before + run == page
        {
            self.cut(before, run);
            (first, len) = (before, run + 1);
        }
        if let Some(&run) = page.checked_add(1).and_then(|after| self.runs.get(&after)) {
            self.cut(page + 1, run);
            len += run;
        }
        self.put(first, len);
    }

    /// Takes a page out; `false` if it is not one of them.
    pub fn remove(&mut self, page: u32) -> bool {
        let Some((first, len)) = self.run_of(page) else { return false };
        self.cut(first, len);
        if page > first {
            self.put(first, page - first);
        }
        if page + 1 < first + len {
            self.put(page + 1, first + len - page - 1);
        }
        true
    }

    /// First page and length of the shortest run of at least `pages` pages, or of the longest of all where none is so long.
    pub fn run_for(&self, pages: u32) -> Option<(u32, u32)> {
        let (len, first) = self.by_len.range((pages, 0)..).next().or_else(|| self.by_len.last())?;
        Some((*first, *len))
    }

    /// The run that `page` is in.
    fn run_of(&self, page: u32) -> Option<(u32, u32)> {
        let (&first, &len) = self.runs.range(..=page).next_back()?;
        (page - first < len).then_some((first, len))
    }

    fn put(&mut self, first: u32, len: u32) {
        self.runs.insert(first, len);
        self.by_len.insert((len, first));
        self.pages += len as usize;
    }

    fn cut(&mut self, first: u32, len: u32) {
        self.runs.remove(&first);
        self.by_len.remove(&(len, first));
        self.pages -= len as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_those_of_a_plain_set(pages in 0u32..40, toggled in prop::collection::vec(0u32..40, 0..200), wanted in 1u32..12) {
            let mut free = FreePages::all(pages);
            let mut plain: BTreeSet<u32> = (0..pages).collect();
            for page in toggled {
                if plain.insert(page) {
                    prop_assert!(!free.remove(page), "page {} is not free", page);
                    free.insert(page);
                } else {
                    plain.remove(&page);
                    prop_assert!(free.remove(page), "page {} is free", page);
                }
                prop_assert_eq!(free.len(), plain.len());
                prop_assert!((0..41).all(|page| free.contains(page) == plain.contains(&page)));
                // (first, length) of all runs, from the plain set.
                let firsts = plain.iter().copied().filter(|page| *page == 0 || !plain.contains(&(page - 1)));
                let runs: Vec<(u32, u32)> = firsts.map(|first| (first, (first..).take_while(|p| plain.contains(p)).count() as u32)).collect();
                let enough = runs.iter().copied().filter(|run| run.1 >= wanted).map(|run| run.1).min();
                let expected = enough.or_else(|| runs.iter().map(|run| run.1).max());
                let run = free.run_for(wanted);
                prop_assert_eq!(run.map(|run| run.1), expected);
                prop_assert!(run.is_none_or(|run| runs.contains(&run)));
            }
        }
    }
}
