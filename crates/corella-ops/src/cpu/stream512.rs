//! Results of products in f32 that pass the caches by, on 512-bit vectors.

use std::arch::x86_64::{_mm512_add_ps, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_stream_ps};

use super::dot::STREAMED;
use super::path::{Path, Vectors};

/// Floats of a cache line.
const LINE: usize = 16;

/// Whether a result that is written once, rows `ldc` apart, passes the caches by.
pub fn streams(path: Path, result: &[f32], ldc: usize) -> bool {
    let lines = ldc.is_multiple_of(LINE) && result.as_ptr().addr().is_multiple_of(64);
    path.vectors() == Vectors::Avx512 && lines && size_of_val(result) >= STREAMED
}

/// row = sums + bias, whole lines; a bias may be missing.
///
/// # Safety
/// AVX-512 F; the row begins at a cache line.
#[target_feature(enable = "avx512f")]
pub unsafe fn row(row: &mut [f32], sums: &[f32], bias: &[f32]) {
    let (lines, sums) = (row.as_chunks_mut::<LINE>().0, sums.as_chunks::<LINE>().0);
    let mut bias = bias.as_chunks::<LINE>().0.iter();
    for (line, sums) in lines.iter_mut().zip(sums) {
        // SAFETY: lines of 16 floats, aligned (the caller's promise).
        unsafe {
            let bias = bias.next().map_or(_mm512_setzero_ps(), |bias| _mm512_loadu_ps(bias.as_ptr()));
            _mm512_stream_ps(line.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), bias));
        }
    }
}
