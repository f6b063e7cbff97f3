//! What happens to a panel of scores, (keys, NR) in f32, between the products.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_max_ps, _mm512_maskz_mov_ps,
    _mm512_permutexvar_epi16, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512,
};

use crate::cpu::bf16::Bf16;
use crate::cpu::dot::NR;
use crate::cpu::simd::{Simd, Wide512};

/// Numbers of a register.
const LANES: usize = 16;

/// Which scores of a panel count: query j, of `queries`, sees key s if s ≤ j + `ahead`.
#[derive(Clone, Copy)]
pub struct Sight {
    /// Queries that exist.
    pub queries: usize,
    /// The first query's position minus that of the panel's first key.
    pub ahead: isize,
}

impl Sight {
    /// Queries of a half that see key `s`.
    #[inline(always)]
    fn mask(self, s: usize, half: usize) -> u16 {
        let first = (s as isize - self.ahead - (half * LANES) as isize).clamp(0, LANES as isize);
        let exist = self.queries.saturating_sub(half * LANES).min(LANES);
        ((0xffff_u32 << first) & ((1 << exist) - 1)) as u16
    }
}

/// The online softmax of a panel of queries, in base 2.
pub struct State {
    /// Largest score so far.
    pub max: [f32; NR],
    /// Σ 2^(score − max).
    pub total: [f32; NR],
}

impl State {
    /// Before the first key.
    pub fn new() -> State {
        // Finite: a query that sees no key of a block then takes no difference of infinities.
        State { max: [f32::MIN; NR], total: [0.0; NR] }
    }
}

/// The order that puts the halves of two converted registers in turns.
const TURNS: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    order
};

/// 32 numbers rounded: those of `low`, then those of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes of plain bits.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// p (keys/2, NR, 2) = 2^(scale·score − max) where a query sees the key, else 0, for keys in `seen`, and 0 up to p's end; the
/// state is brought up to date, and earlier sums (rows, NR) are scaled accordingly. scores: (keys, NR).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub fn exponentials(
    scores: &[f32],
    p: &mut [Bf16],
    seen: usize,
    sight: Sight,
    scale: f32,
    state: &mut State,
    sums: &mut [f32],
) {
    let pairs = seen.div_ceil(2);
    let (p, rest) = p.split_at_mut(pairs * 2 * NR);
    assert!(scores.len() >= 2 * pairs * NR);
    rest.fill(Bf16(0));
    for half in 0..NR / LANES {
        let j = half * LANES;
        // SAFETY: 16 of NR numbers from j on, in the state, in rows of scores and of sums, and twice that in rows of p.
        unsafe {
            let score = |s: usize| _mm512_loadu_ps(scores.as_ptr().add(s * NR + j));
            let factor = Wide512::splat(scale);
            let mut max = Wide512::splat(f32::MIN / 2.0);
            for s in 0..seen {
                max = _mm512_mask_max_ps(max, sight.mask(s, half), max, score(s));
            }
            let old = Wide512::load(state.max.as_ptr().add(j));
            let max = Wide512::max(old, Wide512::mul(max, factor));
            let below = Wide512::sub(_mm512_setzero_ps(), max);
            let keep = Wide512::exp2(Wide512::sub(old, max));
            let mut total = Wide512::mul(Wide512::load(state.total.as_ptr().add(j)), keep);
            let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
            let one = |s: usize| {
                _mm512_maskz_mov_ps(sight.mask(s, half), Wide512::exp2(Wide512::fma(score(s), factor, below)))
            };
            for (pair, p) in p.chunks_exact_mut(2 * NR).enumerate() {
                let (even, odd) = (one(2 * pair), one(2 * pair + 1));
                total = Wide512::add(Wide512::add(total, even), odd);
                let both = _mm512_permutexvar_epi16(turns, rounded(even, odd));
                _mm512_storeu_si512(p.as_mut_ptr().add(2 * j).cast(), both);
            }
            Wide512::store(state.max.as_mut_ptr().add(j), max);
            Wide512::store(state.total.as_mut_ptr().add(j), total);
            for sums in sums.chunks_exact_mut(NR) {
                let at = sums.as_mut_ptr().add(j);
                _mm512_storeu_ps(at, Wide512::mul(_mm512_loadu_ps(at), keep));
            }
        }
    }
}

