//! Rows of a file's blocks into panels, and back.

use super::super::vectorized::vectorized;
use super::layout::{BLOCK, COLUMNS, Codes, Layout, PANEL, ROW, Scales, UNIT};
use crate::quant::WeightFormat;
use crate::quant::blocks::{IQ4_VALUES, Numbers, Scheme, numbers, take_apart};
use crate::quant::half::f16_to_f32;

/// Writes a row of file blocks as column `column` of a pair.
pub fn write_column(format: WeightFormat, pair: &mut [u8], column: usize, row: &[u8], cols: usize) {
    write(format, pair, column, &[row], cols);
}

/// A pair of `cols` weights along k from the blocks of its rows, for a format that is packed as integers.
#[cfg(all(test, target_arch = "x86_64"))]
pub fn pair_of(format: WeightFormat, rows: &[u8], cols: usize) -> Vec<u8> {
    let layout = Layout::of(format).expect("a format of integers");
    let mut pair = vec![0; layout.pair_bytes(cols)];
    for (column, row) in rows.chunks_exact(rows.len() / COLUMNS).enumerate() {
        write_column(format, &mut pair, column, row, cols);
    }
    pair
}

vectorized! {
    /// Writes 16 rows as the columns of panel `p` of a pair.
    pub fn write_panel(format: WeightFormat, pair: &mut [u8], p: usize, rows: &[&[u8]; PANEL], cols: usize) {
        let first = p * PANEL;
        // A loop of its own for each of the formats that large models come in.
        match format {
            WeightFormat::Q8_0 => write(WeightFormat::Q8_0, pair, first, rows, cols),
            WeightFormat::Q4_0 => write(WeightFormat::Q4_0, pair, first, rows, cols),
            WeightFormat::Q4_K => write(WeightFormat::Q4_K, pair, first, rows, cols),
            WeightFormat::Q5_K => write(WeightFormat::Q5_K, pair, first, rows, cols),
            WeightFormat::Q6_K => write(WeightFormat::Q6_K, pair, first, rows, cols),
            other => write(other, pair, first, rows, cols),
        }
    }
}

/// Writes rows of file blocks as the columns of a pair from `first` on.
#[inline(always)]
fn write<const N: usize>(format: WeightFormat, pair: &mut [u8], first: usize, rows: &[&[u8]; N], cols: usize) {
    let Some(layout) = Layout::of(format) else { return };
    let (file_block, file_bytes) = (format.block_len(), format.block_bytes());
    let (count, planes) = (layout.codes.vectors(), layout.codes.planes());
    let mut blocks_of = [[[0; 8]; UNIT / BLOCK]; N];
    for i in 0..cols / file_block {
        let (u, at) = (i * file_block / UNIT, i * file_block % UNIT / BLOCK);
        let (unit, blocks) = (&mut pair[layout.unit_range(cols, u)], Layout::blocks(cols, u));
        for (n, (row, words)) in rows.iter().zip(&mut blocks_of).enumerate() {
            let bytes = &row[i * file_bytes..][..file_bytes];
            write_words(format, layout.codes, bytes, words);
            write_numbers(layout, unit, blocks, at, first + n, numbers(format, bytes));
        }
        let vectors = unit[layout.codes_at(blocks) + at * layout.codes.block_bytes()..].chunks_exact_mut(ROW);
        for (j, vector) in vectors.take(file_block / BLOCK * count).enumerate() {
            let (block, word) = (j / count, word_of(planes, j % count));
            for (to, words) in vector.as_chunks_mut().0[first..].iter_mut().zip(&blocks_of) {
                *to = words[block][word].to_le_bytes();
            }
        }
    }
}

/// What a column has of the vectors of a block of 32 weights, four bytes of each; as many as the kind of codes has vectors, the
/// planes after the four.
type Words = [u32; 8];

/// The word of vector `i` of a block with so many planes.
#[inline(always)]
fn word_of(planes: usize, i: usize) -> usize {
    if i < planes { 4 + i } else { i - planes }
}

/// Four codes of 4 bits, in the low halves of four bytes.
const LOW: u32 = 0x0f0f_0f0f;

