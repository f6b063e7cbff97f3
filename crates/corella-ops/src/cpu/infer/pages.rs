//! The paged cache of keys and values: how it lies in memory, writing it, and reading it as f32.

use super::super::array::Array;
use super::super::path::Path;
#[cfg(target_arch = "x86_64")]
use super::super::path::Vectors;
use super::super::pool::Pool;
use super::super::shared::SharedMut;
use super::super::vectorized::vectorized;
use super::super::zeros;
use super::ahead;
use super::batch::Batch;
use crate::contract::OpsError;
use crate::contract_infer::{HeadDims, KvKind, KvPagesDims, int8_scale};
use crate::quant::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

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
        assert!(dims.page_len.is_multiple_of(GROUP) && dims.page_len > 0, "a page of {}", dims.page_len);
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

    /// Positions before those of head `head` of page `page`.
    fn first(&self, page: usize, head: usize) -> usize {
        (head * self.dims.pages + page) * self.dims.page_len
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
    pub fn write(&mut self, pool: &Pool, qkv: &[f32], batch: &Batch, d: HeadDims) {
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
            for (n, (page, place)) in places.iter().enumerate() {
                let first = (head * dims.pages + page) * dims.page_len;
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
                for (i, x) in keys.iter().enumerate() {
                    put(dims.kind, &mut k[(i * GROUP + place % GROUP) * size..], *x, k_inverse);
                }
                for (i, x) in values.iter().enumerate() {
                    put(dims.kind, &mut v[i * size..], *x, v_inverse);
                }
            }
        });
    }

    /// Keys (HS,16) of a group of positions as f32.
    pub fn keys(&self, path: Path, (page, place): (usize, usize), head: usize, out: &mut [f32]) {
        let (first, size, hs) = (self.first(page, head) + place, element_bytes(self.dims.kind), self.dims.hs);
        widen(self.dims.kind, path, &self.k[first * hs * size..][..GROUP * hs * size], out);
        if self.dims.kind == KvKind::Q8 {
            let scales = &self.k_scales[first..first + GROUP];
            out.chunks_exact_mut(GROUP).for_each(|k| k.iter_mut().zip(scales).for_each(|(k, scale)| *k *= scale));
        }
    }

    /// The keys of a group of positions as they are stored, and their scales if there are any.
    pub fn stored_keys(&self, (page, place): (usize, usize), head: usize) -> (&[u8], &[f32]) {
        let first = self.first(page, head) + place;
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        (&self.k[first * bytes..][..GROUP * bytes], scales(&self.k_scales, first, GROUP))
    }

    /// The same for the values of the first `count` positions of a group.
    pub fn stored_values(&self, (page, place): (usize, usize), head: usize, count: usize) -> (&[u8], &[f32]) {
        let first = self.first(page, head) + place;
        let bytes = self.dims.hs * element_bytes(self.dims.kind);
        (&self.v[first * bytes..][..count * bytes], scales(&self.v_scales, first, count))
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

    /// Values of the first `count` positions of a group as f32, `width` floats apart.
    pub fn values(
        &self,
        path: Path,
        (page, place): (usize, usize),
        head: usize,
        count: usize,
        width: usize,
        out: &mut [f32],
    ) {
        let (first, size, hs) = (self.first(page, head) + place, element_bytes(self.dims.kind), self.dims.hs);
        let bytes = &self.v[first * hs * size..][..count * hs * size];
        if width == hs {
            widen(self.dims.kind, path, bytes, &mut out[..count * hs]);
        } else {
            for (from, to) in bytes.chunks_exact(hs * size).zip(out.chunks_exact_mut(width)) {
                widen(self.dims.kind, path, from, &mut to[..hs]);
                to[hs..].fill(0.0);
            }
        }
        if self.dims.kind == KvKind::Q8 {
            for (v, scale) in out.chunks_exact_mut(width).zip(&self.v_scales[first..first + count]) {
                v.iter_mut().for_each(|v| *v *= scale);
            }
        }
    }
}

/// Scales of `count` positions; none where numbers have none.
fn scales(all: &[f32], first: usize, count: usize) -> &[f32] {
    if all.is_empty() { all } else { &all[first..first + count] }
}

fn element_bytes(kind: KvKind) -> usize {
    match kind {
        KvKind::F32 => 4,
        KvKind::F16 | KvKind::Bf16 => 2,
        KvKind::Q8 => 1,
    }
}

/// Rounds one number, as [`KvKind::round`] says.
fn put(kind: KvKind, to: &mut [u8], x: f32, inverse: f32) {
    match kind {
        KvKind::F32 => to[..4].copy_from_slice(&x.to_le_bytes()),
        KvKind::F16 => to[..2].copy_from_slice(&f32_to_f16(x).to_le_bytes()),
        KvKind::Bf16 => to[..2].copy_from_slice(&f32_to_bf16(x).to_le_bytes()),
        KvKind::Q8 => to[0] = (x * inverse).round_ties_even() as i8 as u8,
    }
}

/// Elements without their scales.
fn widen(kind: KvKind, path: Path, from: &[u8], to: &mut [f32]) {
    match kind {
        KvKind::F32 => widen_f32(path, from, to),
        KvKind::F16 => {
            #[cfg(target_arch = "x86_64")]
            {
                if path.vectors() == Vectors::Avx512 {
                    // SAFETY: the path exists only after its features were detected.
                    return unsafe { widen_avx512(from, to) };
                }
                if path.has_avx2() && is_x86_feature_detected!("f16c") {
                    // SAFETY: the features were detected.
                    return unsafe { widen_f16c(from, to) };
                }
            }
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
            }
        }
        KvKind::Bf16 => widen_bf16(path, from, to),
        KvKind::Q8 => widen_i8(path, from, to),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn widen_avx512(from: &[u8], to: &mut [f32]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps};
    let (mut to, mut from) = (to.chunks_exact_mut(16), from.chunks_exact(32));
    for (to, from) in (&mut to).zip(&mut from) {
        // SAFETY: 32 bytes read, 16 floats written.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) };
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder().chunks_exact(2)) {
        *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16c(from: &[u8], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let (mut to, mut from) = (to.chunks_exact_mut(8), from.chunks_exact(16));
    for (to, from) in (&mut to).zip(&mut from) {
        // SAFETY: 16 bytes read, 8 floats written.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder().chunks_exact(2)) {
        *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
    }
}

vectorized! {
    fn widen_f32(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(4)) {
            *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
    }
}

vectorized! {
    fn widen_bf16(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
            *to = bf16_to_f32(u16::from_le_bytes([from[0], from[1]]));
        }
    }
}

vectorized! {
    fn widen_i8(from: &[u8], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from(*from as i8);
        }
    }
}
