//! The tile (AMX) of products whose A is in two parts.

use std::arch::asm;

use super::super::kernel::{NR, STEP};
use crate::cpu::bf16::Bf16;

/// Rows of a tile.
pub const MR: usize = 32;
/// Sums of a tile.
pub const TILE: usize = MR * NR;
/// Numbers of a step of A: (2, MR, STEP), upper parts first.
pub const A_STEP: usize = 2 * MR * STEP;

/// What a tile asks for while it runs, because it is needed soon. Nothing is read there: any address will do.
#[derive(Clone, Copy)]
pub struct Soon {
    /// Numbers of B, `LINES` cache lines a step, for the second-level cache.
    pub panel: *const Bf16,
    /// Sums of the next tile, two lines a step.
    pub sums: *const f32,
    /// Where the sums of this one will go, to be written: two lines of a row a step.
    pub out: *const f32,
    /// Bytes from row to row there.
    pub row_bytes: usize,
}

/// What is asked for behind one of the eight products of a step.
macro_rules! ask {
    ($product:literal) => {
        concat!(
            ".irp i, 0, 1, 2, 3\n.if \\i < (",
            $product,
            "+1)*{lines}/8-",
            $product,
            "*{lines}/8\nprefetcht1 [{soon} + 64*(",
            $product,
            "*{lines}/8+\\i)]\n.endif\n.endr"
        )
    };
}

/// sums[i·NR + j] (=, += if `add`) Σ_k (upper[i][k] + lower[i][k]) · b[k][j] for MR × NR sums, k ascending, in each step the upper
/// parts first. `LINES` is 4, 8, 16 or 32.
///
/// A tile register that was just read can only be loaded again when the product that read it has gone on: so what the next step
/// needs is loaded as soon as its register is free, with other products between. Neither operand stays in the first-level cache, so both
/// are loaded with the hint for the second.
///
/// # Safety
/// Tiles were configured on this thread, all of 16 rows of 64 bytes. `steps` ≥ 1; A holds `steps`·A_STEP numbers, B `steps`
/// steps of a panel (STEP/2, NR, 2), `sums` TILE, which nobody else uses.
#[inline]
pub unsafe fn tile<const LINES: usize>(
    steps: usize,
    a: *const Bf16,
    b: *const Bf16,
    sums: *mut f32,
    add: bool,
    soon: Soon,
) {
    // SAFETY: the caller's promises. A register holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Rows of A are
    // 64 bytes, halves of a part 1,024, parts 2,048; rows of B and of the sums 128. Prefetches read nothing.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {wide}*1]",
            "tileloadd tmm1, [{c} + {wide}*1 + 64]",
            "tileloadd tmm2, [{c} + {wide}*1 + 2048]",
            "tileloadd tmm3, [{c} + {wide}*1 + 2112]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloaddt1 tmm6, [{b} + {wide}*1]",
            "tileloaddt1 tmm4, [{a} + {row}*1]",
            "tileloaddt1 tmm7, [{b} + {wide}*1 + 64]",
            "tileloaddt1 tmm5, [{a} + {row}*1 + 1024]",
            "dec {n}",
            "jz 5f",
            "4:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            ask!("0"),
            "tdpbf16ps tmm1, tmm4, tmm7",
            ask!("1"),
            "tileloaddt1 tmm4, [{a} + {row}*1 + 2048]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            ask!("2"),
            "tdpbf16ps tmm3, tmm5, tmm7",
            ask!("3"),
            "tileloaddt1 tmm5, [{a} + {row}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            ask!("4"),
            "tdpbf16ps tmm2, tmm5, tmm6",
            ask!("5"),
            "tileloaddt1 tmm6, [{b} + {wide}*1 + 2048]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            ask!("6"),
            "tileloaddt1 tmm4, [{a} + {row}*1 + 4096]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            ask!("7"),
            "tileloaddt1 tmm7, [{b} + {wide}*1 + 2112]",
            "tileloaddt1 tmm5, [{a} + {row}*1 + 5120]",
            "prefetcht1 [{sums}]",
            "prefetcht1 [{sums} + 64]",
            "prefetchw [{out}]",
            "prefetchw [{out} + 64]",
            "add {sums}, {wide}",
            "add {out}, {row_bytes}",
            "add {a}, 4096",
            "add {b}, 2048",
            "add {soon}, 64*{lines}",
            "dec {n}",
            "jnz 4b",
            "5:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloaddt1 tmm4, [{a} + {row}*1 + 2048]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloaddt1 tmm5, [{a} + {row}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            lines = const LINES,
            add = in(reg) usize::from(add),
            n = inout(reg) steps => _,
            a = inout(reg) a => _,
            row = in(reg) 64usize,
            b = inout(reg) b => _,
            wide = in(reg) 128usize,
            c = in(reg) sums,
            soon = inout(reg) soon.panel => _,
            out = inout(reg) soon.out => _,
            row_bytes = in(reg) soon.row_bytes,
            sums = inout(reg) soon.sums => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
