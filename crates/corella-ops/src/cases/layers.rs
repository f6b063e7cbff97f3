//! Cases of the layers without attention.

use super::{Arrays, Case, On, Outputs};
use crate::contract::{ClassifierDims, EncoderDims, MatmulDims, NormDims, OpsError, OpsTrain, ParamPart};

pub fn cases<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (b, t, c, v, pos0) in [(1, 1, 1, 2, 0), (2, 5, 17, 9, 0), (1, 3, 64, 50, 4), (3, 40, 200, 6, 0)] {
        let d = EncoderDims { b, t, c, v, pos0 };
        cases.push(Case::new(format!("encoder {b}×{t}×{c}"), move |ops: &On<B>| encoder(ops, d)));
    }
    for (n, c) in
        [(0, 8), (1, 1), (1, 8), (7, 63), (3, 1023), (3, 17), (5, 64), (33, 385), (130, 48), (3, 1600), (2, 8209)]
    {
        let d = NormDims { n, c, eps: 1e-5 };
        cases.push(Case::new(format!("layernorm {n}×{c}"), move |ops: &On<B>| layernorm(ops, d)));
        cases.push(Case::new(format!("residual_layernorm {n}×{c}"), move |ops: &On<B>| residual_layernorm(ops, d)));
    }
    for (n, c, oc) in [
        (0, 4, 3),
        (1, 1, 1),
        (1, 3, 2),
        (3, 63, 65),
        (17, 1023, 7),
        (63, 65, 1023),
        (97, 193, 33),
        (5, 17, 6),
        (6, 16, 16),
        (7, 64, 48),
        (33, 300, 49),
        (64, 257, 130),
        (1, 1024, 33),
        (130, 513, 31),
        (200, 40, 270),
        // An inner size, forward and backward, that no cache block holds whole.
        (7, 6200, 35),
        (3300, 5, 40),
    ] {
        let d = MatmulDims { n, c, oc };
        for bias in [true, false] {
            cases.push(Case::new(format!("matmul {n}×{c}→{oc} bias {bias}"), move |ops: &On<B>| {
                matmul(ops, d, bias)
            }));
        }
        cases.push(Case::new(format!("matmul_gelu {n}×{c}→{oc}"), move |ops: &On<B>| matmul_gelu(ops, d)));
        cases.push(Case::new(format!("matmul_residual {n}×{c}→{oc}"), move |ops: &On<B>| matmul_residual(ops, d)));
    }
    let d = MatmulDims { n: 33, c: 64, oc: 48 };
    cases.push(Case::new("matmul of f32 33×64→48".to_owned(), move |ops: &On<B>| matmul_of_f32(ops, d)));
    for len in [0, 1, 15, 16, 1003] {
        cases.push(Case::new(format!("gelu and residual of {len}"), move |ops: &On<B>| elementwise(ops, len)));
    }
    for (n, c, v, rows) in [
        (0, 4, 3, 3),
        (1, 1, 2, 2),
        (1, 8, 3, 3),
        (5, 17, 100, 104),
        (70, 33, 513, 513),
        (300, 16, 50, 64),
        (3, 8, 9001, 9001),
    ] {
        let d = ClassifierDims { n, c, v };
        cases.push(Case::new(format!("classifier {n}×{c} of {v}"), move |ops: &On<B>| classifier(ops, d, rows)));
    }
    cases
}

/// Products that caches decide how to cut: of two stretches of the inner size, and with results that pass the caches by. Too large
/// for a card that is emulated.
pub fn large_cases<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (n, c, oc) in [(300, 1200, 70), (2100, 8, 1024)] {
        let d = MatmulDims { n, c, oc };
        cases.push(Case::new(format!("matmul_gelu {n}×{c}→{oc}"), move |ops: &On<B>| matmul_gelu(ops, d)));
        cases.push(Case::new(format!("matmul_residual {n}×{c}→{oc}"), move |ops: &On<B>| matmul_residual(ops, d)));
    }
    cases
}

