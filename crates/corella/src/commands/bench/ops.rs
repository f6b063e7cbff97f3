//! Every operation at the shapes of GPT-2 124M and of the tour's model.

use corella_ops::cases::Random;
use corella_ops::cpu::Cpu;
use corella_ops::{
    AdamW, AttentionDims, ClassifierDims, Dtype, EncoderDims, MatmulDims, NormDims, OpsError, OpsInfer, OpsTrain,
    ParamPart,
};

use super::{Bench, Bound, formats};
use crate::cli::BenchArgs;
use crate::error::Result;

type Buf = <Cpu as OpsTrain>::Buf;
type Param = <Cpu as OpsTrain>::Param;

/// Arrays of random numbers.
struct Make<'a>(&'a Cpu, Dtype, Random);

impl Make<'_> {
    fn buf(&mut self, len: usize) -> std::result::Result<Buf, OpsError> {
        let mut buf = self.0.buf(len, self.1, "bench")?;
        self.0.write(&mut buf, &self.2.normals(len));
        Ok(buf)
    }

    fn param(&mut self, rows: usize, cols: usize, trained: bool) -> std::result::Result<Param, OpsError> {
        let mut param = self.0.param(rows, cols, trained, self.1, "bench")?;
        let values: Vec<f32> = self.2.normals(rows * cols).iter().map(|x| 0.02 * x).collect();
        self.0.param_write(&mut param, ParamPart::Value, &values);
        Ok(param)
    }
}

/// The names of all.
pub fn names() -> Vec<String> {
    let products = ["matmul", "matmul_grad", "attention", "attention_grad", "classifier_grad"];
    let in_each = products.into_iter().flat_map(|name| Dtype::ALL.map(|dtype| format!("{name} {}", dtype.name())));
    let passes =
        ["encoder", "layernorm", "layernorm_grad", "gelu", "gelu_grad", "residual", "adamw", "grad_square_sum"];
    let others = ["matmul, few rows"].into_iter().chain(passes).chain(["attention_cached"]);
    in_each.chain(others.map(str::to_owned)).collect()
}

/// Runs all.
pub fn run(bench: &mut Bench, args: &BenchArgs) -> Result<()> {
    formats(args, |dtype| {
        for d in [
            MatmulDims { n: 4096, c: 768, oc: 2304 },
            MatmulDims { n: 4096, c: 768, oc: 768 },
            MatmulDims { n: 4096, c: 3072, oc: 768 },
            MatmulDims { n: 2048, c: 256, oc: 768 },
            MatmulDims { n: 2048, c: 1024, oc: 256 },
        ] {
            matmul(bench, d, dtype)?;
        }
        for d in [
            AttentionDims { b: 2, t: 1024, nh: 12, nkv: 12, hs: 64 },
            AttentionDims { b: 8, t: 256, nh: 4, nkv: 4, hs: 64 },
        ] {
            attention(bench, d, dtype)?;
        }
        for d in [ClassifierDims { n: 1024, c: 768, v: 50257 }, ClassifierDims { n: 2048, c: 256, v: 2048 }] {
            classifier(bench, d, dtype)?;
        }
        Ok(())
    })?;
    for n in [1, 4, 16] {
        skinny(bench, MatmulDims { n, c: 768, oc: 50257 })?;
    }
    rows(bench)
}

fn matmul(bench: &mut Bench, d: MatmulDims, dtype: Dtype) -> Result<()> {
    let (x, mut w, mut b, mut out, mut dx);
    {
        let mut make = Make(&bench.cpu, dtype, Random::new(1));
        (x, w, b) = (make.buf(d.n * d.c)?, make.param(d.oc, d.c, true)?, make.param(1, d.oc, true)?);
        (out, dx) = (make.buf(d.n * d.oc)?, make.buf(d.n * d.c)?);
    }
    let shape = format!("{}×{}→{}", d.n, d.c, d.oc);
    let flops = 2.0 * (d.n * d.c * d.oc) as f64;
    bench.time(
        &format!("matmul {}", dtype.name()),
        shape.clone(),
        Bound::Products(dtype, flops),
        "2·N·C·OC",
        |ops| {
            ops.matmul(&mut out, &x, &w, Some(&b), d);
        },
    );
    bench.time(
        &format!("matmul_grad {}", dtype.name()),
        shape,
        Bound::Products(dtype, 2.0 * flops),
        "4·N·C·OC",
        |ops| {
            ops.matmul_grad(&mut dx, &mut w, Some(&mut b), &out, &x, d);
        },
    );

    Ok(())
}

/// The output head of generation: bound by reading the weights.
fn skinny(bench: &mut Bench, d: MatmulDims) -> Result<()> {
    let (x, w, mut out);
    {
        let mut make = Make(&bench.cpu, Dtype::F32, Random::new(2));
        (x, w, out) = (make.buf(d.n * d.c)?, make.param(d.oc, d.c, false)?, make.buf(d.n * d.oc)?);
    }
    let shape = format!("{}×{}→{}", d.n, d.c, d.oc);
    bench.time("matmul, few rows", shape, Bound::Memory(4.0 * (d.c * d.oc) as f64), "4·C·OC bytes", |ops| {
        ops.matmul(&mut out, &x, &w, None, d);
    });
    Ok(())
}

