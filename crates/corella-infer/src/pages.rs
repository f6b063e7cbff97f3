//! Who owns which KV page: reference counts, and full pages kept for whoever starts with the same tokens.
//!
//! A page is *free* (holds nothing), *held* (by one or more sequences), or *idle* (nobody holds it, but its content is
//! known and can be found again). A held page may be *known* too. Known pages are never written; a page is written only
//! by the one sequence that holds it. Where there are not enough free ones, idle ones become free, the one that was given back
//! longest ago first: as many as a text will need, so that they can be handed out in the order in which they lie.
//!
//! Pages of a text that follow each other in memory are read faster. So a text gets the page behind its last one, if that is
//! free; else it begins a new run, in the shortest run of free pages that has room for twice what it will need. The pages
//! behind a page that somebody holds are left to that one to grow into, if there are enough: the new run begins in the middle.
//!
//! A known page is found by what it holds: the page before it, by a number that is never given twice, and its own
//! tokens. The tokens are compared, not only their hash, so that no collision can hand out a wrong page.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::event::TokenLogProb;
use crate::free_pages::FreePages;

/// Who may find a page: callers with different scopes never share one, so that none can learn by timing what another
/// asked. The empty scope is everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheScope(Option<Arc<str>>);

impl CacheScope {
    /// The scope of everyone who names the same salt.
    pub fn salted(salt: &str) -> CacheScope {
        CacheScope(Some(salt.into()))
    }
}

/// What stands before a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Before {
    /// Nothing: it holds the first tokens of a sequence of this scope.
    Start(CacheScope),
    /// The page whose content has this number.
    Page(u64),
}

/// What a known page holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    before: Before,
    tokens: Box<[u32]>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Sequences that hold the page.
    holders: u32,
    /// Number and content, once known.
    known: Option<(u64, Arc<Content>)>,
    /// Log-probabilities of the page's tokens, where a request asked for them.
    log_probs: Option<Arc<[TokenLogProb]>>,
    /// When it became idle.
    idle_since: u64,
}

/// The pages of a model's arena.
#[derive(Debug)]
pub struct PagePool {
    page_tokens: usize,
    slots: Vec<Slot>,
    free: FreePages,
    idle: BTreeMap<u64, u32>,
    by_content: HashMap<Arc<Content>, u32>,
    clock: u64,
    contents: u64,
}

/// A page found by its content.
#[derive(Clone, Debug)]
pub struct Found {
    /// The page.
    pub page: u32,
    /// The number of its content.
    pub content: u64,
    /// Whether nobody holds it.
    pub idle: bool,
    /// Log-probabilities of its tokens, where known.
    pub log_probs: Option<Arc<[TokenLogProb]>>,
}

impl PagePool {
    /// `pages` free pages of `page_tokens` positions.
    pub fn new(pages: usize, page_tokens: usize) -> PagePool {
        PagePool {
            page_tokens,
            slots: vec![Slot::default(); pages],
            free: FreePages::all(pages as u32),
            idle: BTreeMap::new(),
            by_content: HashMap::new(),
            clock: 0,
            contents: 0,
        }
    }

    /// Positions of a page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// All pages.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Pages that can be taken: free and idle.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages that nobody holds but that can be found again.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// A page to write, held once; `None` if all are held. `last` is the page of the text before it, `wanted` how many
    /// pages the text will need, with this one.
    pub fn take(&mut self, last: Option<u32>, wanted: usize) -> Option<u32> {
        while self.free.len() < wanted.max(1)
            && let Some((_, page)) = self.idle.pop_first()
        {
            self.forget(page);
            self.free.insert(page);
        }
        let next = last.and_then(|last| last.checked_add(1)).filter(|next| self.free.remove(*next));
        let page = match next {
            Some(next) => next,
            None => {
                let page = self.new_run(wanted)?;
                self.free.remove(page);
                page
            }
        };
        self.slots[page as usize].holders = 1;
        Some(page)
    }

    /// Where a text begins that will need `wanted` pages, or goes on if the page behind its last one is taken.
    fn new_run(&self, wanted: usize) -> Option<u32> {
        let (first, len) = self.free.run_for(u32::try_from(wanted.saturating_mul(2)).unwrap_or(u32::MAX))?;
        let held = first.checked_sub(1).is_some_and(|before| self.slots[before as usize].holders > 0);
        // Where memory is short, halving what is left again and again would end in single pages.
        let roomy = 2 * len as usize >= wanted;
        Some(if held && roomy { first + len / 2 } else { first })
    }

