//! Attention over a paged cache of keys and values.
//!
//! The positions of a sequence are cut into stretches of 256, at the same places for every row. Inside a stretch a query's
//! scores are sums over the head's dimensions in their order, its weights relative to the stretch's largest score, its
//! weighted values summed in the order of positions; the stretches are put together in ascending order (online softmax;
//! Milakov and Gimelshein, arXiv 1805.02867). So a row's bits do not depend on the rows computed beside it, nor on which
//! thread took which stretch.

use super::super::gemm::Workers;
use super::super::math::exp;
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::batch::Batch;
use super::paged_read::{Part, is_direct};
use super::paged_tile::{tile_rows, tiles};
use super::pages::{GROUP, KvPages};
use super::shares;
use crate::contract_infer::HeadDims;

/// Positions of a stretch.
pub const STRETCH: usize = 256;
/// Queries that pass by a stretch together, at most, unless a group of heads is larger: what is converted is converted for all of
/// them, and their scores stay in the second-level cache. A multiple of every tile.
const QUERIES: usize = 192;

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
    // Fewer rows to a chunk where threads would have nothing to do.
    let rows = batch.rows.len() * d.nkv / (4 * pool.threads());
    let chunks = chunks(batch, rows.min(QUERIES / heads).max(1));
    let call = Call { path, pages, qkv, batch, d, width: d.hs.next_multiple_of(GROUP) };
    let out = SharedMut::new(out);
    let tasks = chunks.len() * d.nkv;
    let stretches = |chunk: &Chunk| (chunk.position + chunk.rows).div_ceil(STRETCH);
    let most = chunks.iter().map(stretches).max().unwrap_or(0);
    if tasks >= 4 * pool.threads() || most <= 1 {
        pool.run(tasks, &|task| {
            let (chunk, head) = (&chunks[task / d.nkv], task % d.nkv);
            let queries = call.queries(chunk, head);
            let mut whole = Partial::new(chunk.rows * heads, call.width);
            whole.clear();
            call.stretches(chunk, head, stretches(chunk), &queries, |numbers| whole.add(path, numbers));
            call.finish(chunk, head, &whole, &out);
        });
        return;
    }
    // Few queries, one to a chunk, and long contexts: each stretch is a task.
    let size = chunks.iter().map(|chunk| Partial::len(chunk.rows * heads, call.width)).max().unwrap_or(0);
    let mut space = Scratch::<f32>::new(tasks * most * size);
    let shared = SharedMut::new(&mut space);
    shares::run(Workers::Pool(pool), tasks * most, &|task| {
        let (chunk, head, stretch) = (&chunks[task / most / d.nkv], task / most % d.nkv, task % most);
        if stretch < stretches(chunk) {
            let queries = call.queries(chunk, head);
            // SAFETY: each task has its own part.
            call.stretch(chunk, head, stretch, &queries, unsafe { shared.part(task * size, size) });
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
        add(path, &mut self.numbers, next, self.queries, self.width);
    }
}

vectorized! {
    /// Puts `next` behind `all`, of `n` queries each.
    fn add(all: &mut [f32], next: &[f32], n: usize, width: usize) {
        let (values, rest) = all.split_at_mut(n * width);
        let (max, sum) = rest.split_at_mut(n);
        let (next_values, rest) = next.split_at(n * width);
        let (next_max, next_sum) = rest.split_at(n);
        for (((values, next), (max, sum)), (next_max, next_sum)) in (values.chunks_exact_mut(width))
            .zip(next_values.chunks_exact(width))
            .zip(max.iter_mut().zip(sum))
            .zip(next_max.iter().zip(next_sum))
        {
            if *next_sum == 0.0 {
                // The query stands before this stretch.
                continue;
            }
            let both = if *max > *next_max { *max } else { *next_max };
            // Powers of two, by the function that is exact for 1.
            let power = |x: f32| exp((x - both) * std::f32::consts::LN_2);
            let (old, new) = (power(*max), power(*next_max));
            *sum = *sum * old + next_sum * new;
            *max = both;
            for (a, b) in values.iter_mut().zip(next) {
                *a = *a * old + b * new;
            }
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
    /// The queries (rows, heads of the group) of a chunk that read head `head`, scaled so that scores are powers of two; one after
    /// the other if keys are read as they are stored, else by tiles, (HS, queries of the tile) each.
    fn queries(&self, chunk: &Chunk, head: usize) -> Scratch {
        let (hs, heads) = (self.d.hs, self.d.nh / self.d.nkv);
        let n = chunk.rows * heads;
        let mut queries = Scratch::new(n * hs);
        let scale = std::f32::consts::LOG2_E / (hs as f32).sqrt();
        let whole = if is_direct(self.path, n, self.d.hs) { 1 } else { tile_rows(self.path) };
        for (first, rows) in tiles(n, whole) {
            for q in 0..rows {
                let row = (chunk.row + (first + q) / heads) * self.d.qkv() + (head * heads + (first + q) % heads) * hs;
                let to = queries[first * hs + q..][..(hs - 1) * rows + 1].iter_mut().step_by(rows);
                to.zip(&self.qkv[row..][..hs]).for_each(|(to, x)| *to = x * scale);
            }
        }
        queries
    }

    /// The queries of a chunk that read head `head`, and a stretch.
    fn part(&self, chunk: &Chunk, head: usize, stretch: usize) -> Part<'_> {
        let heads = self.d.nh / self.d.nkv;
        let start = stretch * STRETCH;
        Part {
            pages: self.pages,
            batch: self.batch,
            path: self.path,
            sequence: chunk.sequence,
            head,
            start,
            end: chunk.position + chunk.rows,
            heads,
            // Positions of the stretch that the first row sees; each row sees one more.
            first: chunk.position as isize + 1 - start as isize,
            n: chunk.rows * heads,
            width: self.width,
        }
    }

    /// The queries of a chunk that read head `head` against one stretch.
    fn stretch(&self, chunk: &Chunk, head: usize, stretch: usize, queries: &[f32], out: &mut [f32]) {
        let part = self.part(chunk, head, stretch);
        let mut scores = Scratch::<f32>::new(part.n * STRETCH);
        let (values, statistics) = out[..Partial::len(part.n, part.width)].split_at_mut(part.n * part.width);
        part.attend(queries, &mut scores, values, statistics);
    }

    /// The same for the first `count` stretches, one after the other: `take` gets what each gives.
    fn stretches(&self, chunk: &Chunk, head: usize, count: usize, queries: &[f32], mut take: impl FnMut(&[f32])) {
        let n = chunk.rows * self.d.nh / self.d.nkv;
        let mut out = Partial::new(n, self.width).numbers;
        #[cfg(target_arch = "x86_64")]
        if is_direct(self.path, n, self.d.hs) {
            // Values of a stretch are read beside the keys of the next one.
            let mut scores: [Scratch; 2] = std::array::from_fn(|_| Scratch::new(n * STRETCH));
            let mut part = self.part(chunk, head, 0);
            part.first_scores(queries, &mut scores[0]);
            for stretch in 0..count {
                let [now, then] = &mut scores;
                let (now, then) = if stretch % 2 == 0 { (now, then) } else { (then, now) };
                let (values, statistics) = out.split_at_mut(n * self.width);
                let next = (stretch + 1 < count).then(|| self.part(chunk, head, stretch + 1));
                if !next.as_ref().is_some_and(Part::is_beside) {
                    part.ask_next_keys();
                }
                part.all_weights(now, statistics);
                values.fill(0.0);
                match next {
                    Some(next) => {
                        part.values_and_next(&next, queries, now, then, values);
                        part = next;
                    }
                    None => part.values_as_stored(now, values),
                }
                take(&out);
            }
            return;
        }
        for stretch in 0..count {
            self.stretch(chunk, head, stretch, queries, &mut out);
            take(&out);
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
