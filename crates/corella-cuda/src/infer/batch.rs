//! The rows of a step on the card.

use std::sync::{Arc, OnceLock};

use corella_ops::{BatchPlan, HeadDims, RopePairs, RowAt};

use super::products::elements_of_rows;
use super::recorded;
use crate::array::Buf;
use crate::backend::{Argument, Cuda, done};
use crate::driver::{Address, Driver, Launch};
use crate::error::CudaError;
use crate::spare::{Lent, Spare};

/// Fewer consecutive rows of a sequence than this are attended to one by one.
const PREFILL_ROWS: usize = 16;
/// Lines of a block of kernels/paged_prefill.cu: a query with one of the heads that share a key head.
pub(crate) const LINES: usize = 64;
/// Positions of a stretch, as in kernels/paged.cuh.
pub(crate) const STRETCH: usize = 256;

/// Position of a row that belongs to no sequence, as in kernels/paged.cuh.
const NOWHERE: u32 = u32::MAX;

/// A plan on the card: sequences and positions of the rows, page tables, and the angles of the rows.
#[derive(Debug)]
pub struct Batch {
    rows: Vec<RowAt>,
    /// Rows with those behind the plan's own, which belong to no sequence.
    pub(crate) n: usize,
    pub(crate) page_len: usize,
    pub(crate) pairs: usize,
    table_len: usize,
    /// Sequences (n), positions (n), row numbers (n), tables (sequences, table_len), angles (n, 2·pairs).
    words: Lent,
    angles_at: Address,
    /// How attention divides the rows, once the first layer has asked.
    division: OnceLock<Division>,
    spare: Arc<Spare>,
}

/// What the launches of a step of single tokens depend on, beside the model's own arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Where the batch lies.
    at: Address,
    pub rows: usize,
    /// Stretches of positions that attention goes over.
    stretches: usize,
}

/// As `struct Batch` of kernels/paged.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BatchArgument {
    sequences: Address,
    positions: Address,
    tables: Address,
    table_len: i32,
}

impl Argument for BatchArgument {}

/// Which rows a kernel for single rows takes, and which one for many.
#[derive(Debug)]
pub(crate) struct Division {
    /// Query heads that share a key head, and whether many rows of a sequence go together, where that was asked for.
    of: Option<(usize, bool)>,
    /// Row numbers, then chunks of four words; none where the batch itself holds the row numbers.
    _memory: Option<Lent>,
    /// Where the numbers of single rows lie.
    pub list: Address,
    /// Rows taken one by one, and the most stretches that one of them sees.
    pub singles: usize,
    pub stretches: usize,
    /// Chunks of many.
    pub chunks: usize,
}

impl Division {
    /// Where the chunks lie.
    pub(crate) fn chunk_list(&self) -> Address {
        self.list + 4 * self.singles as u64
    }
}

/// Rows one by one, and chunks (first row, rows, sequence, position) of at most `most` rows.
fn divide(rows: &[RowAt], most: usize, together: bool) -> (Vec<u32>, Vec<[u32; 4]>) {
    let (mut singles, mut chunks) = (Vec::new(), Vec::new());
    let mut first = 0;
    for run in rows.chunk_by(|a, b| a.sequence == b.sequence && a.position + 1 == b.position) {
        if together && run.len() >= PREFILL_ROWS {
            for (i, part) in run.chunks(most).enumerate() {
                chunks.push([(first + i * most) as u32, part.len() as u32, part[0].sequence, part[0].position]);
            }
        } else {
            singles.extend((first..first + run.len()).map(|row| row as u32));
        }
        first += run.len();
    }
    (singles, chunks)
}

/// Stretches of positions up to the last one.
fn stretches(positions: impl Iterator<Item = u32>) -> usize {
    positions.max().map_or(0, |position| position as usize / STRETCH + 1)
}

impl Batch {
    #[track_caller]
    pub(crate) fn new(ops: &Cuda, plan: BatchPlan<'_>) -> Result<Batch, CudaError> {
        let table_len = plan.tables.iter().map(|table| table.len()).max().unwrap_or(0);
        Batch::laid_out(ops, plan, plan.rows.len(), table_len)
    }

    /// A plan of one token for each sequence, laid out as every other one that is recorded with it: as many rows, and tables
    /// for as many stretches of positions.
    #[track_caller]
    pub(crate) fn of_single_tokens(ops: &Cuda, plan: BatchPlan<'_>) -> Result<Batch, CudaError> {
        let n = recorded::rows(plan.rows.len());
        let stretches = stretches(plan.rows.iter().map(|row| row.position)).next_power_of_two();
        let batch = Batch::laid_out(ops, plan, n, (stretches * STRETCH).div_ceil(plan.page_len))?;
        let list = batch.words.at() + 8 * n as u64;
        let division = Division { of: None, _memory: None, list, singles: n, stretches, chunks: 0 };
        Ok(Batch { division: OnceLock::from(division), ..batch })
    }

