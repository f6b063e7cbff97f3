//! How queries of a stretch read keys and values of the cache: converted as they are read where there are kernels for that and
//! few queries, else converted first, for all of them.

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::batch::Batch;
use super::paged::{GROUPS, add_weighted, dot};
#[cfg(target_arch = "x86_64")]
use super::paged512;
use super::pages::{GROUP, KvPages};

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

    /// Scores of all keys of the stretch. `wide` is working memory.
    ///
    /// # Safety
    /// queries (n,HS), n rows of scores, a stretch apart, with room for whole groups.
    pub unsafe fn scores(&self, queries: *const f32, n: usize, wide: &mut [f32], scores: *mut f32) {
        #[cfg(target_arch = "x86_64")]
        if self.direct(n) {
            // SAFETY: handed on; the path's features were detected.
            return unsafe { self.scores_as_stored(queries, n, scores) };
        }
        let (pages, path, head, hs) = (self.pages, self.path, self.head, self.pages.dims().hs);
        for first in (0..self.all).step_by(GROUPS * GROUP) {
            let groups = (self.all - first).div_ceil(GROUP).min(GROUPS);
            for (i, wide) in wide.chunks_exact_mut(GROUP * hs).enumerate().take(groups) {
                let group = first + i * GROUP;
                if group + GROUPS * GROUP < self.all {
                    pages.ask_keys(self.place(group + GROUPS * GROUP), head);
                }
                pages.keys(path, self.place(group), head, wide);
            }
            // SAFETY: 16 keys a group; the rest is handed on.
            unsafe { dot(path, queries, n, hs, wide.as_ptr(), groups, scores.add(first)) };
        }
    }

    /// The same, converting keys as they are read: those of the first and of the second half side by side, two streams that
    /// the processor itself looks ahead on. Pairs of neighbours are read slower by a tenth: each ends where the other begins.
    ///
    /// # Safety
    /// As there; the processor has AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn scores_as_stored(&self, queries: *const f32, n: usize, scores: *mut f32) {
        let dims = self.pages.dims();
        let groups = self.all.div_ceil(GROUP);
        let half = groups.div_ceil(GROUPS);
        for first in 0..half {
            let count = if first + half < groups { GROUPS } else { 1 };
            let places: [usize; GROUPS] = std::array::from_fn(|i| (first + i.min(count - 1) * half) * GROUP);
            let stored = places.map(|place| self.pages.stored_keys(self.place(place), self.head));
            let keys = paged512::Keys {
                kind: dims.kind,
                hs: dims.hs,
                groups: stored.map(|(keys, _)| keys.as_ptr()),
                scales: stored.map(|(_, scales)| scales.as_ptr()),
                places,
            };
            // SAFETY: groups of keys with their scales; the rest is handed on.
            unsafe { paged512::dot(queries, n, keys, count, scores) };
        }
    }

    /// Values of `count` positions from `group` on for `n` queries. `wide` is working memory.
    pub fn values<'a>(&self, n: usize, group: usize, count: usize, width: usize, wide: &'a mut [f32]) -> Read<'a> {
        let (pages, path) = (self.pages, self.path);
        #[cfg(target_arch = "x86_64")]
        if self.direct(n) {
            let (values, scales) = pages.stored_values(self.place(group), self.head, count);
            let (kind, hs) = (pages.dims().kind, pages.dims().hs);
            let (at, scales) = (values.as_ptr(), scales.as_ptr());
            return Read::Stored(paged512::Values { kind, hs, count, at, scales });
        }
        let _ = n;
        if group + 2 * GROUP < self.all {
            pages.ask_values(self.place(group + 2 * GROUP), self.head);
        }
        pages.values(path, self.place(group), self.head, count, width, wide);
        Read::Wide(wide)
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
