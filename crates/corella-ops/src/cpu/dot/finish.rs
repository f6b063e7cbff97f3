//! What happens to a tile of sums before it is stored: bias, GELU, residual, rounding.

use std::arch::x86_64::{
    __m512, __m512i, _mm_sfence, _mm256_maskz_loadu_epi16, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_mask_storeu_epi16, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_rcp14_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_stream_ps, _mm512_stream_si512, _mm512_sub_ps,
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
    /// Whether whole lines that are written without being read pass the caches by.
    pub stream: bool,
}

impl<'a, O: Number> Finish<'a, O> {
    /// Replaces `out`, whose rows lie `ldc` apart.
    pub fn new(out: &'a mut [O], ldc: usize) -> Finish<'a, O> {
        let stream = size_of_val(out) >= STREAMED;
        Finish { out: SharedMut::new(out), ldc, store: Store::Write, bias: None, then: Then::Nothing, stream }
    }
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

/// Results of this many bytes pass the caches by: they would be read from memory only to be written over.
pub const STREAMED: usize = 16 << 20;

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

/// The columns of a tile that are inside the result, as masks of two halves of 16.
#[derive(Clone, Copy)]
struct Inside([u16; 2]);

impl Inside {
    fn new(columns: usize) -> Inside {
        Inside([0, 16].map(|first: usize| ((1u32 << columns.saturating_sub(first).min(16)) - 1) as u16))
    }
}

/// 32 numbers of a row; zero outside.
///
/// # Safety
/// The numbers inside are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load<T: Number>(from: *const T, inside: Inside) -> [__m512; 2] {
    // SAFETY: masks cover what is inside; formats are told apart by their size.
    unsafe {
        if size_of::<T>() == size_of::<f32>() {
            let from: *const f32 = from.cast();
            return [
                _mm512_maskz_loadu_ps(inside.0[0], from),
                _mm512_maskz_loadu_ps(inside.0[1], from.wrapping_add(16)),
            ];
        }
        let from: *const i16 = from.cast();
        [0, 1].map(|half| {
            let bits = _mm256_maskz_loadu_epi16(inside.0[half], from.wrapping_add(16 * half));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        })
    }
}

/// Orders the lines of this thread's tiles that passed the caches by before whatever it does next: for the end of a task.
pub fn settle() {
    // SAFETY: every x86-64 processor has SSE; a fence touches no memory.
    unsafe { _mm_sfence() };
}

/// Stores 32 numbers of a row, rounded to the format.
///
/// # Safety
/// The numbers inside are there, and used by nobody else.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn store<T: Number>(to: *mut T, inside: Inside, x: [__m512; 2], stream: bool) {
    // SAFETY: as above.
    unsafe {
        if size_of::<T>() == size_of::<f32>() {
            let to: *mut f32 = to.cast();
            if stream && inside.0 == [u16::MAX; 2] && to.addr().is_multiple_of(64) {
                _mm512_stream_ps(to, x[0]);
                _mm512_stream_ps(to.add(16), x[1]);
            } else {
                _mm512_mask_storeu_ps(to, inside.0[0], x[0]);
                _mm512_mask_storeu_ps(to.wrapping_add(16), inside.0[1], x[1]);
            }
        } else {
            let both = u32::from(inside.0[1]) << 16 | u32::from(inside.0[0]);
            let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(x[1], x[0]));
            if stream && both == u32::MAX && to.addr().is_multiple_of(64) {
                _mm512_stream_si512(to.cast(), rounded);
            } else {
                _mm512_mask_storeu_epi16(to.cast(), both, rounded);
            }
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
    for c in [9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0] {
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

/// Where a tile's results are put: the tile inside the result, or a copy of it.
#[derive(Clone, Copy)]
struct Target<O> {
    out: *mut O,
    /// The second array that some of [`Then`] write.
    second: *mut Bf16,
    /// Distance between rows of both.
    ld: usize,
    /// Whether whole lines pass the caches by.
    stream: bool,
}

impl<'a, O: Number> Finish<'a, O> {
    /// Where a tile begins in the result and its arrays, and how many elements on it ends.
    fn span(&self, place: Place) -> (usize, usize) {
        (place.row * self.ldc + place.column, (place.rows - 1) * self.ldc + place.columns)
    }

    /// The second array that is written.
    fn second(&self) -> Option<&SharedMut<'a, Bf16>> {
        match &self.then {
            Then::Gelu { pre: second } | Then::GeluGrad { act: second, .. } => Some(second),
            Then::Nothing | Then::Residual(_) => None,
        }
    }

    /// The tile inside the result.
    ///
    /// # Safety
    /// The tile is used by nobody else.
    unsafe fn target(&self, place: Place) -> Target<O> {
        let (at, span) = self.span(place);
        // SAFETY: the caller's promise.
        let (out, second) = unsafe {
            let second = self.second().map_or(std::ptr::null_mut(), |second| second.tile_at(at, span));
            (self.out.tile_at(at, span), second)
        };
        Target { out, second, ld: self.ldc, stream: self.stream }
    }

    /// Cache lines of a row of a tile in all arrays that are written, if they are whole lines, two at most, and not read before.
    pub fn whole_lines(&self, place: Place) -> Option<usize> {
        let (at, _) = self.span(place);
        let lines = size_of::<O>() / size_of::<Bf16>();
        let whole = |address: usize, row: usize| address.is_multiple_of(64) && row.is_multiple_of(64);
        let (second, second_is_whole) = match self.second() {
            Some(second) => (1, whole(second.address(at).addr(), self.ldc * size_of::<Bf16>())),
            None => (0, true),
        };
        let is_whole = second_is_whole && whole(self.out.address(at).addr(), self.ldc * size_of::<O>());
        let all = place.columns == NR && self.store == Store::Write;
        (is_whole && all && lines + second <= 2).then_some(lines + second)
    }
}

/// Stores the part of a tile that lies inside the result.
///
/// # Safety
/// The processor has the features; the part is used by nobody else. `sums` holds the tile, rows of NR.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn finish<O: Number>(sums: &[f32], f: &Finish<'_, O>, place: Place) {
    // SAFETY: the caller's promises.
    unsafe { put(sums, f, place, f.target(place)) };
}

/// As [`finish`], with [`Finish::whole_lines`], but into a copy of these lines, row after row. Returns where the first of a row
/// goes, how many bytes behind it the second does, and how many bytes rows lie apart.
///
/// # Safety
/// As of [`finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn finish_aside<O: Number>(
    sums: &[f32],
    f: &Finish<'_, O>,
    place: Place,
    copy: &mut [Bf16],
) -> (*mut u8, isize, usize) {
    let lines = f.whole_lines(place).unwrap_or(usize::MAX);
    assert!(copy.len() / lines >= place.rows * NR, "room for {lines} lines a row");
    let start = copy.as_mut_ptr();
    // A second array's line lies behind the first's.
    let ld = match f.second() {
        Some(_) => 2 * NR,
        None => NR,
    };
    let copied = Target { out: start.cast(), second: start.wrapping_add(NR), ld, stream: false };
    // SAFETY: rows of the copy are there (asserted); the caller's promises.
    unsafe {
        put(sums, f, place, copied);
        let Target { out, second, .. } = f.target(place);
        let beside = if second.is_null() { 64 } else { second.addr().wrapping_sub(out.addr()).cast_signed() };
        (out.cast(), beside, f.ldc * size_of::<O>())
    }
}

