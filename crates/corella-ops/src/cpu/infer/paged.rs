//! Attention over a paged cache of keys and values.
//!
//! The positions of a sequence are cut into stretches of 256, at the same places for every row. Inside a stretch a query's
//! scores are sums over the head's dimensions in their order, its weights relative to the stretch's largest score, its
//! weighted values summed in the order of positions; the stretches are put together in ascending order (online softmax;
//! Milakov and Gimelshein, arXiv 1805.02867). So a row's bits do not depend on the rows computed beside it, nor on which
//! thread took which stretch.

use super::super::gemm::Workers;
use super::super::math::{exp, sum};
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::simd::with_simd;
use super::super::vectorized::vectorized;
use super::batch::Batch;
use super::paged_read::Part;
use super::pages::{GROUP, KvPages};
use super::shares;
use crate::contract_infer::HeadDims;

/// Positions of a stretch.
pub const STRETCH: usize = 256;
/// Queries that pass by a stretch together: their scores and sums stay in the first-level cache.
const QUERIES: usize = 16;
/// Groups of keys that queries meet together: with one, a query's sum waits for itself at every dimension.
pub const GROUPS: usize = 2;

/// Rows of one sequence at consecutive positions.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// First row.
    row: usize,
    /// Rows.
    rows: usize,
    sequence: u32,
    /// Position of the first row.
    position: usize,
}

/// Cuts a batch into chunks of at most `most` rows.
fn chunks(batch: &Batch, most: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (row, at) in batch.rows.iter().enumerate() {
        let position = at.position as usize;
        match chunks.last_mut() {
            Some(c) if c.sequence == at.sequence && c.position + c.rows == position && c.rows < most => c.rows += 1,
            _ => chunks.push(Chunk { row, rows: 1, sequence: at.sequence, position }),
        }
    }
    chunks
}

/// See [`crate::OpsInfer::attention_paged`].
pub fn attention(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    pages: &mut KvPages,
    qkv: &[f32],
    batch: &Batch,
    d: HeadDims,
) {
    pages.write(pool, path, qkv, batch, d);
    let heads = d.nh / d.nkv;
    let chunks = chunks(batch, (QUERIES / heads).max(1));
    let call = Call { path, pages, qkv, batch, d, width: d.hs.next_multiple_of(GROUP) };
    let out = SharedMut::new(out);
    let tasks = chunks.len() * d.nkv;
    let stretches = |chunk: &Chunk| (chunk.position + chunk.rows).div_ceil(STRETCH);
    let most = chunks.iter().map(stretches).max().unwrap_or(0);
    if tasks >= 4 * pool.threads() || most <= 1 {
        pool.run(tasks, &|task| {
            let (chunk, head) = (&chunks[task / d.nkv], task % d.nkv);
            let mut whole = Partial::new(chunk.rows * heads, call.width);
            let mut part = Partial::new(chunk.rows * heads, call.width);
            whole.clear();
            for stretch in 0..stretches(chunk) {
                call.stretch(chunk, head, stretch, &mut part.numbers);
                whole.add(path, &part.numbers);
            }
            call.finish(chunk, head, &whole, &out);
        });
        return;
    }
    // Few queries, long contexts: each stretch is a task.
    let size = Partial::len((QUERIES / heads).max(1) * heads, call.width);
    let mut space = Scratch::<f32>::new(tasks * most * size);
    let shared = SharedMut::new(&mut space);
    shares::run(Workers::Pool(pool), tasks * most, &|task| {
        let (chunk, head, stretch) = (&chunks[task / most / d.nkv], task / most % d.nkv, task % most);
        if stretch < stretches(chunk) {
            // SAFETY: each task has its own part.
            call.stretch(chunk, head, stretch, unsafe { shared.part(task * size, size) });
        }
    });
    pool.run(tasks, &|task| {
        let (chunk, head) = (&chunks[task / d.nkv], task % d.nkv);
        let mut whole = Partial::new(chunk.rows * heads, call.width);
        whole.clear();
        for stretch in 0..stretches(chunk) {
            // SAFETY: written by the region before, and only read here.
            whole.add(path, unsafe { shared.part((task * most + stretch) * size, size) });
        }
        call.finish(chunk, head, &whole, &out);
    });
}

/// For some queries: the weighted values (queries, width), then the largest score of each, then the sums of weights.
struct Partial {
    numbers: Scratch,
    queries: usize,
    width: usize,
}

impl Partial {
    fn len(queries: usize, width: usize) -> usize {
        queries * (width + 2)
    }

    fn new(queries: usize, width: usize) -> Partial {
        Partial { numbers: Scratch::new(Partial::len(queries, width)), queries, width }
    }

