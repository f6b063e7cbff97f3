//! Numbers rounded to quantised formats, with the bytes that ggml's reference quantisation gives.

use super::WeightFormat;
use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// Appends a row in `format` to `out`. Returns whether that format can be written: floating-point formats, Q8_0 and Q4_0.
///
/// Panics if the row is not a whole number of blocks.
pub fn quantize_row(format: WeightFormat, row: &[f32], out: &mut Vec<u8>) -> bool {
    assert!(row.len().is_multiple_of(format.block_len()), "a row of {} in {}", row.len(), format.name());
    match format {
        WeightFormat::F32 => out.extend(row.iter().flat_map(|x| x.to_le_bytes())),
        WeightFormat::F16 => out.extend(row.iter().flat_map(|x| f32_to_f16(*x).to_le_bytes())),
        WeightFormat::Bf16 => out.extend(row.iter().flat_map(|x| f32_to_bf16(*x).to_le_bytes())),
        WeightFormat::Q8_0 => row.chunks_exact(32).for_each(|block| q8_0(block, out)),
        WeightFormat::Q4_0 => row.chunks_exact(32).for_each(|block| q4_0(block, out)),
        _ => return false,
    }
    true
}

/// Whether a format that can be written keeps the largest of these numbers finite: halves end at 65,504.
pub fn fits(format: WeightFormat, row: &[f32]) -> bool {
    let half = |x: f32| f16_to_f32(f32_to_f16(x)).is_finite();
    let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    match format {
        WeightFormat::F16 => half(largest),
        WeightFormat::Bf16 => bf16_to_f32(f32_to_bf16(largest)).is_finite(),
        WeightFormat::Q8_0 => half(largest / 127.0),
        WeightFormat::Q4_0 => half(largest / 8.0),
        _ => largest.is_finite(),
    }
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Scale max |x| / 127, then signed bytes, halves rounded away from zero.
fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let d = block.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
    out.extend(f32_to_f16(d).to_le_bytes());
    out.extend(block.iter().map(|x| (x * inverse(d)).round() as i8 as u8));
}

/// The element of largest magnitude becomes −8 (code 0); element i and i + 16 share a byte.
fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |max, x| if x.abs() > max.abs() { *x } else { max });
    let d = largest / -8.0;
    let code = |x: f32| ((x * inverse(d) + 8.5) as u8).min(15);
    out.extend(f32_to_f16(d).to_le_bytes());
    out.extend(block[..16].iter().zip(&block[16..]).map(|(low, high)| code(*low) | code(*high) << 4));
}
