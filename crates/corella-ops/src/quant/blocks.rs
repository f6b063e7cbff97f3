//! A block of quantised weights taken apart.

use super::half::{bf16_to_f32, f16_to_f32};
use super::{WeightFormat, grids};

/// The 16 values that the codes of IQ4_NL and IQ4_XS choose from (ggml's `kvalues_iq4nl`).
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// A block: weight `i` is `d·scales[s]·value(codes[i])·2^−shift  −  dmin·mins[s]`, s = i / sub-block length, where the value of a
/// code and the shift are said by [`Scheme`].
#[derive(Clone, Debug)]
pub struct Block {
    /// Unsigned codes, as many as the format's block is long.
    pub codes: [u8; 256],
    /// Scale of the block.
    pub d: f32,
    /// Scale of the minima; 0 without minima.
    pub dmin: f32,
    /// Scale of each sub-block; 1 where the block has one scale only.
    pub scales: [i8; 16],
    /// Minimum of each sub-block.
    pub mins: [u8; 16],
}

/// What holds for all blocks of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Bits that hold a code.
    pub bits: u32,
    /// The code of zero, for formats without a table.
    pub zero: u8,
    /// Whether codes choose from [`IQ4_VALUES`].
    pub table: bool,
    /// Whether weights have a minimum.
    pub has_min: bool,
    /// Weights that share a scale.
    pub sub: usize,
    /// Values are whole numbers: 2^shift times what the format means.
    pub shift: u32,
}

impl Scheme {
    /// The scheme of a quantised format; `None` for floating-point ones.
    pub fn of(format: WeightFormat) -> Option<Scheme> {
        use WeightFormat::*;
        let scheme = |bits, zero, has_min, sub| Some(Scheme { bits, zero, table: false, has_min, sub, shift: 0 });
        let grid = |bits, zero, shift| Some(Scheme { bits, zero, table: false, has_min: false, sub: 16, shift });
        match format {
            F32 | F16 | Bf16 => None,
            Q8_0 => scheme(8, 128, false, 32),
            Q4_0 => scheme(4, 8, false, 32),
            Q4_1 => scheme(4, 0, true, 32),
            Q5_0 => scheme(5, 16, false, 32),
            Q5_1 => scheme(5, 0, true, 32),
            Q2_K => scheme(2, 0, true, 16),
            Q3_K => scheme(3, 4, false, 16),
            Q4_K => scheme(4, 0, true, 32),
            Q5_K => scheme(5, 0, true, 32),
            Q6_K => scheme(6, 32, false, 16),
            IQ4_NL | IQ4_XS => Some(Scheme { bits: 4, zero: 0, table: true, has_min: false, sub: 32, shift: 0 }),
            IQ2_XXS | IQ2_XS | IQ2_S => grid(8, 128, 3),
            IQ3_XXS => grid(6, 32, 1),
            IQ3_S => grid(6, 32, 0),
            IQ1_S | IQ1_M => grid(6, 32, 3),
            TQ1_0 | TQ2_0 => scheme(2, 1, false, 16),
        }
    }

    /// The number that a code stands for.
    #[inline(always)]
    pub fn value(self, code: u8) -> i32 {
        if self.table { i32::from(IQ4_VALUES[usize::from(code & 15)]) } else { i32::from(code) - i32::from(self.zero) }
    }

    /// What sums of values are multiplied by in the end: a power of two, so that no bit is lost.
    #[inline(always)]
    pub fn unit(self) -> f32 {
        1.0 / (1u32 << self.shift) as f32
    }
}

/// The numbers that stand beside the codes of a block, as the file has them.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Scale of the block, in half precision.
    pub d: u16,
    /// In half precision: scale of the minima that are subtracted (formats with scales of two levels), or the minimum that is
    /// added. 0 without minima.
    pub min: u16,
    /// Scale of each sub-block; 1 where the block has one scale only.
    pub scales: [i8; 16],
    /// Minimum of each sub-block; 1 where the block has one only.
    pub mins: [u8; 16],
}