#[inline(always)]
fn dword(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The low or the high halves of 32 bytes: group j below group j + 4.
#[inline(always)]
fn halves(bytes: &[u8], at: usize, high: bool, words: &mut Words) {
    for (j, word) in words[..4].iter_mut().enumerate() {
        let (a, b) = (dword(bytes, at + 4 * j), dword(bytes, at + 16 + 4 * j));
        *word = if high { a >> 4 & LOW | b & !LOW } else { a & LOW | (b & LOW) << 4 };
    }
}

/// Four dwords whose bytes have group j below group j + 4 in the file already.
#[inline(always)]
fn as_they_are(bytes: &[u8], at: usize, words: &mut Words) {
    for (j, word) in words[..4].iter_mut().enumerate() {
        *word = dword(bytes, at + 4 * j);
    }
}

/// The blocks of 32 weights of a file's block.
#[inline(always)]
fn write_words(format: WeightFormat, kind: Codes, bytes: &[u8], blocks: &mut [Words; UNIT / BLOCK]) {
    use WeightFormat::*;
    match format {
        Q8_0 => {
            for (g, word) in blocks[0].iter_mut().enumerate() {
                *word = dword(bytes, 2 + 4 * g) ^ 0x8080_8080;
            }
        }
        Q4_0 | IQ4_NL => as_they_are(bytes, 2, &mut blocks[0]),
        Q4_1 => as_they_are(bytes, 4, &mut blocks[0]),
        IQ4_XS => {
            for (b, words) in blocks.iter_mut().enumerate() {
                as_they_are(bytes, 8 + 16 * b, words);
            }
        }
        Q4_K => {
            for (b, words) in blocks.iter_mut().enumerate() {
                halves(bytes, 16 + b / 2 * 32, b % 2 == 1, words);
            }
        }
        Q5_K => {
            for (b, words) in blocks.iter_mut().enumerate() {
                halves(bytes, 48 + b / 2 * 32, b % 2 == 1, words);
                words[4] = 0;
                for g in 0..8 {
                    words[4] |= (dword(bytes, 16 + 4 * g) >> b & 0x0101_0101) << g;
                }
            }
        }
        Q6_K => {
            for (b, words) in blocks.iter_mut().enumerate() {
                let (part, q) = (b / 4, b % 4);
                halves(bytes, part * 64 + q % 2 * 32, q >= 2, words);
                for (i, plane) in words[4..6].iter_mut().enumerate() {
                    *plane = 0;
                    for j in 0..4 {
                        let two = dword(bytes, 128 + part * 32 + 16 * i + 4 * j) >> (2 * q) & 0x0303_0303;
                        *plane |= two << (2 * j);
                    }
                }
            }
        }
        _ => {
            let codes = take_apart(format, bytes).codes;
            for (words, codes) in blocks.iter_mut().zip(codes[..format.block_len()].as_chunks().0) {
                *words = words_of_codes(kind, codes);
            }
        }
    }
}

/// A block of 32 codes.
fn words_of_codes(kind: Codes, codes: &[u8; BLOCK]) -> Words {
    let groups: Words = std::array::from_fn(|g| u32::from_le_bytes(std::array::from_fn(|i| codes[4 * g + i])));
    if kind == Codes::Eight {
        return groups;
    }
    let mut words = [0; 8];
    for (j, word) in words[..4].iter_mut().enumerate() {
        *word = groups[j] & LOW | (groups[j + 4] & LOW) << 4;
    }
    if kind == Codes::Five {
        words[4] = (0..8).fold(0, |bits, g| bits | (groups[g] >> 4 & 0x0101_0101) << g);
    }
    if kind == Codes::Six {
        for (plane, groups) in words[4..6].iter_mut().zip(groups.chunks_exact(4)) {
            *plane = groups.iter().enumerate().fold(0, |bits, (j, group)| bits | (group >> 4 & 0x0303_0303) << (2 * j));
        }
    }
    words
}

/// A row's numbers of a file's block that begins with block `first` of a unit.
#[inline(always)]
fn write_numbers(layout: Layout, unit: &mut [u8], blocks: usize, first: usize, column: usize, numbers: Numbers) {
    let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(blocks), layout.d_at(blocks));
    let half = |unit: &mut [u8], at: usize, bits: u16| unit[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    match layout.scales {
        Scales::Halves { min } => {
            half(unit, scales + 2 * (first * COLUMNS + column), numbers.d);
            if min {
                half(unit, mins + 2 * (first * COLUMNS + column), numbers.min);
            }
        }
        Scales::Integers { sub, min } => {
            for s in 0..UNIT / sub {
                unit[scales + s * COLUMNS + column] = numbers.scales[s] as u8;
                if min {
                    unit[mins + pair_at(s, column)] = numbers.mins[s];
                }
            }
            half(unit, d + 2 * column, numbers.d);
            if min {
                half(unit, d + 2 * (COLUMNS + column), numbers.min);
            }
        }
    }
}

/// The codes of a block of column `column`, as products see them: those of a table are its values + 128.
pub fn read_codes(kind: Codes, from: &[u8], column: usize) -> [u8; BLOCK] {
    let plane = |i: usize| dword(from, i * ROW + 4 * column);
    let vector = |i: usize| plane(kind.planes() + i);
    let mut codes = [0; BLOCK];
    for (g, codes) in codes.chunks_exact_mut(4).enumerate() {
        let four = || vector(g % 4) >> (g / 4 * 4) & 0x0f0f_0f0f;
        let group = match kind {
            Codes::Eight => vector(g),
            Codes::Four | Codes::Table => four(),
            Codes::Five => four() | (plane(0) >> g & 0x0101_0101) << 4,
            Codes::Six => four() | (plane(g / 4) >> (g % 4 * 2) & 0x0303_0303) << 4,
        };
        codes.copy_from_slice(&group.to_le_bytes());
        if kind == Codes::Table {
            codes.iter_mut().for_each(|code| *code = (IQ4_VALUES[usize::from(*code)] as u8) ^ 0x80);
        }
    }
    codes
}

/// The half-precision number at a byte.
pub fn half_at(unit: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([unit[at], unit[at + 1]]))
}

