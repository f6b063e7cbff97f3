//! Inference as its formulas.

use super::{Param, Reference, attention, put};
use crate::contract::OpsError;
use crate::contract_infer::{BatchPlan, HeadDims, KvPagesDims, Linear, OpsInfer, RopePairs, RowAt, Store};
use crate::quant::{WeightFormat, dequantize_row};

/// Keys and values of the positions seen so far, each (positions, C).
#[derive(Clone, Debug)]
pub struct Kv {
    pub(super) k: Vec<f64>,
    pub(super) v: Vec<f64>,
    pub(super) c: usize,
}

/// A matrix, dequantised.
#[derive(Clone, Debug)]
pub struct Weight {
    format: WeightFormat,
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

/// Keys and values of a layer, each (pages, page length, NKV, HS).
#[derive(Clone, Debug)]
pub struct KvPages {
    dims: KvPagesDims,
    k: Vec<f64>,
    v: Vec<f64>,
}

/// A plan, owned.
#[derive(Clone, Debug)]
pub struct Batch {
    rows: Vec<RowAt>,
    tables: Vec<Vec<u32>>,
    page_len: usize,
    frequencies: Vec<f32>,
}

impl Batch {
    /// Index of a position's keys and values in units of heads.
    fn at(&self, dims: KvPagesDims, sequence: u32, position: usize) -> usize {
        let page = self.tables[sequence as usize][position / self.page_len] as usize;
        (page * dims.page_len + position % self.page_len) * dims.nkv
    }
}

fn store(out: &mut f64, value: f64, how: Store) {
    *out = if how == Store::Add { *out + value } else { value };
}

impl OpsInfer for Reference {
    type Kv = Kv;
    type Weight = Weight;
    type KvPages = KvPages;
    type Batch = Batch;
    type Recorded = ();

    fn kv(&self, capacity: usize, c: usize) -> Result<Kv, OpsError> {
        Ok(Kv { k: vec![0.0; capacity * c], v: vec![0.0; capacity * c], c })
    }

    fn attention_cached(
        &self,
        out: &mut Vec<f64>,
        kv: &mut Kv,
        qkv: &Vec<f64>,
        pos0: usize,
        n: usize,
        nh: usize,
        hs: usize,
    ) {
        attention::cached(out, kv, qkv, pos0, n, nh, hs);
    }

    fn weight(&self, format: WeightFormat, rows: usize, cols: usize, what: &str) -> Result<Weight, OpsError> {
        format.check_row(cols, what)?;
        Ok(Weight { format, rows, cols, values: vec![f64::NAN; rows * cols] })
    }

    fn weight_rows(&self, w: &mut Weight, first: usize, bytes: &[u8]) {
        let row_bytes = w.format.row_bytes(w.cols).unwrap_or(0).max(1);
        let mut row = vec![0.0; w.cols];
        for (bytes, to) in bytes.chunks_exact(row_bytes).zip(w.values[first * w.cols..].chunks_exact_mut(w.cols)) {
            dequantize_row(w.format, bytes, &mut row);
            to.iter_mut().zip(&row).for_each(|(to, x)| *to = f64::from(*x));
        }
    }

    fn weight_bytes(&self, w: &Weight) -> u64 {
        8 * w.values.len() as u64
    }

    fn lookup(&self, out: &mut Vec<f64>, ids: &Vec<u32>, w: &Weight, n: usize, how: Store) {
        for (row, id) in ids.iter().enumerate().take(n) {
            for i in 0..w.cols {
                store(&mut out[row * w.cols + i], w.values[*id as usize * w.cols + i], how);
            }
        }
    }

