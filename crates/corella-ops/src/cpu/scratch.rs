//! Working memory that a thread keeps between tasks: fresh memory would be zeroed and faulted in every time.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::array::{Array, Element, HUGE_PAGE};

/// Memory of this many bytes is a huge page at least: blocks that are to stay in the second-level cache would not, scattered
/// over small pages, some of whose lines then share their places in it.
const LARGE: usize = 128 << 10;

thread_local! {
    static FREE: RefCell<Vec<Array<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An array of this thread's that is `len` long, with whatever was left in it.
pub fn take<T: Element>(len: usize) -> Array<T> {
    let bytes = len * size_of::<T>();
    let array = FREE.with_borrow_mut(|free| {
        // The smallest that is long enough, else the longest, which then grows.
        let fit = (0..free.len()).filter(|i| free[*i].capacity() >= bytes).min_by_key(|i| free[*i].capacity());
        let any = fit.or_else(|| (0..free.len()).max_by_key(|i| free[*i].capacity()));
        any.map_or(Array::EMPTY, |i| free.swap_remove(i))
    });
    let mut array: Array<T> = array.cast();
    if bytes >= LARGE {
        array.resize(len.max(HUGE_PAGE / size_of::<T>()));
    }
    array.resize(len);
    array
}

/// Gives an array back to its thread.
pub fn give<T: Element>(array: Array<T>) {
    FREE.with_borrow_mut(|free| free.push(array.cast()));
}

/// An array that is given back at the end of its scope. Its content is not defined at first.
pub struct Scratch<T: Element = f32> {
    array: Array<T>,
}

impl<T: Element> Scratch<T> {
    /// `len` numbers.
    pub fn new(len: usize) -> Scratch<T> {
        Scratch { array: take(len) }
    }
}

impl<T: Element> Drop for Scratch<T> {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.array));
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.array
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.array
    }
}
