//! Rows of activations rounded to 8-bit integers, by row and by unit of 256.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::kernel::{AS_FLOAT, Side};
use super::layout::{BLOCK, Layout, UNIT};
use crate::contract_infer::int8_scale;

/// Parts of a unit whose sums are kept: the shortest run that shares a scale.
const PART: usize = 16;
/// Parts of a unit.
const PARTS: usize = UNIT / PART;
/// Blocks of a unit.
const BLOCKS: usize = UNIT / BLOCK;

/// N rows of C activations. Element c of row n is `scale·q`, scale that of its run of 32 or 256; behind the end of a row stand
/// zeros. Unit by unit, row after row: tile after tile reads on in memory.
pub struct Activations {
    /// (units, rows, 256) of i8.
    elements: Scratch<i8>,
    /// (units, rows, 256 / run).
    scales: Scratch,
    /// (units, rows, parts), i32 bits.
    sums: Scratch,
    /// Elements that share a scale.
    run: usize,
    /// Rows, those of zeros included.
    pub rows: usize,
    /// Units of a row.
    pub units: usize,
}

impl Activations {
    /// Rounds the first `n` rows of x (N,C), with a scale for each `run` of 32 or 256 ([`Layout::activations`]). Up to a
    /// multiple of `tile`, rows of zeros follow.
    pub fn new(pool: &Pool, path: Path, (x, run): (&[f32], usize), n: usize, c: usize, tile: usize) -> Activations {
        let (units, rows, runs) = (c.div_ceil(UNIT), n.next_multiple_of(tile), UNIT / run);
        let mut elements = Scratch::new(units * rows * UNIT);
        let mut scales = Scratch::new(units * rows * runs);
        let mut sums = Scratch::new(units * rows * PARTS);
        let shared = (SharedMut::new(&mut elements), SharedMut::new(&mut scales), SharedMut::new(&mut sums));
        let block = rows.div_ceil(4 * pool.threads());
        pool.run(rows.div_ceil(block), &|task| {
            for row in task * block..((task + 1) * block).min(rows) {
                for u in 0..units {
                    let at = u * rows + row;
                    // SAFETY: a unit of a row of this task.
                    let (q, scales, sums) = unsafe {
                        (
                            shared.0.part(at * UNIT, UNIT),
                            shared.1.part(at * runs, runs),
                            shared.2.part(at * PARTS, PARTS),
                        )
                    };
                    if row < n {
                        let x = &x[row * c..][u * UNIT..((u + 1) * UNIT).min(c)];
                        match x.first_chunk() {
                            Some(whole) => round(path, q, scales, sums, whole),
                            None => {
                                let mut whole = [0.0; UNIT];
                                whole[..x.len()].copy_from_slice(x);
                                round(path, q, scales, sums, &whole);
                            }
                        }
                    } else {
                        q.fill(0);
                        scales.fill(0.0);
                        sums.fill(0.0);
                    }
                }
            }
        });
        Activations { elements, scales, sums, run, rows, units }
    }

    /// Elements of unit `unit`, from row `row` on: rows of 256.
    pub fn elements(&self, row: usize, unit: usize) -> &[i8] {
        &self.elements[(unit * self.rows + row) * UNIT..][..(self.rows - row) * UNIT]
    }

    /// Scales of unit `unit`, from row `row` on: rows of as many as a unit has.
    pub fn scales(&self, row: usize, unit: usize) -> &[f32] {
        let runs = UNIT / self.run;
        &self.scales[(unit * self.rows + row) * runs..][..(self.rows - row) * runs]
    }