    /// One holder less.
    pub fn give_back(&mut self, page: u32) {
        let slot = &mut self.slots[page as usize];
        assert!(slot.holders > 0, "page {page} is given back but nobody holds it");
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        if slot.known.is_some() {
            self.clock += 1;
            slot.idle_since = self.clock;
            self.idle.insert(self.clock, page);
        } else {
            self.free.insert(page);
        }
    }

    /// One holder more for a page that is held or known.
    pub fn hold(&mut self, page: u32) {
        let slot = &mut self.slots[page as usize];
        if slot.holders == 0 {
            let was = self.idle.remove(&slot.idle_since);
            assert_eq!(was, Some(page), "a free page is held without being taken");
        }
        slot.holders += 1;
    }

    /// Whether its one holder may write to it.
    #[cfg(test)]
    pub fn writable(&self, page: u32) -> bool {
        let slot = &self.slots[page as usize];
        slot.holders == 1 && slot.known.is_none()
    }

    /// The known page that holds `tokens` (one page) behind `before`.
    pub fn find(&self, before: &Before, tokens: &[u32]) -> Option<Found> {
        let content = Content { before: before.clone(), tokens: tokens.into() };
        let page = *self.by_content.get(&content)?;
        let slot = &self.slots[page as usize];
        let (content, _) = slot.known.as_ref()?;
        Some(Found { page, content: *content, idle: slot.holders == 0, log_probs: slot.log_probs.clone() })
    }

    /// Makes the content of a full page known; it is never written again. Returns the page that its holder has from now
    /// on, and the number of the content. If another page holds the same, the holder gets that one and `page` is given
    /// back.
    pub fn publish(
        &mut self,
        page: u32,
        before: &Before,
        tokens: &[u32],
        log_probs: Option<Arc<[TokenLogProb]>>,
    ) -> (u32, u64) {
        debug_assert_eq!(tokens.len(), self.page_tokens);
        let content = Arc::new(Content { before: before.clone(), tokens: tokens.into() });
        let known = *self.by_content.entry(content.clone()).or_insert(page);
        let slot = &mut self.slots[known as usize];
        let number = match &slot.known {
            Some((number, _)) => *number,
            None => {
                self.contents += 1;
                slot.known = Some((self.contents, content));
                self.contents
            }
        };
        // The richer of two records stays.
        if let Some(new) = log_probs
            && slot.log_probs.as_ref().is_none_or(|old| alternatives(old) < alternatives(&new))
        {
            slot.log_probs = Some(new);
        }
        if known != page {
            self.hold(known);
            self.give_back(page);
        }
        (known, number)
    }

    fn forget(&mut self, page: u32) {
        let slot = &mut self.slots[page as usize];
        if let Some((_, content)) = slot.known.take() {
            self.by_content.remove(&content);
        }
        slot.log_probs = None;
    }

    /// Whether the books balance, given who holds what.
    #[cfg(test)]
    pub fn audit(&self, held: &[&[u32]]) -> Result<(), String> {
        let mut holders = vec![0; self.slots.len()];
        held.iter().copied().flatten().for_each(|page| holders[*page as usize] += 1);
        for (page, (slot, holders)) in self.slots.iter().zip(&holders).enumerate() {
            let free = usize::from(self.free.contains(page as u32));
            let idle = self.idle.values().filter(|p| **p as usize == page).count();
            let expected = match (*holders, slot.known.is_some()) {
                (0, false) => (1, 0),
                (0, true) => (0, 1),
                _ => (0, 0),
            };
            if slot.holders != *holders || (free, idle) != expected {
                return Err(format!("page {page}: {slot:?}, held by {holders}, {free} times free, {idle} times idle"));
            }
            if let Some((_, content)) = &slot.known
                && self.by_content.get(content) != Some(&(page as u32))
            {
                return Err(format!("page {page} is known but not found"));
            }
        }
        let known = self.slots.iter().filter(|s| s.known.is_some()).count();
        if known == self.by_content.len() { Ok(()) } else { Err("a content without a page".to_owned()) }
    }
}

