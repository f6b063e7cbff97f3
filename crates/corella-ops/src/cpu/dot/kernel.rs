//! The micro-kernels of products in bfloat16: sums in f32 of products of pairs.

use std::arch::x86_64::{__m512bh, __m512i};

use crate::cpu::bf16::Bf16;

/// Columns of a tile, and of a packed panel of B.
pub const NR: usize = 32;
/// Numbers of k in a step; operands are padded with zeros to whole steps.
pub const STEP: usize = 32;

/// A micro-kernel for a few rows.
pub trait FewKernel {
    /// Numbers of A for each of B: 1, or 2 where a number of A is the sum of two, as [`super::split`] makes them. A step of A is then
    /// STEP upper parts and STEP lower ones.
    const PARTS: usize;

    /// Most rows.
    const FEW: usize;

    /// Prepares the calling thread for [`FewKernel::few`] with 1 ≤ `rows` ≤ FEW.
    ///
    /// # Safety
    /// The processor has the kernel's features and the process may use them.
    unsafe fn begin_few(rows: usize) {
        let _ = rows;
    }

    /// The sums of [`DotKernel::tile`], with its additions, for `rows` rows of A whose steps follow one another, against a
    /// panel that is read once: what lies behind it is asked for from memory meanwhile. Of A in two parts the upper one comes first
    /// in each step.
    ///
    /// # Safety
    /// As of [`DotKernel::tile`], with [`FewKernel::begin_few`] for as many rows; `sums` has room for FEW rows.
    unsafe fn few(rows: usize, steps: usize, a: *const Bf16, a_row: usize, b: *const Bf16, sums: *mut f32);

    /// Undoes [`FewKernel::begin_few`] or [`DotKernel::begin`].
    ///
    /// # Safety
    /// Follows a call of one of them on the same thread.
    unsafe fn end() {}
}

/// A micro-kernel for tiles of rows.
pub trait DotKernel: FewKernel {
    /// Rows of a tile.
    const MR: usize;

    /// Prepares the calling thread for [`DotKernel::tile`].
    ///
    /// # Safety
    /// The processor has the kernel's features and the process may use them.
    unsafe fn begin() {}

    /// sums[i·NR + j] (=, += if `add`) Σ_k a[i][k] · b[k][j] for MR × NR sums and `steps` ≥ 1 steps of k, in their order.
    /// Row i of step s of A begins at a + i·`a_row` + s·`a_step`; B is a packed panel (k/2, NR, 2). A's lower parts, if it has some,
    /// are MR·STEP behind the upper ones.
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

/// Bytes that [`FewKernel::few`] asks for a panel ahead.
pub const AHEAD: usize = 2048;

/// VDPBF16PS: 24 registers of sums, 2 of b and 1 of a of the 32 that there are. (12 registers of sums do not hide the
/// instruction's latency: 10 % slower on Zen 5.) Numbers of A have `PARTS` parts.
pub struct Avx512Bf16<const PARTS: usize>;

/// The same bits, seen as pairs of bfloat16.
#[inline(always)]
fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain bits.
    unsafe { std::mem::transmute(x) }
}

impl<const PARTS: usize> DotKernel for Avx512Bf16<PARTS> {
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
            __m512, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
            _mm512_storeu_ps,
        };
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
                    for part in 0..PARTS {
                        for (i, row) in tile.iter_mut().enumerate() {
                            let a = a.add(i * a_row + part * Self::MR * STEP);
                            let x = pairs(_mm512_set1_epi32(a.cast::<i32>().read_unaligned()));
                            row[0] = _mm512_dpbf16_ps(row[0], x, pairs(b0));
                            row[1] = _mm512_dpbf16_ps(row[1], x, pairs(b1));
                        }
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

impl<const PARTS: usize> FewKernel for Avx512Bf16<PARTS> {
    const PARTS: usize = PARTS;
    const FEW: usize = 12;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn few(rows: usize, steps: usize, a: *const Bf16, a_row: usize, b: *const Bf16, sums: *mut f32) {
        // SAFETY: handed on; a kernel for more rows than there are repeats the last.
        unsafe {
            match rows {
                1 => few_rows::<PARTS, 1>(rows, steps, a, a_row, b, sums),
                2 => few_rows::<PARTS, 2>(rows, steps, a, a_row, b, sums),
                3 | 4 => few_rows::<PARTS, 4>(rows, steps, a, a_row, b, sums),
                5..=8 => few_rows::<PARTS, 8>(rows, steps, a, a_row, b, sums),
                _ => few_rows::<PARTS, 12>(rows, steps, a, a_row, b, sums),
            }
        }
    }
}

/// [`FewKernel::few`] of [`Avx512Bf16`] with registers for R rows.
///
/// # Safety
/// As there; `rows` ≤ R.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn few_rows<const PARTS: usize, const R: usize>(
    rows: usize,
    steps: usize,
    a: *const Bf16,
    a_row: usize,
    b: *const Bf16,
    sums: *mut f32,
) {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };
    let mut tile = [[_mm512_setzero_ps(); 2]; R];
    let a: [*const Bf16; R] = std::array::from_fn(|i| a.wrapping_add(i.min(rows - 1) * a_row));
    for step in 0..steps {
        for pair in 0..STEP / 2 {
            // SAFETY: a pair of the steps of both operands (the caller's promise); prefetches read nothing.
            unsafe {
                let b = b.add((step * STEP + 2 * pair) * NR);
                _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD + 64));
                let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(NR).cast()));
                for part in 0..PARTS {
                    for (row, a) in tile.iter_mut().zip(a) {
                        let a = a.add((step * PARTS + part) * STEP + 2 * pair);
                        let x = pairs(_mm512_set1_epi32(a.cast::<i32>().read_unaligned()));
                        row[0] = _mm512_dpbf16_ps(row[0], x, pairs(b0));
                        row[1] = _mm512_dpbf16_ps(row[1], x, pairs(b1));
                    }
                }
            }
        }
    }
    for (i, row) in tile.iter().enumerate() {
        // SAFETY: row i of the sums, for which there is room.
        unsafe {
            _mm512_storeu_ps(sums.add(i * NR), row[0]);
            _mm512_storeu_ps(sums.add(i * NR + 16), row[1]);
        }
    }
}
