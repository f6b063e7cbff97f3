//! Finished tiles on their way to memory.
//!
//! A line that passes the caches by holds one of the few buffers for lines on their way until memory has it. A tile's lines one
//! after the other would take all of them, and the next tile waits with its loads from the second-level cache. So they lie in the
//! first-level cache meanwhile, and the next tile carries out a few in each step.

use std::arch::x86_64::{_mm512_loadu_si512, _mm512_stream_si512};

use super::kernel::MR;

/// Rows of a tile that were not carried out yet: one or two lines each.
pub struct Carry {
    /// The next row, its lines one behind the other.
    pub from: *const u8,
    /// Where its first line goes.
    pub to: *mut u8,
    /// Bytes from there to where its second goes.
    pub beside: isize,
    /// Bytes from row to row there.
    pub row_bytes: usize,
    lines: usize,
    rows: usize,
}

impl Carry {
    /// Nothing.
    pub const NONE: Carry =
        Carry { from: std::ptr::null(), to: std::ptr::null_mut(), beside: 0, row_bytes: 0, lines: 0, rows: 0 };

    /// A whole tile, `lines` a row.
    ///
    /// # Safety
    /// Until all rows are carried out: `from` holds MR rows of `lines` lines; the places that the fields name are at cache lines
    /// and nobody else uses them.
    pub unsafe fn new(from: *const u8, to: *mut u8, beside: isize, row_bytes: usize, lines: usize) -> Carry {
        Carry { from, to, beside, row_bytes, lines, rows: MR }
    }

    /// Lines of a row; 0 if there is nothing to do.
    pub fn lines(&self) -> usize {
        if self.rows == 0 { 0 } else { self.lines }
    }

    /// `rows` rows were carried out.
    pub fn advance(&mut self, rows: usize) {
        let rows = rows.min(self.rows);
        self.rows -= rows;
        self.from = self.from.wrapping_add(rows * self.lines * 64);
        self.to = self.to.wrapping_add(rows * self.row_bytes);
    }

    /// Carries out what is left.
    #[target_feature(enable = "avx512f")]
    pub fn flush(&mut self) {
        for row in 0..self.rows {
            for line in 0..self.lines {
                let from = self.from.wrapping_add((row * self.lines + line) * 64);
                let to = self.to.wrapping_add(row * self.row_bytes).wrapping_offset(line as isize * self.beside);
                // SAFETY: what `new` was promised.
                unsafe { _mm512_stream_si512(to.cast(), _mm512_loadu_si512(from.cast())) };
            }
        }
        self.rows = 0;
    }
}