/// The least number of alternatives that a record holds for a token; the first token of all has none.
pub fn alternatives(record: &[TokenLogProb]) -> usize {
    record.iter().filter(|t| t.logprob.is_some()).map(|t| t.top.len()).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 4;

    /// Takes a page for a text that will need `wanted`, and makes it known.
    fn read(pool: &mut PagePool, text: u32, pages: &mut Vec<u32>, before: &mut Before, wanted: usize) -> bool {
        let Some(page) = pool.take(pages.last().copied(), wanted) else { return false };
        assert!(pool.writable(page));
        let tokens = [text, pages.len() as u32, 0, 0];
        let (page, content) = pool.publish(page, before, &tokens, None);
        pages.push(page);
        *before = Before::Page(content);
        true
    }

    /// Pages that do not lie behind the page before them.
    fn breaks(pages: &[u32]) -> usize {
        pages.windows(2).filter(|pair| pair[1] != pair[0] + 1).count()
    }

    #[test]
    fn a_text_lies_in_few_runs_after_others_have_come_and_gone() {
        let mut pool = PagePool::new(370, PAGE);
        let mut short: Vec<Vec<u32>> = Vec::new();
        for text in 0..200 {
            // Short texts come, stay for a while and go.
            let mut pages = Vec::new();
            let mut before = Before::Start(CacheScope::default());
            for left in (1..=1 + text as usize * 7 % 5).rev() {
                assert!(read(&mut pool, 2 * text, &mut pages, &mut before, left));
            }
            short.push(pages);
            if short.len() > 8 {
                short.remove(text as usize % 8).into_iter().rev().for_each(|page| pool.give_back(page));
            }
            // A long one comes and goes.
            let mut pages = Vec::new();
            let mut before = Before::Start(CacheScope::default());
            for left in (1..=256).rev() {
                assert!(read(&mut pool, 2 * text + 1, &mut pages, &mut before, left));
            }
            assert!(breaks(&pages) <= 16, "text {text}: {} breaks in 256 pages", breaks(&pages));
            pages.into_iter().rev().for_each(|page| pool.give_back(page));
        }
    }

    #[test]
    fn texts_that_grow_side_by_side_leave_each_other_room() {
        let mut pool = PagePool::new(1024, PAGE);
        let mut texts = vec![Vec::new(); 16];
        for page in 0..48 {
            for pages in &mut texts {
                pages.extend(pool.take(pages.last().copied(), if page < 32 { 48 - page } else { 16 }));
            }
        }
        for pages in &texts {
            assert_eq!(pages.len(), 48);
            assert!(breaks(pages) <= 2, "{} breaks", breaks(pages));
        }
    }

    proptest! {
        #[test]
        fn no_page_has_two_owners_and_all_come_back(
            pages in 1usize..60,
            steps in prop::collection::vec((0usize..6, 0u8..8, 1usize..20), 1..300),
        ) {
            let mut pool = PagePool::new(pages, PAGE);
            let mut texts: Vec<(Vec<u32>, Before)> = vec![(Vec::new(), Before::Start(CacheScope::default())); 6];
            for (step, (text, what, wanted)) in steps.into_iter().enumerate() {
                let (held, before) = &mut texts[text];
                match what {
                    0 => {
                        held.drain(..).rev().for_each(|page| pool.give_back(page));
                        *before = Before::Start(CacheScope::default());
                    }
                    // A page that is not made known.
                    1 => if let Some(page) = pool.take(held.last().copied(), wanted) {
                        pool.give_back(page);
                    },
                    _ => {
                        let room = pool.available() > 0;
                        // Two kinds of texts, so that contents repeat and pages are shared.
                        let before_page = before.clone();
                        let known = pool.find(&before_page, &[text as u32 % 2, held.len() as u32, 0, 0]);
                        if let (Some(found), 2..=4) = (known, what) {
                            pool.hold(found.page);
                            held.push(found.page);
                            *before = Before::Page(found.content);
                        } else {
                            prop_assert_eq!(read(&mut pool, text as u32 % 2, held, before, wanted), room, "step {}", step);
                        }
                    }
                }
                let held: Vec<&[u32]> = texts.iter().map(|(held, _)| &held[..]).collect();
                prop_assert_eq!(pool.audit(&held), Ok(()));
            }
            for (held, _) in &mut texts {
                held.drain(..).for_each(|page| pool.give_back(page));
            }
            prop_assert_eq!(pool.available(), pages);
        }
    }
}
