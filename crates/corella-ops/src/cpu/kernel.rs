//! The micro-kernels: a tile of MR × NR sums held in registers while both packed panels stream by.

/// A micro-kernel with its blocking.
pub trait Kernel {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// Depth of a block: KC × NR of a B panel stay in the first-level cache.
    const KC: usize;
    /// Blocks of a stretch of k.
    const STRETCH: usize;
    /// Rows of a task: MC × a stretch of A stay in the second-level cache.
    const MC: usize;

    /// sums[i·NR + j] (=, += if `add`) Σ_k a[k·MR + i] · b[k·NR + j], k ascending.
    ///
    /// # Safety
    /// The processor has the kernel's features. `a` holds `steps`·MR floats, `b` `steps`·NR, `sums` MR·NR, which nobody else
    /// uses.
    unsafe fn tile(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool);

    /// The same, while `soon` is asked for from the third-level cache.
    ///
    /// # Safety
    /// As of [`Kernel::tile`].
    unsafe fn tile_asking(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool, soon: &[f32]) {
        prefetch(soon);
        // SAFETY: the caller's promises.
        unsafe { Self::tile(steps, a, b, sums, add) };
    }

    /// sums[p][j] = Σ_k a[k] · b[p][k·NR + j] for one row and two panels, with the additions of [`Kernel::tile`]: what
    /// generation needs, where reading the weights is all that counts. `sums` is 2·NR long.
    ///
    /// # Safety
    /// As of [`Kernel::tile`]; `a` holds `steps` floats.
    unsafe fn row(steps: usize, a: *const f32, b: [*const f32; 2], sums: &mut [f32]);
}

/// Bytes that a panel is read ahead in [`Kernel::row`].
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// Asks for numbers that will be needed soon.
#[inline(always)]
pub fn prefetch<T>(soon: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in soon.chunks(64 / size_of::<T>()) {
        // SAFETY: a prefetch of an address inside a slice; it reads nothing.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}

/// Asks for a line that will be written. Any address will do: nothing is written.
#[inline(always)]
pub fn prefetch_to_write<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch writes nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(line.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Steps of a group in [`Kernel::tile_asking`].
#[cfg(target_arch = "x86_64")]
const TOGETHER: usize = 8;

/// Plain Rust.
pub struct Portable;

impl Kernel for Portable {
    const MR: usize = 6;
    const NR: usize = 16;
    const KC: usize = 256;
    const STRETCH: usize = 4;
    const MC: usize = 96;

    #[inline]
    unsafe fn tile(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool) {
        // SAFETY: the lengths that the caller promises.
        let (a, b, sums) = unsafe {
            (
                std::slice::from_raw_parts(a, steps * Self::MR),
                std::slice::from_raw_parts(b, steps * Self::NR),
                std::slice::from_raw_parts_mut(sums, Self::MR * Self::NR),
            )
        };
        let mut tile = [[0.0; 16]; 6];
        for (a, b) in a.chunks_exact(6).zip(b.chunks_exact(16)) {
            for (row, x) in tile.iter_mut().zip(a) {
                for (sum, y) in row.iter_mut().zip(b) {
                    *sum += x * y;
                }
            }
        }
        for (sum, x) in sums.iter_mut().zip(tile.as_flattened()) {
            *sum = if add { *sum + x } else { *x };
        }
    }

    unsafe fn row(steps: usize, a: *const f32, b: [*const f32; 2], sums: &mut [f32]) {
        sums.fill(0.0);
        for (sums, b) in sums.chunks_exact_mut(16).zip(b) {
            for k in 0..steps {
                // SAFETY: step k < steps of both.
                let (x, b) = unsafe { (*a.add(k), std::slice::from_raw_parts(b.add(k * 16), 16)) };
                for (sum, y) in sums.iter_mut().zip(b) {
                    *sum += x * y;
                }
            }
        }
    }
}

/// 256-bit vectors: 12 registers of sums, 2 of b and 1 of a of the 16 that there are.
#[cfg(target_arch = "x86_64")]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2 {
    const MR: usize = 6;
    const NR: usize = 16;
    const KC: usize = 256;
    const STRETCH: usize = 4;
    const MC: usize = 96;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool) {
        use std::arch::x86_64::{
            __m256, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
            _mm256_storeu_ps,
        };
        let mut tile: [[__m256; 2]; 6] = [[_mm256_setzero_ps(); 2]; 6];
        for k in 0..steps {
            // SAFETY: step k < steps reads a[k·6 ..][..6] and b[k·16 ..][..16], inside the promised lengths.
            unsafe {
                let (a, b) = (a.add(k * 6), b.add(k * 16));
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, row) in tile.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.add(i));
                    row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                }
            }
        }
        for (i, sum) in tile.iter().flatten().enumerate() {
            // SAFETY: register i of the sums.
            unsafe {
                let at = sums.add(8 * i);
                _mm256_storeu_ps(at, if add { _mm256_add_ps(_mm256_loadu_ps(at), *sum) } else { *sum });
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn row(steps: usize, a: *const f32, b: [*const f32; 2], sums: &mut [f32]) {
        use std::arch::x86_64::{
            _MM_HINT_T0, _mm_prefetch, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
            _mm256_storeu_ps,
        };
        assert_eq!(sums.len(), 2 * Self::NR);
        let mut lanes = [[_mm256_setzero_ps(); 2]; 2];
        for k in 0..steps {
            // SAFETY: step k < steps of a and of both panels; a prefetch may point anywhere.
            unsafe {
                let x = _mm256_set1_ps(*a.add(k));
                for (lanes, b) in lanes.iter_mut().zip(b) {
                    let b = b.add(k * Self::NR);
                    _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD));
                    lanes[0] = _mm256_fmadd_ps(x, _mm256_loadu_ps(b), lanes[0]);
                    lanes[1] = _mm256_fmadd_ps(x, _mm256_loadu_ps(b.add(8)), lanes[1]);
                }
            }
        }
        for (i, lane) in lanes.iter().flatten().enumerate() {
            // SAFETY: four registers fill `sums` (asserted).
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr().add(8 * i), *lane) };
        }
    }
}

