//! Inference on the CPU: what each kernel path promises beyond being close to the f64 reference.

use corella_ops::cases::{Random, all, random_rows};
use corella_ops::cpu::{Cpu, CpuOptions, Path, Rounding};
use corella_ops::quant::dequantize_row;
use corella_ops::{
    BatchPlan, Dtype, HeadDims, KvKind, KvPagesDims, Linear, OpsError, OpsInfer, OpsTrain, RowAt, Store, WeightFormat,
};

type Result = std::result::Result<(), OpsError>;

fn cpu(path: Path, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), path: Some(path), ..CpuOptions::default() })
        .expect("the backend starts")
}

/// The same with activations rounded to BF16 for weights in BF16, on the paths that do so.
fn rounding(threads: usize) -> Vec<(Path, Cpu)> {
    let options = |path| CpuOptions { threads: Some(threads), path: Some(path), rounding: Rounding::Bf16 };
    let all = Path::available().into_iter().map(|path| (path, Cpu::new(options(path)).expect("the backend starts")));
    let found: Vec<_> = all.filter(|(_, ops)| ops.rounding() == Rounding::Bf16).collect();
    if found.is_empty() {
        eprintln!("skipped: this processor has no instructions for BF16");
    }
    found
}

fn buf(ops: &Cpu, values: &[f32]) -> std::result::Result<<Cpu as OpsTrain>::Buf, OpsError> {
    let mut buf = ops.buf(values.len(), Dtype::F32, "test")?;
    ops.write(&mut buf, values);
    Ok(buf)
}

fn read(ops: &Cpu, buf: &<Cpu as OpsTrain>::Buf, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    ops.read(buf, &mut out);
    out
}

/// Activations are rounded to integers the same way everywhere and integer sums are exact: what is left between paths are
/// the roundings of a few f32 steps. The plain kernel is the oracle of the others.
#[test]
fn quantised_products_of_all_paths_differ_by_f32_roundings_only() -> Result {
    let oracle = cpu(Path::Portable, 2);
    for path in Path::available() {
        let ops = cpu(path, 2);
        let quantised = |name: &str| name.starts_with("linear") && !name.ends_with(WeightFormat::Bf16.name());
        for case in all::<Cpu>(Dtype::F32).iter().filter(|case| quantised(&case.name)) {
            for ((name, got), (_, expected)) in case.run(&ops, Dtype::F32)?.iter().zip(case.run(&oracle, Dtype::F32)?) {
                let scale = expected.iter().take(expected.len() - 5).fold(0.0f32, |max, x| max.max(x.abs()));
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    assert!(
                        (got - expected).abs() <= 2e-6 * scale,
                        "{path:?} {}: {name} {i}: {got} {expected}",
                        case.name
                    );
                }
            }
        }
    }
    Ok(())
}

/// Activations of 16 bits lose nothing, and rounded ones nothing where they have eight: what is left are the roundings of sums in
/// f32.
#[test]
fn products_with_bf16_weights_differ_by_f32_roundings_only_where_x_has_the_bits_that_are_kept() -> Result {
    let format = WeightFormat::Bf16;
    for (n, c, oc) in [(1, 1, 1), (1, 65, 40), (2, 33, 7), (3, 1023, 31), (7, 64, 65), (12, 96, 32), (13, 255, 70)]
        .into_iter()
        .chain([(16, 256, 33), (17, 3, 1), (32, 64, 64), (33, 128, 96), (65, 2112, 63), (256, 32, 17), (290, 2080, 35)])
    {
        let mut random = Random::new((n + c) as u64);
        let bytes = random_rows(&mut random, format, oc, c);
        let number = |bits: u32| f32::from_bits(bits << 16);
        let w: Vec<f32> = bytes.chunks_exact(2).map(|b| number(u16::from_le_bytes([b[0], b[1]]).into())).collect();
        let normals = random.normals(n * c);
        let check = |path, ops: &Cpu, kept: u32| -> Result {
            let x: Vec<f32> = normals.iter().map(|x| f32::from_bits(x.to_bits() & kept)).collect();
            let dot = |r: usize, o: usize| -> (f64, f64) {
                let products = (0..c).map(|k| f64::from(x[r * c + k]) * f64::from(w[o * c + k]));
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()))
            };
            let mut weight = ops.weight(format, oc, c, "w")?;
            ops.weight_rows(&mut weight, 0, &bytes);
            let (x, mut out) = (buf(ops, &x)?, ops.buf(n * oc, Dtype::F32, "out")?);
            ops.linear(&mut out, &x, n, &[Linear { w: &weight, bias: None }], Store::Write);
            for (i, got) in read(ops, &out, n * oc).into_iter().enumerate() {
                let (expected, size) = dot(i / oc, i % oc);
                let error = (f64::from(got) - expected).abs();
                assert!(error <= 4e-7 * size, "{path:?} {n}×{c}→{oc}, {i}: {got} {expected} ({size})");
            }
            Ok(())
        };
        for path in Path::available() {
            check(path, &cpu(path, 2), !0xff)?;
        }
        for (path, ops) in rounding(2) {
            check(path, &ops, !0xffff)?;
        }
    }
    Ok(())
}

