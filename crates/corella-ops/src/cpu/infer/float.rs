//! Products with weights in floating point: F32, F16 and BF16, converted to f32 as they are read.
//!
//! 16 rows of the matrix make a panel; both panels of a pair lie side by side, k after k; of BF16, two k side by side in each, as
//! products with instructions for BF16 want them (see [`super::brain`]). Over 32 steps of k, the even and the odd products are added up by themselves, each in ascending order, and both sums are then added
//! to the result: an order that does not depend on the number of rows.

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
#[cfg(target_arch = "x86_64")]
use super::float512;
use super::layout::{COLUMNS, PAIR, PANEL};
use crate::quant::WeightFormat;
use crate::quant::half::{bf16_to_f32, f16_to_f32};

/// Steps of k whose sums are added to the result together.
pub const RUN: usize = 32;
/// Rows of a tile at most.
pub const ROWS: usize = 4;

/// Bytes of a panel of `cols` weights along k; of BF16 filled up with zeros to whole runs.
pub fn panel_bytes(format: WeightFormat, cols: usize) -> usize {
    PANEL * format.block_bytes() * if format == WeightFormat::Bf16 { cols.next_multiple_of(RUN) } else { cols }
}

/// Where panel `p` of a pair begins.
pub fn panel(format: WeightFormat, p: usize) -> usize {
    p * PANEL * format.block_bytes() * if format == WeightFormat::Bf16 { 2 } else { 1 }
}

/// Where weight k of column `lane` of a panel lies, from the panel's beginning on.
fn at(format: WeightFormat, k: usize, lane: usize) -> usize {
    match format {
        WeightFormat::Bf16 => 2 * ((k / 2 * COLUMNS + lane) * 2 + k % 2),
        _ => format.block_bytes() * (k * COLUMNS + lane),
    }
}

/// Writes a row of the file as column `lane` of a panel.
pub fn write_lane(format: WeightFormat, panel: &mut [u8], lane: usize, row: &[u8]) {
    for (k, bytes) in row.chunks_exact(format.block_bytes()).enumerate() {
        panel[at(format, k, lane)..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Writes 16 rows as the columns of a panel.
pub fn write_panel(format: WeightFormat, panel: &mut [u8], rows: &[&[u8]; PANEL], cols: usize) {
    match format {
        WeightFormat::F32 => columns::<4>(panel, rows),
        WeightFormat::F16 => columns::<2>(panel, rows),
        // Pairs of k are one number here.
        _ => {
            columns::<4>(panel, rows);
            if cols % 2 == 1 {
                let tail = 2 * (cols - 1);
                (0..PANEL)
                    .for_each(|lane| panel[at(format, cols - 1, lane)..][..2].copy_from_slice(&rows[lane][tail..]));
            }
        }
    }
}

/// Numbers of `BYTES` bytes of 16 rows: number k of all rows side by side, with room for the other panel's after them.
fn columns<const BYTES: usize>(panel: &mut [u8], rows: &[&[u8]; PANEL]) {
    let rows: [&[[u8; BYTES]]; PANEL] = rows.map(|row| row.as_chunks().0);
    for (k, to) in panel.as_chunks_mut().0.chunks_mut(COLUMNS).take(rows[0].len()).enumerate() {
        to[..PANEL].iter_mut().zip(&rows).for_each(|(to, row)| *to = row[k]);
    }
}

/// Reads column `lane` of a panel as f32.
pub fn read_lane(format: WeightFormat, panel: &[u8], lane: usize, out: &mut [f32]) {
    for (k, out) in out.iter_mut().enumerate() {
        let bytes = &panel[at(format, k, lane)..];
        *out = match format {
            WeightFormat::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            WeightFormat::F16 => f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]])),
            _ => bf16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]])),
        };
    }
}

/// A tile: rows of x (R,C), `x_row` apart, against a panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: &'a [f32],
    x_row: usize,
    cols: usize,
    panel: &'a [u8],
}