/// 512-bit vectors: 24 registers of sums, 2 of b and 1 of a of the 32 that there are.
#[cfg(target_arch = "x86_64")]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx512 {
    const MR: usize = 12;
    const NR: usize = 32;
    /// Sums stay in registers: A and B both come from the second-level cache, 576 KiB and twice 96.
    const KC: usize = 768;
    const STRETCH: usize = 1;
    const MC: usize = 192;

    #[inline]
    unsafe fn tile(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool) {
        // SAFETY: the caller's promises.
        unsafe { Self::tile_asking(steps, a, b, sums, add, &[]) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile_asking(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool, soon: &[f32]) {
        use std::arch::x86_64::{
            __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
            _mm512_storeu_ps,
        };
        let mut tile: [[__m512; 2]; 12] = [[_mm512_setzero_ps(); 2]; 12];
        let mut soon = soon.chunks(soon.len().div_ceil(steps.div_ceil(TOGETHER)).next_multiple_of(16).max(16));
        for group in (0..steps).step_by(TOGETHER) {
            prefetch(soon.next().unwrap_or_default());
            for k in group..steps.min(group + TOGETHER) {
                // SAFETY: step k < steps reads a[k·12 ..][..12] and b[k·32 ..][..32], inside the promised lengths.
                unsafe {
                    let (a, b) = (a.add(k * 12), b.add(k * 32));
                    let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                    for (i, row) in tile.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a.add(i));
                        row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                        row[1] = _mm512_fmadd_ps(x, b1, row[1]);
                    }
                }
            }
        }
        for (i, sum) in tile.iter().flatten().enumerate() {
            // SAFETY: register i of the sums.
            unsafe {
                let at = sums.add(16 * i);
                _mm512_storeu_ps(at, if add { _mm512_add_ps(_mm512_loadu_ps(at), *sum) } else { *sum });
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn row(steps: usize, a: *const f32, b: [*const f32; 2], sums: &mut [f32]) {
        use std::arch::x86_64::{
            _MM_HINT_T0, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
            _mm512_storeu_ps,
        };
        assert_eq!(sums.len(), 2 * Self::NR);
        let mut lanes = [[_mm512_setzero_ps(); 2]; 2];
        for k in 0..steps {
            // SAFETY: step k < steps of a and of both panels; a prefetch may point anywhere.
            unsafe {
                let x = _mm512_set1_ps(*a.add(k));
                for (lanes, b) in lanes.iter_mut().zip(b) {
                    let b = b.add(k * Self::NR);
                    _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD));
                    lanes[0] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b), lanes[0]);
                    lanes[1] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b.add(16)), lanes[1]);
                }
            }
        }
        for (i, lane) in lanes.iter().flatten().enumerate() {
            // SAFETY: four registers fill `sums` (asserted).
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(16 * i), *lane) };
        }
    }
}

