//! Asking the processor for memory that will be read soon.

use super::layout::{BLOCK, Layout, UNIT, VECTOR};

/// Asks for an eighth of a unit at `unit`: as much as block `b` of the unit before it is long, scales included.
#[inline(always)]
pub fn ask_block(layout: Layout, unit: *const u8, b: usize) {
    let bytes = layout.unit_bytes(UNIT / BLOCK).div_ceil(VECTOR * UNIT / BLOCK) * VECTOR;
    ask(unit.wrapping_add(b * bytes), bytes);
}

/// Asks for a line, into the first-level cache. Any address will do: nothing is read.
#[inline(always)]
pub fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetches read nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for `bytes` bytes, into the second-level cache. Any address will do: nothing is read.
#[inline(always)]
pub fn ask(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(VECTOR) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: prefetches read nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}