/// What the softmax of each query needs in the backward pass.
pub struct Known {
    /// Log of the denominator, in base 2.
    pub lse: [f32; NR],
    /// Σ_s p·dp, which is dout·out.
    pub mean: [f32; NR],
}

/// Probabilities and gradients of scores in the layouts of the products that follow.
pub struct Grads<'a> {
    /// Probabilities, (keys, NR).
    pub p: &'a mut [Bf16],
    /// Gradients of the scores, (keys, NR).
    pub ds: &'a mut [Bf16],
    /// The same as pairs, (keys/2, NR, 2).
    pub ds_pairs: &'a mut [Bf16],
}

/// p = 2^(scale·log2(e)·score − lse) and ds = scale·p·(dp − mean) where a query sees the key, else 0, for keys in `seen`, and
/// 0 up to the ends. scores, dp: (keys, NR).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub fn score_grads(scores: &[f32], dp: &[f32], grads: Grads<'_>, seen: usize, sight: Sight, scale: f32, known: &Known) {
    let pairs = seen.div_ceil(2);
    let used = pairs * 2 * NR;
    assert!(scores.len() >= used && dp.len() >= used);
    let [p, ds, ds_pairs] = [grads.p, grads.ds, grads.ds_pairs].map(|array| {
        let (used, rest) = array.split_at_mut(used);
        rest.fill(Bf16(0));
        used
    });
    // SAFETY: rows of NR numbers, two registers in f32 and one in bfloat16, of arrays that hold `pairs` pairs of rows.
    unsafe {
        let half = |from: &[f32], at: usize| {
            [_mm512_loadu_ps(from[at..].as_ptr()), _mm512_loadu_ps(from[at + LANES..].as_ptr())]
        };
        let (lse, mean) = (half(&known.lse, 0), half(&known.mean, 0));
        let below = lse.map(|lse| Wide512::sub(_mm512_setzero_ps(), lse));
        let (to_base_2, scale) = (Wide512::splat(scale * std::f32::consts::LOG2_E), Wide512::splat(scale));
        let turns = _mm512_loadu_si512(TURNS.as_ptr().cast());
        for pair in 0..pairs {
            let mut gradients = [[_mm512_setzero_ps(); 2]; 2];
            for (odd, gradient) in gradients.iter_mut().enumerate() {
                let s = 2 * pair + odd;
                let (score, dp) = (half(scores, s * NR), half(dp, s * NR));
                let mut probability = [_mm512_setzero_ps(); 2];
                for h in 0..2 {
                    let x = Wide512::exp2(Wide512::fma(score[h], to_base_2, below[h]));
                    probability[h] = _mm512_maskz_mov_ps(sight.mask(s, h), x);
                    let slope = Wide512::mul(scale, Wide512::sub(dp[h], mean[h]));
                    gradient[h] = _mm512_maskz_mov_ps(sight.mask(s, h), Wide512::mul(probability[h], slope));
                }
                _mm512_storeu_si512(p[s * NR..].as_mut_ptr().cast(), rounded(probability[0], probability[1]));
                _mm512_storeu_si512(ds[s * NR..].as_mut_ptr().cast(), rounded(gradient[0], gradient[1]));
            }
            for h in 0..2 {
                let both = _mm512_permutexvar_epi16(turns, rounded(gradients[0][h], gradients[1][h]));
                _mm512_storeu_si512(ds_pairs[(pair * NR + h * LANES) * 2..].as_mut_ptr().cast(), both);
            }
        }
    }
}
