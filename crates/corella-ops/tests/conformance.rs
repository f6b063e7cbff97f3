//! Every kernel path against the f64 reference, and the two promises of repeatability.

use corella_ops::cases::{Expected, Random, all};
use corella_ops::cpu::{Cpu, CpuOptions, Path, Rounding};
use corella_ops::{AttentionDims, Dtype, MatmulDims, OpsTrain, ParamPart};

fn cpu(path: Path, threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: Some(threads), path: Some(path), ..CpuOptions::default() })
        .expect("the backend starts")
}

/// Every path with every format.
fn kernels() -> impl Iterator<Item = (Path, Dtype)> {
    Path::available().into_iter().flat_map(|path| Dtype::ALL.map(|dtype| (path, dtype)))
}

#[test]
fn every_path_agrees_with_the_reference() {
    for dtype in Dtype::ALL {
        let expected = Expected::new(dtype).expect("the reference runs");
        for (path, _) in kernels().filter(|(_, kernels)| *kernels == dtype) {
            for rounding in [Rounding::Exact, Rounding::Bf16] {
                let options = CpuOptions { threads: Some(2), path: Some(path), rounding };
                let found = expected.differences(&Cpu::new(options).expect("starts")).expect("the cases run");
                assert!(found.is_empty(), "{path:?} {dtype:?} {rounding:?}:\n{}", found.join("\n"));
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (path, dtype) in kernels() {
        let one = cpu(path, 1);
        let many: Vec<Cpu> = (2..=4).map(|threads| cpu(path, threads)).collect();
        for case in all::<Cpu>(dtype) {
            let one = case.run(&one, dtype).expect("one thread");
            for many in &many {
                for ((name, a), (_, b)) in one.iter().zip(&case.run(many, dtype).expect("many threads")) {
                    let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{path:?} {dtype:?}, {} threads, {}: {name}", many.threads(), case.name);
                }
            }
        }
    }
}

#[test]
fn a_row_comes_out_the_same_alone_and_among_others() {
    let ways = [true, false].map(|trained| kernels().map(move |(path, dtype)| (path, dtype, trained)));
    for (path, dtype, trained) in
        ways.into_iter().flatten().filter(|(_, dtype, trained)| *trained || *dtype == Dtype::F32)
    {
        let ops = cpu(path, 2);
        // Several stretches of k.
        let (rows, c, oc) = (101, 2100, 67);
        let mut random = Random::new(7);
        let (x, w) = (random.normals(rows * c), random.normals(oc * c));
        let mut weight = ops.param(oc, c, trained, dtype, "w").expect("memory");
        ops.param_write(&mut weight, ParamPart::Value, &w);
        let product = |first: usize, n: usize| {
            let mut input = ops.buf(n * c, Dtype::F32, "x").expect("memory");
            ops.write(&mut input, &x[first * c..(first + n) * c]);
            let mut out = ops.buf(n * oc, Dtype::F32, "out").expect("memory");
            ops.matmul(&mut out, &input, &weight, None, MatmulDims { n, c, oc });
            let mut host = vec![0.0; n * oc];
            ops.read(&out, &mut host);
            host
        };
        let together = product(0, rows);
        for (first, n) in [(0, 1), (5, 1), (100, 1), (3, 7), (40, 61)] {
            let part = product(first, n);
            assert_eq!(
                part,
                together[first * oc..(first + n) * oc],
                "{path:?} {dtype:?}: rows {first} to {}",
                first + n
            );
        }
    }
}

/// What is not a number, or too large, stays visible where it belongs and nowhere else.
#[test]
fn special_values_reach_their_own_row_only() {
    for (path, dtype) in kernels() {
        let ops = cpu(path, 2);
        let (rows, c, oc) = (20, 40, 37);
        for (special, trained) in [(f32::NAN, true), (f32::INFINITY, true), (f32::NAN, false), (f32::INFINITY, false)] {
            if dtype == Dtype::Bf16 && !trained {
                continue;
            }
            let mut x = Random::new(3).normals(rows * c);
            x[7 * c + 5] = special;
            let host = trained_product(&ops, dtype, trained, &x, &Random::new(4).normals(oc * c), c);
            for (row, values) in host.chunks_exact(oc).enumerate() {
                assert_eq!(values.iter().all(|v| v.is_finite()), row != 7, "{path:?} {dtype:?} {special}: row {row}");
            }
        }
    }
}

/// x·wᵀ of x (N, C) in f32 and w (OC, C).
fn trained_product(ops: &Cpu, dtype: Dtype, trained: bool, x: &[f32], w: &[f32], c: usize) -> Vec<f32> {
    let (n, oc) = (x.len() / c, w.len() / c);
    let mut weight = ops.param(oc, c, trained, dtype, "w").expect("memory");
    ops.param_write(&mut weight, ParamPart::Value, w);
    let (mut input, mut out) =
        (ops.buf(n * c, Dtype::F32, "x").expect("memory"), ops.buf(n * oc, Dtype::F32, "out").expect("memory"));
    ops.write(&mut input, x);
    ops.matmul(&mut out, &input, &weight, None, MatmulDims { n, c, oc });
    let mut host = vec![0.0; n * oc];
    ops.read(&out, &mut host);
    host
}

/// Sums of numbers next to the ends of the range of f32 come out, also where numbers are cut into parts.
#[test]
fn products_of_the_largest_and_of_small_numbers_are_kept() {
    for path in Path::available() {
        let ops = cpu(path, 1);
        for (x, w) in
            [(f32::MAX, 0.5), (-f32::MAX, 0.25), (3.395e38, 0.999), (1.5e-20, 1e-10), (1.000_000_1, 1.0 - 6e-8)]
        {
            let found = trained_product(&ops, Dtype::F32, true, &[x, 0.0, 0.0], &[w, 1.0, -1.0], 3)[0];
            let expected = f64::from(x) * f64::from(w);
            let error = (f64::from(found) - expected).abs() / expected.abs();
            assert!(error < 2.5e-7, "{path:?}: {x} · {w} is {found}");
        }
    }
}

/// A key that is not a number spoils the queries that see it, in its head of its sequence, and the gradients there.
#[test]
fn special_values_in_attention_stay_in_their_head() {
    let d = AttentionDims { b: 2, t: 70, nh: 2, nkv: 2, hs: 16 };
    let (rows, c) = (d.b * d.t, d.c());
    for (path, dtype) in kernels() {
        let ops = cpu(path, 2);
        let mut values = Random::new(5).normals(rows * d.qkv());
        let bad = (d.t + 5) * d.qkv() + (d.nh + 1) * d.hs;
        values[bad] = f32::NAN;
        let buf = |len, dtype| ops.buf(len, dtype, "attention").expect("memory");
        let (mut qkv, mut dout) = (buf(rows * d.qkv(), dtype), buf(rows * c, dtype));
        let (mut out, mut lse, mut dqkv) =
            (buf(rows * c, dtype), buf(rows * d.nh, Dtype::F32), buf(rows * d.qkv(), dtype));
        ops.write(&mut qkv, &values);
        ops.write(&mut dout, &Random::new(6).normals(rows * c));
        ops.attention(&mut out, &mut lse, &qkv, d);
        ops.attention_grad(&mut dqkv, &dout, &out, &qkv, &lse, d);
        let (mut host, mut grads) = (vec![0.0; rows * c], vec![0.0; rows * d.qkv()]);
        ops.read(&out, &mut host);
        ops.read(&dqkv, &mut grads);
        for (row, (out, grads)) in host.chunks_exact(c).zip(grads.chunks_exact(d.qkv())).enumerate() {
            for head in 0..d.nh {
                let own = row >= d.t && head == 1;
                let finite = |x: &[f32]| x[head * d.hs..][..d.hs].iter().all(|x| x.is_finite());
                assert!(own || finite(out), "{path:?} {dtype:?}: row {row}, head {head}");
                assert!(
                    own || grads.chunks_exact(c).all(finite),
                    "{path:?} {dtype:?}: gradients of row {row}, head {head}"
                );
                assert!(!own || row < d.t + 5 || !finite(out), "{path:?} {dtype:?}: row {row} hides what it saw");
            }
        }
    }
}

/// Denormal inputs come out as the same denormal products.
#[test]
fn the_smallest_numbers_are_kept() {
    for path in Path::available() {
        let ops = cpu(path, 1);
        let (mut x, mut zero, mut out) = (
            ops.buf(17, Dtype::F32, "x").expect("memory"),
            ops.buf(17, Dtype::F32, "zero").expect("memory"),
            ops.buf(17, Dtype::F32, "out").expect("memory"),
        );
        ops.write(&mut x, &[1e-40; 17]);
        ops.write(&mut zero, &[0.0; 17]);
        ops.residual(&mut out, &x, &zero, 17);
        let mut host = [0.0; 17];
        ops.read(&out, &mut host);
        assert_eq!(host, [1e-40; 17], "{path:?}");
    }
}
