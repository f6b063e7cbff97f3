//! Numbers of the cache: rounding them as they are written, and reading them as f32.

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::super::vectorized::vectorized;
use crate::contract_infer::KvKind;
use crate::quant::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// Bytes of a number.
pub fn element_bytes(kind: KvKind) -> usize {
    match kind {
        KvKind::F32 => 4,
        KvKind::F16 | KvKind::Bf16 => 2,
        KvKind::Q8 => 1,
    }
}

/// Rounds numbers, as [`KvKind::round`] says; `inverse` is that of the scale, for [`KvKind::Q8`].
pub fn narrow(kind: KvKind, path: Path, from: &[f32], inverse: f32, to: &mut [u8]) {
    match kind {
        KvKind::F32 => narrow_f32(path, from, to),
        KvKind::F16 => {
            #[cfg(target_arch = "x86_64")]
            if path.has_avx2() {
                // SAFETY: the features were detected.
                return unsafe { narrow_f16c(from, to) };
            }
            for (to, from) in to.chunks_exact_mut(2).zip(from) {
                to.copy_from_slice(&f32_to_f16(*from).to_le_bytes());
            }
        }
        KvKind::Bf16 => narrow_bf16(path, from, to),
        KvKind::Q8 => narrow_i8(path, from, inverse, to),
    }
}

vectorized! {
    fn narrow_f32(from: &[f32], to: &mut [u8]) {
        for (to, from) in to.as_chunks_mut::<4>().0.iter_mut().zip(from) {
            *to = from.to_le_bytes();
        }
    }
}

vectorized! {
    fn narrow_bf16(from: &[f32], to: &mut [u8]) {
        for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
            *to = f32_to_bf16(*from).to_le_bytes();
        }
    }
}

vectorized! {
    fn narrow_i8(from: &[f32], inverse: f32, to: &mut [u8]) {
        // Adding 1.5·2^23 rounds to the nearest integer, ties to even; the low bits then hold it.
        const ROUND: f32 = 12_582_912.0;
        for (to, from) in to.iter_mut().zip(from) {
            *to = (from * inverse + ROUND).to_bits() as u8;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f16c(from: &[f32], to: &mut [u8]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let (from, rest) = from.as_chunks::<8>();
    let (to, to_rest) = to.split_at_mut(16 * from.len());
    for (to, from) in to.as_chunks_mut::<16>().0.iter_mut().zip(from) {
        // SAFETY: eight floats read, 16 bytes written.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
            _mm_storeu_si128(to.as_mut_ptr().cast(), halves);
        }
    }
    for (to, from) in to_rest.chunks_exact_mut(2).zip(rest) {
        to.copy_from_slice(&f32_to_f16(*from).to_le_bytes());
    }
}

/// Numbers without their scales.
pub fn widen(kind: KvKind, path: Path, from: &[u8], to: &mut [f32]) {
    match kind {
        KvKind::F32 => widen_f32(path, from, to),
        KvKind::F16 => {
            #[cfg(target_arch = "x86_64")]
            {
                if path.vectors() == Vectors::Avx512 {
                    // SAFETY: the path exists only after its features were detected.
                    return unsafe { widen_avx512(from, to) };
                }
                if path.has_avx2() {
                    // SAFETY: the features were detected.
                    return unsafe { widen_f16c(from, to) };
                }
            }
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
            }
        }
        KvKind::Bf16 => widen_bf16(path, from, to),
        KvKind::Q8 => widen_i8(path, from, to),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn widen_avx512(from: &[u8], to: &mut [f32]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps};
    let (mut to, mut from) = (to.chunks_exact_mut(16), from.chunks_exact(32));
    for (to, from) in (&mut to).zip(&mut from) {
        // SAFETY: 32 bytes read, 16 floats written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) };
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder().chunks_exact(2)) {
        *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16c(from: &[u8], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let (mut to, mut from) = (to.chunks_exact_mut(8), from.chunks_exact(16));
    for (to, from) in (&mut to).zip(&mut from) {
        // SAFETY: 16 bytes read, 8 floats written.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder().chunks_exact(2)) {
        *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
    }
}

vectorized! {
    fn widen_f32(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(4)) {
            *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
    }
}

vectorized! {
    fn widen_bf16(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
            *to = bf16_to_f32(u16::from_le_bytes([from[0], from[1]]));
        }
    }
}

vectorized! {
    fn widen_i8(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from(*from as i8);
        }
    }
}
