//! Working memory that a thread keeps between tasks: fresh memory would be zeroed and faulted in every time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::array::Array;

thread_local! {
    static FREE: RefCell<Vec<Array>> = const { RefCell::new(Vec::new()) };
}

/// An array of this thread's that is at least `len` long, with whatever was left in it.
pub fn take(len: usize) -> Array {
    let mut array = FREE.with_borrow_mut(|free| {
        // The smallest that is long enough, else the longest, which then grows.
        let fit = (0..free.len()).filter(|i| free[*i].len() >= len).min_by_key(|i| free[*i].len());
        let any = fit.or_else(|| (0..free.len()).max_by_key(|i| free[*i].len()));
        any.map_or(Array::EMPTY, |i| free.swap_remove(i))
    });
    if array.len() < len {
        array.resize(len);
    }
    array
}

/// Gives an array back to its thread.
pub fn give(array: Array) {
    FREE.with_borrow_mut(|free| free.push(array));
}

/// An array that is given back at the end of its scope. Its content is not defined at first.
pub struct Scratch {
    array: Array,
    len: usize,
}

impl Scratch {
    /// `len` numbers.
    pub fn new(len: usize) -> Scratch {
        Scratch { array: take(len), len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.array));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.array[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.array[..self.len]
    }
}
