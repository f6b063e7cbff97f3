//! The rate of integer products from registers alone.

use std::hint::black_box;
use std::time::Instant;

use super::super::Cpu;
use super::kernel::Integers;

/// Steps of a task: about a millisecond.
const STEPS: usize = 100_000;
/// Tasks per thread.
const TASKS: usize = 4;

/// The rate of 8-bit products of this moment, two operations each, in 10⁹ per second, with the instructions that the path uses
/// for many rows; `None` where it has no special ones.
pub fn int8_now(cpu: &Cpu) -> Option<f64> {
    let kind = Integers::on(cpu.path);
    if kind == Integers::Portable {
        return None;
    }
    let tasks = TASKS * cpu.threads();
    let start = Instant::now();
    cpu.pool.run(tasks, &|_| run(kind));
    Some((tasks * operations(kind)) as f64 / start.elapsed().as_secs_f64() / 1e9)
}

#[cfg(not(target_arch = "x86_64"))]
fn run(_: Integers) {}

#[cfg(not(target_arch = "x86_64"))]
fn operations(_: Integers) -> usize {
    0
}

/// Independent sums: enough to hide the latency.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 12;

/// Operations of a task.
#[cfg(target_arch = "x86_64")]
fn operations(kind: Integers) -> usize {
    STEPS
        * match kind {
            Integers::Portable => 0,
            Integers::Avx2 => SUMS * 2 * 32,
            Integers::Vnni => SUMS * 2 * 64,
            Integers::Amx => 4 * 2 * 16 * 16 * 64,
        }
}

#[cfg(target_arch = "x86_64")]
fn run(kind: Integers) {
    // SAFETY: kernels of a kind exist only where its instructions were detected (`Integers::on`).
    unsafe {
        match kind {
            Integers::Portable => {}
            Integers::Avx2 => avx2(),
            Integers::Vnni => vnni(),
            Integers::Amx => amx(),
        }
    }
}

/// Products of bytes whose sums are added in 16 bits, as those of codes of 4 bits are: the widening that follows some of them is not
/// counted.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2() {
    // SAFETY: registers alone, which are this block's.
    unsafe {
        std::arch::asm!(
            "2:",
            ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
            "vpmaddubsw ymm15, ymm13, ymm14",
            "vpaddw ymm\\sum, ymm\\sum, ymm15",
            ".endr",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, nomem),
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni() {
    use std::arch::x86_64::*;
    let mut sums: [__m512i; SUMS] = std::array::from_fn(|i| _mm512_set1_epi32(black_box(i as i32)));
    let (w, x) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, w, x);
        }
    }
    black_box(sums);
}

/// # Safety
/// Tiles are permitted.
#[cfg(target_arch = "x86_64")]
unsafe fn amx() {
    super::amx::begin_whole();
    // SAFETY: whole tiles were configured; the registers are this block's alone.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) STEPS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
    super::amx::end();
}
