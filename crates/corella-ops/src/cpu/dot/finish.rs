//! What happens to a tile of sums before it is stored: bias, GELU, residual, rounding.

use std::arch::x86_64::{
    __m512, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_rcp14_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_sub_ps,
};

use super::kernel::NR;
use crate::cpu::bf16::{Bf16, Number};
use crate::cpu::gemm::Store;
use crate::cpu::math::{CUBIC, ROOT_2_OVER_PI};
use crate::cpu::shared::SharedMut;

/// The result of a product, and what is done on the way to it.
pub struct Finish<'a, O: Number> {
    /// The result, rows `ldc` apart.
    pub out: SharedMut<'a, O>,
    /// Distance between rows of the result, and of the arrays of `then`.
    pub ldc: usize,
    /// Whether the result is replaced or added to.
    pub store: Store,
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub then: Then<'a>,
}

/// What follows the bias.
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// pre = sum, out = gelu(sum).
    Gelu {
        /// The argument of GELU.
        pre: SharedMut<'a, Bf16>,
    },
    /// out = sum · gelu'(pre), act = gelu(pre): the way back, with the activation computed again.
    GeluGrad {
        /// The argument of GELU on the way forward.
        pre: &'a [Bf16],
        /// Its value.
        act: SharedMut<'a, Bf16>,
    },
    /// out = sum + residual.
    Residual(&'a [f32]),
}

/// The part of a tile that lies inside the result.
#[derive(Clone, Copy)]
pub struct Place {
    /// First row.
    pub row: usize,
    /// First column.
    pub column: usize,
    /// Rows.
    pub rows: usize,
    /// Columns, at most NR.
    pub columns: usize,
}

/// Half a row of a tile: 16 numbers, of which the first `count` are inside.
#[derive(Clone, Copy)]
struct Half {
    mask: u16,
    at: usize,
    count: usize,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_f32(from: &[f32], half: Half) -> __m512 {
    let from = &from[half.at..half.at + half.count];
    // SAFETY: the mask covers `count` numbers, the length of the slice.
    unsafe { _mm512_maskz_loadu_ps(half.mask, from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_bf16(from: &[Bf16], half: Half) -> __m512 {
    let from = &from[half.at..half.at + half.count];
    // SAFETY: as above.
    let bits = unsafe { _mm256_maskz_loadu_epi16(half.mask, from.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

/// # Safety
/// The numbers of the half are used by nobody else.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn store<O: Number>(to: &SharedMut<'_, O>, half: Half, x: __m512) {
    // SAFETY: the caller's promise; the mask covers `count` numbers, and formats are told apart by their size.
    unsafe {
        let to = to.part(half.at, half.count).as_mut_ptr();
        if size_of::<O>() == size_of::<f32>() {
            _mm512_mask_storeu_ps(to.cast(), half.mask, x);
        } else {
            _mm256_mask_storeu_epi16(to.cast(), half.mask, std::mem::transmute(_mm512_cvtneps_pbh(x)));
        }
    }
}

/// (σ(2u), 1 − σ(2u)) with u = √(2/π)(x + 0.044715x³), to some 13 bits: what is left of GELU is then rounded to 8.
#[inline]
#[target_feature(enable = "avx512f")]
fn sigmoid(x: __m512, square: __m512) -> (__m512, __m512) {
    const SCALE: f32 = -2.0 * ROOT_2_OVER_PI * std::f32::consts::LOG2_E;
    let inner = _mm512_fmadd_ps(_mm512_set1_ps(SCALE * CUBIC), square, _mm512_set1_ps(SCALE));
    let t = _mm512_mul_ps(x, inner);
    // e^(−2u) = 2^t: the whole part goes to the exponent, the rest |r| ≤ ½ into a Taylor polynomial.
    let whole = _mm512_roundscale_ps::<0>(t);
    let r = _mm512_sub_ps(t, whole);
    let mut p = _mm512_set1_ps(1.333_355_8e-3);
    for c in [9.618_129e-3, 5.550_410_9e-2, 2.402_265_1e-1, 6.931_471_8e-1, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    let s = _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0), _mm512_scalef_ps(p, whole)));
    (s, _mm512_sub_ps(_mm512_set1_ps(1.0), s))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn gelu(x: __m512) -> __m512 {
    _mm512_mul_ps(x, sigmoid(x, _mm512_mul_ps(x, x)).0)
}

/// gelu(x) and its slope.
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu_and_slope(x: __m512) -> (__m512, __m512) {
    let square = _mm512_mul_ps(x, x);
    let (s, rest) = sigmoid(x, square);
    let y = _mm512_mul_ps(x, s);
    const DU: f32 = 2.0 * ROOT_2_OVER_PI;
    let du = _mm512_fmadd_ps(_mm512_set1_ps(3.0 * DU * CUBIC), square, _mm512_set1_ps(DU));
    (y, _mm512_fmadd_ps(_mm512_mul_ps(y, rest), du, s))
}

/// Stores the part of a tile that lies inside the result.
///
/// # Safety
/// The processor has the features; the part is used by nobody else. `sums` holds the tile, rows of NR.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn finish<O: Number>(sums: &[f32], f: &Finish<'_, O>, place: Place) {
    for i in 0..2 {
        let first = 16 * i;
        if place.columns <= first {
            return;
        }
        let count = (place.columns - first).min(16);
        let mask = if count == 16 { u16::MAX } else { (1 << count) - 1 };
        let column = place.column + first;
        let bias = match f.bias {
            Some(bias) => load_f32(bias, Half { mask, at: column, count }),
            None => _mm512_setzero_ps(),
        };
        for row in 0..place.rows {
            let half = Half { mask, at: (place.row + row) * f.ldc + column, count };
            let sums = &sums[row * NR + first..][..16];
            // SAFETY: 16 numbers.
            let x = _mm512_add_ps(unsafe { _mm512_loadu_ps(sums.as_ptr()) }, bias);
            // SAFETY: this half of a row is inside the tile, which is the caller's alone.
            unsafe { finish_half(x, f, half) };
        }
    }
}

/// # Safety
/// The half is used by nobody else.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn finish_half<O: Number>(x: __m512, f: &Finish<'_, O>, half: Half) {
    // SAFETY: handed on.
    unsafe {
        match &f.then {
            Then::Nothing if f.store == Store::Add => {
                let to = f.out.part(half.at, half.count).as_ptr();
                // Only f32 results are added to (checked where a product begins).
                store(&f.out, half, _mm512_add_ps(x, _mm512_maskz_loadu_ps(half.mask, to.cast())));
            }
            Then::Nothing => store(&f.out, half, x),
            Then::Gelu { pre } => {
                store(pre, half, x);
                store(&f.out, half, gelu(x));
            }
            Then::GeluGrad { pre, act } => {
                let (y, slope) = gelu_and_slope(load_bf16(pre, half));
                store(act, half, y);
                store(&f.out, half, _mm512_mul_ps(x, slope));
            }
            Then::Residual(residual) => store(&f.out, half, _mm512_add_ps(x, load_f32(residual, half))),
        }
    }
}
