//! The formats of activations: f32, and bfloat16, the upper half of an f32 (its eight bits of exponent, eight of precision).

use super::array::Element;
use super::pack::Operand;
use super::vectorized::vectorized;
use crate::quant::half::{bf16_to_f32, f32_to_bf16};

/// A bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

// SAFETY: plain bits, all of which are numbers.
unsafe impl Element for Bf16 {}

impl Bf16 {
    /// The nearest, ties to even; what is not a number stays so.
    #[inline(always)]
    pub fn round(x: f32) -> Bf16 {
        Bf16(f32_to_bf16(x))
    }

    /// The same value.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        bf16_to_f32(self.0)
    }
}

/// A format in memory; computation is in f32.
pub trait Number: Element {
    /// The value.
    fn get(self) -> f32;
    /// The nearest number of this format.
    fn put(x: f32) -> Self;
    /// The slice, if the format is f32.
    fn f32_slice(slice: &mut [Self]) -> Option<&mut [f32]>;
    /// The operand, if the format is bfloat16.
    fn bf16_operand(operand: Operand<'_, Self>) -> Option<Operand<'_, Bf16>>;
    /// The operand, if the format is f32.
    fn f32_operand(operand: Operand<'_, Self>) -> Option<Operand<'_, f32>>;
}

impl Number for f32 {
    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(x: f32) -> f32 {
        x
    }

    fn f32_slice(slice: &mut [f32]) -> Option<&mut [f32]> {
        Some(slice)
    }

    fn bf16_operand(_: Operand<'_, f32>) -> Option<Operand<'_, Bf16>> {
        None
    }

    fn f32_operand(operand: Operand<'_, f32>) -> Option<Operand<'_, f32>> {
        Some(operand)
    }
}

impl Number for Bf16 {
    #[inline(always)]
    fn get(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn put(x: f32) -> Bf16 {
        Bf16::round(x)
    }

    fn f32_slice(_: &mut [Bf16]) -> Option<&mut [f32]> {
        None
    }

    fn bf16_operand(operand: Operand<'_, Bf16>) -> Option<Operand<'_, Bf16>> {
        Some(operand)
    }

    fn f32_operand(_: Operand<'_, Bf16>) -> Option<Operand<'_, f32>> {
        None
    }
}

vectorized! {
    /// to = from, rounded where the format is narrower.
    pub fn convert<T: Number, F: Number>(to: &mut [T], from: &[F]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = T::put(from.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        // Two neighbours of 1: 1 + 2⁻⁷ apart.
        let step = 1.0 / 128.0;
        for (x, y) in [
            (1.0 + 0.49 * step, 1.0),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 0.51 * step, 1.0 + step),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (-1.0 - 1.5 * step, -1.0 - 2.0 * step),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (0.0, 0.0),
        ] {
            assert_eq!(Bf16::round(x).to_f32(), y, "{x}");
        }
        for bits in [0x7f80_0001u32, 0xffff_ffff, 0x7fc0_0000] {
            assert!(Bf16::round(f32::from_bits(bits)).to_f32().is_nan());
        }
    }

    #[test]
    fn every_bfloat16_comes_back() {
        for bits in 0..=u16::MAX {
            let x = Bf16(bits).to_f32();
            assert!(x.is_nan() || Bf16::round(x) == Bf16(bits));
        }
    }
}
