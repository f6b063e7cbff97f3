//! What an operation computes beside its result for the one that follows: a gradient in the format of products, and the sums over its
//! rows that a bias wants. One pass over the numbers serves for all of it. The contract's operations stay as they are: whether the next
//! one takes what was left, or computes it itself, gives the same numbers but for the order of sums.

use std::sync::{Mutex, PoisonError};

use corella_ops::Dtype;

use crate::array::Buf;
use crate::driver::Address;

/// Of an array (N,C), as long as nothing has been written anywhere since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    /// Where the array is.
    pub of: Address,
    pub n: usize,
    pub c: usize,
    /// The same numbers in another format, and where: in scratch memory.
    pub image: Option<(Dtype, Address)>,
    /// Sums over the rows of chunks (chunks,C) in scratch memory, and how many chunks.
    pub sums: Option<(Address, usize)>,
}

/// What the last operation left.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<Option<Beside>>);

impl Left {
    /// Something is written: whatever was left may no longer be true.
    pub fn forget(&self) {
        self.put(None);
    }

    /// To be called when an operation has started all of its kernels.
    pub fn leave(&self, beside: Beside) {
        self.put(Some(beside));
    }

    fn put(&self, beside: Option<Beside>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = beside;
    }

    /// What was left of this array, seen as (n, c).
    pub fn of(&self, x: &Buf, n: usize, c: usize) -> Option<Beside> {
        let left = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.filter(|left| (left.of, left.n, left.c) == (x.memory.at, n, c))
    }
}
