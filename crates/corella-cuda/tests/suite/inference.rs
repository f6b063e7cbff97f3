//! Inference on every card, emulated or not.

use corella_cuda::Cuda;
use corella_ops::cases::{Case, Random, inference, inference_differences, random_rows};
use corella_ops::{
    BatchPlan, Dtype, HeadDims, KvKind, KvPagesDims, Linear, OpsInfer, OpsTrain, RowAt, Store, WeightFormat,
};

/// Formats that lie on a card as others do, a byte a weight: they take the kernels of Q5_1 (a scale for 32 weights) or Q6_K (for 16),
/// and have only the packing for themselves.
const PACKED_LIKE_OTHERS: [WeightFormat; 8] = {
    use WeightFormat::*;
    [Q4_0, Q4_1, Q5_0, Q2_K, Q3_K, Q5_K, IQ4_NL, IQ4_XS]
};

/// Whether a case has kernels of its own.
fn has_kernels(case: &str) -> bool {
    !PACKED_LIKE_OTHERS.iter().any(|format| case.ends_with(format.name()))
}

/// Every operation of inference agrees with the f64 reference, in both formats; formats that are only packed differently at two
/// shapes.
pub fn operations(ops: &Cuda) {
    for dtype in Dtype::ALL {
        // Models keep activations in bf16; in f32 the same kernels read them.
        let long = |case: &str| dtype == Dtype::Bf16 || !is_longer_only(case);
        let packing = |case: &str| case.contains(" 3×512") || case.contains(" 2×32");
        let wanted = |case: &str| (has_kernels(case) && long(case)) || packing(case);
        let found = inference_differences(ops, dtype, wanted).expect("the cases run");
        assert!(found.is_empty(), "{dtype:?}:\n{}", found.join("\n"));
    }
}

