//! Numbers that begin at a cache line: a vector register that straddles two lines costs two reads. Large arrays lie in huge
//! pages: products walk down columns, a new small page at every row.

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
unsafe impl Element for i32 {}
// SAFETY: plain numbers.
unsafe impl Element for u8 {}

/// A cache line.
#[repr(C, align(64))]
struct Line;

/// Bytes of a cache line.
const LINE: usize = align_of::<Line>();
/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;
/// Arrays of this size and above lie in huge pages where the system allows.
const LARGE: usize = 256 << 10;
/// What memory is given back in: a multiple of every system's page.
const SMALL_PAGE: usize = 1 << 16;

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
    Layout::from_size_align(bytes, if bytes < LARGE { LINE } else { HUGE_PAGE }).ok()
}

/// Memory for an array of `bytes` bytes, all zero.
fn take(bytes: usize) -> Option<NonNull<u8>> {
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        return super::mapped::take(bytes);
    }
    // SAFETY: arrays without numbers take no memory: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout(bytes)?) })
}

/// # Safety
/// `start` comes from [`take`] with the same `bytes`, and is not used again.
unsafe fn give(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        // SAFETY: the range was taken for this array (the caller's promise).
        return unsafe { super::mapped::give(start, bytes) };
    }
    if let Some(layout) = layout(bytes) {
        // SAFETY: allocated with this layout (the caller's promise).
        unsafe { dealloc(start.as_ptr(), layout) };
    }
}

/// Asks the system's allocator, which arrays of other crates come from, to give large blocks back as soon as they are freed.
/// Left alone, glibc raises the size that counts as large to 32 MiB with the first block freed, and weights of 9 MB that a model
/// was made from stay in its heap. For the start of a program.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a setting of the allocator, which touches no memory that was handed out.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
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
        let bytes = len.checked_mul(size_of::<T>()).ok_or(NoMemory)?;
        let whole = if bytes < LARGE { LINE } else { SMALL_PAGE };
        let bytes = bytes.checked_next_multiple_of(whole).ok_or(NoMemory)?;
        let start = take(bytes).ok_or(NoMemory)?;
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
        if self.bytes > 0 {
            // SAFETY: taken by `zeros`; the array ends here.
            unsafe { give(self.start.cast(), self.bytes) };
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
