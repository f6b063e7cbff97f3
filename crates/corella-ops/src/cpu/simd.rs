//! A register of f32 numbers on each kernel path, for loops that the compiler does not vectorise well by itself.

/// One width of vector registers. Every function needs the features of its implementation on the processor.
pub trait Simd: Copy {
    /// Numbers in a register; divides 16.
    const LANES: usize;
    /// Rows of a tile of sums that three columns of registers leave room for.
    const ROWS: usize;
    /// The register.
    type V: Copy;

    /// # Safety
    /// The path's features, and [`Simd::LANES`] readable numbers.
    unsafe fn load(at: *const f32) -> Self::V;
    /// # Safety
    /// The path's features, and [`Simd::LANES`] writable numbers.
    unsafe fn store(at: *mut f32, v: Self::V);
    /// # Safety
    /// The path's features.
    unsafe fn splat(x: f32) -> Self::V;
    /// a + b.
    /// # Safety
    /// The path's features.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a − b.
    /// # Safety
    /// The path's features.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// a · b.
    /// # Safety
    /// The path's features.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, in one rounding where the path can.
    /// # Safety
    /// The path's features.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger one; b where either is not a number.
    /// # Safety
    /// The path's features.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// p · 2^n, 0 below the smallest normal number. `shifted` is n + [`ROUND`], −151 ≤ n ≤ 127.
    /// # Safety
    /// The path's features.
    unsafe fn scale(p: Self::V, n: Self::V, shifted: Self::V) -> Self::V;

    /// 2^x with a relative error below 3e-7, 0 below −126; x ≤ 127.
    ///
    /// x = n + f with |f| ≤ ½; a polynomial of degree 5 in f (minimax in relative error, 7.5e-8), then the exponent.
    /// # Safety
    /// The path's features.
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            // In this order a value that is not a number stays one.
            let x = Self::max(Self::splat(-150.0), x);
            let shifted = Self::add(x, Self::splat(ROUND));
            let n = Self::sub(shifted, Self::splat(ROUND));
            let f = Self::sub(x, n);
            let p = Self::splat(POLYNOMIAL[5]);
            let p = Self::fma(p, f, Self::splat(POLYNOMIAL[4]));
            let p = Self::fma(p, f, Self::splat(POLYNOMIAL[3]));
            let p = Self::fma(p, f, Self::splat(POLYNOMIAL[2]));
            let p = Self::fma(p, f, Self::splat(POLYNOMIAL[1]));
            let p = Self::fma(p, f, Self::splat(POLYNOMIAL[0]));
            Self::scale(p, n, shifted)
        }
    }
}

/// Adding and subtracting 1.5·2^23 rounds to an integer; the low bits of the sum hold it.
const ROUND: f32 = 12_582_912.0;
/// 2^f for |f| ≤ ½.
const POLYNOMIAL: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_135, 0.009_675_541, 0.001_327_640_4];

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Plain;

impl Simd for Plain {
    const LANES: usize = 8;
    const ROWS: usize = 4;
    type V = [f32; 8];

    #[inline(always)]
    unsafe fn load(at: *const f32) -> [f32; 8] {
        // SAFETY: eight readable numbers; an array of f32 has the alignment of one.
        unsafe { *at.cast() }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, v: [f32; 8]) {
        // SAFETY: eight writable numbers.
        unsafe { *at.cast() = v }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn scale(p: [f32; 8], n: [f32; 8], shifted: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| {
            let scaled = f32::from_bits(p[i].to_bits().wrapping_add(shifted[i].to_bits() << 23));
            if n[i] < -126.0 { 0.0 } else { scaled }
        })
    }
}

/// AVX2 with fused multiply-add.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Wide256;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Simd, Wide256, Wide512};
    use std::arch::x86_64::*;

    // SAFETY of every block below: the caller promises the features, and that pointers cover a register.
    impl Simd for Wide256 {
        const LANES: usize = 8;
        const ROWS: usize = 4;
        type V = __m256;

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_loadu_ps(at) }
        }
        #[inline(always)]
        unsafe fn store(at: *mut f32, v: __m256) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(at, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn scale(p: __m256, n: __m256, shifted: __m256) -> __m256 {
            // SAFETY: see above.
            unsafe {
                let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
                let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
                // "not less" is also true of what is not a number.
                _mm256_and_ps(scaled, _mm256_cmp_ps::<_CMP_NLT_UQ>(n, _mm256_set1_ps(-126.0)))
            }
        }
    }

    // SAFETY of every block below: as above.
    impl Simd for Wide512 {
        const LANES: usize = 16;
        const ROWS: usize = 8;
        type V = __m512;

        #[inline(always)]
        unsafe fn load(at: *const f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(at) }
        }
        #[inline(always)]
        unsafe fn store(at: *mut f32, v: __m512) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(at, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn scale(p: __m512, n: __m512, _shifted: __m512) -> __m512 {
            // SAFETY: see above.
            // Denormal numbers would slow down every product that they go into.
            unsafe {
                let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(n, _mm512_set1_ps(-126.0));
                _mm512_maskz_scalef_ps(normal, p, n)
            }
        }
    }
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Wide512;

/// NEON.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy)]
pub struct Wide128;

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Simd, Wide128};
    use std::arch::aarch64::*;

    // SAFETY of every block below: every processor of this kind has these instructions, and the caller promises that pointers
    // cover a register.
    impl Simd for Wide128 {
        const LANES: usize = 4;
        const ROWS: usize = 8;
        type V = float32x4_t;

        #[inline(always)]
        unsafe fn load(at: *const f32) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vld1q_f32(at) }
        }
        #[inline(always)]
        unsafe fn store(at: *mut f32, v: float32x4_t) {
            // SAFETY: see above.
            unsafe { vst1q_f32(at, v) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
        }
        #[inline(always)]
        unsafe fn scale(p: float32x4_t, n: float32x4_t, shifted: float32x4_t) -> float32x4_t {
            // SAFETY: see above.
            unsafe {
                let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(shifted));
                let scaled = vaddq_u32(vreinterpretq_u32_f32(p), exponent);
                // What is not a number is not less either.
                vreinterpretq_f32_u32(vbicq_u32(scaled, vcltq_f32(n, vdupq_n_f32(-126.0))))
            }
        }
    }
}

/// Defines a function that is compiled for each path with a type parameter that stands for the path's registers, and which
/// takes the path to run as its first argument. As [`super::vectorized::vectorized`], for bodies that name registers.
macro_rules! with_simd {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident<$S:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $vis unsafe fn $name(path: $crate::cpu::path::Path, $($arg: $ty),*) {
            #[inline(always)]
            unsafe fn body<$S: $crate::cpu::simd::Simd>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the outer function's promises are handed on; the features are this function's.
                unsafe { body::<$crate::cpu::simd::Wide256>($($arg),*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { body::<$crate::cpu::simd::Wide512>($($arg),*) }
            }

            match path.vectors() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the path exists only after its features were detected (`Path::available`); the rest is handed on.
                $crate::cpu::path::Vectors::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::path::Vectors::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                $crate::cpu::path::Vectors::Neon => unsafe { body::<$crate::cpu::simd::Wide128>($($arg),*) },
                // SAFETY: as above; plain Rust needs no features.
                _ => unsafe { body::<$crate::cpu::simd::Plain>($($arg),*) },
            }
        }
    };
}
pub(super) use with_simd;
