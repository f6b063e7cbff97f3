//! How queries of a stretch read keys and values of the cache: converted as they are read where there are kernels for that and
//! few queries, else converted first, for all of them.

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::batch::Batch;
#[cfg(target_arch = "x86_64")]
use super::paged::STRETCH;
use super::paged::{GROUPS, add_weighted, dot};
#[cfg(target_arch = "x86_64")]
use super::paged512;
use super::pages::{GROUP, KvPages};

/// Bytes from what is read to what is asked for: less than this and the answer comes late, more and the first-level cache
/// overflows (docs/log.md).
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 12 << 10;

/// What queries of a stretch read.
pub struct Part<'a> {
    /// The cache.
    pub pages: &'a KvPages,
    /// Where pages of sequences are.
    pub batch: &'a Batch,
    /// Kernel path.
    pub path: Path,
    /// The sequence.
    pub sequence: u32,
    /// Position behind the last query's.
    pub end: usize,
    /// Head of k and v.
    pub head: usize,
    /// First position of the stretch.
    pub start: usize,
    /// Positions of it that the last query sees.
    pub all: usize,
}

/// Values of a group of positions, ready to be added up.
pub enum Read<'a> {
    /// Converted, a row every `width` floats.
    Wide(&'a [f32]),
    /// As they are stored.
    #[cfg(target_arch = "x86_64")]
    Stored(paged512::Values),
}

impl Part<'_> {
    /// Where position `at` of the stretch lies.
    fn place(&self, at: usize) -> (usize, usize) {
        self.batch.place(self.sequence, self.start + at)
    }

    /// Whether keys and values are converted as they are read.
    #[cfg(target_arch = "x86_64")]
    fn direct(&self, n: usize) -> bool {
        n <= paged512::QUERIES && self.path.vectors() == Vectors::Avx512
    }

    /// Scores of the groups from position `first` on, [`GROUPS`] or what is left. `wide` is working memory.
    ///
    /// # Safety
    /// queries (n,HS), n rows of scores, a stretch apart, with room for these groups.
    pub unsafe fn scores(&self, queries: *const f32, n: usize, first: usize, wide: &mut [f32], scores: *mut f32) {
        let (pages, path, head, hs) = (self.pages, self.path, self.head, self.pages.dims().hs);
        let groups = (self.all - first).div_ceil(GROUP).min(GROUPS);
        #[cfg(target_arch = "x86_64")]
        if self.direct(n) {
            let stored: [_; GROUPS] =
                std::array::from_fn(|i| pages.stored_keys(self.place(first + i.min(groups - 1) * GROUP), head));
            let keys = paged512::Keys {
                kind: pages.dims().kind,
                hs,
                groups: stored.map(|(keys, _)| keys.as_ptr()),
                scales: stored.map(|(_, scales)| scales.as_ptr()),
                ahead: std::array::from_fn(|i| {
                    self.after_keys(first + (self.groups_ahead().next_multiple_of(GROUPS) + i) * GROUP)
                }),
            };
            // SAFETY: groups of keys with their scales; the rest is handed on; the path's features were detected.
            return unsafe { paged512::dot(queries, n, keys, groups, scores) };
        }
        for (i, wide) in wide.chunks_exact_mut(GROUP * hs).enumerate().take(groups) {
            let group = first + i * GROUP;
            if group + GROUPS * GROUP < self.all {
                pages.ask_keys(self.place(group + GROUPS * GROUP), head);
            }
            pages.keys(path, self.place(group), head, wide);
        }
        // SAFETY: 16 keys a group; the rest is handed on.
        unsafe { dot(path, queries, n, hs, wide.as_ptr(), groups, scores) };
    }

    /// Values of `count` positions from `group` on for `n` queries. `wide` is working memory.
    pub fn values<'a>(&self, n: usize, group: usize, count: usize, width: usize, wide: &'a mut [f32]) -> Read<'a> {
        let (pages, path) = (self.pages, self.path);
        #[cfg(target_arch = "x86_64")]
        if self.direct(n) {
            let (values, scales) = pages.stored_values(self.place(group), self.head, count);
            let (kind, hs) = (pages.dims().kind, pages.dims().hs);
            let ahead = self.after_values(group + self.groups_ahead() * GROUP);
            return Read::Stored(paged512::Values {
                kind,
                hs,
                count,
                at: values.as_ptr(),
                scales: scales.as_ptr(),
                ahead,
            });
        }
        let _ = n;
        if group + 2 * GROUP < self.all {
            pages.ask_values(self.place(group + 2 * GROUP), self.head);
        }
        pages.values(path, self.place(group), self.head, count, width, wide);
        Read::Wide(wide)
    }

    /// Groups from the one that is read to the one that is asked for.
    #[cfg(target_arch = "x86_64")]
    fn groups_ahead(&self) -> usize {
        let dims = self.pages.dims();
        AHEAD.div_ceil(GROUP * dims.kind.bytes(dims.hs))
    }

    /// Where the keys from position `at` on lie; behind the last ones begin the values.
    #[cfg(target_arch = "x86_64")]
    fn after_keys(&self, at: usize) -> *const u8 {
        let behind = at.saturating_sub(self.all.next_multiple_of(GROUP));
        match at < self.all {
            true => self.pages.stored_keys(self.place(at), self.head).0.as_ptr(),
            false => self.pages.stored_values(self.place(behind.min(self.all - 1)), self.head, 0).0.as_ptr(),
        }
    }

    /// Where the values from position `at` on lie; behind the last ones begin the keys of the next stretch, if there is one.
    #[cfg(target_arch = "x86_64")]
    fn after_values(&self, at: usize) -> *const u8 {
        let behind = STRETCH + at.saturating_sub(self.all.next_multiple_of(GROUP));
        if at < self.all {
            self.pages.stored_values(self.place(at), self.head, 0).0.as_ptr()
        } else if self.start + behind < self.end {
            self.pages.stored_keys(self.place(behind / GROUP * GROUP), self.head).0.as_ptr()
        } else {
            std::ptr::null()
        }
    }
}

impl Read<'_> {
    /// sums\[q\] += Σ_s p\[q\]\[s\] · values\[s\] for the first `count` positions, s ascending.
    ///
    /// # Safety
    /// n rows of p, a stretch apart, with `count` weights each, as many values, n rows of sums (width).
    pub unsafe fn add_weighted(&self, path: Path, p: *const f32, n: usize, count: usize, width: usize, sums: *mut f32) {
        // SAFETY: handed on; values are read as they are stored only where the path's features were detected.
        unsafe {
            match self {
                Read::Wide(values) => add_weighted(path, p, n, count, values.as_ptr(), width, sums),
                #[cfg(target_arch = "x86_64")]
                Read::Stored(values) => {
                    paged512::add_weighted(p, n, paged512::Values { count, ..*values }, width, sums)
                }
            }
        }
    }
}
