//! Memory of large arrays, in huge pages from one end to the other: arrays lie behind each other in regions, so that only a
//! region ends in small pages, not each array. A matrix of 17 MB whose last megabyte lay in small pages was read up to a fifth
//! slower (docs/log.md).

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use super::array::HUGE_PAGE;

/// Bytes of a region. Pages that no array touches are not taken from the system.
const REGION: usize = 256 << 20;
/// Arrays of this size and above have a mapping of their own: small pages at their end are too few to matter.
const ALONE: usize = REGION / 4;

/// What is left of the newest region.
struct Rest {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nobody else knows the rest of a region.
unsafe impl Send for Rest {}

static REST: Mutex<Option<Rest>> = Mutex::new(None);

/// `bytes` zeros, a multiple of every page size, that no page stands behind before they are touched; the pages are huge ones
/// where the system has them. The system's allocator would fill aligned memory with zeros itself, in small pages, before it
/// could be told.
pub fn take(bytes: usize) -> Option<NonNull<u8>> {
    if bytes >= ALONE || bytes.is_multiple_of(HUGE_PAGE) {
        return map(bytes);
    }
    let mut rest = REST.lock().unwrap_or_else(PoisonError::into_inner);
    let region = match rest.take() {
        Some(region) if region.bytes >= bytes => region,
        old => {
            if let Some(Rest { start, bytes }) = old.filter(|old| old.bytes > 0) {
                // SAFETY: mapped by `map`, and handed to nobody.
                unsafe { give(start, bytes) };
            }
            // Where addresses are limited, one array may still have its place.
            let Some(start) = map(REGION) else { return map(bytes) };
            Rest { start, bytes: REGION }
        }
    };
    // SAFETY: inside of the region, which is at least `bytes` long.
    let after = unsafe { region.start.add(bytes) };
    *rest = Some(Rest { start: after, bytes: region.bytes - bytes });
    Some(region.start)
}

/// A mapping of its own, from the beginning of a huge page on.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let whole = bytes.checked_add(HUGE_PAGE)?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new range, wherever the system wants it.
    let range = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, kind, -1, 0) };
    if range == libc::MAP_FAILED {
        return None;
    }
    let range = range.cast::<u8>();
    let before = range.align_offset(HUGE_PAGE);
    let start = range.wrapping_add(before);
    // SAFETY: parts of the new range outside of the array, which nobody knows; then a hint that changes no content.
    unsafe {
        if before > 0 {
            libc::munmap(range.cast(), before);
        }
        libc::munmap(start.wrapping_add(bytes).cast(), HUGE_PAGE - before);
        libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
    }
    NonNull::new(start)
}

/// Gives memory back to the system.
///
/// # Safety
/// The range was taken as a whole, or is what was left, and is not used again.
pub unsafe fn give(start: NonNull<u8>, bytes: usize) {
    // SAFETY: mapped by `map`, and nobody uses it any more (the caller's promise).
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

#[cfg(test)]
mod tests {
    use super::super::array::Array;

    #[test]
    fn neighbours_in_a_region_keep_what_is_theirs() {
        // Sizes that are no whole huge pages, so that they share regions, of which they fill more than one.
        let sizes: Vec<usize> = (0..30).map(|i| (3 << 20) + i * (700 << 10)).collect();
        let check = |array: &Array<u8>, value: u8| array.iter().step_by(1021).all(|x| *x == value);
        let mut arrays: Vec<(Array<u8>, u8)> = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let mut array = Array::<u8>::zeros(size).unwrap();
            assert!(check(&array, 0) && array.as_ptr().align_offset(64) == 0, "array {i} is zero");
            array.fill(i as u8 + 1);
            arrays.push((array, i as u8 + 1));
            if i % 3 == 2 {
                // Its neighbours stay.
                arrays.remove(arrays.len() - 2);
            }
        }
        assert!(arrays.iter().all(|(array, value)| check(array, *value)));
        drop(arrays);
        assert!(check(&Array::<u8>::zeros(sizes[7]).unwrap(), 0));
    }
}