/// The numbers of a block of a quantised format. Panics if `bytes` is not one block long, or the format is not quantised.
#[inline(always)]
pub fn numbers(format: WeightFormat, bytes: &[u8]) -> Numbers {
    use WeightFormat::*;
    assert_eq!(bytes.len(), format.block_bytes(), "a block of {}", format.name());
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let mut n = Numbers { d: 0, min: 0, scales: [1; 16], mins: [0; 16] };
    match format {
        F32 | F16 | Bf16 => panic!("{} has no blocks", format.name()),
        Q8_0 | Q4_0 | IQ4_NL | Q5_0 => n.d = half(0),
        Q4_1 | Q5_1 => (n.d, n.min, n.mins) = (half(0), half(2), [1; 16]),
        Q2_K => {
            (n.d, n.min) = (half(80), half(82));
            for (s, byte) in bytes[..16].iter().enumerate() {
                (n.scales[s], n.mins[s]) = ((byte & 15) as i8, byte >> 4);
            }
        }
        Q3_K => {
            let scales = &bytes[96..108];
            n.d = half(108);
            for s in 0..16 {
                let four = scales[s % 8] >> (s / 8 * 4) & 15;
                let two = scales[8 + s % 4] >> (s / 4 * 2) & 3;
                n.scales[s] = (four | two << 4) as i8 - 32;
            }
        }
        Q4_K | Q5_K => {
            (n.d, n.min) = (half(0), half(2));
            let packed = &bytes[4..16];
            for s in 0..8 {
                let (scale, min) = if s < 4 {
                    (packed[s] & 63, packed[s + 4] & 63)
                } else {
                    let high = (packed[s - 4] >> 6 << 4, packed[s] >> 6 << 4);
                    ((packed[s + 4] & 15) | high.0, packed[s + 4] >> 4 | high.1)
                };
                (n.scales[s], n.mins[s]) = (scale as i8, min);
            }
        }
        Q6_K => {
            n.d = half(208);
            n.scales.iter_mut().zip(&bytes[192..208]).for_each(|(scale, byte)| *scale = *byte as i8);
        }
        IQ4_XS => {
            n.d = half(0);
            let high = half(2);
            for s in 0..8 {
                let four = bytes[4 + s / 2] >> (s % 2 * 4) & 15;
                let two = (high >> (2 * s) & 3) as u8;
                n.scales[s] = (four | two << 4) as i8 - 32;
            }
        }
        IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ1_S | IQ1_M => grids::numbers(format, bytes, &mut n),
        TQ1_0 => n.d = half(52),
        TQ2_0 => n.d = half(64),
    }
    n
}

/// Takes a block of a quantised format apart. Panics if `bytes` is not one block long, or the format is not quantised.
pub fn take_apart(format: WeightFormat, bytes: &[u8]) -> Block {
    let Numbers { d, min, scales, mins } = numbers(format, bytes);
    let min = f16_to_f32(min);
    let dmin = if matches!(format, WeightFormat::Q4_1 | WeightFormat::Q5_1) { -min } else { min };
    let mut b = Block { codes: [0; 256], d: f16_to_f32(d), dmin, scales, mins };
    codes(format, bytes, &mut b.codes);
    b
}

