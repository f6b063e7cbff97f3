//! Asking the processor for memory that will be read soon.

use super::super::vendor::is_amd;
#[cfg(target_arch = "x86_64")]
use super::kernel::{Step, layout};
#[cfg(target_arch = "x86_64")]
use super::layout::{BLOCK, UNIT, VECTOR};

/// Where lines that come from memory, each read once, are best asked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The first-level cache: Intel's processors, and AMD's without AVX-512 (docs/log.md).
    First,
    /// The second-level cache: AMD's with AVX-512 read 15 to 25 % more that way.
    Second,
}

impl Level {
    /// What suits this processor, if it has AVX-512.
    pub fn here() -> Level {
        if is_amd() { Level::Second } else { Level::First }
    }
}

/// Of so many lines one is asked for into the second level, if few rows meet them: the processor brings the others by itself, and
/// sooner than if all are asked for. Where more rows meet them, it does not (docs/log.md).
const EVERY: usize = 4;
/// See there.
const FEW: usize = 2;

/// Whether line `line` of a long stretch that `rows` rows meet is asked for, into a level.
#[inline(always)]
pub const fn wanted(level: Level, rows: usize, line: usize) -> bool {
    match level {
        Level::First => true,
        Level::Second => rows > FEW || line.is_multiple_of(EVERY),
    }
}

/// One instruction, where there is one.
macro_rules! ask {
    ($at:expr, $hint:ident) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_mm_prefetch, $hint};
            // SAFETY: prefetches read and write nothing.
            unsafe { _mm_prefetch::<$hint>($at.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = $at;
    }};
}

/// Asks for a line, into the first-level cache. Any address will do: nothing is read.
#[inline(always)]
pub fn line(at: *const u8) {
    ask!(at, _MM_HINT_T0);
}

/// Asks for a line into the second-level cache, as [`line`].
#[inline(always)]
pub fn second(at: *const u8) {
    ask!(at, _MM_HINT_T1);
}

/// Asks for a line that will be written, as [`line`].
#[inline(always)]
pub fn line_to_write(at: *const u8) {
    ask!(at, _MM_HINT_ET0);
}

/// Asks for a line into a level, as [`line`].
#[inline(always)]
pub fn into(level: Level, at: *const u8) {
    match level {
        Level::First => line(at),
        Level::Second => second(at),
    }
}

/// Asks for `bytes` bytes, into the second-level cache. Any address will do: nothing is read.
#[inline(always)]
pub fn ask(at: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    (0..bytes).step_by(VECTOR).for_each(|line| second(at.wrapping_add(line)));
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (at, bytes);
}

/// Asks for quarter `j` of the lines of block `b` of what comes later: a few lines at a time, because a burst waits for itself.
/// The number of lines is a constant: a call to compute it would spill all registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn ask_ahead<const CODES: u8, const SCALES: u8, const R: usize>(step: &Step, level: Level, b: usize, j: usize) {
    let lines = const { layout(CODES, SCALES).unit_bytes(UNIT / BLOCK).div_ceil(VECTOR * UNIT / BLOCK) };
    let quarter = j * lines / 4..(j + 1) * lines / 4;
    let at = |i: usize| step.ahead.wrapping_add((b * lines + i) * VECTOR);
    match level {
        Level::First => quarter.for_each(|i| line(at(i))),
        Level::Second => {
            quarter.filter(|i| wanted(Level::Second, R, *i)).for_each(|i| second(at(i)));
        }
    }
}
