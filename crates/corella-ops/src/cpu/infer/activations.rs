//! Rows of activations rounded to 8-bit integers, by row and by unit of 256.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::kernel::Side;
use super::layout::{BLOCK, Layout, UNIT};
use crate::contract_infer::int8_scale;

/// Parts of a unit whose sums are kept: the shortest run that shares a scale.
const PART: usize = 16;
/// Parts of a unit.
const PARTS: usize = UNIT / PART;

/// N rows of C activations. Element c of row n is `scale·q`, scale that of its unit; behind the end of a row stand zeros.
/// Unit by unit, row after row: tile after tile reads on in memory.
pub struct Activations {
    /// (units, rows, 256) of i8.
    elements: Scratch<i8>,
    /// (units, rows).
    scales: Scratch,
    /// (units, rows, parts), i32 bits.
    sums: Scratch,
    /// Rows, those of zeros included.
    pub rows: usize,
    /// Units of a row.
    pub units: usize,
}

impl Activations {
    /// Rounds the first `n` rows of x (N,C). Up to a multiple of `tile`, rows of zeros follow.
    pub fn new(pool: &Pool, path: Path, x: &[f32], n: usize, c: usize, tile: usize) -> Activations {
        let (units, rows) = (c.div_ceil(UNIT), n.next_multiple_of(tile));
        let mut elements = Scratch::new(units * rows * UNIT);
        let mut scales = Scratch::new(units * rows);
        let mut sums = Scratch::new(units * rows * PARTS);
        let shared = (SharedMut::new(&mut elements), SharedMut::new(&mut scales), SharedMut::new(&mut sums));
        let block = rows.div_ceil(4 * pool.threads());
        pool.run(rows.div_ceil(block), &|task| {
            for row in task * block..((task + 1) * block).min(rows) {
                for u in 0..units {
                    let at = u * rows + row;
                    // SAFETY: a unit of a row of this task.
                    let (q, scale, sums) = unsafe {
                        (shared.0.part(at * UNIT, UNIT), shared.1.part(at, 1), shared.2.part(at * PARTS, PARTS))
                    };
                    if row < n {
                        let x = &x[row * c..][u * UNIT..((u + 1) * UNIT).min(c)];
                        match x.first_chunk() {
                            Some(whole) => scale[0] = round(path, q, sums, whole),
                            None => {
                                let mut whole = [0.0; UNIT];
                                whole[..x.len()].copy_from_slice(x);
                                scale[0] = round(path, q, sums, &whole);
                            }
                        }
                    } else {
                        q.fill(0);
                        scale[0] = 0.0;
                        sums.fill(0.0);
                    }
                }
            }
        });
        Activations { elements, scales, sums, rows, units }
    }

    /// Elements of unit `unit`, from row `row` on: rows of 256.
    pub fn elements(&self, row: usize, unit: usize) -> &[i8] {
        &self.elements[(unit * self.rows + row) * UNIT..][..(self.rows - row) * UNIT]
    }

    /// Scales of unit `unit`, from row `row` on.
    pub fn scales(&self, row: usize, unit: usize) -> &[f32] {
        &self.scales[unit * self.rows + row..][..self.rows - row]
    }

    /// The numbers of [`Side`] that a layout needs, (units, rows, [`Side::LEN`]).
    pub fn side_numbers(&self, pool: &Pool, layout: Layout) -> Scratch<i32> {
        let mut numbers = Scratch::new(self.units * self.rows * Side::LEN);
        let shared = SharedMut::new(&mut numbers);
        let all = self.units * self.rows;
        let block = all.div_ceil(4 * pool.threads()).max(256);
        pool.run(all.div_ceil(block), &|task| {
            for i in task * block..((task + 1) * block).min(all) {
                let sums = &self.sums[i * PARTS..][..PARTS];
                // SAFETY: a unit of a row of this task.
                let numbers = unsafe { shared.part(i * Side::LEN, Side::LEN) };
                if let (Some(sums), Some(numbers)) = (sums.first_chunk(), numbers.first_chunk_mut()) {
                    match layout.sub() {
                        BLOCK => side(Side::of(layout.scales), layout.zero, runs::<8>(sums), numbers),
                        _ => side(Side::of(layout.scales), layout.zero, runs::<16>(sums), numbers),
                    }
                }
            }
        });
        numbers
    }
}

/// Sums of `N` runs of a unit, from those of its parts.
fn runs<const N: usize>(parts: &[f32; PARTS]) -> [i32; N] {
    std::array::from_fn(|run| parts[run * PARTS / N..(run + 1) * PARTS / N].iter().map(|x| x.to_bits() as i32).sum())
}

/// The numbers of `kind` that the sums of runs give.
fn side<const N: usize>(kind: Side, zero: i32, runs: [i32; N], numbers: &mut [i32; Side::LEN]) {
    match kind {
        Side::Start => numbers.iter_mut().zip(runs).for_each(|(to, sum)| *to = -zero * sum),
        Side::Sums => numbers.iter_mut().zip(runs).for_each(|(to, sum)| *to = (sum as f32).to_bits() as i32),
        // At most 32·127: both fit into 16 bits.
        Side::Pairs => {
            let pairs = runs.chunks_exact(2).map(|pair| (pair[0] & 0xffff) | pair[1] << 16);
            numbers.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair);
            if N == Side::LEN - Side::CENTRED_AT {
                let centred = numbers[Side::CENTRED_AT..].iter_mut();
                centred.zip(runs).for_each(|(to, sum)| *to = -Side::CENTRE * sum);
            }
        }
    }
}

vectorized! {
    /// One unit; returns its scale.
    fn round(q: &mut [i8], sums: &mut [f32], x: &[f32; UNIT]) -> f32 {
        // Adding 1.5·2^23 rounds to the nearest integer, ties to even; the low bits then hold it.
        const ROUND: f32 = 12_582_912.0;
        let (scale, inverse) = int8_scale(x);
        // Elements first and sums after: in one loop, the compiler works on several parts at once, element by element.
        for (q, x) in q.iter_mut().zip(x) {
            *q = ((x * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32) as i8;
        }
        for (sum, q) in sums.iter_mut().zip(q.as_chunks::<PART>().0) {
            *sum = f32::from_bits(q.iter().map(|q| i32::from(*q)).sum::<i32>() as u32);
        }
        scale
    }
}
