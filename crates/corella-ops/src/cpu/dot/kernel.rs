//! The micro-kernels of products in bfloat16: sums in f32 of products of pairs.

use crate::cpu::bf16::Bf16;

/// Columns of a tile, and of a packed panel of B.
pub const NR: usize = 32;
/// Numbers of k in a step; operands are padded with zeros to whole steps.
pub const STEP: usize = 32;

/// A micro-kernel.
pub trait DotKernel {
    /// Rows of a tile.
    const MR: usize;

    /// Prepares the calling thread for [`DotKernel::tile`].
    ///
    /// # Safety
    /// The processor has the kernel's features and the process may use them.
    unsafe fn begin() {}

    /// Undoes [`DotKernel::begin`].
    ///
    /// # Safety
    /// Follows a call of [`DotKernel::begin`] on the same thread.
    unsafe fn end() {}

    /// sums[i·NR + j] (=, += if `add`) Σ_k a[i][k] · b[k][j] for MR × NR sums and `steps` ≥ 1 steps of k, in their order.
    /// Row i of step s of A begins at a + i·`a_row` + s·`a_step`; B is a packed panel (k/2, NR, 2).
    ///
    /// # Safety
    /// [`DotKernel::begin`] was called on this thread; all of A and B that the formula names is there; `sums` holds MR·NR
    /// numbers that nobody else uses.
    unsafe fn tile(
        steps: usize,
        a: *const Bf16,
        a_row: usize,
        a_step: usize,
        b: *const Bf16,
        sums: *mut f32,
        add: bool,
    );
}

/// VDPBF16PS: 24 registers of sums, 2 of b and 1 of a of the 32 that there are. (12 registers of sums do not hide the
/// instruction's latency: 10 % slower on Zen 5.)
pub struct Avx512Bf16;

impl DotKernel for Avx512Bf16 {
    const MR: usize = 12;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile(
        steps: usize,
        a: *const Bf16,
        a_row: usize,
        a_step: usize,
        b: *const Bf16,
        sums: *mut f32,
        add: bool,
    ) {
        use std::arch::x86_64::{
            __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
            _mm512_setzero_ps, _mm512_storeu_ps,
        };
        /// The same bits, seen as pairs of bfloat16.
        #[inline(always)]
        fn pairs(x: __m512i) -> __m512bh {
            // SAFETY: both are 64 bytes of plain bits.
            unsafe { std::mem::transmute(x) }
        }
        let mut tile: [[__m512; 2]; 12] = [[_mm512_setzero_ps(); 2]; 12];
        if add {
            for (i, row) in tile.iter_mut().enumerate() {
                // SAFETY: row i of the sums.
                *row = unsafe { [_mm512_loadu_ps(sums.add(i * NR)), _mm512_loadu_ps(sums.add(i * NR + 16))] };
            }
        }
        for step in 0..steps {
            for pair in 0..STEP / 2 {
                // SAFETY: inside step `step` of both operands (the caller's promise). Pairs of A need no alignment.
                unsafe {
                    let (a, b) = (a.add(step * a_step + 2 * pair), b.add((step * STEP + 2 * pair) * NR));
                    let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(NR).cast()));
                    for (i, row) in tile.iter_mut().enumerate() {
                        let x = pairs(_mm512_set1_epi32(a.add(i * a_row).cast::<i32>().read_unaligned()));
                        row[0] = _mm512_dpbf16_ps(row[0], x, pairs(b0));
                        row[1] = _mm512_dpbf16_ps(row[1], x, pairs(b1));
                    }
                }
            }
        }
        for (i, row) in tile.iter().enumerate() {
            // SAFETY: row i of the sums.
            unsafe {
                _mm512_storeu_ps(sums.add(i * NR), row[0]);
                _mm512_storeu_ps(sums.add(i * NR + 16), row[1]);
            }
        }
    }
}
