//! Attention of generation, over the keys and values of earlier positions.

use super::math::{exp, sum, sum2};
use super::path::Path;
use super::pool::Pool;
use super::shared::SharedMut;
use super::vectorized::vectorized;

/// row ← softmax(scale · row).
#[inline(always)]
pub fn softmax(row: &mut [f32], scale: f32) {
    let max = max_of(row) * scale;
    for x in row.iter_mut() {
        *x = exp(*x * scale - max);
    }
    let inverse = 1.0 / sum(row, |x| x);
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

/// The largest element.
#[inline(always)]
pub fn max_of(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (whole, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for x in whole {
        lanes = std::array::from_fn(|i| greater(lanes[i], x[i]));
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = greater(*lane, *x);
    }
    let lanes: [f32; 8] = std::array::from_fn(|i| greater(lanes[i], lanes[i + 8]));
    let lanes: [f32; 4] = std::array::from_fn(|i| greater(lanes[i], lanes[i + 4]));
    greater(greater(lanes[0], lanes[1]), greater(lanes[2], lanes[3]))
}

/// Keys and values of one layer of one sequence, position after position.
#[derive(Debug)]
pub struct Kv {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Kv {
    /// Room for `capacity` positions of width `c`.
    pub fn new(capacity: usize, c: usize) -> Self {
        Kv { k: vec![0.0; capacity * c], v: vec![0.0; capacity * c] }
    }
}

/// See [`crate::OpsInfer::attention_cached`]. Each query is computed by itself, so that chunks do not matter.
pub fn cached(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    kv: &mut Kv,
    qkv: &[f32],
    pos0: usize,
    n: usize,
    nh: usize,
    hs: usize,
) {
    let (c, scale) = (nh * hs, 1.0 / (hs as f32).sqrt());
    for i in 0..n {
        let row = &qkv[i * 3 * c..][..3 * c];
        kv.k[(pos0 + i) * c..][..c].copy_from_slice(&row[c..2 * c]);
        kv.v[(pos0 + i) * c..][..c].copy_from_slice(&row[2 * c..]);
    }
    let (kv, out) = (&*kv, SharedMut::new(out));
    pool.run(n * nh, &|task| {
        let (i, head) = (task / nh, task % nh);
        let seen = pos0 + i + 1;
        let q = &qkv[i * 3 * c + head * hs..][..hs];
        // SAFETY: head `head` of row `i` belongs to this task.
        let out = unsafe { out.part(i * c + head * hs, hs) };
        query(path, out, q, &kv.k[head * hs..], &kv.v[head * hs..], (seen, c), scale);
    });
}

vectorized! {
    /// One query of one head against `seen` keys, which lie `c` apart.
    fn query(out: &mut [f32], q: &[f32], k: &[f32], v: &[f32], extent: (usize, usize), scale: f32) {
        let ((seen, c), hs) = (extent, q.len());
        let mut p = vec![0.0; seen];
        for (s, p) in p.iter_mut().enumerate() {
            let k = &k[s * c..][..hs];
            *p = sum2(q, k, |q, k| q * k);
        }
        softmax(&mut p, scale);
        out.fill(0.0);
        for (s, p) in p.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&v[s * c..][..hs]) {
                *out += p * v;
            }
        }
    }
}
