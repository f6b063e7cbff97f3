//! A mutable slice that several threads write in disjoint parts.

use std::marker::PhantomData;

use super::array::Element;

/// A slice whose parts are handed to different tasks of one parallel region.
pub struct SharedMut<'a, T: Element = f32> {
    start: *mut T,
    len: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part` and `tile_at`, whose callers promise that parts and tiles in use at the same time share no
// element.
unsafe impl<T: Element> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for SharedMut<'_, T> {}

impl<'a, T: Element> SharedMut<'a, T> {
    /// Borrows the whole slice for the region.
    pub fn new(slice: &'a mut [T]) -> Self {
        SharedMut { start: slice.as_mut_ptr(), len: slice.len(), lives: PhantomData }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The part `start .. start + len`.
    ///
    /// # Safety
    /// No two parts that overlap may be in use at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of {}", self.len);
        // SAFETY: inside the borrowed slice (asserted); the caller promises that nobody else uses these elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Where an element lies, to be asked for: nothing is read or written there.
    pub fn address(&self, at: usize) -> *const T {
        self.start.wrapping_add(at)
    }

    /// Where a tile begins whose elements lie within `span` of `start`.
    ///
    /// # Safety
    /// No two tiles that share an element may be in use at the same time; only elements of the tile may be touched.
    pub unsafe fn tile_at(&self, start: usize, span: usize) -> *mut T {
        assert!(start <= self.len && span <= self.len - start, "tile {start}+{span} of {}", self.len);
        // SAFETY: inside the borrowed slice (asserted).
        unsafe { self.start.add(start) }
    }
}
