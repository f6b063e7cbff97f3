//! The tile of products whose A is packed: both operands on their way through the first-level cache.

use std::arch::asm;

use super::carry::Carry;
use crate::cpu::bf16::Bf16;
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
/// Rows of a finished tile that are carried out in each of the first [`NEAR`] steps.
pub const CARRIED: usize = MR / NEAR;

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

/// A row of a finished tile goes past the caches.
macro_rules! carry {
    () => {
        concat!(
            ".if {carried} > 0\n",
            "vmovdqu64 zmm16, [{from}]\nvmovntdq [{to}], zmm16\n",
            ".if {carried} > 1\nvmovdqu64 zmm16, [{from} + 64]\nvmovntdq [{to} + {beside}*1], zmm16\n.endif\n",
            "add {from}, 64*{carried}\nadd {to}, {row_bytes}\n",
            ".endif"
        )
    };
}

/// A step, whose operands are in registers, and the loads of the next: B with the instruction `$load`.
macro_rules! step {
    ($load:literal, $carry:expr) => {
        concat!(
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            ask!("0"),
            "\n",
            $carry,
            "\ntdpbf16ps tmm1, tmm4, tmm7\ntileloaddt1 tmm4, [{a} + {narrow}*1 + 2048]\n",
            ask!("1"),
            "\ntdpbf16ps tmm2, tmm5, tmm6\n",
            $load,
            " tmm6, [{b} + {wide}*1 + 2048]\n",
            ask!("2"),
            "\n",
            $carry,
            "\ntdpbf16ps tmm3, tmm5, tmm7\n",
            $load,
            " tmm7, [{b} + {wide}*1 + 2112]\ntileloaddt1 tmm5, [{a} + {narrow}*1 + 3072]\n",
            ask!("3"),
            "\nadd {a}, 2048\nadd {b}, 2048\nadd {soon}, 64*{lines}"
        )
    };
}

/// sums[i·NR + j] (=, += if `add`) Σ_k a[i][k] · b[k][j] for MR × NR sums, k ascending. `LINES` lines from `soon` on are asked for
/// in each step, for the second-level cache: 1 to 32; nothing is read there. `CARRY_LINES` is [`Carry::lines`].
///
/// The first [`NEAR`] steps of B stay in the first-level cache for the next tile of rows. Everything else is loaded with a hint that
/// it is not needed again, which keeps it from driving those out. A tile register that was just read can only be loaded again when
/// the product that read it has gone on: so what the next step needs is loaded as soon as its register is free.
///
/// # Safety
/// Tiles were configured on this thread, all of 16 rows of 64 bytes. `steps` ≥ 1; A holds `steps`·A_STEP numbers, B `steps`
/// steps of a panel (STEP/2, NR, 2), `sums` TILE, which nobody else uses. `carry` has all rows of
/// a tile, if `CARRY_LINES` is not 0.
pub unsafe fn tile<const LINES: usize, const CARRY_LINES: usize>(
    steps: usize,
    a: *const Bf16,
    b: *const Bf16,
    sums: *mut f32,
    add: bool,
    soon: *const Bf16,
    carry: &Carry,
) {
    let near = NEAR.min(steps - 1);
    // SAFETY: the caller's promises. A register holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Rows of A are
    // 64 bytes, halves of a step 1,024; rows of B and of the sums 128. Prefetches read nothing.
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
            "tileloadd tmm6, [{b} + {wide}*1]",
            "tileloaddt1 tmm4, [{a} + {narrow}*1]",
            "tileloadd tmm7, [{b} + {wide}*1 + 64]",
            "tileloaddt1 tmm5, [{a} + {narrow}*1 + 1024]",
            "test {near}, {near}",
            "jz 6f",
            "4:",
            step!("tileloadd", carry!()),
            "dec {near}",
            "jnz 4b",
            "test {far}, {far}",
            "jz 6f",
            "5:",
            step!("tileloaddt1", ""),
            "dec {far}",
            "jnz 5b",
            "6:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            lines = const LINES,
            carried = const CARRY_LINES,
            add = in(reg) usize::from(add),
            near = inout(reg) near => _,
            far = inout(reg) steps - 1 - near => _,
            a = inout(reg) a => _,
            narrow = in(reg) 64usize,
            b = inout(reg) b => _,
            wide = in(reg) 128usize,
            c = in(reg) sums,
            soon = inout(reg) soon => _,
            from = inout(reg) carry.from => _,
            to = inout(reg) carry.to => _,
            beside = in(reg) carry.beside,
            row_bytes = in(reg) carry.row_bytes,
            out("zmm16") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