/// Products in bf16 agree with the f64 reference where the batch must not matter: they take other kernels there.
pub fn products(ops: &Cuda) {
    let wanted = |case: &str| case.starts_with("linear") && has_kernels(case) && !is_longer_only(case);
    let found = inference_differences(ops, Dtype::Bf16, wanted).expect("the cases run");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Cases that go once more through loops that others go through: sums beyond 1,024 numbers, and larger heads in a third kind of
/// cache, whose kernels differ in how a number is read.
fn is_longer_only(case: &str) -> bool {
    let q8 = case.starts_with("attention_paged q8") && ["hs: 64", "hs: 128"].iter().any(|size| case.contains(size));
    q8 || [" 17×1280", " 13×992", "bf16 HeadDims { nh: 3"].iter().any(|part| case.contains(part))
}

/// Cases that run every kernel, and each of its paths, at least once.
pub fn of_all_kernels() -> Vec<Case<Cuda>> {
    let mut cases = inference::<Cuda>(Cuda::kv_kinds());
    cases.retain(|case| has_kernels(&case.name) && !is_longer_only(&case.name));
    cases
}

/// Every kernel in bf16, where all have a part, gives the same bits on both, or twice on one.
pub fn same_bits(one: &Cuda, other: &Cuda) {
    for case in of_all_kernels() {
        let run = |ops| case.run(ops, Dtype::Bf16).expect("runs");
        for ((name, a), (_, b)) in run(one).iter().zip(&run(other)) {
            let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{}: {name}", case.name);
        }
    }
}

fn bf16(ops: &Cuda, values: &[f32]) -> <Cuda as OpsTrain>::Buf {
    let mut buf = ops.buf(values.len(), Dtype::Bf16, "rows").expect("memory");
    ops.write(&mut buf, values);
    buf
}

fn read(ops: &Cuda, buf: &<Cuda as OpsTrain>::Buf, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    ops.read(buf, &mut out);
    out
}

/// A row comes out the same alone, in a part and among all; `ops` promises that.
pub fn rows_do_not_depend_on_the_batch(ops: &Cuda) {
    products_of_parts(ops);
    attention_of_parts(ops);
}

fn products_of_parts(ops: &Cuda) {
    let (n, c, oc) = (131, 512, 37);
    for format in [WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4_K, WeightFormat::Q6_K] {
        let mut random = Random::new(1);
        let x = random.normals(n * c);
        let mut w = ops.weight(format, oc, c, "w").expect("memory");
        ops.weight_rows(&mut w, 0, &random_rows(&mut random, format, oc, c));
        let product = |first: usize, rows: usize| {
            let (x, mut out) = (bf16(ops, &x[first * c..(first + rows) * c]), bf16(ops, &vec![f32::NAN; rows * oc]));
            ops.linear(&mut out, &x, rows, &[Linear { w: &w, bias: None }], Store::Write);
            read(ops, &out, rows * oc)
        };
        let together = product(0, n);
        for (first, rows) in [(0, 1), (130, 1), (3, 8), (20, 90)] {
            let part = &together[first * oc..(first + rows) * oc];
            assert_eq!(product(first, rows), part, "{}: {rows} rows from {first}", format.name());
        }
    }
}

/// Numbers of rows for each kernel of few rows, and for two blocks of the last.
const FEW_ROWS: [usize; 8] = [2, 3, 8, 9, 17, 40, 64, 127];

/// Products of 2 to 127 rows in bf16 with common forms of weights give a row the same bits in any batch, promised or not, and
/// agree with sums in f64 of the weights as they are looked up. Layers side by side meet inside a tile of 16; the first shapes of a
/// form end inside a chunk.
pub fn few_rows_do_not_depend_on_the_batch(ops: &Cuda) {
    use WeightFormat::{Bf16, Q4_K, Q8_0};
    for (format, c) in [(Bf16, 8), (Bf16, 8 * 39), (Bf16, 576), (Q8_0, 32), (Q8_0, 32 * 21), (Q4_K, 256), (Q4_K, 768)] {
        let (n, ocs) = (FEW_ROWS[FEW_ROWS.len() - 1], [21usize, 1, 8, 40]);
        let width: usize = ocs.iter().sum();
        let mut random = Random::new(c as u64);
        let x = random.normals(n * c);
        let mut numbers = Vec::new();
        let weights = ocs.map(|oc| {
            let mut w = ops.weight(format, oc, c, "w").expect("memory");
            ops.weight_rows(&mut w, 0, &random_rows(&mut random, format, oc, c));
            let mut ids = ops.ids(oc).expect("memory");
            ops.write_ids(&mut ids, &(0..oc as u32).collect::<Vec<_>>());
            let mut rows = ops.buf(oc * c, Dtype::F32, "numbers").expect("memory");
            ops.lookup(&mut rows, &ids, &w, oc, Store::Write);
            numbers.extend(read(ops, &rows, oc * c));
            w
        });
        let layers = weights.each_ref().map(|w| Linear { w, bias: None });
        let product = |first: usize, rows: usize| {
            let x = bf16(ops, &x[first * c..(first + rows) * c]);
            let mut out = ops.buf(rows * width, Dtype::F32, "out").expect("memory");
            ops.write(&mut out, &vec![f32::NAN; rows * width]);
            ops.linear(&mut out, &x, rows, &layers, Store::Write);
            read(ops, &out, rows * width)
        };
        let together = product(0, n);
        for rows in FEW_ROWS {
            // From the first row, and up to the last.
            for first in [0, n - rows] {
                let part = &together[first * width..(first + rows) * width];
                assert_eq!(product(first, rows), part, "{} {c}: {rows} rows from {first}", format.name());
            }
        }
        let rounded = read(ops, &bf16(ops, &x), n * c);
        let expected: Vec<f32> = (0..n * width)
            .map(|i| {
                let (row, w) = (&rounded[i / width * c..][..c], &numbers[i % width * c..][..c]);
                row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
            })
            .collect();
        let far = super::gap(&together, &expected);
        assert!(far < 1e-5, "{} {c}: {far}", format.name());
    }
}

fn attention_of_parts(ops: &Cuda) {
    let (d, n, page_len) = (HeadDims { nh: 4, nkv: 2, hs: 64 }, 40, 32);
    let qkv = Random::new(2).normals(n * d.qkv());
    let table: Vec<u32> = vec![2, 0];
    let tables: [&[u32]; 1] = [&table];
    let attend = |parts: &[usize]| {
        let dims = KvPagesDims { pages: 3, page_len, nkv: d.nkv, hs: d.hs, kind: KvKind::Bf16 };
        let mut pages = ops.kv_pages(dims).expect("memory");
        let (mut first, mut all) = (0, Vec::new());
        for len in parts {
            let rows: Vec<RowAt> =
                (first..first + len).map(|position| RowAt { sequence: 0, position: position as u32 }).collect();
            let plan = BatchPlan { rows: &rows, tables: &tables, page_len, frequencies: &[] };
            let batch = ops.batch(plan).expect("memory");
            let x = bf16(ops, &qkv[first * d.qkv()..(first + len) * d.qkv()]);
            let mut out = bf16(ops, &vec![f32::NAN; len * d.nh * d.hs]);
            ops.attention_paged(&mut out, &mut pages, &x, &batch, d);
            all.extend(read(ops, &out, len * d.nh * d.hs));
            first += len;
        }
        all
    };
    let whole = attend(&[n]);
    assert_eq!(attend(&[17, 22, 1]), whole);
    assert_eq!(attend(&vec![1; n]), whole);
}

/// A copied page holds what the first one holds.
pub fn a_copied_page_is_read_like_the_first(ops: &Cuda) {
    for kind in Cuda::kv_kinds().iter().copied() {
        let (d, page_len) = (HeadDims { nh: 2, nkv: 1, hs: 24 }, 16);
        let dims = KvPagesDims { pages: 3, page_len, nkv: d.nkv, hs: d.hs, kind };
        let mut pages = ops.kv_pages(dims).expect("memory");
        let mut random = Random::new(3);
        let step = |pages: &mut _, page: u32, position: u32, qkv: &[f32]| {
            let (rows, table) = ([RowAt { sequence: 0, position }], [page]);
            let plan = BatchPlan { rows: &rows, tables: &[&table], page_len, frequencies: &[] };
            let batch = ops.batch(plan).expect("memory");
            let (x, mut out) = (bf16(ops, qkv), bf16(ops, &vec![f32::NAN; d.nh * d.hs]));
            ops.attention_paged(&mut out, pages, &x, &batch, d);
            read(ops, &out, d.nh * d.hs)
        };
        step(&mut pages, 0, 0, &random.normals(d.qkv()));
        ops.copy_page(&mut pages, 0, 2);
        let next = random.normals(d.qkv());
        assert_eq!(step(&mut pages, 2, 1, &next), step(&mut pages, 0, 1, &next), "{}", kind.name());
    }
}

/// A row that sees one stretch of positions has the same bits in a step where another row sees several, which takes a second kernel;
/// rows of padding come out as zeros either way.
pub fn one_stretch_has_the_bits_of_several(ops: &Cuda) {
    for (kind, nh, nkv, hs) in
        [(KvKind::F16, 4, 1, 128), (KvKind::Bf16, 2, 2, 20), (KvKind::Q8, 5, 1, 24), (KvKind::F16, 8, 1, 64)]
    {
        let (d, page_len) = (HeadDims { nh, nkv, hs }, 32);
        let dims = KvPagesDims { pages: 12, page_len, nkv, hs, kind };
        let mut pages = ops.kv_pages(dims).expect("memory");
        let tables: [&[u32]; 3] = [&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[10], &[11]];
        let mut random = Random::new(hs as u64);
        let row = |sequence, position| RowAt { sequence, position };
        let before: Vec<RowAt> =
            (0..270).map(|p| row(0, p)).chain((0..20).map(|p| row(1, p))).chain((0..5).map(|p| row(2, p))).collect();
        let batch =
            ops.batch(BatchPlan { rows: &before, tables: &tables, page_len, frequencies: &[] }).expect("memory");
        let x = bf16(ops, &random.normals(before.len() * d.qkv()));
        let mut out = bf16(ops, &vec![f32::NAN; before.len() * nh * hs]);
        ops.attention_paged(&mut out, &mut pages, &x, &batch, d);
        let rows = [row(1, 20), row(2, 5), row(0, 270)];
        let tokens = random.normals(4 * d.qkv());
        let mut step = |listed: &[usize]| {
            let rows: Vec<RowAt> = listed.iter().map(|i| rows[*i]).collect();
            let n = ops.decode_rows(rows.len());
            let plan = BatchPlan { rows: &rows, tables: &tables, page_len, frequencies: &[] };
            let batch = ops.decode_batch(plan).expect("memory");
            let qkv = listed.iter().chain(&[3; 4]).take(n);
            let qkv: Vec<f32> = qkv.flat_map(|i| tokens[i * d.qkv()..][..d.qkv()].to_vec()).collect();
            let (x, mut out) = (bf16(ops, &qkv), ops.buf(n * nh * hs, Dtype::F32, "out").expect("memory"));
            ops.write(&mut out, &vec![f32::NAN; n * nh * hs]);
            ops.attention_paged(&mut out, &mut pages, &x, &batch, d);
            read(ops, &out, n * nh * hs)
        };
        let (short, long) = (step(&[0, 1]), step(&[0, 1, 2]));
        assert!(short.iter().all(|x| x.is_finite()) && short.iter().any(|x| *x != 0.0), "{kind:?} {d:?}");
        assert_eq!(short, long[..short.len()], "{kind:?} {d:?}");
        assert_eq!(step(&[0]), short[..nh * hs], "{kind:?} {d:?}");
        assert!(long[3 * nh * hs..].iter().all(|x| *x == 0.0), "{kind:?} {d:?}");
    }
}