fn encoder<B: OpsTrain>(ops: &On<B>, d: EncoderDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.t);
    let (len, positions) = (d.b * d.t * d.c, d.pos0 + d.t + 1);
    let (mut wte, mut wpe) = (a.param(d.v, d.c)?, a.param(positions, d.c)?);
    // Few ids among many rows: equal tokens must add up.
    let ids = a.ids(d.b * d.t, d.v)?;
    let (mut out, dout) = (a.unset(len)?, a.numbers(len)?);
    ops.encoder(&mut out, &ids, &wte, &wpe, d);
    ops.encoder_grad(&mut wte, &mut wpe, &dout, &ids, d);
    Ok(vec![
        ("out", a.read(&out, len)),
        ("dwte", a.part(&wte, ParamPart::Grad, d.v * d.c)),
        ("dwpe", a.part(&wpe, ParamPart::Grad, positions * d.c)),
    ])
}

fn layernorm<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let len = d.n * d.c;
    let (mut w, mut b, x) = (a.param(1, d.c)?, a.param(1, d.c)?, a.numbers(len)?);
    let (mut out, mut mean, mut rstd) = (a.unset(len)?, a.unset_f32(d.n)?, a.unset_f32(d.n)?);
    let (dout, mut dx) = (a.numbers(len)?, a.numbers_f32(len)?);
    ops.layernorm(&mut out, &mut mean, &mut rstd, &x, &w, &b, d);
    ops.layernorm_grad(&mut dx, &mut w, &mut b, &dout, &x, &mean, &rstd, d);
    let mut outputs = vec![
        ("out", a.read(&out, len)),
        ("rstd", a.read(&rstd, d.n)),
        ("dw", a.part(&w, ParamPart::Grad, d.c)),
        ("db", a.part(&b, ParamPart::Grad, d.c)),
    ];
    if d.c > 1 {
        // Of a single column the norm is constant, and what is left of dx is rounding.
        outputs.push(("dx", a.read(&dx, len)));
    }
    Ok(outputs)
}

fn residual_layernorm<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let len = d.n * d.c;
    let (w, b, x, y) = (a.param(1, d.c)?, a.param(1, d.c)?, a.numbers(len)?, a.numbers(len)?);
    let (mut sum, mut out, mut mean, mut rstd) = (a.unset(len)?, a.unset(len)?, a.unset_f32(d.n)?, a.unset_f32(d.n)?);
    ops.residual_layernorm(&mut sum, &mut out, &mut mean, &mut rstd, &x, &y, (&w, &b), d);
    Ok(vec![("sum", a.read(&sum, len)), ("out", a.read(&out, len)), ("rstd", a.read(&rstd, d.n))])
}

fn matmul<B: OpsTrain>(ops: &On<B>, d: MatmulDims, bias: bool) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.n + d.oc);
    let (x, mut w, mut b) = (a.numbers(d.n * d.c)?, a.param(d.oc, d.c)?, a.param(1, d.oc)?);
    let (mut out, mut dx, dout) = (a.unset(d.n * d.oc)?, a.unset(d.n * d.c)?, a.numbers(d.n * d.oc)?);
    ops.matmul(&mut out, &x, &w, bias.then_some(&b), d);
    ops.matmul_grad(&mut dx, &mut w, bias.then_some(&mut b), &dout, &x, d);
    Ok(vec![
        ("out", a.read(&out, d.n * d.oc)),
        ("dx", a.read(&dx, d.n * d.c)),
        ("dw", a.part(&w, ParamPart::Grad, d.oc * d.c)),
        ("db", a.part(&b, ParamPart::Grad, d.oc)),
    ])
}

/// Rows and gradients of the residual stream, in f32 beside weights of any format: they are rounded on the way.
fn matmul_of_f32<B: OpsTrain>(ops: &On<B>, d: MatmulDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let (x, dout) = (a.numbers_f32(d.n * d.c)?, a.numbers_f32(d.n * d.oc)?);
    let (mut w, mut b) = (a.param(d.oc, d.c)?, a.param(1, d.oc)?);
    let (mut out, mut dx) = (a.unset_f32(d.n * d.oc)?, a.unset_f32(d.n * d.c)?);
    ops.matmul(&mut out, &x, &w, Some(&b), d);
    ops.matmul_grad(&mut dx, &mut w, Some(&mut b), &dout, &x, d);
    Ok(vec![
        ("out", a.read(&out, d.n * d.oc)),
        ("dx", a.read(&dx, d.n * d.c)),
        ("dw", a.part(&w, ParamPart::Grad, d.oc * d.c)),
        ("db", a.part(&b, ParamPart::Grad, d.oc)),
    ])
}

