//! Packing: operands copied into the panels that the micro-kernels read.

use super::array::Array;
use super::bf16::Number;
use super::gemm::Workers;
#[cfg(target_arch = "x86_64")]
use super::pack512;
use super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::path::Vectors;
use super::shared::SharedMut;

/// A matrix of a product, seen from its outer index (row of the result for A, column for B) and the inner index k.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T = f32> {
    data: &'a [T],
    cols: usize,
    /// The outer index runs along the columns of the row-major matrix, and k along its rows; else the other way round.
    columns: bool,
}

impl<'a, T> Operand<'a, T> {
    /// Outer index along the rows of a row-major matrix of width `cols`.
    pub fn rows(data: &'a [T], cols: usize) -> Self {
        Operand { data, cols, columns: false }
    }

    /// Outer index along the columns of a row-major matrix of width `cols`.
    pub fn columns(data: &'a [T], cols: usize) -> Self {
        Operand { data, cols, columns: true }
    }
}

impl<T> Operand<'_, T> {
    /// Whether outer indices are columns of the matrix in memory.
    pub fn by_columns(&self) -> bool {
        self.columns
    }

    /// Width of the matrix in memory.
    pub fn width(&self) -> usize {
        self.cols
    }

    /// Row `row` of the matrix in memory, and what follows it.
    pub fn row(&self, row: usize) -> &[T] {
        &self.data[row * self.cols..]
    }

    /// The one row of an operand that has no more, where its numbers lie side by side.
    pub fn single_row(self) -> Option<Self> {
        (!self.columns).then_some(self)
    }

    /// Row 0 from k on.
    pub fn from(&self, k: usize) -> &[T] {
        &self.data[k..]
    }
}

/// A whole B operand in panels: panel after panel of NR outer indices, k-major inside.
#[derive(Debug)]
pub struct Packed {
    data: Array,
    /// Outer indices.
    pub outer: usize,
    /// Inner size.
    pub k: usize,
    nr: usize,
}

/// Rows of an operand by columns that are packed together: all of a row while it is near.
pub const NEAR: usize = 64;

impl Packed {
    /// Nothing but zeros, in `space`.
    pub fn zeros(path: Path, (outer, k): (usize, usize), mut space: Array) -> Packed {
        let nr = path.panel();
        // Fresh memory is zero; what is left in used space is overwritten by `new`, panel by panel.
        space.resize(outer.div_ceil(nr) * nr * k);
        Packed { data: space, outer, k, nr }
    }

    /// Packs an operand into `space`, which it takes over.
    pub fn new<T: Number>(
        workers: Workers<'_>,
        path: Path,
        from: Operand<'_, T>,
        (outer, k): (usize, usize),
        space: Array,
    ) -> Packed {
        let mut packed = Packed::zeros(path, (outer, k), space);
        let nr = packed.nr;
        let panels = outer.div_ceil(nr);
        let to = SharedMut::new(&mut packed.data);
        let part = |panel: usize, k0: usize, depth: usize| {
            // SAFETY: this stretch of k of this panel is written by one task alone.
            let to = unsafe { to.part((panel * k + k0) * nr, depth * nr) };
            pack(path, nr, to, from, panel * nr, outer, k0, depth);
        };
        if from.by_columns() {
            workers.run(k.div_ceil(NEAR), &|task| {
                let k0 = task * NEAR;
                (0..panels).for_each(|panel| part(panel, k0, NEAR.min(k - k0)));
            });
        } else {
            workers.run(panels, &|panel| part(panel, 0, k));
        }
        packed
    }

    /// The panel that holds outer indices from `panel`·NR on.
    pub fn panel(&self, panel: usize) -> &[f32] {
        &self.data[panel * self.nr * self.k..][..self.nr * self.k]
    }

    /// Copies one outer index, all of its k, out of the panels.
    pub fn read(&self, outer: usize, out: &mut [f32]) {
        for (to, step) in out.iter_mut().zip(self.panel(outer / self.nr).chunks_exact(self.nr)) {
            *to = step[outer % self.nr];
        }
    }

    /// The memory, for the next packing.
    pub fn into_space(self) -> Array {
        self.data
    }
}