fn attention(bench: &mut Bench, d: AttentionDims, dtype: Dtype) -> Result<()> {
    let (rows, c) = (d.b * d.t, d.nh * d.hs);
    let (qkv, dout, mut out, mut lse, mut dqkv);
    {
        let mut make = Make(&bench.cpu, dtype, Random::new(3));
        (qkv, dout, out) = (make.buf(rows * 3 * c)?, make.buf(rows * c)?, make.buf(rows * c)?);
        (lse, dqkv) = (make.0.buf(rows * d.nh, Dtype::F32, "bench")?, make.buf(rows * 3 * c)?);
    }
    let shape = format!("B {} T {}, {} × {}", d.b, d.t, d.nh, d.hs);
    // Scores and weighted sum over the causal half.
    let flops = 2.0 * (rows * d.t * c) as f64;
    bench.time(
        &format!("attention {}", dtype.name()),
        shape.clone(),
        Bound::Compute(dtype, flops),
        "2·B·T²·C (causal half)",
        |ops| {
            ops.attention(&mut out, &mut lse, &qkv, d);
        },
    );
    bench.time(
        &format!("attention_grad {}", dtype.name()),
        shape,
        Bound::Compute(dtype, 2.5 * flops),
        "5·B·T²·C (causal half)",
        |ops| {
            ops.attention_grad(&mut dqkv, &dout, &out, &qkv, &lse, d);
        },
    );
    Ok(())
}

fn classifier(bench: &mut Bench, d: ClassifierDims, dtype: Dtype) -> Result<()> {
    let (x, mut wte, mut losses, mut dx, mut targets);
    {
        let mut make = Make(&bench.cpu, dtype, Random::new(4));
        (x, wte) = (make.buf(d.n * d.c)?, make.param(d.v, d.c, true)?);
        (losses, dx, targets) = (make.0.buf(d.n, Dtype::F32, "bench")?, make.buf(d.n * d.c)?, make.0.ids(d.n)?);
    }
    let ids: Vec<u32> = (0..d.n).map(|i| (i * 31 % d.v) as u32).collect();
    bench.cpu.write_ids(&mut targets, &ids);
    let shape = format!("{}×{} of {}", d.n, d.c, d.v);
    let flops = 6.0 * (d.n * d.c * d.v) as f64;
    bench.time(
        &format!("classifier_grad {}", dtype.name()),
        shape,
        Bound::Products(dtype, flops),
        "6·N·C·V",
        |ops| {
            ops.classifier_grad(&mut losses, &mut dx, &x, &mut wte, &targets, 1e-3, d);
        },
    );
    Ok(())
}

/// What memory bounds: one pass over rows.
fn rows(bench: &mut Bench) -> Result<()> {
    let (n, c) = (32_768, 768);
    let d = NormDims { n, c, eps: 1e-5 };
    let len = n * c;
    let (x, dout, mut out, mut dx, mut mean, mut rstd, mut w, mut b, mut p, wte, wpe, mut ids);
    {
        let mut make = Make(&bench.cpu, Dtype::F32, Random::new(5));
        (x, dout, out, dx) = (make.buf(len)?, make.buf(len)?, make.buf(len)?, make.buf(len)?);
        (mean, rstd) = (make.buf(n)?, make.buf(n)?);
        (w, b, p) = (make.param(1, c, true)?, make.param(1, c, true)?, make.param(n, c, true)?);
        (wte, wpe, ids) = (make.param(50257, c, true)?, make.param(1024, c, true)?, make.0.ids(n)?);
    }
    let random: Vec<u32> = (0..n).map(|i| (i * 7919 % 50257) as u32).collect();
    bench.cpu.write_ids(&mut ids, &random);
    let shape = format!("{n}×{c}");
    let pass = 4.0 * len as f64;
    let encoder = EncoderDims { b: 32, t: 1024, c, v: 50257, pos0: 0 };
    bench.time("encoder", shape.clone(), Bound::Traffic(2.0 * pass), "8·N·C bytes", |ops| {
        ops.encoder(&mut out, &ids, &wte, &wpe, encoder);
    });
    bench.time("layernorm", shape.clone(), Bound::Traffic(2.0 * pass), "8·N·C bytes", |ops| {
        ops.layernorm(&mut out, &mut mean, &mut rstd, &x, &w, &b, d);
    });
    bench.time("layernorm_grad", shape.clone(), Bound::Traffic(4.0 * pass), "16·N·C bytes", |ops| {
        ops.layernorm_grad(&mut dx, &mut w, &mut b, &dout, &x, &mean, &rstd, d);
    });
    bench.time("gelu", shape.clone(), Bound::Traffic(2.0 * pass), "8·N bytes", |ops| ops.gelu(&mut out, &x, len));
    bench.time("gelu_grad", shape.clone(), Bound::Traffic(3.0 * pass), "12·N bytes", |ops| {
        ops.gelu_grad(&mut dx, &x, len);
    });
    bench.time("residual", shape.clone(), Bound::Traffic(3.0 * pass), "12·N bytes", |ops| {
        ops.residual(&mut out, &x, &dout, len);
    });
    let hyper = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, grad_scale: 1.0, step: 1 };
    bench.time("adamw", shape.clone(), Bound::Traffic(7.0 * pass), "28·N bytes (4 read, 3 written)", |ops| {
        ops.adamw(&mut p, hyper);
    });
    bench.time("grad_square_sum", shape, Bound::Memory(pass), "4·N bytes", |ops| {
        std::hint::black_box(ops.grad_square_sum(&p));
    });
    let (mut kv, d_cached) = (bench.cpu.kv(1024, c)?, (1023, 1, 12, 64));
    let (pos0, n1, nh, hs) = d_cached;
    bench.cpu.attention_cached(&mut out, &mut kv, &x, 0, 1023, nh, hs);
    let bytes = 2.0 * 4.0 * 1024.0 * c as f64;
    bench.time(
        "attention_cached",
        "1 query, 1024 keys, 12 × 64".to_owned(),
        Bound::Memory(bytes),
        "8·T·C bytes",
        |ops| {
            ops.attention_cached(&mut out, &mut kv, &x, pos0, n1, nh, hs);
        },
    );
    Ok(())
}
