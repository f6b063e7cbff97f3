//! Cases of inference: packed weights of every format, rows of a batch, paged attention.

use super::{Allowed, Arrays, Case, On, Outputs, Random};
use crate::contract::OpsError;
use crate::contract_infer::{BatchPlan, HeadDims, KvKind, KvPagesDims, Linear, OpsInfer, RopePairs, RowAt, Store};
use crate::quant::WeightFormat;
use crate::quant::half::{f32_to_bf16, f32_to_f16};

/// What rounding x to 8 bits by blocks of 256 may add to the error of a product with quantised weights: an element is
/// off by up to 1/254 of the largest of its block.
const INT8_ROUNDING: f64 = 0.03;

pub fn cases<B: OpsInfer>(kinds: &[KvKind]) -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for format in WeightFormat::ALL {
        for (n, c, ocs) in
            [(1, 256, &[16][..]), (3, 512, &[5, 40]), (17, 1280, &[33]), (40, 768, &[64, 1, 17]), (0, 256, &[3])]
        {
            linear_case(&mut cases, format, n, c, ocs);
        }
        // So many columns that a task has several pairs of panels.
        linear_case(&mut cases, format, 2, 512, &[1100, 40]);
        // Rows that end inside a block of 256.
        if format.block_len() <= 32 {
            linear_case(&mut cases, format, 1, 288, &[1100]);
            for (n, c) in [(2, 32), (5, 288), (13, 992)] {
                linear_case(&mut cases, format, n, c, &[19, 16]);
            }
        }
    }
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
        for (n, c) in [(1, 1), (7, 3), (2, 63), (9, 65), (3, 1023)] {
            linear_case(&mut cases, format, n, c, &[7, 65]);
        }
    }
    for format in [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_K, WeightFormat::Q6_K] {
        let name = format!("linear of many rows {}", format.name());
        cases.push(Case::rounded(name, rounding(format), move |ops: &On<B>| many_rows(ops, format)));
    }
    for pairs in [RopePairs::Halves, RopePairs::Neighbours] {
        for (d, rotary) in [(HeadDims { nh: 4, nkv: 2, hs: 64 }, 64), (HeadDims { nh: 3, nkv: 3, hs: 10 }, 6)] {
            cases.push(Case::new(format!("rope_rows {pairs:?} {d:?}"), move |ops: &On<B>| rope(ops, pairs, d, rotary)));
        }
    }
    for kind in kinds.iter().copied() {
        for (nh, nkv, hs, page_len) in [
            (2, 2, 4, 16),
            (4, 1, 64, 32),
            (6, 2, 80, 64),
            (8, 2, 128, 16),
            (3, 3, 33, 48),
            // Llama 3 70B: eight queries to a key.
            (8, 1, 16, 16),
        ] {
            let d = HeadDims { nh, nkv, hs };
            let name = format!("attention_paged {} {d:?} pages of {page_len}", kind.name());
            cases.push(Case::new(name, move |ops: &On<B>| paged(ops, d, page_len, kind)));
        }
    }
    cases
}

/// Random weights of a format, as a file would hold them.
pub fn random_rows(random: &mut Random, format: WeightFormat, rows: usize, cols: usize) -> Vec<u8> {
    use WeightFormat::*;
    let count = rows * cols / format.block_len();
    let mut bytes: Vec<u8> = (0..count * format.block_bytes()).map(|_| random.below(256) as u8).collect();
    match format {
        F32 => return random.normals(count).iter().flat_map(|x| x.to_le_bytes()).collect(),
        F16 => return random.normals(count).iter().flat_map(|x| f32_to_f16(*x).to_le_bytes()).collect(),
        Bf16 => return random.normals(count).iter().flat_map(|x| f32_to_bf16(*x).to_le_bytes()).collect(),
        _ => {}
    }
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in format.halves_at() {
            block[*at..at + 2].copy_from_slice(&f32_to_f16(0.01 * random.normal()).to_le_bytes());
        }
        if format == IQ1_M {
            let d = f32_to_f16(0.01 * random.normal());
            for (i, byte) in block[48..].iter_mut().skip(1).step_by(2).enumerate() {
                *byte = *byte & 15 | (d >> (4 * i) << 4) as u8;
            }
        }
    }
    bytes
}

fn linear_case<B: OpsInfer>(cases: &mut Vec<Case<B>>, format: WeightFormat, n: usize, c: usize, ocs: &'static [usize]) {
    let name = format!("linear {n}×{c}→{ocs:?} {}", format.name());
    cases.push(Case::rounded(name, rounding(format), move |ops: &On<B>| linear(ops, format, n, c, ocs)));
    cases.push(Case::new(format!("lookup {n}×{c} {}", format.name()), move |ops: &On<B>| lookup(ops, format, n, c)));
}

/// What a backend may round activations by beside weights of a format.
fn rounding(format: WeightFormat) -> Allowed {
    match format {
        WeightFormat::F32 | WeightFormat::F16 => Allowed::Nothing,
        WeightFormat::Bf16 => Allowed::Bf16Weights,
        _ => Allowed::Share(INT8_ROUNDING),
    }
}

