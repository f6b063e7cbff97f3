//! Attention over a paged cache of keys and values.

use super::super::attention::softmax;
use super::super::math::sum_by;
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::super::{Array, zeros};
use super::batch::Batch;
use crate::contract::OpsError;
use crate::contract_infer::{HeadDims, KvPagesDims};

/// Keys and values of a layer, each (pages, NKV, page length, HS).
#[derive(Debug)]
pub struct KvPages {
    dims: KvPagesDims,
    k: Array,
    v: Array,
}

impl KvPages {
    /// All pages.
    pub fn new(dims: KvPagesDims) -> Result<KvPages, OpsError> {
        assert!(dims.page_len.is_multiple_of(KvPagesDims::GROUP) && dims.page_len > 0, "a page of {}", dims.page_len);
        let len = dims.pages * dims.page_len * dims.nkv * dims.hs;
        Ok(KvPages { dims, k: zeros(len, "keys")?, v: zeros(len, "values")? })
    }

    /// Copies a page over another.
    pub fn copy(&mut self, from: usize, to: usize) {
        let len = self.dims.page_len * self.dims.nkv * self.dims.hs;
        for all in [&mut self.k, &mut self.v] {
            all.copy_within(from * len..(from + 1) * len, to * len);
        }
    }

    fn at(&self, (page, place): (usize, usize), head: usize) -> usize {
        ((page * self.dims.nkv + head) * self.dims.page_len + place) * self.dims.hs
    }

    /// Writes the keys and values of all rows.
    fn write(&mut self, qkv: &[f32], batch: &Batch, d: HeadDims) {
        for (n, row) in batch.rows.iter().enumerate() {
            let place = batch.place(row.sequence, row.position as usize);
            for head in 0..d.nkv {
                let (from, to) = (n * d.qkv() + (d.nh + head) * d.hs, self.at(place, head));
                for (from, to) in [(from, &mut self.k[to..][..d.hs]), (from + d.nkv * d.hs, &mut self.v[to..][..d.hs])]
                {
                    to.copy_from_slice(&qkv[from..][..d.hs]);
                    self.dims.kind.round(to);
                }
            }
        }
    }
}

/// See [`crate::OpsInfer::attention_paged`].
pub fn attention(
    pool: &Pool,
    path: Path,
    out: &mut [f32],
    pages: &mut KvPages,
    qkv: &[f32],
    batch: &Batch,
    d: HeadDims,
) {
    assert_eq!(
        (pages.dims.nkv, pages.dims.hs, pages.dims.page_len),
        (d.nkv, d.hs, batch.page_len),
        "shape of the cache"
    );
    pages.write(qkv, batch, d);
    let (pages, out, scale) = (&*pages, SharedMut::new(out), 1.0 / (d.hs as f32).sqrt());
    pool.run(batch.rows.len() * d.nh, &|task| {
        let (n, head) = (task / d.nh, task % d.nh);
        let row = batch.rows[n];
        // SAFETY: head `head` of row `n` belongs to this task.
        let out = unsafe { out.part(task * d.hs, d.hs) };
        let q = &qkv[n * d.qkv() + head * d.hs..][..d.hs];
        let at = |s: usize| pages.at(batch.place(row.sequence, s), head / (d.nh / d.nkv));
        let seen = row.position as usize + 1;
        let mut p = Scratch::new(seen);
        for (s, p) in p.iter_mut().enumerate() {
            *p = dot(path, q, &pages.k[at(s)..][..d.hs]);
        }
        softmax(&mut p, scale);
        out.fill(0.0);
        for (s, p) in p.iter().enumerate() {
            for (out, v) in out.iter_mut().zip(&pages.v[at(s)..][..d.hs]) {
                *out += p * v;
            }
        }
    });
}

vectorized! {
    /// Σ a·b.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum_by(a.len(), |i| a[i] * b[i])
    }
}
