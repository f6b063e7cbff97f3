//! Numbers that begin at a cache line: a vector register that straddles two lines costs two reads.

use std::collections::TryReserveError;
use std::ops::{Deref, DerefMut};

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; PER_LINE]);

const PER_LINE: usize = 16;

/// A vector of f32, aligned to a cache line.
#[derive(Default)]
pub struct Array {
    lines: Vec<Line>,
    len: usize,
}

impl Array {
    /// No numbers.
    pub const EMPTY: Array = Array { lines: Vec::new(), len: 0 };

    /// `len` zeros.
    pub fn zeros(len: usize) -> Result<Array, TryReserveError> {
        let mut lines = Vec::new();
        lines.try_reserve_exact(len.div_ceil(PER_LINE))?;
        lines.resize(len.div_ceil(PER_LINE), Line([0.0; PER_LINE]));
        Ok(Array { lines, len })
    }

    /// Changes the length; what is new is zero, or holds what was there before an earlier shortening.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(PER_LINE), Line([0.0; PER_LINE]));
        self.len = len;
    }
}

impl Deref for Array {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is 16 floats without padding, and `len` floats lie inside the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Array {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array of {}", self.len)
    }
}
