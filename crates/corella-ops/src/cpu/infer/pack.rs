//! Rows of a file's blocks into panels, and back.

use super::layout::{BLOCK, Codes, Layout, PANEL, Scales, UNIT, VECTOR};
use crate::quant::WeightFormat;
use crate::quant::blocks::{Block, IQ4_VALUES, Scheme, take_apart};
use crate::quant::half::{f16_to_f32, f32_to_f16};

/// Writes a row of file blocks as column `lane` of panel `p` of a pair.
pub fn write_lane(
    format: WeightFormat,
    layout: Layout,
    pair: &mut [u8],
    (p, lane): (usize, usize),
    row: &[u8],
    cols: usize,
) {
    for (i, bytes) in row.chunks_exact(format.block_bytes()).enumerate() {
        let (u, first) = (i * format.block_len() / UNIT, i * format.block_len() % UNIT / BLOCK);
        let unit = &mut pair[layout.unit_range(cols, u, p)];
        let block = take_apart(format, bytes);
        for (i, codes) in block.codes[..format.block_len()].chunks_exact(BLOCK).enumerate() {
            let at = (first + i) * layout.codes.block_bytes();
            write_codes(layout.codes, &mut unit[at..][..layout.codes.block_bytes()], lane, codes);
        }
        write_scales(layout, unit, Layout::blocks(cols, u), first, lane, &block);
    }
}

/// Four codes as one number: what a column takes of a vector.
fn put(vector: &mut [u8], lane: usize, value: u32) {
    vector[4 * lane..4 * lane + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(vector: &[u8], lane: usize) -> u32 {
    u32::from_le_bytes([vector[4 * lane], vector[4 * lane + 1], vector[4 * lane + 2], vector[4 * lane + 3]])
}

fn write_codes(kind: Codes, to: &mut [u8], lane: usize, codes: &[u8]) {
    let mut groups = [0u32; 8];
    for (group, codes) in groups.iter_mut().zip(codes.chunks_exact(4)) {
        *group = u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
    }
    let mut vectors = to.chunks_exact_mut(VECTOR);
    if kind == Codes::Eight {
        vectors.zip(groups).for_each(|(vector, group)| put(vector, lane, group));
        return;
    }
    for (j, vector) in vectors.by_ref().take(4).enumerate() {
        put(vector, lane, (groups[j] & 0x0f0f_0f0f) | (groups[j + 4] & 0x0f0f_0f0f) << 4);
    }
    for (i, plane) in vectors.enumerate() {
        let bits = match kind {
            Codes::Five => (0..8).fold(0, |bits, g| bits | (groups[g] >> 4 & 0x0101_0101) << g),
            _ => (0..4).fold(0, |bits, j| bits | (groups[4 * i + j] >> 4 & 0x0303_0303) << (2 * j)),
        };
        put(plane, lane, bits);
    }
}

/// The codes of a block of column `lane`, as products see them: those of a table are its values + 128.
pub fn read_codes(kind: Codes, from: &[u8], lane: usize) -> [u8; BLOCK] {
    let vector = |i: usize| get(&from[i * VECTOR..][..VECTOR], lane);
    let mut codes = [0; BLOCK];
    for (g, codes) in codes.chunks_exact_mut(4).enumerate() {
        let four = || vector(g % 4) >> (g / 4 * 4) & 0x0f0f_0f0f;
        let group = match kind {
            Codes::Eight => vector(g),
            Codes::Four | Codes::Table => four(),
            Codes::Five => four() | (vector(4) >> g & 0x0101_0101) << 4,
            Codes::Six => four() | (vector(4 + g / 4) >> (g % 4 * 2) & 0x0303_0303) << 4,
        };
        codes.copy_from_slice(&group.to_le_bytes());
        if kind == Codes::Table {
            codes.iter_mut().for_each(|code| *code = (IQ4_VALUES[usize::from(*code)] as u8) ^ 0x80);
        }
    }
    codes
}

fn put_half(unit: &mut [u8], at: usize, value: f32) {
    // The value came from half precision: nothing is rounded.
    unit[at..at + 2].copy_from_slice(&f32_to_f16(value).to_le_bytes());
}

/// The half-precision number at a byte.
pub fn half_at(unit: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([unit[at], unit[at + 1]]))
}

fn write_scales(layout: Layout, unit: &mut [u8], blocks: usize, first: usize, lane: usize, block: &Block) {
    let (scales, mins, d) = (layout.scales_at(blocks), layout.mins_at(blocks), layout.d_at(blocks));
    match layout.scales {
        Scales::Halves { min } => {
            put_half(unit, scales + 2 * (first * PANEL + lane), block.d);
            if min {
                // In these formats the minimum is added.
                put_half(unit, mins + 2 * (first * PANEL + lane), -block.dmin);
            }
        }
        Scales::Integers { sub, min } => {
            for s in 0..UNIT / sub {
                unit[scales + s * PANEL + lane] = block.scales[s] as u8;
                if min {
                    unit[mins + pair_at(s, lane)] = block.mins[s];
                }
            }
            put_half(unit, d + 2 * lane, block.d);
            if min {
                put_half(unit, d + 2 * (PANEL + lane), block.dmin);
            }
        }
    }
}

/// Place of an integer minimum: pairs of sub-blocks side by side.
pub fn pair_at(s: usize, lane: usize) -> usize {
    (s / 2 * PANEL + lane) * 2 + s % 2
}

/// Column `lane` of panel `p` as f32, exactly as [`crate::quant::dequantize_row`] gives the row it was packed from.
pub fn read_lane(format: WeightFormat, layout: Layout, pair: &[u8], (p, lane): (usize, usize), out: &mut [f32]) {
    let (has_min, cols) = (Scheme::of(format).is_some_and(|scheme| scheme.has_min), out.len());
    for (u, out) in out.chunks_mut(UNIT).enumerate() {
        let (unit, blocks) = (&pair[layout.unit_range(cols, u, p)], Layout::blocks(cols, u));
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let codes = read_codes(layout.codes, &unit[b * layout.codes.block_bytes()..], lane);
            // No scale holds for less than 16 weights.
            for (i, (out, codes)) in out.chunks_exact_mut(16).zip(codes.chunks_exact(16)).enumerate() {
                let (scale, min) = scale_and_min(layout, unit, blocks, 2 * b + i, lane);
                for (out, code) in out.iter_mut().zip(codes) {
                    let product = scale * (i32::from(*code) - layout.zero) as f32;
                    *out = if has_min { product - min } else { product };
                }
            }
        }
    }
}

/// Scale and minimum (to be subtracted) of the weights 16·part .. of a unit.
fn scale_and_min(layout: Layout, unit: &[u8], blocks: usize, part: usize, lane: usize) -> (f32, f32) {
    let (scales, mins, d) = (layout.scales_at(blocks), layout.mins_at(blocks), layout.d_at(blocks));
    match layout.scales {
        Scales::Halves { min } => {
            let at = 2 * (part / 2 * PANEL + lane);
            (half_at(unit, scales + at), if min { -half_at(unit, mins + at) } else { 0.0 })
        }
        Scales::Integers { sub, min } => {
            let s = part * 16 / sub;
            let scale = half_at(unit, d + 2 * lane) * f32::from(unit[scales + s * PANEL + lane] as i8);
            let min = if min {
                half_at(unit, d + 2 * (PANEL + lane)) * f32::from(unit[mins + pair_at(s, lane)])
            } else {
                0.0
            };
            (scale, min)
        }
    }
}