/// 128-bit vectors of AArch64: 24 registers of sums, 3 of b and 2 of a of the 32 that there are.
#[cfg(target_arch = "aarch64")]
pub struct Neon;

#[cfg(target_arch = "aarch64")]
impl Kernel for Neon {
    const MR: usize = 8;
    const NR: usize = 12;
    /// 12 KiB of B and 8 KiB of A in at least 32 KiB.
    const KC: usize = 256;
    const STRETCH: usize = 4;
    const MC: usize = 128;

    #[inline]
    unsafe fn tile(steps: usize, a: *const f32, b: *const f32, sums: *mut f32, add: bool) {
        use std::arch::aarch64::{vaddq_f32, vdupq_n_f32, vfmaq_laneq_f32, vld1q_f32, vst1q_f32};
        // SAFETY: every processor of this kind has these instructions. Step k < steps reads a[k·8 ..][..8] and
        // b[k·12 ..][..12], inside the promised lengths; the sums are 24 registers.
        unsafe {
            let mut tile = [[vdupq_n_f32(0.0); 3]; 8];
            for k in 0..steps {
                let (a, b) = (a.add(k * 8), b.add(k * 12));
                let b = [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8))];
                for (half, sums) in tile.chunks_exact_mut(4).enumerate() {
                    let a = vld1q_f32(a.add(4 * half));
                    for (j, b) in b.iter().enumerate() {
                        sums[0][j] = vfmaq_laneq_f32::<0>(sums[0][j], *b, a);
                        sums[1][j] = vfmaq_laneq_f32::<1>(sums[1][j], *b, a);
                        sums[2][j] = vfmaq_laneq_f32::<2>(sums[2][j], *b, a);
                        sums[3][j] = vfmaq_laneq_f32::<3>(sums[3][j], *b, a);
                    }
                }
            }
            for (i, sum) in tile.iter().flatten().enumerate() {
                let at = sums.add(4 * i);
                vst1q_f32(at, if add { vaddq_f32(vld1q_f32(at), *sum) } else { *sum });
            }
        }
    }

    unsafe fn row(steps: usize, a: *const f32, b: [*const f32; 2], sums: &mut [f32]) {
        use std::arch::aarch64::{vdupq_n_f32, vfmaq_n_f32, vld1q_f32, vst1q_f32};
        assert_eq!(sums.len(), 2 * Self::NR);
        // SAFETY: as above; step k < steps of a and of both panels; six registers fill `sums` (asserted).
        unsafe {
            let mut lanes = [[vdupq_n_f32(0.0); 3]; 2];
            for k in 0..steps {
                let x = *a.add(k);
                for (lanes, b) in lanes.iter_mut().zip(b) {
                    for (j, lane) in lanes.iter_mut().enumerate() {
                        *lane = vfmaq_n_f32(*lane, vld1q_f32(b.add(k * Self::NR + 4 * j)), x);
                    }
                }
            }
            for (i, lane) in lanes.iter().flatten().enumerate() {
                vst1q_f32(sums.as_mut_ptr().add(4 * i), *lane);
            }
        }
    }
}