    /// Nothing seen yet.
    fn clear(&mut self) {
        let (values, rest) = self.numbers.split_at_mut(self.queries * self.width);
        values.fill(0.0);
        rest[..self.queries].fill(f32::NEG_INFINITY);
        rest[self.queries..].fill(0.0);
    }

    /// Puts the next stretch behind what was seen.
    fn add(&mut self, path: Path, next: &[f32]) {
        let (n, width) = (self.queries, self.width);
        let (values, rest) = self.numbers.split_at_mut(n * width);
        let (max, sum) = rest.split_at_mut(n);
        for q in 0..n {
            let (next_max, next_sum) = (next[n * width + q], next[n * width + n + q]);
            if next_sum == 0.0 {
                // The query stands before this stretch.
                continue;
            }
            let both = if max[q] > next_max { max[q] } else { next_max };
            let (old, new) = (exp(max[q] - both), exp(next_max - both));
            sum[q] = sum[q] * old + next_sum * new;
            max[q] = both;
            merge(path, &mut values[q * width..][..width], &next[q * width..][..width], old, new);
        }
    }
}

vectorized! {
    /// a ← a·old + b·new.
    fn merge(a: &mut [f32], b: &[f32], old: f32, new: f32) {
        for (a, b) in a.iter_mut().zip(b) {
            *a = *a * old + b * new;
        }
    }
}

/// What all tasks share.
struct Call<'a> {
    path: Path,
    pages: &'a KvPages,
    qkv: &'a [f32],
    batch: &'a Batch,
    d: HeadDims,
    /// HS, filled up to whole vectors.
    width: usize,
}

impl Call<'_> {
    /// The queries of a chunk that read head `head` (rows, heads of the group), against one stretch.
    fn stretch(&self, chunk: &Chunk, head: usize, stretch: usize, out: &mut [f32]) {
        let (hs, width, heads) = (self.d.hs, self.width, self.d.nh / self.d.nkv);
        let n = chunk.rows * heads;
        let start = stretch * STRETCH;
        // Positions of the stretch that each row sees.
        let seen = |q: usize| (chunk.position + q / heads + 1).saturating_sub(start).min(STRETCH);
        let all = seen(n - 1);
        let mut space = Scratch::<f32>::new(n * (hs + STRETCH) + GROUPS * GROUP * width.max(hs));
        let (queries, rest) = space.split_at_mut(n * hs);
        let (scores, wide) = rest.split_at_mut(n * STRETCH);
        let scale = 1.0 / (hs as f32).sqrt();
        for (q, query) in queries.chunks_exact_mut(hs).enumerate() {
            let from = (chunk.row + q / heads) * self.d.qkv() + (head * heads + q % heads) * hs;
            query.iter_mut().zip(&self.qkv[from..]).for_each(|(to, x)| *to = x * scale);
        }
        let part =
            Part { pages: self.pages, batch: self.batch, path: self.path, sequence: chunk.sequence, head, start, all };
        // SAFETY: n queries of hs numbers, and for each a row of scores.
        unsafe { part.scores(queries.as_ptr(), n, wide, scores.as_mut_ptr()) };
        let (values, statistics) = out.split_at_mut(n * width);
        for (q, scores) in scores.chunks_exact_mut(STRETCH).enumerate() {
            (statistics[q], statistics[n + q]) = weights(self.path, &mut scores[..seen(q)]);
        }
        values.fill(0.0);
        for group in (0..all).step_by(GROUP) {
            let count = GROUP.min(all - group);
            let read = part.values(n, group, count, width, wide);
            // Queries that see all of these positions together; the others, at the end of a prompt, each as far as it sees.
            let first = (0..n).find(|q| seen(*q) >= group + count).unwrap_or(n);
            let ends = (0..first).map(|q| (q, 1, seen(q).saturating_sub(group).min(count)));
            for (q, n, count) in ends.chain((first < n).then_some((first, n - first, count))) {
                let (p, sums) = (&scores[q * STRETCH + group..], &mut values[q * width..]);
                // SAFETY: `n` queries with `count` weights each, `count` values, as many rows of sums.
                unsafe { read.add_weighted(self.path, p.as_ptr(), n, count, width, sums.as_mut_ptr()) };
            }
        }
    }

    /// Divides by the sums of weights and writes the heads of the chunk's rows.
    fn finish(&self, chunk: &Chunk, head: usize, whole: &Partial, out: &SharedMut<'_>) {
        let (hs, heads, n) = (self.d.hs, self.d.nh / self.d.nkv, whole.queries);
        for (q, values) in whole.numbers.chunks_exact(self.width).enumerate().take(n) {
            let inverse = 1.0 / whole.numbers[n * self.width + n + q];
            let to = ((chunk.row + q / heads) * self.d.nh + head * heads + q % heads) * hs;
            // SAFETY: this head of this row belongs to this task.
            let out = unsafe { out.part(to, hs) };
            out.iter_mut().zip(values).for_each(|(out, x)| *out = x * inverse);
        }
    }
}

