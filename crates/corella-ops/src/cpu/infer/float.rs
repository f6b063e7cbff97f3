//! Products with weights in floating point: F32, F16 and BF16, converted to f32 as they are read.
//!
//! 16 rows of the matrix make a panel; both panels of a pair lie side by side, k after k; of BF16, two k side by side in each, as
//! products with instructions for BF16 want them (see [`super::brain`]). Over 32 steps of k, the even and the odd products are added up by
//! themselves, each in ascending order, and both sums are then added to the result: an order that does not depend on the number of
//! rows. On AVX2 it is another one (`float256`).

use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::layout::{COLUMNS, PAIR, PANEL};
#[cfg(target_arch = "x86_64")]
use super::{float256, float512};
use crate::quant::WeightFormat;
use crate::quant::half::{bf16_to_f32, f16_to_f32};

/// Steps of k whose sums are added to the result together.
pub const RUN: usize = 32;
/// Rows of a tile at most, on any path.
pub const MAX_ROWS: usize = 6;

/// Rows of a tile at most.
pub fn rows(path: Path) -> usize {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => float256::ROWS,
        _ => 4,
    }
}

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

/// Rows of x, `x_row` apart, and the panels that they meet.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Pair {
    /// (R, cols), if a kernel does not say otherwise.
    pub x: *const f32,
    /// Floats between rows of x.
    pub x_row: usize,
    /// Weights along k.
    pub cols: usize,
    /// The panels.
    pub w: [*const u8; PAIR],
    /// Sums (R, 32), to which the products are added.
    pub c: *mut f32,
}

// Formats as constant parameters.
/// F32.
pub const SINGLE: u8 = 0;
/// F16.
pub const HALF: u8 = 1;
/// BF16.
pub const BRAIN: u8 = 2;

/// A tile: rows of x (R,C), `x_row` apart, against a panel.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: &'a [f32],
    x_row: usize,
    cols: usize,
    panel: &'a [u8],
}

/// c\[r\] += x\[r\] · pair for up to [`rows`] rows of x (R,C) and both panels of a pair.
pub fn pair(format: WeightFormat, path: Path, x: &[f32], cols: usize, pair: &[u8], c: &mut [[f32; COLUMNS]]) {
    let bytes = panel_bytes(format, cols);
    assert!(pair.len() >= PAIR * bytes && x.len() >= c.len() * cols, "a pair of {cols}");
    assert!((1..=rows(path)).contains(&c.len()), "a tile of {} rows", c.len());
    if cols == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    {
        let w = std::array::from_fn(|p| pair.as_ptr().wrapping_add(panel(format, p)));
        let tile = Pair { x: x.as_ptr(), x_row: cols, cols, w, c: c.as_mut_ptr().cast() };
        // SAFETY: rows, panels and sums as asserted; a path exists only after its features were detected.
        unsafe {
            match path.vectors() {
                Vectors::Avx512 => return float512::pair(format, c.len(), tile),
                Vectors::Avx2 => return float256::pair::<false>(format, c.len(), tile),
                _ => {}
            }
        }
    }
    for p in 0..PAIR {
        let tile = Tile { x, x_row: cols, cols, panel: &pair[panel(format, p)..] };
        let mut sums = [[0.0; PANEL]; MAX_ROWS];
        let sums = &mut sums[..c.len()];
        match format {
            WeightFormat::F32 => rows_of::<SINGLE>(tile, sums),
            WeightFormat::F16 => rows_of::<HALF>(tile, sums),
            _ => rows_of::<BRAIN>(tile, sums),
        }
        for (c, sums) in c.iter_mut().zip(sums) {
            c[p * PANEL..][..PANEL].iter_mut().zip(sums).for_each(|(c, sum)| *c += *sum);
        }
    }
}

fn rows_of<const F: u8>(tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
    match c.len() {
        1 => body::<F, 1>(tile, c),
        2 => body::<F, 2>(tile, c),
        3 => body::<F, 3>(tile, c),
        _ => body::<F, 4>(tile, c),
    }
}

#[inline(always)]
fn body<const F: u8, const R: usize>(tile: Tile<'_>, c: &mut [[f32; PANEL]]) {
    let Tile { x, x_row, cols, panel } = tile;
    let rows: [&[f32]; R] = std::array::from_fn(|r| &x[r * x_row..][..cols]);
    for first in (0..cols).step_by(RUN) {
        let mut sums = [[[0.0f32; PANEL]; 2]; R];
        let end = (first + RUN).min(cols);
        for k in (first..end).step_by(2) {
            let pair = weights::<F>(panel, k, cols);
            for (odd, w) in pair.iter().enumerate().take(end - k) {
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let x = row[k + odd];
                    for (sum, w) in sums[odd].iter_mut().zip(w) {
                        *sum += x * w;
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
fn weights<const F: u8>(panel: &[u8], k: usize, cols: usize) -> [[f32; PANEL]; 2] {
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
            for (out, w) in out.iter_mut().zip(halves.chunks_exact(2)) {
                *out = f16_to_f32(u16::from_le_bytes([w[0], w[1]]));
            }
        }
    }
    out
}
