//! Integer kernels in plain Rust.

use super::kernel::{AS_FLOAT, Side, Step, layout};
use super::layout::{BLOCK, COLUMNS, Layout, Scales, UNIT};
use super::pack::{half_at, pair_at, read_codes};

/// See [`super::kernel::Kernel`]; for any number of rows.
///
/// # Safety
/// As there.
pub unsafe fn unit<const CODES: u8, const SCALES: u8>(step: &Step) {
    let layout = const { layout(CODES, SCALES) };
    // SAFETY: a unit of the pair (the caller's promise).
    let w = unsafe { std::slice::from_raw_parts(step.w, layout.unit_bytes(step.blocks)) };
    for column in 0..COLUMNS {
        let mut codes = [0u8; UNIT];
        for (b, codes) in codes.chunks_exact_mut(BLOCK).enumerate().take(step.blocks) {
            let block = &w[layout.codes_at(step.blocks) + b * layout.codes.block_bytes()..];
            codes.copy_from_slice(&read_codes(layout.codes, block, column));
        }
        for r in 0..step.rows {
            // SAFETY: unit, side numbers and sums of row r, of which this column's is touched (the caller's promise).
            let (q, x_scale, side, c) = unsafe {
                let q = std::slice::from_raw_parts(step.x.add(r * UNIT), UNIT);
                let side = std::slice::from_raw_parts(step.side.add(r * step.side_row), Side::LEN);
                (q, *step.x_scale.add(r), side, &mut *step.c.add(r * step.c_row + column))
            };
            column_sum(layout, w, step.blocks, column, &codes, q, x_scale, side, c);
        }
    }
}

fn column_sum(
    layout: Layout,
    w: &[u8],
    blocks: usize,
    column: usize,
    codes: &[u8; UNIT],
    q: &[i8],
    x_scale: f32,
    side: &[i32],
    c: &mut f32,
) {
    let (scales, mins, d) = (Layout::SCALES_AT, layout.mins_at(blocks), layout.d_at(blocks));
    let sub = layout.sub();
    let start = |s: usize| match Side::of(layout.scales) {
        Side::Start => side[s],
        Side::Blocks { min: false } => side[s] - AS_FLOAT.to_bits() as i32,
        _ => 0,
    };
    let sums = codes[..blocks * BLOCK].chunks_exact(sub).zip(q.chunks_exact(sub)).enumerate();
    let sums = sums
        .map(|(s, (w, x))| (s, start(s) + w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum::<i32>()));
    match layout.scales {
        Scales::Halves { min } => {
            let mut f = 0.0;
            for (b, i) in sums {
                let x_scale = f32::from_bits(side[Side::SCALES_AT + b] as u32);
                f += half_at(w, scales + 2 * (b * COLUMNS + column)) * i as f32 * x_scale;
                if min {
                    f += half_at(w, mins + 2 * (b * COLUMNS + column)) * f32::from_bits(side[b] as u32);
                }
            }
            *c += f;
        }
        Scales::Integers { min, .. } => {
            let total: i32 = sums.map(|(s, i)| i32::from(w[scales + s * COLUMNS + column] as i8) * i).sum();
            *c += total as f32 * (half_at(w, d + 2 * column) * x_scale);
            if min {
                let x = |s: usize| i32::from((side[s / 2] >> (s % 2 * 16)) as i16);
                let total: i32 = (0..UNIT / sub).map(|s| i32::from(w[mins + pair_at(s, column)]) * x(s)).sum();
                *c -= total as f32 * (half_at(w, d + 2 * (COLUMNS + column)) * x_scale);
            }
        }
    }
}
