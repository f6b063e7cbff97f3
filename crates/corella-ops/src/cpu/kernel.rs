//! The micro-kernels: a tile of MR × NR sums held in registers while both packed panels stream by.

/// What happens to the result's old content, and the bias of the tile's columns.
#[derive(Clone, Copy)]
pub enum Finish<'a> {
    /// c = sums.
    Write,
    /// c = sums + bias, one bias per column of the tile (at least NR, or as many as the tile has).
    WriteBias(&'a [f32]),
    /// c += sums.
    Add,
}

/// A micro-kernel with its blocking.
pub trait Kernel {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// Depth of a block: a B panel of KC × NR stays in the first-level cache.
    const KC: usize;
    /// Rows of a block: an A block of MC × KC stays in the second-level cache.
    const MC: usize;

    /// c[i][j] (=, +=) Σ_k a[k·MR + i] · b[k·NR + j], k ascending, for the first `rows` × `columns` of the tile.
    ///
    /// # Safety
    /// The processor has the kernel's features. `a` holds `steps`·MR floats, `b` `steps`·NR; `c` points at `rows` rows of
    /// `columns` floats, `ldc` apart, that nobody else uses; 1 ≤ `rows` ≤ MR and 1 ≤ `columns` ≤ NR.
    unsafe fn tile(
        steps: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        columns: usize,
        finish: Finish<'_>,
    );

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

/// Stores the part of a tile that lies inside the result. `sums` is row-major, NR wide.
///
/// # Safety
/// As of [`Kernel::tile`]; `sums` has at least `rows` rows.
#[inline(always)]
unsafe fn store_part<const NR: usize>(
    sums: &[[f32; NR]],
    c: *mut f32,
    ldc: usize,
    rows: usize,
    columns: usize,
    finish: Finish<'_>,
) {
    for (i, sums) in sums.iter().enumerate().take(rows) {
        // SAFETY: row i of the tile, `columns` floats that are this task's alone (the caller's promise).
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), columns) };
        match finish {
            Finish::Write => c.copy_from_slice(&sums[..columns]),
            Finish::WriteBias(bias) => {
                for ((c, s), b) in c.iter_mut().zip(sums).zip(bias) {
                    *c = s + b;
                }
            }
            Finish::Add => {
                for (c, s) in c.iter_mut().zip(sums) {
                    *c += s;
                }
            }
        }
    }
}

/// Plain Rust.
pub struct Portable;

impl Kernel for Portable {
    const MR: usize = 6;
    const NR: usize = 16;
    const KC: usize = 256;
    const MC: usize = 96;

