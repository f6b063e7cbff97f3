//! Matrix products in bfloat16 with sums in f32, on processors that have instructions for them.
//!
//! B is packed into panels; a task is a block of rows by a range of panels, in [`tiles`] or on 512-bit [`vectors`]. Whatever the
//! blocks, a sum goes on where it stopped, so there is one order over k. A few rows (generation) meet panel after panel, as memory
//! brings them, with the same additions.

pub mod amx;
mod finish;
mod images;
mod kernel;
mod pack;
mod probe;
mod split;
mod tiles;
pub mod triple;
mod vectors;

pub use finish::{Finish, STREAMED, Then, settle};
pub use images::Images;
pub use pack::{PackedRight, Panels, pack_left, transpose};
pub use split::{SplitRows, split_product};

use super::bf16::{Bf16, Number};
use super::gemm::{Size, Store, Workers};
use super::infer::shares;
use super::pack::Operand;
use super::path::Path;
use super::scratch::Scratch;
pub use amx::Amx;
use finish::{Place, finish};
pub use kernel::{Avx512Bf16, DotKernel, FewKernel, NR, STEP};

/// result = Σ_k a[i, k] · b[j, k], then what `to` says. The path has dot products ([`Path::has_dot`]). B may be longer than the
/// product in both directions.
pub fn product<O: Number>(
    workers: Workers<'_>,
    path: Path,
    size: Size,
    a: Operand<'_, Bf16>,
    b: Panels<'_>,
    to: &Finish<'_, O>,
) {
    assert!(path.has_dot(), "{} has no dot products", path.name());
    assert!(to.store == Store::Write || size_of::<O>() == size_of::<f32>(), "only f32 results are added to");
    assert!(b.outer >= size.n && b.k >= size.k.next_multiple_of(STEP), "packed operand of {}×{}", b.outer, b.k);
    if size.m == 0 || size.n == 0 {
        return;
    }
    let rows_are_steps = size.k > 0 && !a.by_columns() && size.k.is_multiple_of(STEP);
    match path {
        Path::Amx if size.m <= Amx::<1>::FEW && rows_are_steps => few::<Amx<1>, O>(workers, size, a, b, to),
        Path::Amx if size.k > 0 => tiles::product(workers, size, a, b, to),
        _ if size.m <= Avx512Bf16::<1>::FEW && rows_are_steps => few::<Avx512Bf16<1>, O>(workers, size, a, b, to),
        _ => vectors::product(workers, size, a, b, to),
    }
}

/// A few rows, whole steps of k.
fn few<K: FewKernel, O: Number>(
    workers: Workers<'_>,
    size: Size,
    a: Operand<'_, Bf16>,
    b: Panels<'_>,
    to: &Finish<'_, O>,
) {
    let Size { m, n, k, .. } = size;
    assert!(a.row(m - 1).len() >= k * K::PARTS, "{m} rows of {k}");
    shares::run(workers, n.div_ceil(NR), &|j| {
        let mut sums = Scratch::<f32>::new(K::FEW * NR);
        let panel = &b.panel(j)[..k * NR];
        // SAFETY: the path exists only after its features were detected and permitted; rows of A (asserted) and the panel are
        // `k` long; the tile belongs to this task alone.
        unsafe {
            K::begin_few(m);
            K::few(m, k / STEP, a.row(0).as_ptr(), a.width(), panel.as_ptr(), sums.as_mut_ptr());
            K::end();
            let column = j * NR;
            finish(&sums, to, Place { row: 0, column, rows: m, columns: NR.min(n - column) });
        }
        settle();
    });
}

/// Asks for numbers that will be needed soon: every second line, as lines come from memory in pairs, and the few buffers for
/// lines on the way are what a product runs out of first.
#[inline(always)]
fn prefetch(soon: &[Bf16]) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    for line in soon.chunks(2 * STEP) {
        // SAFETY: a prefetch of an address inside a slice; it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Runs bare products on the calling thread for some tenth of a millisecond; returns their floating-point operations.
pub fn bare_products(path: Path) -> usize {
    assert!(path.has_dot(), "{} has no dot products", path.name());
    // SAFETY: the path exists only after its features were detected and permitted.
    unsafe {
        match path {
            Path::Amx => <Amx<1> as probe::Peak>::run(4_000),
            _ => <Avx512Bf16<1> as probe::Peak>::run(20_000),
        }
    }
}
