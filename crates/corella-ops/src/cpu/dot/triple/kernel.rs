//! The tile of products in three parts.

use std::arch::asm;

use crate::cpu::bf16::Bf16;
use crate::cpu::dot::kernel::{NR, STEP};

/// Rows and columns of a tile, and outer indices of a panel.
pub const SIDE: usize = NR;
/// Numbers in bfloat16 of a step of a panel: upper, middle and lower parts, in this order. A: (SIDE, STEP) each; B:
/// (STEP/2, SIDE, 2) each.
pub const STEP_LEN: usize = 3 * SIDE * STEP;

/// sums[i·SIDE + j] = Σ_k of the six largest products of parts of a[i][k] and b[k][j].
///
/// A step of four registers of A and B, 24 products of 16 cycles each, 14 loads: one operand changes at a time.
///
/// # Safety
/// Tiles were configured on this thread, all of 16 rows of 64 bytes. A and B hold `steps`·STEP_LEN numbers, `sums` SIDE·SIDE,
/// which nobody else uses.
#[inline]
pub unsafe fn tile(steps: usize, a: *const Bf16, b: *const Bf16, sums: *mut f32) {
    // SAFETY: the caller's promises. A register holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Parts are
    // 2,048 bytes; rows of A 64, of B and of the sums 128.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            // Lower by upper.
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tileloadd tmm4, [{a} + {row}*1 + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Upper by upper.
            "tileloadd tmm4, [{a} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Upper by lower.
            "tileloadd tmm6, [{b} + {wide}*1 + 4096]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 4160]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Upper by middle.
            "tileloadd tmm6, [{b} + {wide}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 2112]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle by middle.
            "tileloadd tmm4, [{a} + {row}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {row}*1 + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle by upper.
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 6144",
            "add {b}, 6144",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            n = inout(reg) steps => _,
            a = inout(reg) a => _,
            row = in(reg) 64usize,
            b = inout(reg) b => _,
            wide = in(reg) 128usize,
            c = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
