//! A trained matrix in bfloat16 as the products of both directions read it, rewritten with every update.

use super::kernel::{NR, STEP};
use super::pack::{Panels, pack_columns, pack_rows};
use crate::cpu::array::{Array, NoMemory};
use crate::cpu::bf16::{Bf16, convert};
use crate::cpu::pack::Operand;
use crate::cpu::path::Path;
use crate::cpu::scratch::Scratch;
use crate::cpu::shared::SharedMut;

/// Rows that are packed together: a panel of the way forward, a step of every panel of the way back.
const ROWS: usize = NR;
const _: () = assert!(NR == STEP);

/// Both images of a matrix w (rows, cols), padded with zeros.
#[derive(Debug)]
pub struct Images {
    rows: usize,
    cols: usize,
    /// For x·wᵀ: rows outside.
    forward: Array<Bf16>,
    /// For dout·w: columns outside.
    backward: Array<Bf16>,
}

impl Images {
    /// Of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Result<Images, NoMemory> {
        let (tall, wide) = (rows.next_multiple_of(NR), cols.next_multiple_of(NR));
        Ok(Images { rows, cols, forward: Array::zeros(tall * wide)?, backward: Array::zeros(tall * wide)? })
    }

    /// Bytes of both images of a matrix.
    pub fn bytes(rows: usize, cols: usize) -> usize {
        2 * size_of::<Bf16>() * rows.next_multiple_of(NR) * cols.next_multiple_of(NR)
    }

    /// w as the B operand of x·wᵀ.
    pub fn forward(&self) -> Panels<'_> {
        Panels::new(&self.forward, self.rows, self.cols.next_multiple_of(STEP))
    }

    /// w as the B operand of dout·w.
    pub fn backward(&self) -> Panels<'_> {
        Panels::new(&self.backward, self.cols, self.rows.next_multiple_of(STEP))
    }

    /// To write them by blocks of rows.
    pub fn blocks(&mut self) -> ImageBlocks<'_> {
        ImageBlocks {
            rows: self.rows,
            cols: self.cols,
            forward: SharedMut::new(&mut self.forward),
            backward: SharedMut::new(&mut self.backward),
        }
    }
}

/// The blocks of rows of both images, which tasks write side by side.
pub struct ImageBlocks<'a> {
    rows: usize,
    cols: usize,
    forward: SharedMut<'a, Bf16>,
    backward: SharedMut<'a, Bf16>,
}

impl ImageBlocks<'_> {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The elements of the matrix that a block holds: where they begin, how many they are.
    pub fn elements(&self, block: usize) -> (usize, usize) {
        let first = block * ROWS;
        (first * self.cols, ROWS.min(self.rows - first) * self.cols)
    }

    /// Writes a block from its `values`, rounded.
    ///
    /// # Safety
    /// No other task writes this block; the path has dot products.
    pub unsafe fn write(&self, path: Path, block: usize, values: &[f32]) {
        let (cols, rows) = (self.cols, values.len() / self.cols);
        let (wide, tall) = (cols.next_multiple_of(STEP), self.rows.next_multiple_of(STEP));
        let mut rounded = Scratch::<Bf16>::new(values.len());
        convert(path, &mut rounded, values);
        // SAFETY: the block's panel of one image and its step of every panel of the other; the features are the path's.
        unsafe {
            let panel = self.forward.part(block * NR * wide, NR * wide);
            pack_rows(panel, Operand::rows(&rounded, cols), 0, rows, cols);
            for panel in 0..cols.div_ceil(NR) {
                let step = self.backward.part((panel * tall + block * STEP) * NR, STEP * NR);
                pack_columns(step, Operand::columns(&rounded, cols), panel * NR, cols, 0, rows);
            }
        }
    }
}
