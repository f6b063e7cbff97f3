//! The steps of a tile of products in three parts.

use std::arch::asm;

use crate::cpu::bf16::Bf16;
use crate::cpu::dot::kernel::{NR, STEP};

/// Rows and columns of a tile, and outer indices of a panel.
pub const SIDE: usize = NR;
/// Sums of a tile.
pub const TILE: usize = SIDE * SIDE;
/// Numbers in bfloat16 of a step of a panel: upper, middle and lower parts, in this order. A: (SIDE, STEP/2, 2) each; B:
/// (STEP/2, SIDE, 2) each. The two of a pair are k and k + STEP/2.
pub const STEP_LEN: usize = 3 * SIDE * STEP;

/// A product; behind it four of the 96 lines of each operand's next step are asked for.
macro_rules! product {
    ($number:literal, $($registers:literal),+) => {
        concat!(
            "tdpbf16ps ", $($registers,)+ "\n",
            ".irp i, 0, 1, 2, 3\n",
            "prefetcht0 [{next_a} + 64*(4*", $number, "+\\i)]\n",
            "prefetcht0 [{next_b} + 64*(4*", $number, "+\\i)]\n",
            ".endr"
        )
    };
}

/// The sums of a tile are zero: they stay in registers from one call to the next. Nothing else in a program touches tile registers:
/// compilers have no use for them.
///
/// # Safety
/// Tiles were configured on this thread.
#[inline(always)]
pub unsafe fn begin() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            options(nostack, nomem),
        );
    }
}

/// sums[i, j] += Σ_k of the six largest products of parts of a[i, k] and b[k, j].
///
/// Four registers of A and B, 24 products of 16 cycles each, 14 loads: one operand changes at a time. What the next step reads, at
/// `next_a` and `next_b`, is asked for meanwhile for the first-level cache: a load that waits for the second holds up the products.
///
/// # Safety
/// Follows [`begin`] on the same thread, with no other tiles between; all are of 16 rows of 64 bytes. A and B hold STEP_LEN numbers;
/// nothing is read at `next_a` and `next_b`.
#[inline(always)]
pub unsafe fn step(a: *const Bf16, b: *const Bf16, next_a: *const Bf16, next_b: *const Bf16) {
    // SAFETY: the caller's promises. A register holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Parts are
    // 2,048 bytes; rows of A 64, of B and of the sums 128.
    unsafe {
        asm!(
            // Lower by upper.
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tileloadd tmm4, [{a} + {row}*1 + 4096]",
            product!("0", "tmm0, tmm4, tmm6"),
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            product!("1", "tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {row}*1 + 5120]",
            product!("2", "tmm2, tmm5, tmm6"),
            product!("3", "tmm3, tmm5, tmm7"),
            // Upper by upper.
            "tileloadd tmm4, [{a} + {row}*1]",
            product!("4", "tmm0, tmm4, tmm6"),
            product!("5", "tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {row}*1 + 1024]",
            product!("6", "tmm2, tmm5, tmm6"),
            product!("7", "tmm3, tmm5, tmm7"),
            // Upper by lower.
            "tileloadd tmm6, [{b} + {wide}*1 + 4096]",
            product!("8", "tmm0, tmm4, tmm6"),
            product!("9", "tmm2, tmm5, tmm6"),
            "tileloadd tmm7, [{b} + {wide}*1 + 4160]",
            product!("10", "tmm1, tmm4, tmm7"),
            product!("11", "tmm3, tmm5, tmm7"),
            // Upper by middle.
            "tileloadd tmm6, [{b} + {wide}*1 + 2048]",
            product!("12", "tmm0, tmm4, tmm6"),
            product!("13", "tmm2, tmm5, tmm6"),
            "tileloadd tmm7, [{b} + {wide}*1 + 2112]",
            product!("14", "tmm1, tmm4, tmm7"),
            product!("15", "tmm3, tmm5, tmm7"),
            // Middle by middle.
            "tileloadd tmm4, [{a} + {row}*1 + 2048]",
            product!("16", "tmm0, tmm4, tmm6"),
            product!("17", "tmm1, tmm4, tmm7"),
            "tileloadd tmm5, [{a} + {row}*1 + 3072]",
            product!("18", "tmm2, tmm5, tmm6"),
            product!("19", "tmm3, tmm5, tmm7"),
            // Middle by upper.
            "tileloadd tmm6, [{b} + {wide}*1]",
            product!("20", "tmm0, tmm4, tmm6"),
            product!("21", "tmm2, tmm5, tmm6"),
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            product!("22", "tmm1, tmm4, tmm7"),
            product!("23", "tmm3, tmm5, tmm7"),
            a = in(reg) a,
            row = in(reg) 64usize,
            b = in(reg) b,
            wide = in(reg) 128usize,
            next_a = in(reg) next_a,
            next_b = in(reg) next_b,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly),
        );
    }
}