/// Puts the part of a tile that lies inside the result into `to`.
///
/// # Safety
/// As of [`finish`]; `to` has room for the part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn put<O: Number>(sums: &[f32], f: &Finish<'_, O>, place: Place, to: Target<O>) {
    let inside = Inside::new(place.columns);
    let (at, span) = f.span(place);
    assert!(sums.len() >= place.rows * NR && place.columns <= NR);
    let Target { out, second, ld, stream } = to;
    // SAFETY: the tile lies inside the arrays (the slices check it) and is the caller's alone; the rows of the sums are there
    // (asserted), and those of `to` (the caller's promise).
    unsafe {
        let bias = match f.bias {
            Some(bias) => load(bias[place.column..place.column + place.columns].as_ptr(), inside),
            None => [_mm512_setzero_ps(); 2],
        };
        let row = |i: usize| {
            let sums = load(sums.as_ptr().add(i * NR), Inside::new(NR));
            [_mm512_add_ps(sums[0], bias[0]), _mm512_add_ps(sums[1], bias[1])]
        };
        match &f.then {
            Then::Nothing if f.store == Store::Add => {
                for i in 0..place.rows {
                    let (x, old) = (row(i), load(out.add(i * ld).cast_const(), inside));
                    let sum = [_mm512_add_ps(x[0], old[0]), _mm512_add_ps(x[1], old[1])];
                    store(out.add(i * ld), inside, sum, false);
                }
            }
            Then::Nothing => {
                for i in 0..place.rows {
                    store(out.add(i * ld), inside, row(i), stream);
                }
            }
            Then::Gelu { .. } => {
                for i in 0..place.rows {
                    let x = row(i);
                    store(second.add(i * ld), inside, x, stream);
                    store(out.add(i * ld), inside, [gelu(x[0]), gelu(x[1])], stream);
                }
            }
            Then::GeluGrad { pre, .. } => {
                let pre = pre[at..at + span].as_ptr();
                for i in 0..place.rows {
                    let (x, pre) = (row(i), load(pre.add(i * f.ldc), inside));
                    let [low, high] = [gelu_and_slope(pre[0]), gelu_and_slope(pre[1])];
                    store(second.add(i * ld), inside, [low.0, high.0], stream);
                    let sum = [_mm512_mul_ps(x[0], low.1), _mm512_mul_ps(x[1], high.1)];
                    store(out.add(i * ld), inside, sum, stream);
                }
            }
            Then::Residual(residual) => {
                let residual = residual[at..at + span].as_ptr();
                for i in 0..place.rows {
                    let (x, old) = (row(i), load(residual.add(i * f.ldc), inside));
                    let sum = [_mm512_add_ps(x[0], old[0]), _mm512_add_ps(x[1], old[1])];
                    store(out.add(i * ld), inside, sum, stream);
                }
            }
        }
    }
}
