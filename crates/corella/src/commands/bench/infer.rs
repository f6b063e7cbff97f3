//! Operations of inference: weights of every fast format, attention over the cache, at the shapes of Llama 3.1 8B and 3.2 1B.

use corella_ops::cases::{Random, random_rows};
use corella_ops::cpu::Cpu;
use corella_ops::{
    BatchPlan, Dtype, HeadDims, KvKind, KvPagesDims, Linear, OpsError, OpsInfer, OpsTrain, RowAt, Store, WeightFormat,
};

use super::{Bench, Bound};
use crate::error::Result;

/// Bytes of weights that are read in turn, so that they come from memory as in a model.
const WEIGHTS: usize = 512 << 20;
/// Widths of the layers, and rows that they meet: one token, small batches, a prompt.
const SHAPES: [(usize, usize, &[usize]); 3] =
    [(4096, 4096, &[1, 8, 32, 512]), (2048, 2048, &[1, 8, 32]), (2048, 8192, &[1, 8, 32])];
const HEADS: HeadDims = HeadDims { nh: 32, nkv: 8, hs: 128 };
const PAGE: usize = 256;

/// The fast formats.
const FORMATS: [WeightFormat; 7] = {
    use WeightFormat::{Bf16, F16, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0};
    [Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, Bf16, F16]
};

/// The names of all.
pub fn names() -> Vec<String> {
    let linear = FORMATS.into_iter().map(|format| format!("linear {}", format.name()));
    linear.chain(KvKind::ALL.into_iter().map(|kind| format!("attention {}", kind.name()))).collect()
}

/// Runs all.
pub fn run(bench: &mut Bench) -> Result<()> {
    for format in FORMATS {
        for (c, oc, rows) in SHAPES {
            linear(bench, format, c, oc, rows)?;
        }
    }
    for kind in KvKind::ALL {
        decode(bench, kind)?;
    }
    prefill(bench)
}

fn buf(cpu: &Cpu, len: usize) -> std::result::Result<<Cpu as OpsTrain>::Buf, OpsError> {
    let mut buf = cpu.buf(len, Dtype::F32, "bench")?;
    cpu.write(&mut buf, &Random::new(2).normals(len));
    Ok(buf)
}

/// C → OC, with as many weights as it takes to leave the caches.
fn linear(bench: &mut Bench, format: WeightFormat, c: usize, oc: usize, rows: &[usize]) -> Result<()> {
    let name = format!("linear {}", format.name());
    if !bench.wants(&name) {
        return Ok(());
    }
    let bytes = random_rows(&mut Random::new(1), format, oc, c);
    let mut weights = Vec::new();
    for _ in 0..(WEIGHTS / bytes.len()).max(1) {
        let mut weight = bench.cpu.weight(format, oc, c, "bench")?;
        bench.cpu.weight_rows(&mut weight, 0, &bytes);
        weights.push(weight);
    }
    let each = bench.cpu.weight_bytes(&weights[0]) as f64;
    for &n in rows {
        let used = if n > 32 { 4 } else { weights.len() };
        let (x, mut out) = (buf(&bench.cpu, n * c)?, buf(&bench.cpu, n * oc)?);
        let shape = format!("{used} × {n}×{c}→{oc}");
        let operations = 2.0 * (used * n * c * oc) as f64;
        let (bound, formula) = match n {
            1 => (Bound::Memory(each * used as f64), "bytes of the packed weights"),
            _ if format.block_len() > 1 => (Bound::Integers(operations), "2·N·C·OC"),
            // Tiles multiply weights in BF16 as they are.
            _ if format == WeightFormat::Bf16 && bench.cpu.multiplies_bf16() => {
                (Bound::Compute(Dtype::Bf16, operations), "2·N·C·OC")
            }
            _ => (Bound::Compute(Dtype::F32, operations), "2·N·C·OC"),
        };
        bench.time(&name, shape, bound, formula, |ops| {
            for w in &weights[..used] {
                ops.linear(&mut out, &x, n, &[Linear { w, bias: None }], Store::Write);
            }
        });
    }
    Ok(())
}

/// One token after 8,191 others, in as many layers as it takes to leave the caches.
fn decode(bench: &mut Bench, kind: KvKind) -> Result<()> {
    let name = format!("attention {}", kind.name());
    if !bench.wants(&name) {
        return Ok(());
    }
    let len = 8192;
    let table: Vec<u32> = (0..(len / PAGE) as u32).collect();
    let dims = KvPagesDims { pages: table.len(), page_len: PAGE, nkv: HEADS.nkv, hs: HEADS.hs, kind };
    let (qkv, mut out) = (buf(&bench.cpu, PAGE * HEADS.qkv())?, buf(&bench.cpu, PAGE * HEADS.nh * HEADS.hs)?);
    let bytes = 2 * len * HEADS.nkv * kind.bytes(HEADS.hs);
    let mut layers = Vec::new();
    // Every page is filled as if it were a sequence of its own: memory that was never written would not be read either.
    let rows: Vec<RowAt> = (0..PAGE as u32).map(|position| RowAt { sequence: 0, position }).collect();
    for _ in 0..WEIGHTS.div_ceil(bytes) {
        let mut pages = bench.cpu.kv_pages(dims)?;
        for page in table.chunks(1) {
            let batch =
                bench.cpu.batch(BatchPlan { rows: &rows, tables: &[page], page_len: PAGE, frequencies: &[] })?;
            bench.cpu.attention_paged(&mut out, &mut pages, &qkv, &batch, HEADS);
        }
        layers.push(pages);
    }
    let rows = [RowAt { sequence: 0, position: len as u32 - 1 }];
    let batch = bench.cpu.batch(BatchPlan { rows: &rows, tables: &[&table], page_len: PAGE, frequencies: &[] })?;
    let bound = Bound::Memory((layers.len() * bytes) as f64);
    let shape = format!("{} × 1 query, {len} keys", layers.len());
    bench.time(&name, shape, bound, "bytes of keys and values", |ops| {
        for pages in &mut layers {
            ops.attention_paged(&mut out, pages, &qkv, &batch, HEADS);
        }
    });
    Ok(())
}

/// A prompt.
fn prefill(bench: &mut Bench) -> Result<()> {
    let n = 1024;
    let table: Vec<u32> = (0..(n / PAGE) as u32).collect();
    let kind = KvKind::F16;
    let mut pages =
        bench.cpu.kv_pages(KvPagesDims { pages: table.len(), page_len: PAGE, nkv: HEADS.nkv, hs: HEADS.hs, kind })?;
    let (qkv, mut out) = (buf(&bench.cpu, n * HEADS.qkv())?, buf(&bench.cpu, n * HEADS.nh * HEADS.hs)?);
    let rows: Vec<RowAt> = (0..n as u32).map(|position| RowAt { sequence: 0, position }).collect();
    let batch = bench.cpu.batch(BatchPlan { rows: &rows, tables: &[&table], page_len: PAGE, frequencies: &[] })?;
    // Scores and weighted sums over the causal half.
    let flops = 2.0 * (n * n * HEADS.nh * HEADS.hs) as f64;
    let bound = Bound::Compute(Dtype::F32, flops);
    bench.time("attention f16", format!("{n} queries"), bound, "2·N²·NH·HS (causal half)", |ops| {
        ops.attention_paged(&mut out, &mut pages, &qkv, &batch, HEADS);
    });
    Ok(())
}