/// To the nearest number of eight bits, ties to even.
#[test]
fn rounded_activations_are_the_nearest_numbers_in_bf16() -> Result {
    let one = 1.0f32.to_bits();
    let cases = [(one + 0x7fff, 1.0), (one + 0x8000, 1.0), (one + 0x8001, 1.0078125), (one + 0x1_8000, 1.015625)];
    for (path, ops) in rounding(1) {
        for n in [1, 40] {
            let mut weight = ops.weight(WeightFormat::Bf16, 1, 1, "w")?;
            ops.weight_rows(&mut weight, 0, &[0x80, 0x3f]);
            for (bits, expected) in cases {
                let (x, mut out) = (buf(&ops, &vec![f32::from_bits(bits); n])?, ops.buf(n, Dtype::F32, "out")?);
                ops.linear(&mut out, &x, n, &[Linear { w: &weight, bias: None }], Store::Write);
                assert_eq!(read(&ops, &out, n), vec![expected; n], "{path:?} {bits:x}");
            }
        }
    }
    Ok(())
}

/// Weights in blocks of 32 meet activations with a scale for each 32: what lies beside a channel that is a thousand times larger
/// keeps its digits. Here the large ones meet zeros, so that nothing else is in the sum.
#[test]
fn weights_in_blocks_of_32_meet_activations_that_keep_their_digits_beside_large_ones() -> Result {
    const BLOCK: usize = 32;
    // So many rows that tiles of AMX take those of codes of 8 bits, too.
    let (n, oc, c) = (32, 40, 512);
    let mut random = Random::new(5);
    let large = |i: usize| i % (4 * BLOCK) < BLOCK;
    let times = |(i, x): (usize, f32)| if large(i % c) { 1000.0 * x } else { x };
    let x: Vec<f32> = random.normals(n * c).into_iter().enumerate().map(times).collect();
    for format in WeightFormat::ALL.into_iter().filter(|format| format.block_len() == BLOCK) {
        let mut bytes = random_rows(&mut random, format, oc, c);
        for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
            if large(i * BLOCK % c) {
                format.halves_at().iter().for_each(|half| block[*half..half + 2].fill(0));
            }
        }
        let mut kept = vec![0.0; oc * c];
        for (bytes, kept) in bytes.chunks_exact(bytes.len() / oc).zip(kept.chunks_exact_mut(c)) {
            dequantize_row(format, bytes, kept);
        }
        for path in Path::available() {
            let ops = cpu(path, 2);
            let mut weight = ops.weight(format, oc, c, "w")?;
            ops.weight_rows(&mut weight, 0, &bytes);
            // Kernels for many rows and for few.
            for n in [n, 4, 1] {
                let (x_buf, mut out) = (buf(&ops, &x[..n * c])?, ops.buf(n * oc, Dtype::F32, "out")?);
                ops.linear(&mut out, &x_buf, n, &[Linear { w: &weight, bias: None }], Store::Write);
                for (i, got) in read(&ops, &out, n * oc).into_iter().enumerate() {
                    let (x, w) = (&x[i / oc * c..][..c], &kept[i % oc * c..][..c]);
                    let expected: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    // Half a step of each block, that is 1/254 of its largest number.
                    let bound: f64 = x
                        .chunks_exact(BLOCK)
                        .zip(w.chunks_exact(BLOCK))
                        .map(|(x, w)| {
                            let most = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                            w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * f64::from(most) / 254.0
                        })
                        .sum();
                    let error = (f64::from(got) - expected).abs();
                    assert!(error <= 1.01 * bound, "{path:?} {}, {n} rows: {i}: {got} {expected}", format.name());
                }
            }
        }
    }
    Ok(())
}

