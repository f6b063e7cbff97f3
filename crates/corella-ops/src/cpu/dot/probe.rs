//! The rate of bfloat16 products from registers alone.

use std::arch::asm;
use std::hint::black_box;

use super::amx::Amx;
use super::kernel::{Avx512Bf16, DotKernel, FewKernel};

/// A kernel's bare instructions.
pub trait Peak: DotKernel {
    /// Runs products on registers; returns the number of floating-point operations.
    ///
    /// # Safety
    /// As of [`DotKernel::begin`].
    unsafe fn run(steps: usize) -> usize;
}

impl Peak for Amx<1> {
    unsafe fn run(steps: usize) -> usize {
        // SAFETY: permitted (the caller's promise); only tile registers change, which are this block's alone.
        unsafe {
            Amx::<1>::begin();
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 2b",
                n = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
            Amx::<1>::end();
        }
        // Four products of 16 × 32 by 32 × 16 in each step.
        steps * 4 * 2 * 16 * 16 * 32
    }
}

/// Chains of dot products: enough to hide their latency.
const CHAINS: usize = 24;

impl Peak for Avx512Bf16<1> {
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run(steps: usize) -> usize {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_set1_ps};
        // SAFETY: plain bits of the same size.
        let pairs: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(black_box(0x3f80_3f80))) };
        let mut sums: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(black_box(i as f32)));
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        black_box(sums);
        // Sixteen sums of two products each.
        steps * CHAINS * 2 * 2 * 16
    }
}
