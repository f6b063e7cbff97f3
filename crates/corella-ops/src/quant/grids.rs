//! Formats whose codes choose several weights at once from a table: IQ1, IQ2 and IQ3.
//!
//! A code is the place of an entry, four or eight small numbers that stand for as many weights; signs, or a shift, come beside
//! it. Here each weight gets a code of its own, so that products treat these formats as they treat others. Sources: ggml's
//! `ggml-common.h` and `dequantize_row_iq*`, and the Python package `gguf`, from which fixtures/quant/grids.py takes the tables.

use super::WeightFormat;
use super::blocks::Numbers;

/// The tables, one after the other: see fixtures/quant/grids.py.
static TABLES: &[u8; 9216] = include_bytes!("grids.bin");

/// A table: where it begins among [`TABLES`], and the bits of a value's place.
#[derive(Clone, Copy)]
struct Table {
    at: usize,
    bits: usize,
}

const IQ2_XXS: Table = Table { at: 0, bits: 2 };
const IQ2_XS: Table = Table { at: 512, bits: 2 };
const IQ2_S: Table = Table { at: 1536, bits: 2 };
const IQ3_XXS: Table = Table { at: 3584, bits: 4 };
const IQ3_S: Table = Table { at: 4096, bits: 4 };
const IQ1: Table = Table { at: 5120, bits: 2 };

/// The values of IQ2.
const TWO_BITS: [i8; 3] = [8, 25, 43];
/// The values of IQ3_XXS, halved.
const THREE_BITS: [i8; 8] = [2, 6, 10, 14, 18, 22, 26, 31];

impl Table {
    /// The places of the values of entry `i`, `N` weights: 16 bits of the table.
    fn entry<const N: usize>(self, i: usize) -> [usize; N] {
        let bytes = &TABLES[self.at + 2 * i..];
        let entry = usize::from(bytes[0]) | usize::from(bytes[1]) << 8;
        std::array::from_fn(|j| entry >> (j * self.bits) & ((1 << self.bits) - 1))
    }
}

/// Scale and integer scales of a block of a format of this kind; all integer scales are those of 16 weights.
pub(super) fn numbers(format: WeightFormat, bytes: &[u8], n: &mut Numbers) {
    use WeightFormat::*;
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    // Four bits say an odd number up to 31.
    let odd = |bits: usize| (2 * (bits & 15) + 1) as i8;
    let nibble = |at: usize, i: usize| usize::from(bytes[at + i / 2] >> (i % 2 * 4));
    n.d = word(0);
    for (s, scale) in n.scales.iter_mut().enumerate() {
        *scale = match format {
            IQ2_XXS => odd(usize::from(bytes[2 + 8 * (s / 2) + 7] >> 4)),
            IQ3_XXS => odd(usize::from(bytes[66 + 4 * (s / 2) + 3] >> 4)),
            IQ2_XS => odd(nibble(66, s)),
            IQ2_S => odd(nibble(74, s)),
            IQ3_S => odd(nibble(106, s / 2)),
            IQ1_S => odd(usize::from(word(34 + 2 * (s / 2)) >> 12 & 7)),
            _ => odd(usize::from(word(48 + 2 * (s / 4)) >> (s % 4 * 3) & 7)),
        };
    }
    if format == IQ1_M {
        n.d = (0..4).fold(0, |d, i| d | word(48 + 2 * i) >> 12 << (4 * i));
    }
}

/// The codes of a block of a format of this kind, each the number that it stands for and `zero` more.
pub(super) fn codes(format: WeightFormat, bytes: &[u8], zero: u8, codes: &mut [u8; 256]) {
    use WeightFormat::*;
    let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let byte = |at: usize| usize::from(bytes[at]);
    let code = |value: i8| zero.wrapping_add_signed(value);
    let signed = |value: i8, minus: usize| code(if minus & 1 == 1 { -value } else { value });
    for (g, codes) in codes.chunks_exact_mut(8).enumerate() {
        // The part of 32 weights, and which of its four groups this is.
        let (part, l) = (g / 4, g % 4);
        let mut eights = |table: Table, i: usize, signs: usize| {
            for (j, (code, place)) in codes.iter_mut().zip(table.entry::<8>(i)).enumerate() {
                *code = signed(TWO_BITS[place.min(2)], signs >> j);
            }
        };
        match format {
            IQ2_XXS => {
                let at = 2 + 8 * part;
                eights(self::IQ2_XXS, byte(at + l), signs(seven_bits(bytes, at + 4, l)));
            }
            IQ2_XS => {
                let entry = word(2 + 2 * g);
                eights(self::IQ2_XS, entry & 511, signs(entry >> 9));
            }
            IQ2_S => {
                let high = byte(66 + part) >> (2 * l) & 3;
                eights(self::IQ2_S, byte(2 + g) | high << 8, byte(34 + g));
            }
            IQ3_XXS => {
                let signs = signs(seven_bits(bytes, 66 + 4 * part, l));
                for (half, codes) in codes.chunks_exact_mut(4).enumerate() {
                    let entry = self::IQ3_XXS.entry::<4>(byte(2 + 2 * g + half));
                    for (j, (code, place)) in codes.iter_mut().zip(entry).enumerate() {
                        *code = signed(THREE_BITS[place & 7], signs >> (4 * half + j));
                    }
                }
            }
            IQ3_S => {
                let signs = byte(74 + g);
                for (half, codes) in codes.chunks_exact_mut(4).enumerate() {
                    let high = byte(66 + part) >> (2 * l + half) & 1;
                    let entry = self::IQ3_S.entry::<4>(byte(2 + 2 * g + half) | high << 8);
                    for (j, (code, place)) in codes.iter_mut().zip(entry).enumerate() {
                        *code = signed(2 * (place & 7) as i8 + 1, signs >> (4 * half + j));
                    }
                }
            }
            // −1, 0 or 1, and an eighth more or less: in eighths.
            _ => {
                let (at, low, high, less) = if format == IQ1_S {
                    let bits = word(34 + 2 * part);
                    (2, g, bits >> (3 * l), bits >> 15)
                } else {
                    let bits = byte(32 + g / 2) >> (g % 2 * 4);
                    (0, g, bits, bits >> 3 & 1)
                };
                let entry = IQ1.entry::<8>(byte(at + low) | (high & 7) << 8);
                for (out, place) in codes.iter_mut().zip(entry) {
                    *out = code(8 * (place as i8 - 1) + if less == 1 { -1 } else { 1 });
                }
            }
        }
    }
}

/// The `l`-th seven bits of the four bytes at a place.
fn seven_bits(bytes: &[u8], at: usize, l: usize) -> usize {
    (u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) >> (7 * l) & 127) as usize
}

/// The signs of eight weights from those of seven: the number of minus signs is even.
fn signs(seven: usize) -> usize {
    seven | (seven.count_ones() as usize & 1) << 7
}
