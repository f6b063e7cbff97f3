//! Rows of activations rounded to 8-bit integers, by row and by unit of 256.

use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::layout::UNIT;
use crate::contract_infer::int8_scale;

/// Parts of a unit whose sums are kept: the shortest run that shares a scale.
pub const PART: usize = 16;
/// Numbers that describe a unit besides its elements: the scale, and the sums of its parts.
const EXTRA: usize = 1 + UNIT / PART;
/// f32 places of a unit: the elements as bytes, then the scale, then the sums as i32 bits, on a whole number of cache lines.
const PLACES: usize = (UNIT / 4 + EXTRA).next_multiple_of(16);

/// N rows of C activations. Element c of row n is `scale·q`, scale that of its unit; behind the end of a row stand zeros.
pub struct Activations {
    space: Scratch,
    /// Rows, those of zeros included.
    pub rows: usize,
    units: usize,
}

/// A unit of a row.
#[derive(Clone, Copy)]
pub struct ActivationUnit<'a> {
    places: &'a [f32],
}

impl<'a> ActivationUnit<'a> {
    /// The elements as bytes, then the scale.
    pub fn places(self) -> &'a [f32] {
        self.places
    }

    /// Sum of the elements of part `part`.
    pub fn sum(self, part: usize) -> i32 {
        self.places[UNIT / 4 + 1 + part].to_bits() as i32
    }
}

impl Activations {
    /// Rounds the first `n` rows of x (N,C). Up to a multiple of `tile`, rows of zeros follow.
    pub fn new(pool: &Pool, path: Path, x: &[f32], n: usize, c: usize, tile: usize) -> Activations {
        let (units, rows) = (c.div_ceil(UNIT), n.next_multiple_of(tile));
        let mut space = Scratch::new(units * rows * PLACES);
        let parts = SharedMut::new(&mut space);
        let block = rows.div_ceil(4 * pool.threads());
        pool.run(rows.div_ceil(block), &|task| {
            for row in task * block..((task + 1) * block).min(rows) {
                for u in 0..units {
                    // SAFETY: a unit of a row of this task.
                    let out = unsafe { parts.part((u * rows + row) * PLACES, PLACES) };
                    if row < n {
                        let x = &x[row * c..][u * UNIT..((u + 1) * UNIT).min(c)];
                        let mut whole = [0.0; UNIT];
                        whole[..x.len()].copy_from_slice(x);
                        round(path, out, &whole);
                    } else {
                        out.fill(0.0);
                    }
                }
            }
        });
        Activations { space, rows, units }
    }

    /// Unit `unit` of row `row`. The same unit of the next row follows it at [`Activations::ROW`] floats.
    pub fn unit(&self, row: usize, unit: usize) -> ActivationUnit<'_> {
        ActivationUnit { places: &self.space[(unit * self.rows + row) * PLACES..][..PLACES] }
    }

    /// Units of a row.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Floats between rows: tile after tile reads on in memory.
    pub const ROW: usize = PLACES;
}

vectorized! {
    /// One unit.
    fn round(out: &mut [f32], x: &[f32; UNIT]) {
        // Adding 1.5·2^23 rounds to the nearest integer, ties to even; the low bits then hold it.
        const ROUND: f32 = 12_582_912.0;
        let (scale, inverse) = int8_scale(x);
        let (elements, extra) = out.split_at_mut(UNIT / 4);
        extra[0] = scale;
        for (part, sum) in extra[1..=UNIT / PART].iter_mut().enumerate() {
            let mut q = [0i32; PART];
            for (q, x) in q.iter_mut().zip(&x[part * PART..][..PART]) {
                *q = (x * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
            }
            *sum = f32::from_bits(q.iter().sum::<i32>() as u32);
            for (element, q) in elements[part * PART / 4..].iter_mut().zip(q.chunks_exact(4)) {
                let bytes = [q[0] as i8 as u8, q[1] as i8 as u8, q[2] as i8 as u8, q[3] as i8 as u8];
                *element = f32::from_bits(u32::from_le_bytes(bytes));
            }
        }
    }
}