/// Place of an integer minimum: pairs of sub-blocks side by side.
pub fn pair_at(s: usize, column: usize) -> usize {
    (s / 2 * COLUMNS + column) * 2 + s % 2
}

/// Column `column` of a pair as f32, exactly as [`crate::quant::dequantize_row`] gives the row it was packed from.
pub fn read_column(format: WeightFormat, layout: Layout, pair: &[u8], column: usize, out: &mut [f32]) {
    let (has_min, cols) = (Scheme::of(format).is_some_and(|scheme| scheme.has_min), out.len());
    for (u, out) in out.chunks_mut(UNIT).enumerate() {
        let (unit, blocks) = (&pair[layout.unit_range(cols, u)], Layout::blocks(cols, u));
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let codes =
                read_codes(layout.codes, &unit[layout.codes_at(blocks) + b * layout.codes.block_bytes()..], column);
            // No scale holds for less than 16 weights.
            for (i, (out, codes)) in out.chunks_exact_mut(16).zip(codes.chunks_exact(16)).enumerate() {
                let (scale, min) = scale_and_min(layout, unit, blocks, 2 * b + i, column);
                for (out, code) in out.iter_mut().zip(codes) {
                    let product = scale * (i32::from(*code) - layout.zero) as f32;
                    *out = if has_min { product - min } else { product };
                }
            }
        }
    }
}

/// Scale and minimum (to be subtracted) of the weights 16·part .. of a unit.
fn scale_and_min(layout: Layout, unit: &[u8], blocks: usize, part: usize, column: usize) -> (f32, f32) {
    let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(blocks), layout.d_at(blocks));
    match layout.scales {
        Scales::Halves { min } => {
            let at = 2 * (part / 2 * COLUMNS + column);
            (half_at(unit, scales + at), if min { -half_at(unit, mins + at) } else { 0.0 })
        }
        Scales::Integers { sub, min } => {
            let s = part * 16 / sub;
            let scale = f32::from(unit[scales + s * COLUMNS + column] as i8) * layout.unit();
            let scale = half_at(unit, d + 2 * column) * scale;
            let min = if min {
                half_at(unit, d + 2 * (COLUMNS + column)) * f32::from(unit[mins + pair_at(s, column)])
            } else {
                0.0
            };
            (scale, min)
        }
    }
}