/// to[k·w + i] = from(first + i, k0 + k), and 0 beyond the last outer index; `w` is a kernel's MR or NR.
pub fn pack<T: Number>(
    path: Path,
    w: usize,
    to: &mut [f32],
    from: Operand<'_, T>,
    first: usize,
    outer: usize,
    k0: usize,
    depth: usize,
) {
    let width = w.min(outer - first);
    #[cfg(target_arch = "x86_64")]
    if path.vectors() == Vectors::Avx512 {
        // SAFETY: the path exists only after its features were detected.
        unsafe {
            match from.columns {
                true => pack512::columns(to, w, from, (first, width), (k0, depth)),
                false => pack512::rows(to, w, from, (first, width), (k0, depth)),
            }
        }
        return;
    }
    if from.columns {
        for (k, to) in to.chunks_exact_mut(w).take(depth).enumerate() {
            let row = &from.data[(k0 + k) * from.cols + first..][..width];
            copy_row(to, row);
        }
        return;
    }
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if path.has_avx2() {
        let whole = depth / 8 * 8;
        for block in (0..width).step_by(8) {
            let height = 8.min(w - block);
            // Rows beyond the last repeat it and are blanked below.
            let rows: [*const T; 8] = std::array::from_fn(|i| {
                let row = (first + block + i).min(outer - 1);
                from.data[row * from.cols + k0..][..depth].as_ptr()
            });
            // SAFETY: AVX2 was detected; every row has `depth` ≥ `whole` floats; `to` has `w` for each of them.
            unsafe { transpose::<T>(rows, whole, &mut to[block..], w, height) };
        }
        done = whole;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = path;
    for i in 0..width {
        let row = &from.data[(first + i) * from.cols + k0..][..depth];
        for (k, x) in row.iter().enumerate().skip(done) {
            to[k * w + i] = x.get();
        }
    }
    if width < w {
        to.chunks_exact_mut(w).take(depth).for_each(|to| to[width..].fill(0.0));
    }
}

/// Copies the common widths without a call.
#[inline(always)]
fn copy_row<T: Number>(to: &mut [f32], row: &[T]) {
    fn fixed<const W: usize, T: Number>(to: &mut [f32], row: &[T]) -> bool {
        let (Ok(to), Ok(row)) = (<&mut [f32; W]>::try_from(to), <&[T; W]>::try_from(row)) else { return false };
        *to = row.map(T::get);
        true
    }
    let same = to.len() == row.len();
    let done = same
        && match to.len() {
            6 => fixed::<6, T>(to, row),
            12 => fixed::<12, T>(to, row),
            16 => fixed::<16, T>(to, row),
            _ => false,
        };
    if !done {
        to.iter_mut().zip(row).for_each(|(to, x)| *to = x.get());
        to[row.len()..].fill(0.0);
    }
}

/// to[k·w + i] = rows[i][k] for k < `whole` (a multiple of 8) and i < `height` (4, 6 or 8), by blocks of 8 × 8.
///
/// # Safety
/// AVX2; every row has `whole` floats; `to` has (`whole` − 1)·w + `height`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose<T: Number>(rows: [*const T; 8], whole: usize, to: &mut [f32], w: usize, height: usize) {
    use std::arch::x86_64::{
        __m256, _mm_castps_pd, _mm_store_sd, _mm_storeu_ps, _mm256_castps256_ps128, _mm256_extractf128_ps,
        _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    assert!(whole == 0 || to.len() >= (whole - 1) * w + height, "room for the panel");
    for k in (0..whole).step_by(8) {
        // SAFETY: k + 8 ≤ whole, the length of every row.
        let r: [__m256; 8] = std::array::from_fn(|i| unsafe { load8(rows[i].add(k)) });
        // Pairs of rows interleaved, then pairs of pairs, then the halves exchanged.
        let pair = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let quad = |(al, ah): (__m256, __m256), (bl, bh): (__m256, __m256)| {
            [
                _mm256_shuffle_ps::<0x44>(al, bl),
                _mm256_shuffle_ps::<0xee>(al, bl),
                _mm256_shuffle_ps::<0x44>(ah, bh),
                _mm256_shuffle_ps::<0xee>(ah, bh),
            ]
        };
        let low = quad(pair(r[0], r[1]), pair(r[2], r[3]));
        let high = quad(pair(r[4], r[5]), pair(r[6], r[7]));
        for i in 0..8 {
            let column = if i < 4 {
                _mm256_permute2f128_ps::<0x20>(low[i], high[i])
            } else {
                _mm256_permute2f128_ps::<0x31>(low[i - 4], high[i - 4])
            };
            // SAFETY: `height` floats at (k + i)·w, inside `to` (asserted).
            unsafe {
                let at = to.as_mut_ptr().add((k + i) * w);
                if height == 8 {
                    _mm256_storeu_ps(at, column);
                    continue;
                }
                _mm_storeu_ps(at, _mm256_castps256_ps128(column));
                let upper = _mm256_extractf128_ps::<1>(column);
                if height == 6 {
                    _mm_store_sd(at.add(4).cast(), _mm_castps_pd(upper));
                }
            }
        }
    }
}

/// Eight numbers as f32.
///
/// # Safety
/// AVX2; `at` points to eight numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load8<T: Number>(at: *const T) -> std::arch::x86_64::__m256 {
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_loadu_ps, _mm256_slli_epi32,
    };
    // SAFETY: the caller's promise; formats are f32 and bfloat16, told apart by their size.
    unsafe {
        if size_of::<T>() == 4 {
            return _mm256_loadu_ps(at.cast());
        }
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()))))
    }
}
