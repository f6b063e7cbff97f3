//! The micro-kernels: a tile of MR × NR sums held in registers while both packed panels stream by.

use super::path::Path;

/// Rows of a tile: with 16 columns, 12 vector registers of sums, 2 of b and 1 of a fill the 16 of AVX2.
pub const MR: usize = 6;
/// Columns of a tile.
pub const NR: usize = 16;

/// A tile of sums, row-major.
pub type Tile = [[f32; NR]; MR];

/// tile[i][j] = Σ_k a[k·MR + i] · b[k·NR + j], k ascending: the one order of every path's products.
#[inline]
pub fn tile(path: Path, a: &[f32], b: &[f32]) -> Tile {
    debug_assert_eq!(a.len() / MR, b.len() / NR);
    match path {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Path::Avx2` exists only after its features were detected.
        Path::Avx2 => unsafe { tile_avx2(a, b) },
        _ => tile_portable(a, b),
    }
}

fn tile_portable(a: &[f32], b: &[f32]) -> Tile {
    let mut sums = [[0.0; NR]; MR];
    for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
        for (row, x) in sums.iter_mut().zip(a) {
            for (sum, y) in row.iter_mut().zip(b) {
                *sum += x * y;
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2(a: &[f32], b: &[f32]) -> Tile {
    use std::arch::x86_64::{
        __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let mut sums: [[__m256; 2]; MR] = [[_mm256_setzero_ps(); 2]; MR];
    let steps = (a.len() / MR).min(b.len() / NR);
    let (mut pa, mut pb) = (a.as_ptr(), b.as_ptr());
    for _ in 0..steps {
        // SAFETY: step k reads a[k·MR ..][..MR] and b[k·NR ..][..NR] with k < steps, inside both slices.
        unsafe {
            let b0 = _mm256_loadu_ps(pb);
            let b1 = _mm256_loadu_ps(pb.add(8));
            for (i, row) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*pa.add(i));
                row[0] = _mm256_fmadd_ps(x, b0, row[0]);
                row[1] = _mm256_fmadd_ps(x, b1, row[1]);
            }
            pa = pa.add(MR);
            pb = pb.add(NR);
        }
    }
    let mut out = [[0.0; NR]; MR];
    for (row, sum) in out.iter_mut().zip(&sums) {
        // SAFETY: a row holds NR = 16 floats, two vectors of 8.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), sum[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), sum[1]);
        }
    }
    out
}
