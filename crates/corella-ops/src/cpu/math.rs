//! Functions of one number, written so that a loop over them vectorises.

/// e^x with a relative error below 2e-7; 0 below −87, and capped at e^88.
///
/// x = n·ln 2 + r with |r| ≤ ½ ln 2, then the Taylor polynomial of degree 7 in r, then the exponent bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that n·LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5·2^23 rounds to an integer without a call; its bits then hold n.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    let y = p * power;
    if x < -87.0 { 0.0 } else { y }
}

/// √(2/π), of GELU's tanh form.
pub const ROOT_2_OVER_PI: f32 = 0.797_884_6;
/// Its factor of x³.
pub const CUBIC: f32 = 0.044_715;

/// GELU in its tanh form, as x·σ(2u) with u = √(2/π)(x + 0.044715x³), which is the same function.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let u = ROOT_2_OVER_PI * x * (1.0 + CUBIC * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// Derivative of [`gelu`].
#[inline(always)]
pub fn gelu_slope(x: f32) -> f32 {
    let u = ROOT_2_OVER_PI * x * (1.0 + CUBIC * x * x);
    let s = 1.0 / (1.0 + exp(-2.0 * u));
    let du = ROOT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
    s + x * s * (1.0 - s) * 2.0 * du
}

/// Number of partial sums: wide enough for any vector unit, the same on all of them.
const LANES: usize = 16;

/// Σ f(x) over a slice, in an order that depends on its length alone.
#[inline(always)]
pub fn sum<A: Copy>(a: &[A], f: impl Fn(A) -> f32) -> f32 {
    let (whole, rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for a in whole {
        lanes.iter_mut().zip(a).for_each(|(lane, a)| *lane += f(*a));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, a)| *lane += f(*a));
    across(lanes)
}

/// Σ f(x, y) over two slices of one length, as [`sum`]. (Indices into slices that are captured would keep their bounds checks,
/// and a loop with those does not vectorise.)
#[inline(always)]
pub fn sum2<A: Copy, B: Copy>(a: &[A], b: &[B], f: impl Fn(A, B) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        lanes.iter_mut().zip(a).zip(b).for_each(|((lane, a), b)| *lane += f(*a, *b));
    }
    lanes.iter_mut().zip(a_rest).zip(b_rest).for_each(|((lane, a), b)| *lane += f(*a, *b));
    across(lanes)
}

/// Σ f(x, y, z) over three slices of one length, as [`sum`].
#[inline(always)]
pub fn sum3<A: Copy, B: Copy, C: Copy>(a: &[A], b: &[B], c: &[C], f: impl Fn(A, B, C) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let ((b, b_rest), (c, c_rest)) = (b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        lanes.iter_mut().zip(a).zip(b).zip(c).for_each(|(((lane, a), b), c)| *lane += f(*a, *b, *c));
    }
    lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).for_each(|(((lane, a), b), c)| *lane += f(*a, *b, *c));
    across(lanes)
}

/// Σ of the lanes, halves onto halves.
#[inline(always)]
pub fn across<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_whole_range() {
        for i in -86_000..87_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 4e-7, "exp({x})");
        }
        assert_eq!(exp(-1e4), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn gelu_and_its_slope_are_close() {
        let exact =
            |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
        for i in -9_000..9_000 {
            let x = i as f32 * 1e-3;
            let (wide, h) = (f64::from(x), 1e-5);
            assert!((f64::from(gelu(x)) - exact(wide)).abs() < 1e-6, "gelu({x})");
            let slope = (exact(wide + h) - exact(wide - h)) / (2.0 * h);
            assert!((f64::from(gelu_slope(x)) - slope).abs() < 2e-6, "slope at {x}");
        }
    }
}