/// As many rows as a prompt has, for which a card unpacks its weights: layers side by side, and one that is added to the residual
/// stream, without biases.
fn many_rows<B: OpsInfer>(ops: &On<B>, format: WeightFormat) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, 130);
    let (n, c, widths) = (130, 256, [128, 40]);
    let x = a.numbers(n * c)?;
    let weights = [a.weight(format, widths[0], c)?, a.weight(format, widths[1], c)?];
    let (all, last) = (n * (widths[0] + widths[1]), n * widths[1]);
    let (mut beside, mut residual) = (a.unset(all)?, a.numbers_f32(last)?);
    let layers = weights.each_ref().map(|w| Linear { w, bias: None });
    ops.linear(&mut beside, &x, n, &layers, Store::Write);
    ops.linear(&mut residual, &x, n, &layers[1..], Store::Add);
    Ok(vec![("side by side", a.read(&beside, all)), ("residual", a.read(&residual, last))])
}

/// Written with biases, added without.
fn linear<B: OpsInfer>(
    ops: &On<B>,
    format: WeightFormat,
    n: usize,
    c: usize,
    ocs: &[usize],
) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, n + c);
    let x = a.numbers(n * c)?;
    let weights = ocs.iter().map(|oc| a.weight(format, *oc, c)).collect::<Result<Vec<_>, _>>()?;
    let biases = ocs.iter().map(|oc| a.param(1, *oc)).collect::<Result<Vec<_>, _>>()?;
    let len = n * ocs.iter().sum::<usize>();
    let (mut written, mut added) = (a.unset(len)?, a.numbers(len)?);
    let biased: Vec<Linear<'_, B>> = weights.iter().zip(&biases).map(|(w, b)| Linear { w, bias: Some(b) }).collect();
    let plain: Vec<Linear<'_, B>> = weights.iter().map(|w| Linear { w, bias: None }).collect();
    ops.linear(&mut written, &x, n, &biased, Store::Write);
    ops.linear(&mut added, &x, n, &plain, Store::Add);
    Ok(vec![("written", a.read(&written, len)), ("added", a.read(&added, len))])
}

fn lookup<B: OpsInfer>(ops: &On<B>, format: WeightFormat, n: usize, c: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, n + c);
    let (v, len) = (37, n * c);
    let (w, ids) = (a.weight(format, v, c)?, a.ids(n, v)?);
    let (mut written, mut added) = (a.unset(len)?, a.numbers(len)?);
    ops.lookup(&mut written, &ids, &w, n, Store::Write);
    ops.lookup(&mut added, &ids, &w, n, Store::Add);
    Ok(vec![("written", a.read(&written, len)), ("added", a.read(&added, len))])
}

fn rope<B: OpsInfer>(ops: &On<B>, pairs: RopePairs, d: HeadDims, rotary: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.hs);
    let positions = [0, 1, 7, 1000, 131_071];
    let rows: Vec<RowAt> = positions.iter().map(|p| RowAt { sequence: 0, position: *p }).collect();
    let frequencies: Vec<f32> = (0..rotary / 2).map(|i| 1e4f32.powf(-2.0 * i as f32 / rotary as f32)).collect();
    let table: Vec<u32> = (0..131_072 / 1024).collect();
    let batch = ops.batch(BatchPlan { rows: &rows, tables: &[&table], page_len: 1024, frequencies: &frequencies })?;
    let len = rows.len() * d.qkv();
    let mut qkv = a.numbers(len)?;
    ops.rope_rows(&mut qkv, &batch, pairs, d);
    let mut wanted = a.unset(2 * d.qkv())?;
    ops.select_rows(&mut wanted, &qkv, &[4, 2], d.qkv());
    Ok(vec![("qkv", a.read(&qkv, len)), ("selected", a.read(&wanted, 2 * d.qkv()))])
}

/// Three steps of three sequences: prompts of several lengths, then a chunk beside single tokens. Sequence 1 shares its
/// first page with sequence 0.
fn paged<B: OpsInfer>(ops: &On<B>, d: HeadDims, page_len: usize, kind: KvKind) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.hs + page_len);
    let longest = 300;
    let pages_each = longest / page_len + 1;
    let own = |s: u32| (0..pages_each as u32).map(move |p| 3 * p + s);
    let (first, third): (Vec<u32>, Vec<u32>) = (own(0).collect(), own(2).collect());
    let mut second: Vec<u32> = own(1).collect();
    second[0] = first[0];
    let tables: [&[u32]; 3] = [&first, &second, &third];
    let mut pages = ops.kv_pages(KvPagesDims { pages: 3 * pages_each, page_len, nkv: d.nkv, hs: d.hs, kind })?;
    let shared = page_len as u32;
    let rows = |parts: &[(u32, std::ops::Range<u32>)]| -> Vec<RowAt> {
        parts.iter().flat_map(|(s, range)| range.clone().map(|position| RowAt { sequence: *s, position })).collect()
    };
    let steps = [
        rows(&[(0, 0..shared + 3), (2, 0..1)]),
        rows(&[(1, shared..shared + 30), (0, shared + 3..shared + 4), (2, 1..270)]),
        rows(&[(2, 270..271), (1, shared + 30..shared + 31), (0, shared + 4..shared + 5)]),
    ];
    let mut outputs = Outputs::new();
    for (rows, name) in steps.iter().zip(["prompts", "mixed", "single tokens"]) {
        let batch = ops.batch(BatchPlan { rows, tables: &tables, page_len, frequencies: &[] })?;
        let len = rows.len() * d.nh * d.hs;
        let (qkv, mut out) = (a.numbers(rows.len() * d.qkv())?, a.unset(len)?);
        ops.attention_paged(&mut out, &mut pages, &qkv, &batch, d);
        outputs.push((name, a.read(&out, len)));
    }
    Ok(outputs)
}