    #[inline]
    unsafe fn tile(
        steps: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        columns: usize,
        finish: Finish<'_>,
    ) {
        // SAFETY: the lengths that the caller promises.
        let (a, b) = unsafe {
            (std::slice::from_raw_parts(a, steps * Self::MR), std::slice::from_raw_parts(b, steps * Self::NR))
        };
        let mut sums = [[0.0; 16]; 6];
        for (a, b) in a.chunks_exact(6).zip(b.chunks_exact(16)) {
            for (row, x) in sums.iter_mut().zip(a) {
                for (sum, y) in row.iter_mut().zip(b) {
                    *sum += x * y;
                }
            }
        }
        // SAFETY: handed on.
        unsafe { store_part(&sums, c, ldc, rows, columns, finish) };
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
    const MC: usize = 96;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(
        steps: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        columns: usize,
        finish: Finish<'_>,
    ) {
        use std::arch::x86_64::{
            __m256, _mm256_add_ps, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
            _mm256_storeu_ps,
        };
        let mut sums: [[__m256; 2]; 6] = [[_mm256_setzero_ps(); 2]; 6];
        for k in 0..steps {
            // SAFETY: step k < steps reads a[k·6 ..][..6] and b[k·16 ..][..16], inside the promised lengths.
            unsafe {
                let (a, b) = (a.add(k * 6), b.add(k * 16));
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = _mm256_broadcast_ss(&*a.add(i));
                    row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm256_fmadd_ps(x, b1, row[1]);
                }
            }
        }
        if rows < 6 || columns < 16 {
            let mut out = [[0.0f32; 16]; 6];
            for (row, sums) in out.iter_mut().zip(&sums) {
                // SAFETY: a row of `out` holds two registers; the rest is handed on.
                unsafe {
                    _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
                    _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
                }
            }
            // SAFETY: handed on.
            return unsafe { store_part(&out, c, ldc, rows, columns, finish) };
        }
        for (i, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: all 16 columns of row i are inside the result; a bias has 16 elements for a whole tile.
                unsafe {
                    let c = c.add(i * ldc + 8 * half);
                    let value = match finish {
                        Finish::Write => *sum,
                        Finish::WriteBias(bias) => _mm256_add_ps(*sum, _mm256_loadu_ps(bias[8 * half..].as_ptr())),
                        Finish::Add => _mm256_add_ps(_mm256_loadu_ps(c), *sum),
                    };
                    _mm256_storeu_ps(c, value);
                }
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
    /// 24 KiB of B and 9 KiB of A in 48 KiB.
    const KC: usize = 192;
    const MC: usize = 192;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tile(
        steps: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        columns: usize,
        finish: Finish<'_>,
    ) {
        use std::arch::x86_64::{
            __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
            _mm512_storeu_ps,
        };
        let mut sums: [[__m512; 2]; 12] = [[_mm512_setzero_ps(); 2]; 12];
        for k in 0..steps {
            // SAFETY: step k < steps reads a[k·12 ..][..12] and b[k·32 ..][..32], inside the promised lengths.
            unsafe {
                let (a, b) = (a.add(k * 12), b.add(k * 32));
                let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i));
                    row[0] = _mm512_fmadd_ps(x, b0, row[0]);
                    row[1] = _mm512_fmadd_ps(x, b1, row[1]);
                }
            }
        }
        if rows < 12 || columns < 32 {
            let mut out = [[0.0f32; 32]; 12];
            for (row, sums) in out.iter_mut().zip(&sums) {
                // SAFETY: a row of `out` holds two registers.
                unsafe {
                    _mm512_storeu_ps(row.as_mut_ptr(), sums[0]);
                    _mm512_storeu_ps(row.as_mut_ptr().add(16), sums[1]);
                }
            }
            // SAFETY: handed on.
            return unsafe { store_part(&out, c, ldc, rows, columns, finish) };
        }
        for (i, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: all 32 columns of row i are inside the result; a bias has 32 elements for a whole tile.
                unsafe {
                    let c = c.add(i * ldc + 16 * half);
                    let value = match finish {
                        Finish::Write => *sum,
                        Finish::WriteBias(bias) => _mm512_add_ps(*sum, _mm512_loadu_ps(bias[16 * half..].as_ptr())),
                        Finish::Add => _mm512_add_ps(_mm512_loadu_ps(c), *sum),
                    };
                    _mm512_storeu_ps(c, value);
                }
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
    const MC: usize = 128;

    #[inline]
    unsafe fn tile(
        steps: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        columns: usize,
        finish: Finish<'_>,
    ) {
        use std::arch::aarch64::{vdupq_n_f32, vfmaq_laneq_f32, vld1q_f32, vst1q_f32};
        // SAFETY: every processor of this kind has these instructions. Step k < steps reads a[k·8 ..][..8] and
        // b[k·12 ..][..12], inside the promised lengths; a row of `out` holds three registers; the rest is handed on.
        unsafe {
            let mut sums = [[vdupq_n_f32(0.0); 3]; 8];
            for k in 0..steps {
                let (a, b) = (a.add(k * 8), b.add(k * 12));
                let b = [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8))];
                for (half, sums) in sums.chunks_exact_mut(4).enumerate() {
                    let a = vld1q_f32(a.add(4 * half));
                    for (j, b) in b.iter().enumerate() {
                        sums[0][j] = vfmaq_laneq_f32::<0>(sums[0][j], *b, a);
                        sums[1][j] = vfmaq_laneq_f32::<1>(sums[1][j], *b, a);
                        sums[2][j] = vfmaq_laneq_f32::<2>(sums[2][j], *b, a);
                        sums[3][j] = vfmaq_laneq_f32::<3>(sums[3][j], *b, a);
                    }
                }
            }
            let mut out = [[0.0f32; 12]; 8];
            for (row, sums) in out.iter_mut().zip(&sums) {
                for (j, sum) in sums.iter().enumerate() {
                    vst1q_f32(row.as_mut_ptr().add(4 * j), *sum);
                }
            }
            store_part(&out, c, ldc, rows, columns, finish);
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
