//! Numbers that begin at a cache line: a vector register that straddles two lines costs two reads. Large arrays begin at
//! a huge page and ask for them: products walk down columns, a new small page at every row.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Plain numbers, for which every bit pattern is a value and all zero bits are zero.
///
/// # Safety
/// The type has no padding, no invalid bit pattern and no destructor, and an alignment of at most a cache line.
pub unsafe trait Element: Copy + Send + Sync + 'static {}

// SAFETY: plain numbers.
unsafe impl Element for f32 {}
// SAFETY: plain numbers.
unsafe impl Element for i8 {}
// SAFETY: plain numbers.
unsafe impl Element for u8 {}

/// A cache line.
#[repr(C, align(64))]
struct Line;

/// Bytes of a cache line.
const LINE: usize = align_of::<Line>();
/// Bytes of a huge page; arrays of this size and above are made of them where the system allows.
const HUGE_PAGE: usize = 2 << 20;

/// The system has no memory for an array.
#[derive(Clone, Copy, Debug)]
pub struct NoMemory;

/// A vector of numbers, aligned to a cache line.
pub struct Array<T: Element = f32> {
    start: NonNull<T>,
    len: usize,
    bytes: usize,
    owns: PhantomData<T>,
}

// SAFETY: an array owns its numbers, which may go to another thread and be read by several.
unsafe impl<T: Element> Send for Array<T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for Array<T> {}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, if bytes < HUGE_PAGE { LINE } else { HUGE_PAGE }).ok()
}

impl<T: Element> Array<T> {
    /// No numbers.
    pub const EMPTY: Array<T> =
        Array { start: NonNull::<Line>::dangling().cast(), len: 0, bytes: 0, owns: PhantomData };

    /// `len` zeros. Memory that is not touched is not taken from the system.
    pub fn zeros(len: usize) -> Result<Array<T>, NoMemory> {
        if len == 0 {
            return Ok(Array::EMPTY);
        }
        let bytes = len.checked_mul(size_of::<T>()).ok_or(NoMemory)?.checked_next_multiple_of(LINE).ok_or(NoMemory)?;
        let layout = layout(bytes).ok_or(NoMemory)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(NoMemory)?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // SAFETY: the range was just allocated. The call is a hint that changes no content; its failure changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Array { start: start.cast(), len, bytes, owns: PhantomData })
    }

    /// Numbers that there is room for.
    pub fn capacity(&self) -> usize {
        self.bytes / size_of::<T>()
    }

    /// Changes the length; the content is not defined afterwards.
    pub fn resize(&mut self, len: usize) {
        if len > self.capacity() {
            *self = Array::EMPTY;
            *self = Array::zeros(len).unwrap_or_else(|_| panic!("no memory for {len} numbers"));
        }
        self.len = len;
    }

    /// The same memory for numbers of another type, as long as fits; the content is not defined.
    pub fn cast<U: Element>(self) -> Array<U> {
        let this = std::mem::ManuallyDrop::new(self);
        Array { start: this.start.cast(), len: this.bytes / size_of::<U>(), bytes: this.bytes, owns: PhantomData }
    }
}

impl<T: Element> Drop for Array<T> {
    fn drop(&mut self) {
        if self.bytes > 0
            && let Some(layout) = layout(self.bytes)
        {
            // SAFETY: allocated by `zeros` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T: Element> Default for Array<T> {
    fn default() -> Self {
        Array::EMPTY
    }
}

impl<T: Element> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` numbers were allocated (or none, and the pointer dangles but is aligned); any bits are a number.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Element> std::fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Array of {}", self.len)
    }
}