/// Kernels that multiply sums in 16 bits rely on what codes, scales and activations can be at most.
#[test]
fn the_largest_codes_scales_and_activations_overflow_nowhere() -> Result {
    let (n, c) = (14, 512);
    // All activations of a row at +127 or −127, of equal or of changing signs.
    let sign = |row: usize, i: usize| match row {
        0 => 1.0,
        1 => -1.0,
        // Runs of 2, 4, 8 … with one sign.
        _ if (i >> (row % 7 + 1)) % 2 == row / 7 => 1.0,
        _ => -1.0,
    };
    let x: Vec<f32> = (0..n * c).map(|i| sign(i / c, i % c)).collect();
    let oracle = cpu(Path::Portable, 1);
    // Few columns, and so many that two pairs of panels are met in turns.
    let quantised = WeightFormat::ALL.into_iter().filter(|format| format.block_len() > 1);
    for (format, oc) in quantised.flat_map(|format| [33, 1100].map(|oc| (format, oc))) {
        let mut bytes = random_rows(&mut Random::new(3), format, oc, c);
        for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
            // Half-precision numbers stay as they are: IQ1_M's lies in the upper halves of four bytes.
            let kept = |at: usize| match format {
                WeightFormat::IQ1_M if (48..56).contains(&at) && at % 2 == 1 => 0xf0,
                _ if format.halves_at().iter().any(|half| (*half..half + 2).contains(&at)) => 0xff,
                _ => 0,
            };
            // Blocks of the largest codes and scales, of the smallest, and of some.
            let ends = [0xff, 0x00, 0x7f, 0x80];
            for (at, byte) in block.iter_mut().enumerate() {
                let end = ends.get(i % 5).copied().unwrap_or((at * 37) as u8);
                *byte = *byte & kept(at) | end & !kept(at);
            }
        }
        let product = |ops: &Cpu, n: usize| -> std::result::Result<Vec<f32>, OpsError> {
            let mut weight = ops.weight(format, oc, c, "w")?;
            ops.weight_rows(&mut weight, 0, &bytes);
            let (x, mut out) = (buf(ops, &x[..n * c])?, ops.buf(n * oc, Dtype::F32, "out")?);
            ops.linear(&mut out, &x, n, &[Linear { w: &weight, bias: None }], Store::Write);
            Ok(read(ops, &out, n * oc))
        };
        let expected = product(&oracle, n)?;
        let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for path in Path::available() {
            // Kernels for many rows and for few.
            for n in [n, 6, 5, 4, 3, 2, 1] {
                for (i, (got, expected)) in product(&cpu(path, 2), n)?.iter().zip(&expected).enumerate() {
                    let name = format.name();
                    assert!((got - expected).abs() <= 2e-6 * scale, "{path:?} {name}, {n} rows: {i}: {got} {expected}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_row_of_a_product_has_the_same_bits_alone_and_among_others() -> Result {
    let exact = Path::available().into_iter().map(|path| (path, cpu(path, 2)));
    for (path, ops) in exact.chain(rounding(2)) {
        // Floating-point numbers also with k and rows in several stretches, of which the last is shorter.
        let shapes = WeightFormat::ALL.map(|format| (format, 41, 768)).into_iter();
        // Rows that end inside a unit of 256.
        let ragged = WeightFormat::ALL.into_iter().filter(|format| format.block_len() == 32).map(|f| (f, 41, 480));
        // So long rows that 64 of them are a stretch; the last one has one row, or two.
        let stretches =
            [(WeightFormat::Q4_K, 661), (WeightFormat::Q4_0, 662), (WeightFormat::Q8_0, 661), (WeightFormat::F16, 67)];
        let stretches = stretches.into_iter().filter(|_| path != Path::Portable).map(|(f, n)| (f, n, 16384));
        let long = [(WeightFormat::Bf16, 299, 2304), (WeightFormat::F32, 47, 327), (WeightFormat::F16, 45, 299)];
        for (format, n, c) in shapes.chain(ragged).chain(stretches).chain(long) {
            let ocs = [70, 16];
            let mut random = Random::new(11);
            let x = random.normals(n * c);
            let mut weights = Vec::new();
            for oc in ocs {
                let mut weight = ops.weight(format, oc, c, "w")?;
                ops.weight_rows(&mut weight, 0, &random_rows(&mut random, format, oc, c));
                weights.push(weight);
            }
            let layers: Vec<Linear<'_, Cpu>> = weights.iter().map(|w| Linear { w, bias: None }).collect();
            let width = 86;
            let product = |first: usize, rows: usize| -> std::result::Result<Vec<f32>, OpsError> {
                let (x, mut out) =
                    (buf(&ops, &x[first * c..(first + rows) * c])?, ops.buf(rows * width, Dtype::F32, "out")?);
                ops.linear(&mut out, &x, rows, &layers, Store::Write);
                Ok(read(&ops, &out, rows * width))
            };
            let together = product(0, n)?;
            for (first, rows) in [
                (0, 1),
                (40, 1),
                (3, 2),
                (5, 3),
                (7, 4),
                (9, 5),
                (11, 6),
                (12, 7),
                (20, 13),
                (1, 32),
                (n - 1, 1),
                (n - 2, 2),
            ] {
                let same = product(first, rows)? == together[first * width..(first + rows) * width];
                assert!(same, "{path:?} {} of {n}: rows {first}+{rows}", format.name());
            }
        }
    }
    Ok(())
}

/// What is not a number, or infinite, stays visible in its row and nowhere else.
#[test]
fn special_values_reach_their_own_row_only() -> Result {
    let (c, oc) = (512, 40);
    for (path, ops) in Path::available().into_iter().map(|path| (path, cpu(path, 2))) {
        for format in WeightFormat::ALL {
            let mut random = Random::new(9);
            let mut weight = ops.weight(format, oc, c, "w")?;
            ops.weight_rows(&mut weight, 0, &random_rows(&mut random, format, oc, c));
            for n in [1, 2, 4, 7, 30] {
                let normals = random.normals(n * c);
                let product = |x: &[f32]| -> std::result::Result<Vec<f32>, OpsError> {
                    let (x, mut out) = (buf(&ops, x)?, ops.buf(n * oc, Dtype::F32, "out")?);
                    ops.linear(&mut out, &x, n, &[Linear { w: &weight, bias: None }], Store::Write);
                    Ok(read(&ops, &out, n * oc))
                };
                let clean = product(&normals)?;
                // The second is a NaN whose lowest byte is that of −128.
                for special in [f32::NAN, f32::from_bits(0x7fc0_0080), f32::INFINITY] {
                    let mut x = normals.clone();
                    x[n / 2 * c + 300] = special;
                    for (row, (got, clean)) in product(&x)?.chunks(oc).zip(clean.chunks(oc)).enumerate() {
                        let right = if row == n / 2 { got.iter().all(|x| !x.is_finite()) } else { got == clean };
                        assert!(right, "{path:?} {} {special}: row {row} of {n}", format.name());
                    }
                }
            }
        }
    }
    Ok(())
}

/// An empty sum is zero, for any number of rows.
#[test]
fn products_without_columns_are_zero() -> Result {
    for (path, ops) in Path::available().into_iter().map(|path| (path, cpu(path, 2))) {
        for (format, n) in WeightFormat::ALL.into_iter().flat_map(|format| [1, 4, 5, 30].map(|n| (format, n))) {
            let weight = ops.weight(format, 40, 0, "w")?;
            let (x, mut out) = (buf(&ops, &[])?, buf(&ops, &vec![1.0; 40 * n])?);
            ops.linear(&mut out, &x, n, &[Linear { w: &weight, bias: None }], Store::Write);
            assert_eq!(read(&ops, &out, 40 * n), vec![0.0; 40 * n], "{path:?} {} of {n}", format.name());
        }
    }
    Ok(())
}

#[test]
fn a_path_that_the_processor_lacks_is_refused() {
    use Path::*;
    for path in [Portable, Avx2, Avx512, Avx512Bf16, Amx, Neon] {
        let made = Cpu::new(CpuOptions { threads: Some(1), path: Some(path), ..CpuOptions::default() }).is_ok();
        assert_eq!(made, Path::available().contains(&path), "{path:?}");
    }
}

/// Steps of the same sequences in different cuts: whole prompts, chunks, single tokens, alone or together.
#[test]
fn attention_has_the_same_bits_however_a_prompt_is_cut() -> Result {
    let (len, page_len) = (601usize, 32);
    for path in Path::available() {
        for kind in KvKind::ALL {
            for (nh, nkv, hs) in [(4, 2, 64), (8, 2, 128), (10, 2, 48), (3, 1, 40)] {
                let d = HeadDims { nh, nkv, hs };
                let mut random = Random::new(5);
                let qkv: Vec<Vec<f32>> = (0..2).map(|_| random.normals(len * d.qkv())).collect();
                let run =
                    |threads, steps: &[Vec<RowAt>]| run_steps(&cpu(path, threads), d, kind, page_len, &qkv, steps);
                let whole = |s| (0..len as u32).map(move |position| RowAt { sequence: s, position });
                let first = run(1, &[whole(0).collect()])?;
                // Both sequences in one call; in chunks that begin at different places; token by token, where threads share
                // stretches, and both sequences beside each other, where a thread reads one stretch after the other.
                let together = run(2, &[whole(0).chain(whole(1)).collect()])?;
                let chunks: Vec<Vec<RowAt>> = (0..13u32)
                    .map(|i| {
                        let chunk = |s: u32, shift: u32| {
                            let cut = |i: u32| (i * 50).saturating_sub(shift).min(len as u32);
                            (cut(i)..if i == 12 { len as u32 } else { cut(i + 1) })
                                .map(move |position| RowAt { sequence: s, position })
                        };
                        chunk(1, 7).chain(chunk(0, 0)).collect()
                    })
                    .collect();
                let chunked = run(3, &chunks)?;
                let singles: Vec<Vec<RowAt>> =
                    (0..len as u32).map(|position| vec![RowAt { sequence: 0, position }]).collect();
                let single = run(2, &singles)?;
                // The second stretch is whole, and a third one is begun, while these are read.
                let to = |s, to: usize| whole(s).take(to);
                let begun: Vec<RowAt> = to(0, 480).chain(to(1, 480)).collect();
                let pair = |at| whole(0).skip(at).take(1).chain(whole(1).skip(at).take(1)).collect();
                let pairs: Vec<Vec<RowAt>> = std::iter::once(begun).chain((480..len).map(pair)).collect();
                let paired = run(1, &pairs)?;
                assert!(together[0] == first[0], "{path:?} {kind:?} {d:?}: two prompts together");
                assert!(chunked[0] == first[0] && chunked[1] == together[1], "{path:?} {kind:?} {d:?}: chunks");
                assert!(single[0] == first[0], "{path:?} {kind:?} {d:?}: token by token");
                assert!(paired == together, "{path:?} {kind:?} {d:?}: token by token, both");
            }
        }
    }
    Ok(())
}

/// Pages that follow each other in memory are read as one; the last ones are another sequence's, and full of other numbers.
#[test]
fn attention_has_the_same_bits_wherever_pages_lie() -> Result {
    let (len, page_len, pages) = (601usize, 32, 19u32);
    let tables: [Vec<u32>; 3] = [
        (0..pages).map(|p| p * 7 % pages).collect(),
        (0..pages).collect(),
        // Runs of several lengths, with ends inside stretches and between them.
        (5..15).chain(3..5).chain([15, 18, 0, 16, 17, 1, 2]).collect(),
    ];
    let last = |p: u32| pages + p;
    for path in Path::available() {
        for kind in KvKind::ALL {
            for (nh, nkv, hs) in [(4, 2, 64), (8, 2, 128), (16, 2, 64), (3, 1, 40)] {
                let d = HeadDims { nh, nkv, hs };
                let mut random = Random::new(6);
                let qkv: Vec<Vec<f32>> = (0..2).map(|_| random.normals(len * d.qkv())).collect();
                let row = |sequence, position| RowAt { sequence, position };
                let prompts: Vec<RowAt> = (0..2).flat_map(|s| (0..500u32).map(move |at| row(s, at))).collect();
                let singles = (500..len as u32).map(|at| vec![row(0, at)]);
                let steps: Vec<Vec<RowAt>> = std::iter::once(prompts).chain(singles).collect();
                let run = |table: &Vec<u32>| {
                    let tables = [table.clone(), (0..pages).map(last).collect()];
                    run_steps_in(&cpu(path, 2), d, kind, page_len, &tables, &qkv, &steps)
                };
                let apart = run(&tables[0])?;
                for table in &tables[1..] {
                    assert!(run(table)?[0] == apart[0], "{path:?} {kind:?} {d:?}: {table:?}");
                }
            }
        }
    }
    Ok(())
}

/// Outputs of each sequence, by position.
fn run_steps(
    ops: &Cpu,
    d: HeadDims,
    kind: KvKind,
    page_len: usize,
    qkv: &[Vec<f32>],
    steps: &[Vec<RowAt>],
) -> std::result::Result<Vec<Vec<f32>>, OpsError> {
    let pages = (qkv[0].len() / d.qkv()).div_ceil(page_len);
    let tables: Vec<Vec<u32>> = (0..2).map(|s| (0..pages as u32).rev().map(|p| 2 * p + s).collect()).collect();
    run_steps_in(ops, d, kind, page_len, &tables, qkv, steps)
}

/// The same, with pages as said.
fn run_steps_in(
    ops: &Cpu,
    d: HeadDims,
    kind: KvKind,
    page_len: usize,
    tables: &[Vec<u32>],
    qkv: &[Vec<f32>],
    steps: &[Vec<RowAt>],
) -> std::result::Result<Vec<Vec<f32>>, OpsError> {
    let (width, c) = (d.qkv(), d.nh * d.hs);
    let pages = tables.iter().map(Vec::len).sum();
    let mut cache = ops.kv_pages(KvPagesDims { pages, page_len, nkv: d.nkv, hs: d.hs, kind })?;
    let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
    // The pages were another text's, of which nothing may be seen.
    let places =
        |s: usize| (0..tables[s].len() * page_len).map(move |at| RowAt { sequence: s as u32, position: at as u32 });
    let before: Vec<RowAt> = (0..tables.len()).flat_map(places).collect();
    let batch = ops.batch(BatchPlan { rows: &before, tables: &tables, page_len, frequencies: &[] })?;
    let (nan, mut out) =
        (buf(ops, &vec![f32::NAN; before.len() * width])?, ops.buf(before.len() * c, Dtype::F32, "out")?);
    ops.attention_paged(&mut out, &mut cache, &nan, &batch, d);
    let mut outputs = vec![vec![f32::NAN; qkv[0].len() / width * c]; qkv.len()];
    for rows in steps.iter().filter(|rows| !rows.is_empty()) {
        let batch = ops.batch(BatchPlan { rows, tables: &tables, page_len, frequencies: &[] })?;
        let input: Vec<f32> = rows
            .iter()
            .flat_map(|row| &qkv[row.sequence as usize][row.position as usize * width..][..width])
            .copied()
            .collect();
        let (input, mut out) = (buf(ops, &input)?, ops.buf(rows.len() * c, Dtype::F32, "out")?);
        ops.attention_paged(&mut out, &mut cache, &input, &batch, d);
        for (row, out) in rows.iter().zip(read(ops, &out, rows.len() * c).chunks_exact(c)) {
            outputs[row.sequence as usize][row.position as usize * c..][..c].copy_from_slice(out);
        }
    }
    Ok(outputs)
}
