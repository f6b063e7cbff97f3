//! Advanced Matrix Extensions: products of bfloat16 tiles of 16 rows by 64 bytes.
//!
//! The instructions have no stable intrinsics, and the compiler knows nothing of tile registers beyond that an assembly
//! block may change them. So a block does a whole tile's sum over k, from loading the sums to storing them.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::kernel::{AHEAD, DotKernel, FewKernel};
use crate::cpu::bf16::Bf16;

/// Bits of CPUID leaf 7, register EDX.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;

/// Whether the processor has tiles and the system lets this process use them; asked once.
pub fn permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| __cpuid_count(7, 0).edx & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE && ask())
}

/// Linux gives the 8 KiB of tile state only to processes that ask.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    /// `arch_prctl` code and feature number, from the kernel's documentation of x86 xstate.
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call changes which features this process may use, and no memory. A kernel that does not know it says so.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// What LDTILECFG reads: palette 1, and the shapes of eight tiles.
#[repr(C, align(64))]
pub struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Tiles of `rows` rows of `row_bytes` bytes: at most 16 and 64.
    pub const fn new(row_bytes: [u16; 8], rows: [u8; 8]) -> Config {
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            assert!(row_bytes[tile] <= 64 && rows[tile] <= 16);
            (config.row_bytes[tile], config.rows[tile]) = (row_bytes[tile], rows[tile]);
            tile += 1;
        }
        config
    }
}

static CONFIG: Config = Config::new([64; 8], [16; 8]);

/// For 1 to 16 rows: registers 0 and 1 are sums, 4 is a run of A, 6 and 7 are of B.
static FEW: [Config; 16] = {
    let mut configs = [const { Config::new([64; 8], [16; 8]) }; 16];
    let mut rows = 1;
    while rows <= 16 {
        let r = rows as u8;
        configs[rows - 1] = Config::new([64; 8], [r, r, r, r, r, r, 16, 16]);
        rows += 1;
    }
    configs
};

fn load(config: &'static Config) {
    // SAFETY: the permission was given (the path exists only then); the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(nostack, readonly)) };
}

/// Stores registers 0 to 3, four tiles of 32 × 32 sums in rows of 128 bytes.
///
/// # Safety
/// Tiles were configured on this thread, all of 16 rows of 64 bytes; `to` has room for 32 × 32 sums.
#[inline(always)]
pub unsafe fn store_sums(to: *mut f32) {
    // SAFETY: the caller's promises.
    unsafe {
        asm!(
            "tilestored [{c} + {wide}*1], tmm0",
            "tilestored [{c} + {wide}*1 + 64], tmm1",
            "tilestored [{c} + {wide}*1 + 2048], tmm2",
            "tilestored [{c} + {wide}*1 + 2112], tmm3",
            c = in(reg) to,
            wide = in(reg) 128usize,
            options(nostack),
        );
    }
}

/// Four tiles of sums, 32 × 32; two of A, whose numbers have `PARTS` parts; two of B.
pub struct Amx<const PARTS: usize>;

impl DotKernel for Amx<1> {
    const MR: usize = 32;

    unsafe fn begin() {
        load(&CONFIG);
    }

    #[inline]
    unsafe fn tile(
        steps: usize,
        a: *const Bf16,
        a_row: usize,
        a_step: usize,
        b: *const Bf16,
        sums: *mut f32,
        add: bool,
    ) {
        // SAFETY: the caller's promises on the lengths of a, b and sums; `begin` was called on this thread. A tile register
        // holds 16 rows of 64 bytes: 32 numbers of A, 16 pairs of B, 16 sums. Rows of B and of the sums are 128 bytes.
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
                "tileloaddt1 tmm4, [{a} + {row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloaddt1 tmm5, [{lower} + {row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, {step}",
                "add {lower}, {step}",
                "add {b}, 2048",
                "dec {n}",
                "jnz 3b",
                "tilestored [{c} + {wide}*1], tmm0",
                "tilestored [{c} + {wide}*1 + 64], tmm1",
                "tilestored [{c} + {wide}*1 + 2048], tmm2",
                "tilestored [{c} + {wide}*1 + 2112], tmm3",
                add = in(reg) usize::from(add),
                n = inout(reg) steps => _,
                a = inout(reg) a => _,
                lower = inout(reg) a.add(16 * a_row) => _,
                row = in(reg) 2 * a_row,
                step = in(reg) 2 * a_step,
                b = inout(reg) b => _,
                wide = in(reg) 128usize,
                c = in(reg) sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl<const PARTS: usize> FewKernel for Amx<PARTS> {
    const PARTS: usize = PARTS;
    const FEW: usize = 16;

    unsafe fn end() {
        // SAFETY: tiles are this module's alone.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    unsafe fn begin_few(rows: usize) {
        load(&FEW[rows - 1]);
    }

    #[inline]
    unsafe fn few(_: usize, steps: usize, a: *const Bf16, a_row: usize, b: *const Bf16, sums: *mut f32) {
        // SAFETY: as above, for as many rows as the registers of A and of the sums were configured with. Prefetches read
        // nothing.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960",
                "prefetcht0 [{b} + {ahead} + \\line]",
                ".endr",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm6, [{b} + {wide}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                ".irp line, 1024, 1088, 1152, 1216, 1280, 1344, 1408, 1472, 1536, 1600, 1664, 1728, 1792, 1856, 1920, 1984",
                "prefetcht0 [{b} + {ahead} + \\line]",
                ".endr",
                "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                ".if {parts} == 2",
                "tileloadd tmm4, [{a} + {row}*1 + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                ".endif",
                "add {a}, 64",
                "add {b}, 2048",
                "dec {n}",
                "jnz 2b",
                "tilestored [{c} + {wide}*1], tmm0",
                "tilestored [{c} + {wide}*1 + 64], tmm1",
                parts = const PARTS,
                ahead = const AHEAD,
                n = inout(reg) steps => _,
                a = inout(reg) a => _,
                row = in(reg) 2 * a_row,
                b = inout(reg) b => _,
                wide = in(reg) 128usize,
                c = in(reg) sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
