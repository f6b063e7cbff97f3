//! What happens to a tile of sums before it is stored: bias, GELU, residual, rounding.

use std::arch::x86_64::{
    __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm256_maskz_loadu_epi16, _mm512_add_ps,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_mask_storeu_epi16,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_rcp14_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_stream_ps, _mm512_stream_si512, _mm512_sub_ps,
};

use std::ops::Range;

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

/// Results of tiles of this many bytes pass the caches by: whoever reads them next finds them too late in the second-level cache, and their lines
/// would be read only to be written over.
pub const PASSING: usize = 1 << 20;

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
fn add(x: [__m512; 2], y: [__m512; 2]) -> [__m512; 2] {
    [_mm512_add_ps(x[0], y[0]), _mm512_add_ps(x[1], y[1])]
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

/// What [`Then`] and [`Store`] do to a tile, whose rows begin there.
#[derive(Clone, Copy)]
enum Tile {
    Write,
    Add,
    Gelu { pre: *mut Bf16 },
    GeluGrad { pre: *const Bf16, act: *mut Bf16 },
    Residual(*const f32),
}

/// The part of a tile that lies inside the result, finished row by row.
pub struct Rows<O> {
    out: *mut O,
    ld: usize,
    bias: *const f32,
    inside: Inside,
    tile: Tile,
    stream: bool,
    /// Rows that lie inside.
    pub rows: usize,
}

impl<O: Number> Rows<O> {
    /// Whole lines pass the caches by, if `stream`.
    ///
    /// # Safety
    /// As long as rows are finished, the part is used by nobody else.
    pub unsafe fn new(f: &Finish<'_, O>, place: Place, stream: bool) -> Rows<O> {
        let (at, span) = (place.row * f.ldc + place.column, (place.rows - 1) * f.ldc + place.columns);
        assert!(place.columns <= NR, "{} columns", place.columns);
        // SAFETY: the caller's promise.
        let (out, tile) = unsafe {
            let tile = match &f.then {
                Then::Nothing if f.store == Store::Add => Tile::Add,
                Then::Nothing => Tile::Write,
                Then::Gelu { pre } => Tile::Gelu { pre: pre.tile_at(at, span) },
                Then::GeluGrad { pre, act } => {
                    Tile::GeluGrad { pre: pre[at..at + span].as_ptr(), act: act.tile_at(at, span) }
                }
                Then::Residual(residual) => Tile::Residual(residual[at..at + span].as_ptr()),
            };
            (f.out.tile_at(at, span), tile)
        };
        let bias = f.bias.map_or(std::ptr::null(), |bias| bias[place.column..place.column + place.columns].as_ptr());
        Rows { out, ld: f.ldc, bias, inside: Inside::new(place.columns), tile, stream, rows: place.rows }
    }

    /// Asks for what some rows read besides their sums.
    #[inline(always)]
    pub fn ask(&self, rows: Range<usize>) {
        let (first, bytes): (*const u8, _) = match self.tile {
            Tile::Write | Tile::Gelu { .. } => return,
            Tile::Add => (self.out.cast_const().cast(), size_of::<O>()),
            Tile::GeluGrad { pre, .. } => (pre.cast(), size_of::<Bf16>()),
            Tile::Residual(residual) => (residual.cast(), size_of::<f32>()),
        };
        for i in rows.start..rows.end.min(self.rows) {
            let line = first.wrapping_add(i * self.ld * bytes);
            // SAFETY: prefetches read nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.cast());
                if bytes > size_of::<Bf16>() {
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64).cast());
                }
            }
        }
    }

    /// Finishes row `i` from its NR sums.
    ///
    /// # Safety
    /// The processor has the features; `i` < `rows`; what [`Rows::new`] was promised.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn finish(&self, i: usize, sums: &[f32; NR]) {
        let (inside, stream) = (self.inside, self.stream);
        // SAFETY: row `i` of the part (the caller's promises).
        unsafe {
            let mut x = load(sums.as_ptr(), Inside::new(NR));
            if !self.bias.is_null() {
                x = add(x, load(self.bias, inside));
            }
            let out = self.out.add(i * self.ld);
            match self.tile {
                Tile::Write => store(out, inside, x, stream),
                Tile::Add => store(out, inside, add(x, load(out.cast_const(), inside)), false),
                Tile::Gelu { pre } => {
                    store(pre.add(i * self.ld), inside, x, stream);
                    store(out, inside, [gelu(x[0]), gelu(x[1])], stream);
                }
                Tile::GeluGrad { pre, act } => {
                    let pre = load(pre.add(i * self.ld), inside);
                    let [low, high] = [gelu_and_slope(pre[0]), gelu_and_slope(pre[1])];
                    store(act.add(i * self.ld), inside, [low.0, high.0], stream);
                    store(out, inside, [_mm512_mul_ps(x[0], low.1), _mm512_mul_ps(x[1], high.1)], stream);
                }
                Tile::Residual(residual) => store(out, inside, add(x, load(residual.add(i * self.ld), inside)), stream),
            }
        }
    }
}

/// Stores the part of a tile that lies inside the result.
///
/// # Safety
/// The processor has the features; the part is used by nobody else. `sums` holds the tile, rows of NR.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn finish<O: Number>(sums: &[f32], f: &Finish<'_, O>, place: Place) {
    let (sums, _) = sums.as_chunks::<NR>();
    // SAFETY: the caller's promises.
    unsafe {
        let rows = Rows::new(f, place, f.stream);
        sums[..place.rows].iter().enumerate().for_each(|(i, sums)| rows.finish(i, sums));
    }
}
