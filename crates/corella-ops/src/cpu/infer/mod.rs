//! The inference half of the contract on the CPU.

mod activations;
pub mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_block;
mod batch;
#[cfg(target_arch = "x86_64")]
mod brain;
mod cached_numbers;
mod columns;
mod float;
#[cfg(target_arch = "x86_64")]
mod float256;
#[cfg(target_arch = "x86_64")]
mod float512;
#[cfg(target_arch = "x86_64")]
mod float_rows;
mod kernel;
mod layout;
mod linear;
mod output;
mod pack;
mod paged;
#[cfg(target_arch = "x86_64")]
mod paged256;
#[cfg(target_arch = "x86_64")]
mod paged512;
#[cfg(target_arch = "x86_64")]
mod paged_direct;
mod paged_read;
mod paged_tile;
mod pages;
mod portable;
pub mod probe;
pub mod shares;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod vnni_block;
mod weight;

pub use batch::Batch;
pub use pages::KvPages;
pub use weight::Weight;

use super::attention::{self, Kv};
use super::rows::by_rows;
use super::scratch::Scratch;
use super::{Buf, Cpu, Param, Rounding};
use crate::contract::{EmbeddingDims, OpsError};
use crate::contract_infer::{BatchPlan, HeadDims, KvPagesDims, Linear, OpsInfer, ReadRows, RopePairs, Store};
use crate::quant::WeightFormat;
use crate::shapes::{self, Length};

impl OpsInfer for Cpu {
    type Kv = Kv;
    type Weight = Weight;
    type KvPages = KvPages;
    type Batch = Batch;
    type Recorded = ();

    fn kv(&self, capacity: usize, c: usize) -> Result<Kv, OpsError> {
        Ok(Kv::new(capacity, c))
    }

    fn attention_cached(&self, out: &mut Buf, kv: &mut Kv, qkv: &Buf, pos0: usize, n: usize, nh: usize, hs: usize) {
        attention::cached(&self.pool, self.path, out.f32_mut(), kv, qkv.f32(), pos0, n, nh, hs);
    }

    fn view<'a>(&self, buf: &'a Buf, len: usize) -> Option<&'a [f32]> {
        shapes::elements("view", &[buf], len);
        match buf {
            Buf::F32(array) => Some(&array[..len]),
            Buf::Bf16(_) => None,
        }
    }

    /// An activation rounded to BF16 is off by up to 2⁻⁹ of itself; relative to the largest result that is more where results cancel.
    fn bf16_rounding(&self) -> f64 {
        match self.rounding {
            Rounding::Exact => 1.0 / 65536.0,
            Rounding::Bf16 => 1.0 / 200.0,
        }
    }

    fn share(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, job);
    }

    fn weight(&self, format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        Weight::new(format, rows, cols, what)
    }

    fn weight_rows(&self, w: &mut Weight, first: usize, bytes: &[u8]) {
        shapes::weight_rows(w.rows, w.row_bytes(), first, bytes.len());
        w.write_rows(self.path, first, bytes);
    }

    fn weight_fill<E: Send>(
        &self,
        w: &mut Weight,
        _rows: usize,
        _row_bytes: usize,
        read: &ReadRows<'_, E>,
    ) -> Result<(), E> {
        w.fill(&self.pool, self.path, read)
    }

    fn weight_bytes(&self, w: &Weight) -> u64 {
        w.bytes()
    }

    fn lookup(&self, out: &mut Buf, ids: &Vec<u32>, w: &Weight, n: usize, store: Store) {
        shapes::embedding(out, ids, EmbeddingDims { n, c: w.cols });
        by_rows(&self.pool, &mut out.f32_mut()[..n * w.cols], n, w.cols, |first, rows, out| {
            let mut row = Scratch::new(w.cols);
            for (id, out) in ids[first..first + rows].iter().zip(out.chunks_exact_mut(w.cols)) {
                if store == Store::Write {
                    w.read_row(*id as usize, out);
                } else {
                    w.read_row(*id as usize, &mut row);
                    out.iter_mut().zip(&*row).for_each(|(out, x)| *out += x);
                }
            }
        });
    }

    fn linear(&self, out: &mut Buf, x: &Buf, n: usize, layers: &[Linear<'_, Self>], store: Store) {
        let sizes = layers.iter().map(|layer| ([layer.w.rows, layer.w.cols], layer.bias.map(Length::length)));
        shapes::linear(out, x, n, sizes);
        let layers: Vec<linear::Layer<'_>> =
            layers.iter().map(|layer| linear::Layer { w: layer.w, bias: layer.bias.map(Param::rows) }).collect();
        linear::linear(&self.pool, (self.path, self.rounding), out.f32_mut(), x.f32(), n, &layers, store);
    }

    fn batch(&self, plan: BatchPlan<'_>) -> Result<Batch, OpsError> {
        shapes::batch(&plan);
        Ok(Batch::new(plan))
    }

    fn select_rows(&self, out: &mut Buf, x: &Buf, rows: &[u32], c: usize) {
        shapes::select_rows(out, x, rows, c);
        let x = x.f32();
        for (out, row) in out.f32_mut().chunks_exact_mut(c).zip(rows) {
            out.copy_from_slice(&x[*row as usize * c..][..c]);
        }
    }

    fn rope_rows(&self, qkv: &mut Buf, batch: &Batch, pairs: RopePairs, dims: HeadDims) {
        shapes::rope_rows(qkv, batch.rows.len(), batch.pairs, dims);
        batch::rope(&self.pool, self.path, qkv.f32_mut(), batch, pairs, dims);
    }

    fn kv_pages(&self, dims: KvPagesDims) -> Result<KvPages, OpsError> {
        shapes::kv_pages(dims);
        KvPages::new(dims)
    }

    fn copy_page(&self, pages: &mut KvPages, from: u32, to: u32) {
        shapes::copy_page(pages.dims(), from as usize, to as usize);
        pages.copy(from as usize, to as usize);
    }

    fn attention_paged(&self, out: &mut Buf, pages: &mut KvPages, qkv: &Buf, batch: &Batch, dims: HeadDims) {
        shapes::attention_paged(out, qkv, pages.dims(), (batch.rows.len(), batch.page_len), dims);
        paged::attention(&self.pool, self.path, out.f32_mut(), pages, qkv.f32(), batch, dims);
    }
}