    /// The numbers of [`Side`] that a layout needs, (units, rows, [`Side::LEN`]). Its activations are those that these are.
    pub fn side_numbers(&self, pool: &Pool, layout: Layout) -> Scratch<i32> {
        assert_eq!(layout.activations(), self.run, "activations of another layout");
        let mut numbers = Scratch::new(self.units * self.rows * Side::LEN);
        let shared = SharedMut::new(&mut numbers);
        let all = self.units * self.rows;
        let block = all.div_ceil(4 * pool.threads()).max(256);
        pool.run(all.div_ceil(block), &|task| {
            for i in task * block..((task + 1) * block).min(all) {
                // SAFETY: a unit of a row of this task.
                let numbers = unsafe { shared.part(i * Side::LEN, Side::LEN) };
                let (sums, numbers) = (self.sums[i * PARTS..].first_chunk(), numbers.first_chunk_mut());
                let (Some(sums), Some(numbers)) = (sums, numbers) else { continue };
                match (Side::of(layout.scales), layout.sub()) {
                    (Side::Blocks { min }, _) => {
                        blocks(min, layout.zero, runs_of(sums), &self.scales[i * BLOCKS..][..BLOCKS], numbers);
                    }
                    (Side::Start, BLOCK) => starts::<BLOCKS>(layout.zero, runs_of(sums), numbers),
                    (Side::Start, _) => starts::<PARTS>(layout.zero, runs_of(sums), numbers),
                    (Side::Pairs, BLOCK) => pairs::<BLOCKS>(runs_of(sums), numbers),
                    (Side::Pairs, _) => pairs::<PARTS>(runs_of(sums), numbers),
                }
            }
        });
        numbers
    }
}

/// Sums of `N` runs of a unit, from those of its parts.
fn runs_of<const N: usize>(parts: &[f32; PARTS]) -> [i32; N] {
    std::array::from_fn(|run| parts[run * PARTS / N..(run + 1) * PARTS / N].iter().map(|x| x.to_bits() as i32).sum())
}

/// The numbers of [`Side::Blocks`].
fn blocks(min: bool, zero: i32, sums: [i32; BLOCKS], scales: &[f32], numbers: &mut [i32; Side::LEN]) {
    for (b, (sum, scale)) in sums.into_iter().zip(scales).enumerate() {
        let first =
            if min { sum as f32 * scale } else { f32::from_bits(AS_FLOAT.to_bits().wrapping_add_signed(-zero * sum)) };
        numbers[b] = first.to_bits() as i32;
        numbers[Side::SCALES_AT + b] = scale.to_bits() as i32;
    }
}

/// Those of [`Side::Start`].
fn starts<const N: usize>(zero: i32, runs: [i32; N], numbers: &mut [i32; Side::LEN]) {
    numbers.iter_mut().zip(runs).for_each(|(to, sum)| *to = -zero * sum);
}

/// Those of [`Side::Pairs`].
fn pairs<const N: usize>(runs: [i32; N], numbers: &mut [i32; Side::LEN]) {
    // At most 32·127: both fit into 16 bits.
    let pairs = runs.chunks_exact(2).map(|pair| (pair[0] & 0xffff) | pair[1] << 16);
    numbers.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair);
    if N == Side::LEN - Side::CENTRED_AT {
        let centred = numbers[Side::CENTRED_AT..].iter_mut();
        centred.zip(runs).for_each(|(to, sum)| *to = -Side::CENTRE * sum);
    }
}

vectorized! {
    /// One unit, with as many scales as there is room for.
    fn round(q: &mut [i8], scales: &mut [f32], sums: &mut [f32], x: &[f32; UNIT]) {
        let run = UNIT / scales.len();
        // Elements first and sums after: in one loop, the compiler works on several parts at once, element by element.
        if run == BLOCK {
            for ((q, scale), x) in q.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales).zip(x.as_chunks::<BLOCK>().0) {
                *scale = round_run(q, x);
            }
        } else {
            scales[0] = round_run(q, x);
        }
        for (sum, q) in sums.iter_mut().zip(q.as_chunks::<PART>().0) {
            *sum = f32::from_bits(q.iter().map(|q| i32::from(*q)).sum::<i32>() as u32);
        }
    }
}

/// A run that shares a scale, which is returned.
#[inline(always)]
fn round_run(q: &mut [i8], x: &[f32]) -> f32 {
    let (scale, inverse) = int8_scale(x);
    // Adding 1.5·2^23 rounds to the nearest integer, ties to even; the low bits then hold it.
    for (q, x) in q.iter_mut().zip(x) {
        *q = ((x * inverse + AS_FLOAT).to_bits() as i32 - AS_FLOAT.to_bits() as i32) as i8;
    }
    scale
}
