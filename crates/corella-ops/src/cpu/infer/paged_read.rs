//! How queries meet a stretch of the cache: few of them read keys and values as they are stored, where there are kernels that
//! convert what they read; for more, keys and values are converted first.

use super::super::path::Path;
use super::super::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use super::ahead;
use super::batch::Batch;
use super::paged::STRETCH;
use super::paged_tile::{MOST, Scales, add_weighted, scores, tile_rows, tiles, weights};
use super::pages::{GROUP, KvPages};
#[cfg(target_arch = "x86_64")]
use super::{paged_direct, paged512};
use crate::contract_infer::KvKind;

/// Groups of keys that are converted at a time: what a tile's sums meet side by side.
pub const GROUPS: usize = 2;
/// Queries up to which values are converted a few at a time, to be met in the first-level cache.
const FEW: usize = 8;

/// Some queries and a stretch.
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
    /// Positions that the last row sees, from the first of the text on.
    pub end: usize,
    /// Queries of a row: the heads that read `head`.
    pub heads: usize,
    /// Positions of the stretch that the first row sees, if it is not outside; each row sees one more than that before it.
    pub first: isize,
    /// Queries.
    pub n: usize,
    /// HS, filled up to whole groups.
    pub width: usize,
}

/// Whether `n` queries of heads of `hs` dimensions read keys and values as they are stored.
pub fn is_direct(path: Path, n: usize, hs: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    return paged_direct::has_loops(path, n, hs);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (path, n, hs);
        false
    }
}

