//! The rows of a step: sequences, positions, pages and rotary angles.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::rows::by_rows;
use super::super::vectorized::vectorized;
use crate::contract_infer::{BatchPlan, HeadDims, RopePairs, RowAt};

/// A plan with the angles of its rows.
#[derive(Debug)]
pub struct Batch {
    /// Rows of the step.
    pub rows: Vec<RowAt>,
    tables: Vec<Vec<u32>>,
    /// Positions of a page.
    pub page_len: usize,
    /// Pairs of a head that turn.
    pub(super) pairs: usize,
    /// For each row the cosines of its pairs, then the sines.
    angles: Vec<f32>,
}

impl Batch {
    /// Computes the angles of a plan whose rows' pages exist.
    pub fn new(plan: BatchPlan<'_>) -> Batch {
        let angle = |row: &RowAt, f: &f32| f64::from(row.position as f32 * f);
        let angles = plan.rows.iter().flat_map(|row| {
            let cos = plan.frequencies.iter().map(move |f| angle(row, f).cos() as f32);
            cos.chain(plan.frequencies.iter().map(move |f| angle(row, f).sin() as f32))
        });
        Batch {
            rows: plan.rows.to_vec(),
            tables: plan.tables.iter().map(|table| table.to_vec()).collect(),
            page_len: plan.page_len,
            pairs: plan.frequencies.len(),
            angles: angles.collect(),
        }
    }

    /// Page and place inside it of a position.
    pub fn place(&self, sequence: u32, position: usize) -> (usize, usize) {
        (self.tables[sequence as usize][position / self.page_len] as usize, position % self.page_len)
    }

    /// How many positions from `position` on, up to `end`, lie behind each other in memory: in pages that follow each other.
    pub fn run(&self, sequence: u32, position: usize, end: usize) -> usize {
        let pages = &self.tables[sequence as usize][position / self.page_len..end.div_ceil(self.page_len)];
        let following = pages.windows(2).take_while(|pair| pair[1] == pair[0] + 1).count();
        ((1 + following) * self.page_len - position % self.page_len).min(end - position)
    }
}

/// See [`crate::OpsInfer::rope_rows`].
pub fn rope(pool: &Pool, path: Path, qkv: &mut [f32], batch: &Batch, pairs: RopePairs, d: HeadDims) {
    let n = batch.rows.len();
    by_rows(pool, &mut qkv[..n * d.qkv()], n, d.qkv(), |first, _, qkv| {
        for (i, row) in qkv.chunks_exact_mut(d.qkv()).enumerate() {
            let (cos, sin) = batch.angles[(first + i) * 2 * batch.pairs..][..2 * batch.pairs].split_at(batch.pairs);
            for head in row[..(d.nh + d.nkv) * d.hs].chunks_exact_mut(d.hs) {
                turn(path, head, cos, sin, pairs);
            }
        }
    });
}

vectorized! {
    /// One head.
    fn turn(head: &mut [f32], cos: &[f32], sin: &[f32], pairs: RopePairs) {
        let half = cos.len();
        match pairs {
            RopePairs::Halves => {
                let (x, y) = head[..2 * half].split_at_mut(half);
                for (((x, y), cos), sin) in x.iter_mut().zip(y).zip(cos).zip(sin) {
                    (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
                }
            }
            RopePairs::Neighbours => {
                for ((pair, cos), sin) in head[..2 * half].chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin);
                }
            }
        }
    }
}