    fn linear(&self, out: &mut Vec<f64>, x: &Vec<f64>, n: usize, layers: &[Linear<'_, Self>], how: Store) {
        let width: usize = layers.iter().map(|l| l.w.rows).sum();
        let mut first = 0;
        for Linear { w, bias } in layers {
            for row in 0..n {
                for o in 0..w.rows {
                    let product: f64 = (0..w.cols).map(|i| x[row * w.cols + i] * w.values[o * w.cols + i]).sum();
                    let biased = product + bias.map_or(0.0, |b: &Param| b.value[o]);
                    store(&mut out[row * width + first + o], biased, how);
                }
            }
            first += w.rows;
        }
    }

    fn batch(&self, plan: BatchPlan<'_>) -> Result<Batch, OpsError> {
        Ok(Batch {
            rows: plan.rows.to_vec(),
            tables: plan.tables.iter().map(|table| table.to_vec()).collect(),
            page_len: plan.page_len,
            frequencies: plan.frequencies.to_vec(),
        })
    }

    fn select_rows(&self, out: &mut Vec<f64>, x: &Vec<f64>, rows: &[u32], c: usize) {
        for (i, row) in rows.iter().enumerate() {
            out[i * c..][..c].copy_from_slice(&x[*row as usize * c..][..c]);
        }
    }

    fn rope_rows(&self, qkv: &mut Vec<f64>, batch: &Batch, pairs: RopePairs, d: HeadDims) {
        let half = batch.frequencies.len();
        for (n, row) in batch.rows.iter().enumerate() {
            for head in 0..d.nh + d.nkv {
                for (i, frequency) in batch.frequencies.iter().enumerate() {
                    let (sin, cos) = f64::from(row.position as f32 * frequency).sin_cos();
                    let (first, second) = match pairs {
                        RopePairs::Halves => (i, i + half),
                        RopePairs::Neighbours => (2 * i, 2 * i + 1),
                    };
                    let at = n * d.qkv() + head * d.hs;
                    let (x, y) = (qkv[at + first], qkv[at + second]);
                    (qkv[at + first], qkv[at + second]) = (x * cos - y * sin, y * cos + x * sin);
                }
            }
        }
    }

    fn kv_pages(&self, dims: KvPagesDims) -> Result<KvPages, OpsError> {
        let len = dims.pages * dims.page_len * dims.nkv * dims.hs;
        Ok(KvPages { dims, k: vec![f64::NAN; len], v: vec![f64::NAN; len] })
    }

    fn copy_page(&self, pages: &mut KvPages, from: u32, to: u32) {
        let len = pages.dims.page_len * pages.dims.nkv * pages.dims.hs;
        for all in [&mut pages.k, &mut pages.v] {
            all.copy_within(from as usize * len..(from as usize + 1) * len, to as usize * len);
        }
    }

    fn attention_paged(&self, out: &mut Vec<f64>, pages: &mut KvPages, qkv: &Vec<f64>, batch: &Batch, d: HeadDims) {
        let (width, scale) = (d.qkv(), 1.0 / (d.hs as f64).sqrt());
        for (n, row) in batch.rows.iter().enumerate() {
            let at = batch.at(pages.dims, row.sequence, row.position as usize);
            for head in 0..d.nkv {
                let first = n * width + (d.nh + head) * d.hs;
                for (from, to) in [(first, &mut pages.k), (first + d.nkv * d.hs, &mut pages.v)] {
                    // The f32 values that a backend would round.
                    let mut values: Vec<f32> = qkv[from..from + d.hs].iter().map(|x| *x as f32).collect();
                    pages.dims.kind.round(&mut values);
                    put(&mut to[(at + head) * d.hs..], &values);
                }
            }
        }
        for (n, row) in batch.rows.iter().enumerate() {
            for head in 0..d.nh {
                let q = &qkv[n * width + head * d.hs..][..d.hs];
                let kv_head = head / (d.nh / d.nkv);
                let keys: Vec<usize> = (0..=row.position as usize)
                    .map(|s| (batch.at(pages.dims, row.sequence, s) + kv_head) * d.hs)
                    .collect();
                let scores: Vec<f64> =
                    keys.iter().map(|at| scale * (0..d.hs).map(|i| q[i] * pages.k[at + i]).sum::<f64>()).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
                for i in 0..d.hs {
                    let weighted: f64 = keys.iter().zip(&scores).map(|(at, x)| (x - max).exp() * pages.v[at + i]).sum();
                    out[(n * d.nh + head) * d.hs + i] = weighted / sum;
                }
            }
        }
    }
}
