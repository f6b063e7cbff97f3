//! Products of activations in f32 and weights in bfloat16. An activation is the sum of two numbers in bfloat16, which keep 16 of its
//! 24 bits, and each weight meets both; or it is rounded to one ([`Rounding`]).

mod block;
mod rows;
mod tile;
mod tiles;
mod vectors;

use block::Product;
pub use rows::SplitRows;

use super::finish::Finish;
use super::kernel::{Avx512Bf16, DotKernel, FewKernel, STEP};
use super::pack::Panels;
use super::{Amx, few, product};
use crate::cpu::Rounding;
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::path::Path;
use crate::cpu::vendor::is_amd;

impl Path {
    /// Whether products of split rows are the fastest way to weights in BF16. Two dot products do the work of two multiply-adds, where
    /// they are as fast; on Intel's processors they take twice as long, and tiles are there instead.
    pub fn splits(self) -> bool {
        self == Path::Amx || self == Path::Avx512Bf16 && is_amd()
    }
}

/// How the kernels of a path take rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Numbers that make an activation.
    parts: usize,
    /// Up to so many rows lie side by side, for the kernel for few.
    few: usize,
    /// Rows of a tile of more.
    tile: usize,
}

impl Shape {
    fn on(path: Path, rounding: Rounding) -> Shape {
        match (path, rounding) {
            // As training's products have them.
            (Path::Amx, Rounding::Bf16) => Shape { parts: 1, few: usize::MAX, tile: 1 },
            (Path::Amx, Rounding::Exact) => Shape { parts: 2, few: Amx::<2>::FEW, tile: tile::MR },
            (_, Rounding::Bf16) => Shape { parts: 1, few: Avx512Bf16::<1>::FEW, tile: Avx512Bf16::<1>::MR },
            (_, Rounding::Exact) => Shape { parts: 2, few: Avx512Bf16::<2>::FEW, tile: Avx512Bf16::<2>::MR },
        }
    }

    /// Numbers of a step of a tile: (parts, tile, STEP), upper parts first.
    fn step(self) -> usize {
        self.parts * self.tile * STEP
    }
}

/// result (m, n) = Σ_k x[i, k] · b[j, k], then what `to` says. The path has dot products ([`Path::has_dot`]), and x was split for it.
pub fn split_product(workers: Workers<'_>, path: Path, size: Size, x: &SplitRows, b: Panels<'_>, to: &Finish<'_, f32>) {
    assert!(path.has_dot() && x.is_for(path), "rows split for another path than {}", path.name());
    let Size { m, n, .. } = size;
    assert!(x.n == m && b.outer >= n && b.k == x.k, "packed operand of {}×{}", b.outer, b.k);
    if m == 0 || n == 0 || x.k == 0 {
        return;
    }
    let (padded, split) = (Size { k: x.k, ..size }, Product { size, x, b, to });
    match (path, x.shape.parts, m <= x.shape.few) {
        (Path::Amx, 1, _) => product(workers, path, padded, x.few(), b, to),
        (Path::Amx, _, true) => few::<Amx<2>, f32>(workers, padded, x.few(), b, to),
        (Path::Amx, _, false) => tiles::product(workers, split),
        (_, 1, true) => few::<Avx512Bf16<1>, f32>(workers, padded, x.few(), b, to),
        (_, _, true) => few::<Avx512Bf16<2>, f32>(workers, padded, x.few(), b, to),
        (_, 1, false) => vectors::product::<1>(workers, split),
        (_, _, false) => vectors::product::<2>(workers, split),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Random;
    use crate::cpu::bf16::{Bf16, Number};
    use crate::cpu::dot::pack::PackedRight;
    use crate::cpu::pack::Operand;
    use crate::cpu::pool::Pool;

    /// Also on the paths that have a faster way to weights in BF16, and so never come here.
    #[test]
    fn split_rows_multiply_as_in_f64() {
        let pool = Pool::new(2);
        for path in Path::available().into_iter().filter(|path| path.has_dot()) {
            for (m, n, k) in [(1, 40, 96), (5, 33, 64), (13, 70, 256), (62, 32, 2112), (130, 65, 32)] {
                let mut random = Random::new(m as u64);
                let w: Vec<Bf16> = random.normals(n * k).into_iter().map(Bf16::put).collect();
                let panels = PackedRight::new(Workers::Pool(&pool), Operand::rows(&w, k), n, k);
                let x = random.normals(m * k);
                for (rounding, kept) in [(Rounding::Exact, !0xff), (Rounding::Bf16, !0xffff)] {
                    let x: Vec<f32> = x.iter().map(|x| f32::from_bits(x.to_bits() & kept)).collect();
                    let rows = SplitRows::new(&pool, (path, rounding), &x, m, k);
                    let mut out = vec![0.0; m * n];
                    let to = Finish::new(&mut out, n);
                    split_product(Workers::Pool(&pool), path, Size { m, n, k, ldc: n }, &rows, panels.panels(), &to);
                    for (i, got) in out.into_iter().enumerate() {
                        let terms = (0..k).map(|j| f64::from(x[i / n * k + j]) * f64::from(w[i % n * k + j].to_f32()));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                        let error = (f64::from(got) - sum).abs();
                        assert!(error <= 4e-7 * size, "{path:?} {rounding:?} {m}×{k}→{n}, {i}: {got} {sum}");
                    }
                }
            }
        }
    }
}