/// The codes of a block.
fn codes(format: WeightFormat, bytes: &[u8], codes: &mut [u8; 256]) {
    use WeightFormat::*;
    match format {
        F32 | F16 | Bf16 => {}
        // Signed bytes; flipping the highest bit adds 128.
        Q8_0 => codes.iter_mut().zip(&bytes[2..]).for_each(|(code, q)| *code = q ^ 0x80),
        Q4_0 | IQ4_NL => nibbles(&mut codes[..32], &bytes[2..]),
        Q4_1 => nibbles(&mut codes[..32], &bytes[4..]),
        Q5_0 => {
            nibbles(&mut codes[..32], &bytes[6..]);
            fifth_bits(&mut codes[..32], &bytes[2..6]);
        }
        Q5_1 => {
            nibbles(&mut codes[..32], &bytes[8..]);
            fifth_bits(&mut codes[..32], &bytes[4..8]);
        }
        Q2_K => pairs(codes, &bytes[16..80]),
        Q3_K => {
            let (high, low) = (&bytes[..32], &bytes[32..96]);
            pairs(codes, low);
            for (i, code) in codes.iter_mut().enumerate() {
                *code |= (high[i % 32] >> (i / 32) & 1) << 2;
            }
        }
        Q4_K => bytes[16..].chunks_exact(32).zip(codes.chunks_exact_mut(64)).for_each(|(q, codes)| nibbles(codes, q)),
        Q5_K => {
            bytes[48..].chunks_exact(32).zip(codes.chunks_exact_mut(64)).for_each(|(q, codes)| nibbles(codes, q));
            for (i, code) in codes.iter_mut().enumerate() {
                *code |= (bytes[16 + i % 32] >> (i / 32) & 1) << 4;
            }
        }
        Q6_K => {
            for (i, code) in codes.iter_mut().enumerate() {
                let (part, j) = (i / 128, i % 128);
                let low = bytes[part * 64 + j % 64] >> (j / 64 * 4) & 15;
                let high = bytes[128 + part * 32 + j % 32] >> (j / 32 * 2) & 3;
                *code = low | high << 4;
            }
        }
        IQ4_XS => bytes[8..].chunks_exact(16).zip(codes.chunks_exact_mut(32)).for_each(|(q, codes)| nibbles(codes, q)),
        IQ2_XXS | IQ2_XS | IQ2_S => grids::codes(format, bytes, 128, codes),
        IQ3_XXS | IQ3_S | IQ1_S | IQ1_M => grids::codes(format, bytes, 32, codes),
        TQ1_0 => {
            thirds(&mut codes[..160], &bytes[..32]);
            thirds(&mut codes[160..240], &bytes[32..48]);
            thirds(&mut codes[240..], &bytes[48..52]);
        }
        TQ2_0 => pairs(codes, &bytes[..64]),
    }
}

/// A digit of each byte, then the next digit of the same bytes: a byte is a fraction of 256 with digits 0, 1 and 2 in base three.
fn thirds(codes: &mut [u8], bytes: &[u8]) {
    for (codes, power) in codes.chunks_exact_mut(bytes.len()).zip([1u8, 3, 9, 27, 81]) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
        }
    }
}

/// Low halves of the bytes first, then high halves.
fn nibbles(codes: &mut [u8], bytes: &[u8]) {
    let (low, high) = codes.split_at_mut(codes.len() / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Adds bit i of 32 to code i as its fifth bit.
fn fifth_bits(codes: &mut [u8], bytes: &[u8]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Two bits of each of 32 bytes, then the next two of the same bytes, for both halves of 256 codes.
fn pairs(codes: &mut [u8; 256], bytes: &[u8]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    }
}

/// The weights of a row as f32, exactly as the format defines them: every product and difference rounded to f32.
///
/// Panics if `bytes` is not the row of `out.len()` weights.
pub fn dequantize_row(format: WeightFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), format.row_bytes(out.len()), "a row of {} weights in {}", out.len(), format.name());
    let Some(scheme) = Scheme::of(format) else {
        return floats(format, bytes, out);
    };
    for (bytes, out) in bytes.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(format.block_len())) {
        let block = take_apart(format, bytes);
        for ((s, out), codes) in out.chunks_exact_mut(scheme.sub).enumerate().zip(block.codes.chunks_exact(scheme.sub))
        {
            let (scale, min) =
                (block.d * (f32::from(block.scales[s]) * scheme.unit()), block.dmin * f32::from(block.mins[s]));
            for (out, code) in out.iter_mut().zip(codes) {
                let product = scale * scheme.value(*code) as f32;
                *out = if scheme.has_min { product - min } else { product };
            }
        }
    }
}

fn floats(format: WeightFormat, bytes: &[u8], out: &mut [f32]) {
    if format == WeightFormat::F32 {
        for (out, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        return;
    }
    let value = if format == WeightFormat::F16 { f16_to_f32 } else { bf16_to_f32 };
    for (out, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *out = value(u16::from_le_bytes([b[0], b[1]]));
    }
}