fn matmul_gelu<B: OpsTrain>(ops: &On<B>, d: MatmulDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let (x, w, b) = (a.numbers(d.n * d.c)?, a.param(d.oc, d.c)?, a.param(1, d.oc)?);
    let (mut out, mut pre) = (a.unset(d.n * d.oc)?, a.unset(d.n * d.oc)?);
    ops.matmul_gelu(&mut out, &mut pre, &x, &w, &b, d);
    Ok(vec![("out", a.read(&out, d.n * d.oc)), ("pre", a.read(&pre, d.n * d.oc))])
}

/// The projection forward into an f32 stream, and back through a GELU.
fn matmul_residual<B: OpsTrain>(ops: &On<B>, d: MatmulDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c + 3);
    let (x, mut w, mut b) = (a.numbers(d.n * d.c)?, a.param(d.oc, d.c)?, a.param(1, d.oc)?);
    let (residual, dout) = (a.numbers_f32(d.n * d.oc)?, a.numbers(d.n * d.oc)?);
    let (mut out, mut dpre, mut act) = (a.unset_f32(d.n * d.oc)?, a.unset(d.n * d.c)?, a.unset(d.n * d.c)?);
    ops.matmul_residual(&mut out, &residual, &x, &w, &b, d);
    ops.gelu_matmul_grad(&mut dpre, &mut act, &mut w, &mut b, &dout, &x, d);
    Ok(vec![
        ("out", a.read(&out, d.n * d.oc)),
        ("dpre", a.read(&dpre, d.n * d.c)),
        ("act", a.read(&act, d.n * d.c)),
        ("dw", a.part(&w, ParamPart::Grad, d.oc * d.c)),
        ("db", a.part(&b, ParamPart::Grad, d.oc)),
    ])
}

fn elementwise<B: OpsTrain>(ops: &On<B>, len: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, len);
    let mut values: Vec<f32> = a.random.normals(len).iter().map(|x| 3.0 * x).collect();
    // Far out the function is 0 or the identity, and nothing may overflow on the way.
    for (value, extreme) in values.iter_mut().zip([0.0, -40.0, 40.0, -1e4, 1e4]) {
        *value = extreme;
    }
    let x = a.filled(values)?;
    let (mut out, mut sum, mut dx) = (a.unset(len)?, a.unset(len)?, a.numbers(len)?);
    ops.gelu(&mut out, &x, len);
    ops.gelu_grad(&mut dx, &x, len);
    ops.residual(&mut sum, &x, &dx, len);
    Ok(vec![("gelu", a.read(&out, len)), ("dx", a.read(&dx, len)), ("residual", a.read(&sum, len))])
}

/// `rows` of wte, of which those from `v` on are padding.
fn classifier<B: OpsTrain>(ops: &On<B>, d: ClassifierDims, rows: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.n + d.v);
    // Logits of the size that models have: rounded to bf16, large ones would be off by a tenth.
    let small = a.random.normals(d.n * d.c).iter().map(|x| 0.2 * x).collect();
    let (x, mut wte, targets) = (a.filled(small)?, a.param(rows, d.c)?, a.ids(d.n, d.v)?);
    let (mut losses, mut again, mut dx) = (a.unset_f32(d.n)?, a.unset_f32(d.n)?, a.unset(d.n * d.c)?);
    ops.classifier(&mut losses, &x, &wte, &targets, d);
    ops.classifier_grad(&mut again, &mut dx, &x, &mut wte, &targets, 0.37, d);
    Ok(vec![
        ("losses", a.read(&losses, d.n)),
        ("losses with gradient", a.read(&again, d.n)),
        ("dx", a.read(&dx, d.n * d.c)),
        ("dwte", a.part(&wte, ParamPart::Grad, rows * d.c)),
    ])
}