    #[track_caller]
    fn laid_out(ops: &Cuda, plan: BatchPlan<'_>, n: usize, table_len: usize) -> Result<Batch, CudaError> {
        let of_rows = |of: fn(&RowAt) -> u32, rest| plan.rows.iter().map(of).chain(std::iter::repeat(rest)).take(n);
        let mut words: Vec<u32> = of_rows(|row| row.sequence, 0).collect();
        words.extend(of_rows(|row| row.position, NOWHERE));
        words.extend(0..n as u32);
        for table in plan.tables {
            let end = words.len() + table_len;
            words.extend(table.iter().take(table_len));
            words.resize(end, 0);
        }
        // So that the angles of all steps of a shape lie in one place.
        let tables = if n > plan.rows.len() { n } else { plan.tables.len() };
        words.resize(3 * n + tables * table_len, 0);
        let angles_at = words.len();
        ops.angles().append(&mut words, plan.rows, plan.frequencies);
        let pairs = plan.frequencies.len();
        words.resize(angles_at + n * 2 * pairs, 0);
        let words = Lent::holding(ops.spare(), ops.shared_driver(), &words)?;
        Ok(Batch {
            rows: plan.rows.to_vec(),
            n,
            page_len: plan.page_len,
            pairs,
            table_len,
            angles_at: words.at() + 4 * angles_at as u64,
            words,
            division: OnceLock::new(),
            spare: ops.spare().clone(),
        })
    }

    /// What the launches depend on, if it is a step of single tokens.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let division = self.division.get().filter(|division| division.of.is_none())?;
        Some(Shape { at: self.words.at(), rows: self.n, stretches: division.stretches })
    }

    /// As kernels take it.
    pub(crate) fn argument(&self) -> BatchArgument {
        let n = 4 * self.n as u64;
        let sequences = self.words.at();
        BatchArgument {
            sequences,
            positions: sequences + n,
            tables: sequences + 3 * n,
            table_len: self.table_len as i32,
        }
    }

    /// How attention divides the rows; the same for all layers of a step.
    #[track_caller]
    pub(crate) fn division(&self, driver: &Arc<dyn Driver>, group: usize, together: bool) -> &Division {
        let division = self.division.get_or_init(|| {
            let (singles, chunks) = divide(&self.rows, (LINES / group).max(1), together);
            let words: Vec<u32> = singles.iter().chain(chunks.iter().flatten()).copied().collect();
            let memory = done(Lent::holding(&self.spare, driver, &words));
            Division {
                of: Some((group, together)),
                list: memory.at(),
                _memory: Some(memory),
                singles: singles.len(),
                stretches: stretches(singles.iter().map(|row| self.rows[*row as usize].position)),
                chunks: chunks.len(),
            }
        });
        assert!(division.of.is_none_or(|of| of == (group, together)), "layers of one shape in a step");
        division
    }
}

impl Cuda {
    /// Turns the heads of q and k by each row's angles.
    #[track_caller]
    pub(crate) fn turn_rows(&self, qkv: &mut Buf, batch: &Batch, pairs: RopePairs, d: HeadDims) {
        let (n, heads) = (batch.n, d.nh + d.nkv);
        let shape = Launch {
            grid: [(heads * batch.pairs).div_ceil(128) as u32, n.min(65_535) as u32, 1],
            block: 128,
            shared: 0,
        };
        let [heads, hs, turning, rows] = [heads, d.hs, batch.pairs, n].map(|x| x as u32);
        let halves = u32::from(pairs == RopePairs::Halves);
        let (qkv, width) = (qkv.array(), d.qkv() as u64);
        let arguments: [&dyn Argument; 8] = [&qkv, &batch.angles_at, &width, &heads, &hs, &turning, &halves, &rows];
        self.run("rope_rows", shape, &arguments);
    }

    /// out[i,:] = x[rows[i],:].
    #[track_caller]
    pub(crate) fn select(&self, out: &mut Buf, x: &Buf, rows: &[u32], c: usize) {
        // No scratch memory: that is released where it must grow, and with it go all recordings.
        let words = done(Lent::holding(self.spare(), self.shared_driver(), rows));
        let list = words.at();
        let (out, count) = (out.array(), rows.len() as u32);
        self.run("select_rows", elements_of_rows(rows.len(), c), &[&out, &x.array(), &list, &count, &(c as u64)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_go_together_and_single_tokens_alone() {
        let mut rows: Vec<RowAt> = (5..25).map(|position| RowAt { sequence: 1, position }).collect();
        rows.push(RowAt { sequence: 0, position: 7 });
        rows.extend((0..15).map(|position| RowAt { sequence: 2, position }));
        let (singles, chunks) = divide(&rows, 16, true);
        assert_eq!(singles, (20..36).collect::<Vec<u32>>());
        assert_eq!(chunks, [[0, 16, 1, 5], [16, 4, 1, 21]]);
        assert_eq!(divide(&rows, 16, false), ((0..36).collect(), vec![]));
        assert_eq!(divide(&[], 16, true), (vec![], vec![]));
    }
}