vectorized! {
    /// scores ← exp(scores − their largest); returns the largest and the sum. Of no scores: −∞ and 0.
    fn weights(scores: &mut [f32]) -> (f32, f32) {
        if scores.is_empty() {
            return (f32::NEG_INFINITY, 0.0);
        }
        let max = super::super::attention::max_of(scores);
        for x in scores.iter_mut() {
            *x = exp(*x - max);
        }
        (max, sum(scores, |x| x))
    }
}

with_simd! {
    /// scores[q][g][0 .. 16] = Σ_i queries[q][i] · keys[g][i][0 .. 16], i ascending, for n queries and one or two groups;
    /// rows of scores are a stretch apart.
    ///
    /// # Safety
    /// queries (n,hs), keys (groups,hs,16), n rows of scores with 16 places a group at the front of each.
    pub unsafe fn dot<S>(
        queries: *const f32,
        n: usize,
        hs: usize,
        keys: *const f32,
        groups: usize,
        scores: *mut f32,
    ) {
        // SAFETY: handed on.
        unsafe {
            let mut q = 0;
            while q < n {
                let (queries, scores) = (queries.add(q * hs), scores.add(q * STRETCH));
                match (q + 4 <= n, groups) {
                    (true, GROUPS) => dot_tile::<S, 4, GROUPS>(queries, hs, keys, scores),
                    (true, _) => dot_tile::<S, 4, 1>(queries, hs, keys, scores),
                    (false, GROUPS) => dot_tile::<S, 1, GROUPS>(queries, hs, keys, scores),
                    (false, _) => dot_tile::<S, 1, 1>(queries, hs, keys, scores),
                }
                q += if q + 4 <= n { 4 } else { 1 };
            }
        }
    }
}

/// `N` queries and `G` groups of [`dot`].
///
/// # Safety
/// As there, and the features of `S`.
#[inline(always)]
unsafe fn dot_tile<S: super::super::simd::Simd, const N: usize, const G: usize>(
    queries: *const f32,
    hs: usize,
    keys: *const f32,
    scores: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        for lane in (0..GROUP).step_by(S::LANES) {
            let mut sums = [[S::splat(0.0); G]; N];
            for i in 0..hs {
                let mut key = [S::splat(0.0); G];
                for (g, key) in key.iter_mut().enumerate() {
                    *key = S::load(keys.add((g * hs + i) * GROUP + lane));
                }
                for (q, sums) in sums.iter_mut().enumerate() {
                    let x = S::splat(*queries.add(q * hs + i));
                    for (sum, key) in sums.iter_mut().zip(key) {
                        *sum = S::fma(x, key, *sum);
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                for (g, sum) in sums.iter().enumerate() {
                    S::store(scores.add(q * STRETCH + g * GROUP + lane), *sum);
                }
            }
        }
    }
}

with_simd! {
    /// sums[q] += Σ_s p[q][s] · values[s], s ascending, for n queries and `count` positions; rows of p are a stretch apart.
    ///
    /// # Safety
    /// n rows of p with `count` weights, values (count,width), sums (n,width); width is a multiple of 16.
    pub unsafe fn add_weighted<S>(
        p: *const f32,
        n: usize,
        count: usize,
        values: *const f32,
        width: usize,
        sums: *mut f32,
    ) {
        // SAFETY: handed on.
        unsafe {
            for lane in (0..width).step_by(GROUP) {
                let mut q = 0;
                while q + 4 <= n {
                    add_tile::<S, 4>(p.add(q * STRETCH), count, values.add(lane), width, sums.add(q * width + lane));
                    q += 4;
                }
                while q < n {
                    add_tile::<S, 1>(p.add(q * STRETCH), count, values.add(lane), width, sums.add(q * width + lane));
                    q += 1;
                }
            }
        }
    }
}

/// `N` queries and 16 columns of [`add_weighted`].
///
/// # Safety
/// As there, and the features of `S`.
#[inline(always)]
unsafe fn add_tile<S: super::super::simd::Simd, const N: usize>(
    p: *const f32,
    count: usize,
    values: *const f32,
    width: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises.
    unsafe {
        for lane in (0..GROUP).step_by(S::LANES) {
            let mut tile = [S::splat(0.0); N];
            for (q, sum) in tile.iter_mut().enumerate() {
                *sum = S::load(sums.add(q * width + lane));
            }
            for s in 0..count {
                let value = S::load(values.add(s * width + lane));
                for (q, sum) in tile.iter_mut().enumerate() {
                    *sum = S::fma(S::splat(*p.add(q * STRETCH + s)), value, *sum);
                }
            }
            for (q, sum) in tile.iter().enumerate() {
                S::store(sums.add(q * width + lane), *sum);
            }
        }
    }
}
