//! The paged cache of keys and values: how it lies in memory, writing it, and reading it as f32.

use super::super::array::Array;
use super::super::path::Path;
use super::super::pool::Pool;
use super::super::scratch::Scratch;
use super::super::shared::SharedMut;
use super::super::zeros;
use super::ahead;
use super::batch::Batch;
use super::cached_numbers::{element_bytes, narrow, widen};
use crate::contract::OpsError;
use crate::contract_infer::{HeadDims, KvKind, KvPagesDims, int8_scale};

/// Positions that lie together.
pub const GROUP: usize = KvPagesDims::GROUP;

/// Keys and values of a layer, (NKV, pages) of what a head keeps of a page: its keys by groups of 16 positions, (HS,16) each, so
/// that a vector holds one dimension of 16 keys; and its values position after position, (page length, HS). Pages of a long
/// text mostly follow each other, and a head reads on through all of them: that is faster by a fifth than (pages, NKV), where it
/// skips the other heads after each page (docs/log.md).
#[derive(Debug)]
pub struct KvPages {
    dims: KvPagesDims,
    k: Array<u8>,
    v: Array<u8>,
    /// (NKV, pages, page length) each; of [`KvKind::Q8`] only.
    k_scales: Array,
    v_scales: Array,
}

impl KvPages {
    /// All pages.
    pub fn new(dims: KvPagesDims) -> Result<KvPages, OpsError> {
        let positions = dims.pages * dims.page_len * dims.nkv;
        let bytes = positions * dims.hs * element_bytes(dims.kind);
        let scales = if dims.kind == KvKind::Q8 { positions } else { 0 };
        Ok(KvPages {
            dims,
            k: zeros(bytes, "keys")?,
            v: zeros(bytes, "values")?,
            k_scales: zeros(scales, "scales of keys")?,
            v_scales: zeros(scales, "scales of values")?,
        })
    }

    /// Shape.
    pub fn dims(&self) -> KvPagesDims {
        self.dims
    }

    /// See [`first`].
    fn first(&self, page: usize, head: usize) -> usize {
        first(&self.dims, page, head)
    }

    /// Copies a page over another.
    pub fn copy(&mut self, from: usize, to: usize) {
        let positions = self.dims.page_len;
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        for head in 0..self.dims.nkv {
            let (from, to) = (self.first(from, head), self.first(to, head));
            for all in [&mut self.k, &mut self.v] {
                all.copy_within(from * bytes..(from + positions) * bytes, to * bytes);
            }
            if self.dims.kind == KvKind::Q8 {
                for all in [&mut self.k_scales, &mut self.v_scales] {
                    all.copy_within(from..from + positions, to);
                }
            }
        }
    }

    /// Writes the keys and values of all rows.
    pub fn write(&mut self, pool: &Pool, path: Path, qkv: &[f32], batch: &Batch, d: HeadDims) {
        let (dims, hs) = (self.dims, d.hs);
        let size = element_bytes(dims.kind);
        let places: Vec<(usize, usize)> =
            batch.rows.iter().map(|row| batch.place(row.sequence, row.position as usize)).collect();
        for (page, _) in &places {
            assert!(*page < dims.pages, "page {page} of {}", dims.pages);
        }
        let (k, v) = (SharedMut::new(&mut self.k), SharedMut::new(&mut self.v));
        let (k_scales, v_scales) = (SharedMut::new(&mut self.k_scales), SharedMut::new(&mut self.v_scales));
        pool.run(d.nkv, &|head| {
            let mut line = Scratch::new(hs * size);
            for (n, (page, place)) in places.iter().enumerate() {
                let first = first(&dims, *page, head);
                let from = n * d.qkv() + (d.nh + head) * hs;
                let (keys, values) = (&qkv[from..][..hs], &qkv[from + d.nkv * hs..][..hs]);
                let group = first + place / GROUP * GROUP;
                // SAFETY: this head's part of a page: no other task writes it.
                let (k, v) = unsafe {
                    (k.part(group * hs * size, GROUP * hs * size), v.part((first + place) * hs * size, hs * size))
                };
                let (mut k_inverse, mut v_inverse) = (0.0, 0.0);
                if dims.kind == KvKind::Q8 {
                    // SAFETY: as above.
                    let (k, v) = unsafe { (k_scales.part(first + place, 1), v_scales.part(first + place, 1)) };
                    (k[0], k_inverse) = int8_scale(keys);
                    (v[0], v_inverse) = int8_scale(values);
                }
                narrow(dims.kind, path, values, v_inverse, v);
                narrow(dims.kind, path, keys, k_inverse, &mut line);
                for (i, x) in line.chunks_exact(size).enumerate() {
                    k[(i * GROUP + place % GROUP) * size..][..size].copy_from_slice(x);
                }
            }
        });
    }

    /// Keys (HS,16) of a group of positions as f32, without their scales.
    pub fn keys(&self, path: Path, place: (usize, usize), head: usize, out: &mut [f32]) {
        widen(self.dims.kind, path, self.stored_keys(place, head, 1), out);
    }

    /// The keys of `count` groups of positions that lie behind each other ([`Batch::run`]), as they are stored.
    pub fn stored_keys(&self, (page, place): (usize, usize), head: usize, count: usize) -> &[u8] {
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        &self.k[(self.first(page, head) + place) * bytes..][..count * GROUP * bytes]
    }

    /// The values of `count` positions that lie behind each other, as they are stored.
    pub fn stored_values(&self, (page, place): (usize, usize), head: usize, count: usize) -> &[u8] {
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        &self.v[(self.first(page, head) + place) * bytes..][..count * bytes]
    }

    /// Scales of the keys and of the values of a group of positions; of [`KvKind::Q8`] only.
    pub fn scales(&self, (page, place): (usize, usize), head: usize) -> [&[f32]; 2] {
        let first = self.first(page, head) + place;
        [&self.k_scales, &self.v_scales].map(|scales| &scales[first..first + GROUP])
    }

    /// Bytes that keys or values of a group of positions take.
    pub fn group_bytes(&self) -> usize {
        GROUP * self.dims.hs * element_bytes(self.dims.kind)
    }

    /// Asks for the keys of a group of positions, to be read soon.
    pub fn ask_keys(&self, place: (usize, usize), head: usize) {
        self.ask(&self.k, place, head);
    }

    /// The same for values.
    pub fn ask_values(&self, place: (usize, usize), head: usize) {
        self.ask(&self.v, place, head);
    }

    fn ask(&self, all: &[u8], (page, place): (usize, usize), head: usize) {
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        ahead::ask(all.as_ptr().wrapping_add((self.first(page, head) + place) * bytes), GROUP * bytes);
    }

    /// Values of the first `count` positions of a group as f32, `width` floats apart, without their scales.
    pub fn values(&self, path: Path, place: (usize, usize), head: usize, count: usize, width: usize, out: &mut [f32]) {
        let (size, hs) = (element_bytes(self.dims.kind), self.dims.hs);
        let bytes = self.stored_values(place, head, count);
        if width == hs {
            widen(self.dims.kind, path, bytes, &mut out[..count * hs]);
        } else {
            for (from, to) in bytes.chunks_exact(hs * size).zip(out.chunks_exact_mut(width)) {
                widen(self.dims.kind, path, from, &mut to[..hs]);
                to[hs..].fill(0.0);
            }
        }
    }
}

/// Positions before those of head `head` of page `page`.
fn first(dims: &KvPagesDims, page: usize, head: usize) -> usize {
    (head * dims.pages + page) * dims.page_len
}
