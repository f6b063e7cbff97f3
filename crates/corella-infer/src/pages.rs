//! Who owns which KV page: reference counts, and full pages kept for whoever starts with the same tokens.
//!
//! A page is *free* (holds nothing), *held* (by one or more sequences), or *idle* (nobody holds it, but its content is
//! known and can be found again). A held page may be *known* too. Known pages are never written; a page is written only
//! by the one sequence that holds it. Pages are taken from the free ones first, in their order, because pages that follow each
//! other are read faster; then from the idle ones, the one that was given back longest ago first.
//!
//! A known page is found by what it holds: the page before it, by a number that is never given twice, and its own
//! tokens. The tokens are compared, not only their hash, so that no collision can hand out a wrong page.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::event::TokenLogProb;

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
    free: BTreeSet<u32>,
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
            free: (0..pages as u32).collect(),
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

    /// A page to write, held once; `None` if all are held.
    pub fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop_first() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                self.forget(page);
                page
            }
        };
        self.slots[page as usize].holders = 1;
        Some(page)
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
            let free = self.free.iter().filter(|p| **p as usize == page).count();
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