impl Part<'_> {
    /// Where position `at` of the stretch lies.
    fn place(&self, at: usize) -> (usize, usize) {
        self.batch.place(self.sequence, self.start + at)
    }

    /// How many positions of the stretch from `at` on, up to `end`, lie behind each other in memory.
    #[cfg(target_arch = "x86_64")]
    fn run(&self, at: usize, end: usize) -> usize {
        self.batch.run(self.sequence, self.start + at, self.start + end)
    }

    /// Positions of the stretch that a query sees.
    fn seen(&self, q: usize) -> usize {
        (self.first + (q / self.heads) as isize).clamp(0, STRETCH as isize) as usize
    }

    /// The first query that sees a position.
    fn first_to_see(&self, position: usize) -> usize {
        let rows = position as isize + 1 - self.first;
        (rows.max(0) as usize * self.heads).min(self.n)
    }

    /// Weighted values (n,width) of the queries, then for each the largest score, in powers of two, then the sums of weights.
    /// `scores` is working memory, (n,stretch).
    pub fn attend(&self, queries: &[f32], scores: &mut [f32], values: &mut [f32], statistics: &mut [f32]) {
        assert!(queries.len() >= self.n * self.pages.dims().hs && scores.len() >= self.n * STRETCH);
        assert!(values.len() >= self.n * self.width && statistics.len() >= 2 * self.n);
        let all = self.seen(self.n - 1);
        values.fill(0.0);
        #[cfg(target_arch = "x86_64")]
        if is_direct(self.path, self.n, self.pages.dims().hs) {
            self.first_scores(queries, scores);
            self.ask_next_keys();
            self.all_weights(scores, statistics);
            return self.values_as_stored(scores, values);
        }
        let mut space = [[0.0; STRETCH]; 2];
        let scales = self.scales(&mut space);
        self.score(queries, all, scores);
        self.add_values(all, scores, scales, values, statistics);
    }

    /// Scales of the keys and of the values that any query sees; of [`KvKind::Q8`] only.
    fn scales<'s>(&self, space: &'s mut Scales) -> Option<&'s Scales> {
        (self.pages.dims().kind == KvKind::Q8).then(|| {
            for group in (0..self.seen(self.n - 1)).step_by(GROUP) {
                let [keys, values] = self.pages.scales(self.place(group), self.head);
                space[0][group..group + GROUP].copy_from_slice(keys);
                space[1][group..group + GROUP].copy_from_slice(values);
            }
            &*space
        })
    }

    /// Scores of the `rows` queries of a tile from query `first` on become weights.
    fn weights(
        &self,
        (first, rows): (usize, usize),
        scores: &mut [f32],
        scales: Option<&Scales>,
        statistics: &mut [f32],
    ) {
        let mut seen = [0; MOST];
        seen.iter_mut().enumerate().take(rows).for_each(|(i, seen)| *seen = self.seen(first + i));
        let mut both = [(0.0, 0.0); MOST];
        let scores = &mut scores[first * STRETCH..][..rows * STRETCH];
        // SAFETY: a stretch of scores for each query.
        unsafe { weights(self.path, scores.as_mut_ptr(), &seen[..rows], scales, &mut both[..rows]) };
        for (q, (max, sum)) in both[..rows].iter().enumerate() {
            (statistics[first + q], statistics[self.n + first + q]) = (*max, *sum);
        }
    }

    /// Scores of all keys that any query sees.
    fn score(&self, queries: &[f32], all: usize, to: &mut [f32]) {
        let (pages, path, head, hs) = (self.pages, self.path, self.head, self.pages.dims().hs);
        let mut wide = Scratch::<f32>::new(GROUPS * GROUP * hs);
        for first in (0..all).step_by(GROUPS * GROUP) {
            let groups = (all - first).div_ceil(GROUP).min(GROUPS);
            for (i, wide) in wide.chunks_exact_mut(GROUP * hs).enumerate().take(groups) {
                let group = first + i * GROUP;
                if group + GROUPS * GROUP < all {
                    pages.ask_keys(self.place(group + GROUPS * GROUP), head);
                }
                pages.keys(path, self.place(group), head, wide);
            }
            let (keys, to) = (wide.as_ptr(), to[first..].as_mut_ptr());
            // SAFETY: n queries by tiles, 16 keys a group, n rows of scores (lengths asserted by the caller).
            unsafe { scores(path, queries.as_ptr(), self.first_to_see(first), self.n, hs, keys, groups, to) };
        }
    }

    /// Scores become weights, and values with their weights are added up.
    fn add_values(
        &self,
        all: usize,
        scores: &mut [f32],
        scales: Option<&Scales>,
        sums: &mut [f32],
        statistics: &mut [f32],
    ) {
        let (pages, path, width) = (self.pages, self.path, self.width);
        let together = if self.n <= FEW { GROUPS * GROUP } else { STRETCH };
        let mut wide = Scratch::<f32>::new(together * width);
        for start in (0..all).step_by(together) {
            let end = (start + together).min(all);
            for (group, wide) in (start..end).step_by(GROUP).zip(wide.chunks_mut(GROUP * width)) {
                if group + GROUPS * GROUP < all {
                    pages.ask_values(self.place(group + GROUPS * GROUP), self.head);
                }
                pages.values(path, self.place(group), self.head, GROUP.min(end - group), width, wide);
            }
            for (first, rows) in tiles(self.n, tile_rows(path)) {
                if start == 0 {
                    self.weights((first, rows), scores, scales, statistics);
                }
                // What all queries of the tile see together; then what each sees beyond that, at the end of a prompt.
                let count = |q: usize| self.seen(q).clamp(start, end) - start;
                let common = count(first);
                let beyond = (first..first + rows).filter(|q| count(*q) > common).map(|q| (q, 1, common, count(q)));
                for (q, rows, from, to) in std::iter::once((first, rows, 0, common)).chain(beyond) {
                    let p = scores[q * STRETCH + start + from..].as_ptr();
                    let (values, sums) = (wide[from * width..].as_ptr(), sums[q * width..].as_mut_ptr());
                    // SAFETY: rows of weights, values of positions from `from` on, rows of sums (lengths asserted by the caller).
                    unsafe { add_weighted(path, p, rows, to - from, values, width, sums) };
                }
            }
        }
    }

    /// Scores of the stretch, and the first values asked for, which nothing that is read before them asks for.
    #[cfg(target_arch = "x86_64")]
    pub fn first_scores(&self, queries: &[f32], scores: &mut [f32]) {
        assert!(queries.len() >= self.n * self.pages.dims().hs && scores.len() >= self.n * STRETCH);
        if !paged_direct::reads_in_turn(self.path) {
            ahead::ask(self.pages.stored_values(self.place(0), self.head, 1).as_ptr(), paged_direct::AHEAD);
        }
        // SAFETY: lengths as asserted; the path's features were detected.
        unsafe { self.scores_as_stored(queries.as_ptr(), self.seen(self.n - 1), scores.as_mut_ptr()) };
    }

    /// Scores of all queries become weights.
    #[cfg(target_arch = "x86_64")]
    pub fn all_weights(&self, scores: &mut [f32], statistics: &mut [f32]) {
        let mut space = [[0.0; STRETCH]; 2];
        let scales = self.scales(&mut space);
        self.weights((0, self.n), scores, scales, statistics);
    }

    /// Whether the stretch is read while the values of the one before it are: one row of few heads, and all of the stretch seen.
    #[cfg(target_arch = "x86_64")]
    pub fn is_beside(&self) -> bool {
        let dims = self.pages.dims();
        !paged_direct::reads_in_turn(self.path)
            && paged512::reads_beside(dims.kind, dims.hs, self.n)
            && self.n == self.heads
            && self.seen(0) == STRETCH
    }

    /// Adds the stretch's values up, with weights in `scores`, and computes the scores of the next one.
    #[cfg(target_arch = "x86_64")]
    pub fn values_and_next(
        &self,
        next: &Part<'_>,
        queries: &[f32],
        scores: &[f32],
        next_scores: &mut [f32],
        sums: &mut [f32],
    ) {
        if !next.is_beside() {
            self.values_as_stored(scores, sums);
            return next.first_scores(queries, next_scores);
        }
        assert!(queries.len() >= self.n * self.width && sums.len() >= self.n * self.width);
        assert!(scores.len() >= self.n * STRETCH && next_scores.len() >= self.n * STRETCH);
        let dims = self.pages.dims();
        let group_bytes = self.pages.group_bytes();
        let ahead = paged_direct::AHEAD.div_ceil(group_bytes);
        let half = STRETCH / GROUP / GROUPS;
        let stored_keys = |at| self.pages.stored_keys(next.place(at), self.head, 1).as_ptr();
        let stored_values = |at| self.pages.stored_values(self.place(at), self.head, 1).as_ptr();
        for first in 0..half {
            let places: [usize; GROUPS] = std::array::from_fn(|i| (first + i * half) * GROUP);
            // Where a half of the stretch ends, the same half of the one behind it.
            let soon = places.map(|place| {
                let later = place + ahead * GROUP + if first + ahead < half { 0 } else { STRETCH - half * GROUP };
                match next.start + later < self.end {
                    true => stored_keys(later),
                    false => stored_keys(place).wrapping_add(ahead * group_bytes),
                }
            });
            let groups = places.map(stored_keys);
            let keys = paged_direct::Keys { kind: dims.kind, hs: dims.hs, run: 1, groups, soon, places };
            let at: [usize; GROUPS] = std::array::from_fn(|i| (first * GROUPS + i) * GROUP);
            // The next stretch is seen, and with it what follows in this one.
            let values = paged512::Beside {
                at: at.map(stored_values),
                soon: at.map(|at| stored_values((at + ahead * GROUP).min(2 * STRETCH - GROUP))),
            };
            let (p, to) = (scores[at[0]..].as_ptr(), next_scores.as_mut_ptr());
            // SAFETY: two whole groups of keys and of values, n queries, rows of weights and scores and sums (lengths as asserted);
            // the path's features were detected.
            unsafe { paged512::dot_and_add(queries.as_ptr(), self.n, keys, to, p, values, sums.as_mut_ptr()) };
        }
    }

    /// Scores, converting keys as they are read: one after the other, if keys and values are read in turn; else those of the first
    /// and of the second half side by side, two streams that the processor itself looks ahead on. Pairs of neighbours are read
    /// slower by a tenth: each ends where the other begins.
    ///
    /// # Safety
    /// queries (n,HS), n rows of scores, a stretch apart, with room for whole groups; [`is_direct`].
    #[cfg(target_arch = "x86_64")]
    unsafe fn scores_as_stored(&self, queries: *const f32, all: usize, scores: *mut f32) {
        let dims = self.pages.dims();
        let groups = all.div_ceil(GROUP);
        let in_turn = paged_direct::reads_in_turn(self.path);
        let half = if in_turn { groups } else { groups.div_ceil(GROUPS) };
        let group_bytes = self.pages.group_bytes();
        let ahead = paged_direct::AHEAD.div_ceil(group_bytes);
        let mut first = 0;
        while first < half {
            let (count, until) = if first + half < groups { (GROUPS, groups - half) } else { (1, half) };
            let places: [usize; GROUPS] = std::array::from_fn(|i| (first + i.min(count - 1) * half) * GROUP);
            let runs = places.map(|place| self.run(place, place + (until - first) * GROUP) / GROUP);
            let run = runs[0].min(runs[1]);
            let stored = |place, count| self.pages.stored_keys(self.place(place), self.head, count).as_ptr();
            // While the stream lasts, wherever its pages are; then what follows in memory, likely the next stretch.
            let soon = places.map(|place| match place + ahead * GROUP {
                _ if in_turn => self.pages.stored_values(self.place(place), self.head, 1).as_ptr(),
                later if first + ahead < half && later < all => stored(later, 1),
                _ => stored(place, 1).wrapping_add(ahead * group_bytes),
            });
            let groups = places.map(|place| stored(place, run));
            let keys = paged_direct::Keys { kind: dims.kind, hs: dims.hs, run, groups, soon, places };
            // SAFETY: runs of groups of keys; the rest is handed on.
            unsafe { paged_direct::dot(self.path, queries, self.n, keys, count, scores) };
            first += run;
        }
    }

    /// Asks for the keys of the next stretch, where [`Part::scores_as_stored`] begins.
    #[cfg(target_arch = "x86_64")]
    pub fn ask_next_keys(&self) {
        if paged_direct::reads_in_turn(self.path) {
            return;
        }
        let next = (self.end - self.start).saturating_sub(STRETCH).min(STRETCH);
        let groups = next.div_ceil(GROUP);
        for group in [0, groups.div_ceil(GROUPS)].iter().filter(|group| **group < groups) {
            let keys = self.pages.stored_keys(self.place(STRETCH + group * GROUP), self.head, 1);
            ahead::ask(keys.as_ptr(), paged_direct::AHEAD);
        }
    }

    /// What is read after the values of a stretch as the values from position `at` on are read in it: keys of the next one, if there
    /// are any.
    #[cfg(target_arch = "x86_64")]
    fn next_keys(&self, at: usize) -> *const u8 {
        let group = STRETCH + at / GROUP * GROUP;
        let line = at % GROUP * (self.pages.group_bytes() / GROUP);
        match self.start + group < self.end {
            true => self.pages.stored_keys(self.place(group), self.head, 1).as_ptr().wrapping_add(line),
            false => std::ptr::null(),
        }
    }

    /// Adds values up, converting them as they are read: what all queries see together; then what each sees beyond that, at the end
    /// of a prompt.
    #[cfg(target_arch = "x86_64")]
    pub fn values_as_stored(&self, scores: &[f32], sums: &mut [f32]) {
        let common = self.seen(0);
        let beyond = (0..self.n).map(|q| (q, 1, common, self.seen(q)));
        for (q, n, from, to) in std::iter::once((0, self.n, 0, common)).chain(beyond) {
            let mut at = from;
            while at < to {
                let count = self.run(at, to);
                self.add_as_stored((q, n), (at, count), scores, sums);
                at += count;
            }
        }
    }

    /// Adds up `count` values from position `at` on for `n` queries from query `q` on.
    #[cfg(target_arch = "x86_64")]
    fn add_as_stored(&self, (q, n): (usize, usize), (at, count): (usize, usize), scores: &[f32], sums: &mut [f32]) {
        let dims = self.pages.dims();
        let stored = |at, count| self.pages.stored_values(self.place(at), self.head, count).as_ptr();
        let group_bytes = self.pages.group_bytes();
        let ahead = paged_direct::AHEAD.div_ceil(group_bytes);
        // As for keys.
        let soon = match at + ahead * GROUP {
            _ if paged_direct::reads_in_turn(self.path) => self.next_keys(at),
            later if later < self.seen(self.n - 1) => stored(later, 1),
            _ => stored(at, 1).wrapping_add(ahead * group_bytes),
        };
        let values = paged_direct::Values { kind: dims.kind, hs: dims.hs, count, at: stored(at, count), soon };
        let (p, sums) = (scores[q * STRETCH + at..].as_ptr(), sums[q * self.width..].as_mut_ptr());
        // SAFETY: `n` queries with `count` weights each, `count` values, as many rows of sums; the path's features were
        // detected.
        unsafe { paged_direct::add_weighted(self.path, p, n, values, self.width, sums) };
    }
}
