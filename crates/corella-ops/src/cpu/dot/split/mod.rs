//! Products of activations in f32 and weights in bfloat16: an activation is the sum of two numbers in bfloat16, which keep 16 of
//! its 24 bits, and each weight meets both.

mod rows;
mod tile;
mod tiles;
mod vectors;

pub use rows::SplitRows;

use super::finish::Finish;
use super::kernel::{Avx512Bf16, DotKernel, FewKernel, STEP};
use super::pack::Panels;
use super::{Amx, few};
use crate::cpu::gemm::{Size, Workers};
use crate::cpu::path::Path;

/// How many rows the kernels of a path take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    /// The kernel for few, at most.
    few: usize,
    /// A tile of many.
    tile: usize,
}

impl Rows {
    fn on(path: Path) -> Rows {
        match path {
            Path::Amx => Rows { few: Amx::<2>::FEW, tile: tile::MR },
            _ => Rows { few: Avx512Bf16::<2>::FEW, tile: Avx512Bf16::<2>::MR },
        }
    }
}

/// result (m, n) = Σ_k x[i, k] · b[j, k], then what `to` says. The path has dot products ([`Path::has_dot`]), and x was split for it.
pub fn split_product(workers: Workers<'_>, path: Path, size: Size, x: &SplitRows, b: Panels<'_>, to: &Finish<'_, f32>) {
    assert!(path.has_dot() && x.rows == Rows::on(path), "rows split for another path than {}", path.name());
    let Size { m, n, .. } = size;
    assert!(x.n == m && b.outer >= n && b.k == x.k, "packed operand of {}×{}", b.outer, b.k);
    if m == 0 || n == 0 || x.k == 0 {
        return;
    }
    match (path, m <= x.rows.few) {
        (Path::Amx, true) => few::<Amx<2>, f32>(workers, Size { k: x.k, ..size }, x.few(), b, to),
        (Path::Amx, false) => tiles::product(workers, size, x, b, to),
        (_, true) => few::<Avx512Bf16<2>, f32>(workers, Size { k: x.k, ..size }, x.few(), b, to),
        (_, false) => vectors::product(workers, size, x, b, to),
    }
}