/// c\[r\] += x\[r\] · pair for up to [`ROWS`] rows of x (R,C) and both panels of a pair.
pub fn pair(format: WeightFormat, path: Path, x: &[f32], cols: usize, pair: &[u8], c: &mut [[f32; COLUMNS]]) {
    let bytes = panel_bytes(format, cols);
    assert!(pair.len() >= PAIR * bytes && x.len() >= c.len() * cols, "a pair of {cols}");
    assert!((1..=ROWS).contains(&c.len()), "a tile of {} rows", c.len());
    #[cfg(target_arch = "x86_64")]
    if path.vectors() == Vectors::Avx512 {
        let w = std::array::from_fn(|p| pair.as_ptr().wrapping_add(panel(format, p)));
        let tile = float512::Pair { x: x.as_ptr(), x_row: cols, cols, w, c: c.as_mut_ptr().cast() };
        // SAFETY: rows, panels and sums as asserted; the path exists only after its features were detected.
        return unsafe { float512::pair(format, c.len(), tile) };
    }
    for p in 0..PAIR {
        let tile = Tile { x, x_row: cols, cols, panel: &pair[panel(format, p)..] };
        let mut sums = [[0.0; PANEL]; ROWS];
        let sums = &mut sums[..c.len()];
        match format {
            WeightFormat::F32 => rows::<SINGLE>(path, tile, sums),
            WeightFormat::F16 => rows::<HALF>(path, tile, sums),
            _ => rows::<BRAIN>(path, tile, sums),
        }
        for (c, sums) in c.iter_mut().zip(sums) {
            c[p * PANEL..][..PANEL].iter_mut().zip(sums).for_each(|(c, sum)| *c += *sum);
        }
    }
}

// Formats as constant parameters.
const SINGLE: u8 = 0;
const HALF: u8 = 1;
const BRAIN: u8 = 2;

fn rows<const F: u8>(path: Path, tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
    match c.len() {
        1 => on::<F, 1>(path, tile, c),
        2 => on::<F, 2>(path, tile, c),
        3 => on::<F, 3>(path, tile, c),
        _ => on::<F, 4>(path, tile, c),
    }
}

/// The body compiled for each path.
fn on<const F: u8, const R: usize>(path: Path, tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<const F: u8, const R: usize>(tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
            body::<F, R, true>(tile, c);
        }

        if path.has_avx2() && is_x86_feature_detected!("f16c") {
            // SAFETY: the path exists only after its features were detected.
            return unsafe { avx2::<F, R>(tile, c) };
        }
    }
    let _ = path;
    body::<F, R, false>(tile, c);
}

#[inline(always)]
fn body<const F: u8, const R: usize, const FUSED: bool>(tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
    let Tile { x, x_row, cols, panel } = tile;
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * x_row..][..cols]);
    for first in (0..cols).step_by(RUN) {
        let mut sums = [[[0.0f32; PANEL]; 2]; R];
        let end = (first + RUN).min(cols);
        for k in (first..end).step_by(2) {
            let pair = weights::<F, FUSED>(panel, k, cols);
            for (odd, w) in pair.iter().enumerate().take(end - k) {
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let x = row[k + odd];
                    for (sum, w) in sums[odd].iter_mut().zip(w) {
                        *sum = if FUSED { x.mul_add(*w, *sum) } else { *sum + x * w };
                    }
                }
            }
        }
        for (c, [even, odd]) in c.iter_mut().zip(&sums) {
            for ((c, even), odd) in c.iter_mut().zip(even).zip(odd) {
                *c += even + odd;
            }
        }
    }
}

/// Weights k and k + 1 of all columns.
#[inline(always)]
fn weights<const F: u8, const FUSED: bool>(panel: &[u8], k: usize, cols: usize) -> [[f32; PANEL]; 2] {
    let mut out = [[0.0; PANEL]; 2];
    if F == BRAIN {
        let pairs = &panel[k * COLUMNS * 2..][..PANEL * 4];
        for (lane, w) in pairs.chunks_exact(4).enumerate() {
            let both = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            (out[0][lane], out[1][lane]) = (f32::from_bits(both << 16), f32::from_bits(both & 0xffff_0000));
        }
        return out;
    }
    for (odd, out) in out.iter_mut().enumerate().take(cols - k) {
        if F == SINGLE {
            for (out, w) in out.iter_mut().zip(panel[(k + odd) * COLUMNS * 4..].chunks_exact(4)) {
                *out = f32::from_le_bytes([w[0], w[1], w[2], w[3]]);
            }
        } else {
            let halves = &panel[(k + odd) * COLUMNS * 2..][..PANEL * 2];
            #[cfg(target_arch = "x86_64")]
            if FUSED {
                // SAFETY: the paths with fused multiply-adds are those with F16C (`on`).
                *out = unsafe { from_halves(halves) };
                continue;
            }
            for (out, w) in out.iter_mut().zip(halves.chunks_exact(2)) {
                *out = f16_to_f32(u16::from_le_bytes([w[0], w[1]]));
            }
        }
    }
    out
}

/// 16 half-precision numbers.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn from_halves(bytes: &[u8]) -> [f32; PANEL] {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let mut out = [0.0; PANEL];
    for (to, from) in out.chunks_exact_mut(8).zip(bytes.chunks_exact(16)) {
        // SAFETY: 16 bytes read, 8 floats written.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    out
}
