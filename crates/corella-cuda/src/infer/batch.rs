//! The rows of a step on the card.

use std::sync::{Arc, OnceLock};

use corella_ops::{BatchPlan, HeadDims, RopePairs, RowAt};

use super::products::elements_of_rows;
use crate::array::Buf;
use crate::backend::{Argument, Cuda, done};
use crate::driver::{Address, Driver, Launch, Memory};
use crate::error::CudaError;

/// Fewer consecutive rows of a sequence than this are attended to one by one.
const PREFILL_ROWS: usize = 16;
/// Lines of a block of kernels/paged_prefill.cu: a query with one of the heads that share a key head.
pub(crate) const LINES: usize = 64;
/// Positions of a stretch, as in kernels/paged.cuh.
pub(crate) const STRETCH: usize = 256;

/// A plan on the card: sequences and positions of the rows, page tables, and the angles of the rows.
#[derive(Debug)]
pub struct Batch {
    pub(crate) rows: Vec<RowAt>,
    pub(crate) page_len: usize,
    pairs: usize,
    table_len: usize,
    /// Sequences (N), positions (N), tables (sequences, table_len), angles (N, 2·pairs).
    words: Memory,
    angles_at: Address,
    /// How attention divides the rows, once the first layer has asked.
    division: OnceLock<Division>,
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
    /// Query heads that share a key head, and whether many rows of a sequence go together: what it was made for.
    group: usize,
    together: bool,
    /// Row numbers, then chunks of four words.
    memory: Memory,
    /// Rows taken one by one, and the most stretches that one of them sees.
    pub singles: usize,
    pub stretches: usize,
    /// Chunks of many.
    pub chunks: usize,
}

impl Division {
    /// Where the numbers of single rows lie.
    pub(crate) fn list(&self) -> Address {
        self.memory.at
    }

    /// Where the chunks lie.
    pub(crate) fn chunk_list(&self) -> Address {
        self.memory.at + 4 * self.singles as u64
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

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn uploaded(driver: &Arc<dyn Driver>, words: &[u32]) -> Result<Memory, CudaError> {
    let memory = Memory::zeros(driver, 4 * words.len())?;
    driver.upload(memory.at, &bytes_of(words))?;
    Ok(memory)
}

impl Batch {
    #[track_caller]
    pub(crate) fn new(driver: &Arc<dyn Driver>, plan: BatchPlan<'_>) -> Result<Batch, CudaError> {
        for row in plan.rows {
            let pages = plan.tables[row.sequence as usize].len();
            assert!(pages * plan.page_len > row.position as usize, "{row:?} lies behind its {pages} pages");
        }
        let table_len = plan.tables.iter().map(|table| table.len()).max().unwrap_or(0);
        let mut words: Vec<u32> = plan.rows.iter().map(|row| row.sequence).collect();
        words.extend(plan.rows.iter().map(|row| row.position));
        for table in plan.tables {
            words.extend_from_slice(table);
            words.resize(words.len() + table_len - table.len(), 0);
        }
        let angles_at = words.len();
        let angle = |row: &RowAt, f: &f32| f64::from(row.position as f32 * f);
        for row in plan.rows {
            words.extend(plan.frequencies.iter().map(|f| (angle(row, f).cos() as f32).to_bits()));
            words.extend(plan.frequencies.iter().map(|f| (angle(row, f).sin() as f32).to_bits()));
        }
        let words = uploaded(driver, &words)?;
        Ok(Batch {
            rows: plan.rows.to_vec(),
            page_len: plan.page_len,
            pairs: plan.frequencies.len(),
            table_len,
            angles_at: words.at + 4 * angles_at as u64,
            words,
            division: OnceLock::new(),
        })
    }

    /// As kernels take it.
    pub(crate) fn argument(&self) -> BatchArgument {
        let n = 4 * self.rows.len() as u64;
        BatchArgument {
            sequences: self.words.at,
            positions: self.words.at + n,
            tables: self.words.at + 2 * n,
            table_len: self.table_len as i32,
        }
    }

    /// How attention divides the rows; the same for all layers of a step.
    #[track_caller]
    pub(crate) fn division(&self, driver: &Arc<dyn Driver>, group: usize, together: bool) -> &Division {
        let division = self.division.get_or_init(|| {
            let (singles, chunks) = divide(&self.rows, (LINES / group).max(1), together);
            let last = singles.iter().map(|row| self.rows[*row as usize].position as usize).max();
            let words: Vec<u32> = singles.iter().chain(chunks.iter().flatten()).copied().collect();
            Division {
                group,
                together,
                memory: done(uploaded(driver, &words)),
                singles: singles.len(),
                stretches: last.map_or(0, |position| position / STRETCH + 1),
                chunks: chunks.len(),
            }
        });
        assert!((division.group, division.together) == (group, together), "layers of one shape in a step");
        division
    }
}

impl Cuda {
    /// Turns the heads of q and k by each row's angles.
    #[track_caller]
    pub(crate) fn turn_rows(&self, qkv: &mut Buf, batch: &Batch, pairs: RopePairs, d: HeadDims) {
        let (n, heads) = (batch.rows.len(), d.nh + d.nkv);
        assert!(2 * batch.pairs <= d.hs, "{} pairs in a head of {}", batch.pairs, d.hs);
        let shape = Launch {
            grid: [(heads * batch.pairs).div_ceil(128) as u32, n.min(65_535) as u32, 1],
            block: 128,
            shared: 0,
        };
        let [heads, hs, turning, rows] = [heads, d.hs, batch.pairs, n].map(|x| x as u32);
        let halves = u32::from(pairs == RopePairs::Halves);
        let (qkv, width) = (qkv.holds(n * d.qkv()).array(), d.qkv() as u64);
        let arguments: [&dyn Argument; 8] = [&qkv, &batch.angles_at, &width, &heads, &hs, &turning, &halves, &rows];
        self.run("rope_rows", shape, &arguments);
    }

    /// out[i,:] = x[rows[i],:].
    #[track_caller]
    pub(crate) fn select(&self, out: &mut Buf, x: &Buf, rows: &[u32], c: usize) {
        let most = rows.iter().max().map_or(0, |row| *row as usize + 1);
        x.holds(most * c);
        let list = self.scratch("rows that are wanted", 4 * rows.len());
        done(self.driver().upload(list, &bytes_of(rows)));
        let (out, count) = (out.holds(rows.len() * c).array(), rows.len() as u32);
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
