//! The steps of a tile of sums: both operands on their way through the first-level cache.

use std::arch::asm;

use crate::cpu::bf16::Bf16;
use crate::cpu::dot::amx::store_sums;
use crate::cpu::dot::kernel::{NR, STEP};

/// Rows of a tile.
pub const MR: usize = 32;
/// Sums of a tile.
pub const TILE: usize = MR * NR;
/// Numbers of a step of A: (MR, STEP).
pub const A_STEP: usize = MR * STEP;
/// Numbers of a step of a panel of B: (STEP/2, NR, 2).
pub const B_STEP: usize = STEP * NR;
/// Steps of a panel that stay in the first-level cache: 32 KiB of it.
pub const NEAR: usize = 16;
/// What is asked for behind one of the four products of a step.
macro_rules! ask {
    ($product:literal) => {
        concat!(
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7\n.if \\i < (",
            $product,
            "+1)*{lines}/4-",
            $product,
            "*{lines}/4\nprefetcht1 [{soon} + 64*(",
            $product,
            "*{lines}/4+\\i)]\n.endif\n.endr"
        )
    };
}

/// Sums of a tile in registers from one call to the next. Nothing else in a program touches tile registers: compilers have no use
/// for them.
///
/// A tile register that was just read can only be loaded again when the product that read it has gone on: so what the next step
/// needs is loaded as soon as its register is free. A is loaded with a hint that it is not needed again, and so is what of B does not
/// fit into the first-level cache: this keeps it from driving out what does.
pub struct Sums {
    a: *const Bf16,
    b: *const Bf16,
}

impl Sums {
    /// Zero, or where they stopped; loads the first step.
    ///
    /// # Safety
    /// Tiles were configured on this thread, all of 16 rows of 64 bytes. All steps of A, of A_STEP numbers, and of B, of B_STEP, are
    /// there; `from` holds TILE sums.
    #[inline(always)]
    pub unsafe fn begin(a: *const Bf16, b: *const Bf16, from: Option<*const f32>) -> Sums {
        // SAFETY: the caller's promises. A register holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Rows of A
        // are 64 bytes, halves of a step 1,024; rows of B and of the sums 128.
        unsafe {
            match from {
                Some(sums) => asm!(
                    "tileloadd tmm0, [{c} + {wide}*1]",
                    "tileloadd tmm1, [{c} + {wide}*1 + 64]",
                    "tileloadd tmm2, [{c} + {wide}*1 + 2048]",
                    "tileloadd tmm3, [{c} + {wide}*1 + 2112]",
                    c = in(reg) sums,
                    wide = in(reg) 128usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, readonly),
                ),
                None => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem),
                ),
            }
            asm!(
                "tileloadd tmm6, [{b} + {wide}*1]",
                "tileloaddt1 tmm4, [{a} + {narrow}*1]",
                "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                "tileloaddt1 tmm5, [{a} + {narrow}*1 + 1024]",
                a = in(reg) a,
                narrow = in(reg) 64usize,
                b = in(reg) b,
                wide = in(reg) 128usize,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        Sums { a, b }
    }

    /// Adds the products of a step, and loads the next, of B for the first-level cache if `NEAR`. `LINES` lines from `soon` on are
    /// asked for, for the second-level cache: 1 to 32; nothing is read there.
    ///
    /// # Safety
    /// Follows [`Sums::begin`] on the same thread, with no other tiles between; there is a next step.
    #[inline(always)]
    pub unsafe fn step<const LINES: usize, const NEAR: bool>(&mut self, soon: *const Bf16) {
        // SAFETY: the caller's promises, as in `begin`. Prefetches read nothing.
        unsafe {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                ask!("0"),
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloaddt1 tmm4, [{a} + {narrow}*1 + 2048]",
                ask!("1"),
                "tdpbf16ps tmm2, tmm5, tmm6",
                ".if {near}",
                "tileloadd tmm6, [{b} + {wide}*1 + 2048]",
                ".else",
                "tileloaddt1 tmm6, [{b} + {wide}*1 + 2048]",
                ".endif",
                ask!("2"),
                "tdpbf16ps tmm3, tmm5, tmm7",
                ".if {near}",
                "tileloadd tmm7, [{b} + {wide}*1 + 2112]",
                ".else",
                "tileloaddt1 tmm7, [{b} + {wide}*1 + 2112]",
                ".endif",
                "tileloaddt1 tmm5, [{a} + {narrow}*1 + 3072]",
                ask!("3"),
                lines = const LINES,
                near = const NEAR as usize,
                a = in(reg) self.a,
                narrow = in(reg) 64usize,
                b = in(reg) self.b,
                wide = in(reg) 128usize,
                soon = in(reg) soon,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
            self.a = self.a.add(A_STEP);
            self.b = self.b.add(B_STEP);
        }
    }

    /// Adds the products of the last step and stores the sums.
    ///
    /// # Safety
    /// As of [`Sums::step`]; `to` has room for TILE sums.
    #[inline(always)]
    pub unsafe fn end(self, to: *mut f32) {
        // SAFETY: the caller's promises.
        unsafe {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
            store_sums(to);
        }
    }
}
