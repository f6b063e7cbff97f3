//! Rotary positions, turned forward or back in place.

use super::bf16::Number;
use super::path::Path;
use super::pool::Pool;
use super::rows::by_rows;
use super::vectorized::vectorized;
use crate::contract::AttentionDims;

/// Which way the pairs turn.
#[derive(Clone, Copy)]
pub enum Turn {
    /// As in [`crate::OpsTrain::rope`].
    Forward,
    /// As in [`crate::OpsTrain::rope_grad`].
    Back,
}

/// Turns the heads of q and k of every row of qkv (B, T, (NH+2·NKV)·HS); table: (≥T, HS).
pub fn rope<T: Number>(pool: &Pool, path: Path, qkv: &mut [T], table: &[f32], d: AttentionDims, turn: Turn) {
    let sign = match turn {
        Turn::Forward => 1.0,
        Turn::Back => -1.0,
    };
    let n = d.b * d.t;
    by_rows(pool, &mut qkv[..n * d.qkv()], n, d.qkv(), |first, _, qkv| {
        for (i, row) in qkv.chunks_exact_mut(d.qkv()).enumerate() {
            let angles = &table[(first + i) % d.t * d.hs..][..d.hs];
            heads(path, &mut row[..(d.nh + d.nkv) * d.hs], angles, sign);
        }
    });
}

vectorized! {
    /// Turns heads of `angles.len()` numbers side by side.
    fn heads<T: Number>(x: &mut [T], angles: &[f32], sign: f32) {
        let (cos, sin) = angles.split_at(angles.len() / 2);
        for head in x.chunks_exact_mut(angles.len()) {
            let (low, high) = head.split_at_mut(angles.len() / 2);
            for (((x, y), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let sin = sign * sin;
                let (a, b) = (x.get(), y.get());
                (*x, *y) = (T::put(a * cos - b * sin), T::put(b * cos + a * sin));
            }
        }
    }
}
