//! Cases of the layers without attention.

use super::{Arrays, Case, On, Outputs};
use crate::contract::{ClassifierDims, EncoderDims, MatmulDims, NormDims, Normed, OpsError, OpsTrain, ParamPart};

pub fn cases<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (b, t, c, v, pos0) in [(1, 1, 1, 2, 0), (2, 5, 17, 9, 0), (1, 3, 64, 50, 4), (3, 40, 200, 6, 0)] {
        let d = EncoderDims { b, t, c, v, pos0 };
        cases.push(Case::new(format!("encoder {b}×{t}×{c}"), move |ops: &On<B>| encoder(ops, d)));
    }
    for (n, c) in [
        (0, 8),
        (1, 1),
        (1, 8),
        (7, 63),
        (3, 1023),
        (3, 17),
        (5, 64),
        (33, 385),
        (130, 48),
        (131, 264),
        (3, 1600),
        (2, 8209),
    ] {
        let d = NormDims { n, c, eps: 1e-5 };
        cases.push(Case::new(format!("layernorm {n}×{c}"), move |ops: &On<B>| layernorm(ops, d)));
        cases.push(Case::new(format!("residual_layernorm {n}×{c}"), move |ops: &On<B>| residual_layernorm(ops, d)));
    }
    for (n, c) in [(0, 8), (3, 17), (70, 48), (131, 264), (5, 1600)] {
        let d = NormDims { n, c, eps: 1e-5 };
        cases.push(Case::new(format!("stream {n}×{c}"), move |ops: &On<B>| stream(ops, d)));
        cases.push(Case::new(format!("stream back {n}×{c}"), move |ops: &On<B>| stream_back(ops, d)));
        cases.push(Case::new(format!("back through two GELUs {n}×{c}"), move |ops: &On<B>| two_gelus_back(ops, d)));
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

/// A projection into the residual stream and the norm behind it, from inner rows of width 8.
fn stream<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c + 1);
    let (len, inner) = (d.n * d.c, MatmulDims { n: d.n, c: 8, oc: d.c });
    let (residual, x) = (a.numbers_f32(len)?, a.numbers(d.n * inner.c)?);
    let (w, b, norm_w, norm_b) = (a.param(d.c, inner.c)?, a.param(1, d.c)?, a.param(1, d.c)?, a.param(1, d.c)?);
    let (mut sum, mut out, mut mean, mut rstd) =
        (a.unset_f32(len)?, a.unset(len)?, a.unset_f32(d.n)?, a.unset_f32(d.n)?);
    let normed = Normed { out: &mut out, mean: &mut mean, rstd: &mut rstd };
    ops.matmul_residual_layernorm(&mut sum, normed, &residual, &x, (&w, &b), (&norm_w, &norm_b), inner, d.eps);
    Ok(vec![
        ("sum", a.read(&sum, len)),
        ("out", a.read(&out, len)),
        ("mean", a.read(&mean, d.n)),
        ("rstd", a.read(&rstd, d.n)),
    ])
}

/// The way back through the stream: a norm's gradient is added to the stream's, from which the layers before take theirs, once right
/// behind it and once after something else was written.
fn stream_back<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c + 2);
    let (len, wide) = (d.n * d.c, 16);
    let (mut norm_w, mut norm_b, x) = (a.param(1, d.c)?, a.param(1, d.c)?, a.numbers_f32(len)?);
    let (mut normed, mut mean, mut rstd) = (a.unset(len)?, a.unset_f32(d.n)?, a.unset_f32(d.n)?);
    let (dnormed, mut dx) = (a.numbers(len)?, a.numbers_f32(len)?);
    ops.layernorm(&mut normed, &mut mean, &mut rstd, &x, &norm_w, &norm_b, d);

    // Into the MLP: its second half, then its first.
    let (second, first) = (MatmulDims { n: d.n, c: wide, oc: d.c }, MatmulDims { n: d.n, c: d.c, oc: wide });
    let (mut w2, mut b2, pre) = (a.param(d.c, wide)?, a.param(1, d.c)?, a.numbers(d.n * wide)?);
    let (mut w1, mut b1, ln) = (a.param(wide, d.c)?, a.param(1, wide)?, a.numbers(len)?);
    let (mut dpre, mut act, mut dln) = (a.unset(d.n * wide)?, a.unset(d.n * wide)?, a.unset(len)?);
    ops.layernorm_grad(&mut dx, &mut norm_w, &mut norm_b, &dnormed, &x, &mean, &rstd, d);
    ops.gelu_matmul_grad(&mut dpre, &mut act, &mut w2, &mut b2, &dx, &pre, second);
    ops.matmul_grad(&mut dln, &mut w1, Some(&mut b1), &dpre, &ln, first);

    // Into a projection of the same width.
    let square = MatmulDims { n: d.n, c: d.c, oc: d.c };
    let (mut w, mut b, y) = (a.param(d.c, d.c)?, a.param(1, d.c)?, a.numbers(len)?);
    let mut dy = a.unset(len)?;
    ops.layernorm_grad(&mut dx, &mut norm_w, &mut norm_b, &dnormed, &x, &mean, &rstd, d);
    ops.matmul_grad(&mut dy, &mut w, Some(&mut b), &dx, &y, square);
    // The stream changes behind the norm: what the norm knew of it is true no more.
    let (mut dz, mut w_z, mut b_z) = (a.unset(len)?, a.param(d.c, d.c)?, a.param(1, d.c)?);
    ops.layernorm_grad(&mut dx, &mut norm_w, &mut norm_b, &dnormed, &x, &mean, &rstd, d);
    ops.accumulate(&mut dx, &y, len);
    ops.matmul_grad(&mut dz, &mut w_z, Some(&mut b_z), &dx, &y, square);
    let (mut w_0, mut b_0) = (a.param(d.c, d.c)?, a.param(1, d.c)?);
    ops.layernorm_grad(&mut dx, &mut norm_w, &mut norm_b, &dnormed, &x, &mean, &rstd, d);
    let stream = a.read(&dx, len);
    ops.clear(&mut dx, len);
    ops.matmul_grad(&mut dy, &mut w_0, Some(&mut b_0), &dx, &y, square);

    Ok(vec![
        ("dx", stream),
        ("norm dw", a.part(&norm_w, ParamPart::Grad, d.c)),
        ("norm db", a.part(&norm_b, ParamPart::Grad, d.c)),
        ("dpre", a.read(&dpre, d.n * wide)),
        ("act", a.read(&act, d.n * wide)),
        ("second dw", a.part(&w2, ParamPart::Grad, d.c * wide)),
        ("second db", a.part(&b2, ParamPart::Grad, d.c)),
        ("dln", a.read(&dln, len)),
        ("first dw", a.part(&w1, ParamPart::Grad, d.c * wide)),
        ("first db", a.part(&b1, ParamPart::Grad, wide)),
        ("dw", a.part(&w, ParamPart::Grad, d.c * d.c)),
        ("db", a.part(&b, ParamPart::Grad, d.c)),
        ("dz", a.read(&dz, len)),
        ("db after accumulate", a.part(&b_z, ParamPart::Grad, d.c)),
        ("dx of zeros", a.read(&dy, len)),
        ("dw of zeros", a.part(&w_0, ParamPart::Grad, d.c * d.c)),
        ("db of zeros", a.part(&b_0, ParamPart::Grad, d.c)),
    ])
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

/// Back through two layers behind a GELU each, the first of which is the wider one.
fn two_gelus_back<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c + 4);
    let wide = 2 * d.c;
    let (second, first) = (MatmulDims { n: d.n, c: d.c, oc: 8 }, MatmulDims { n: d.n, c: wide, oc: d.c });
    let (mut w2, mut b2, pre2) = (a.param(8, d.c)?, a.param(1, 8)?, a.numbers(d.n * d.c)?);
    let (mut w1, mut b1, pre1) = (a.param(d.c, wide)?, a.param(1, d.c)?, a.numbers(d.n * wide)?);
    let (dout, mut dpre2, mut act2) = (a.numbers(d.n * 8)?, a.unset(d.n * d.c)?, a.unset(d.n * d.c)?);
    let (mut dpre1, mut act1) = (a.unset(d.n * wide)?, a.unset(d.n * wide)?);
    ops.gelu_matmul_grad(&mut dpre2, &mut act2, &mut w2, &mut b2, &dout, &pre2, second);
    ops.gelu_matmul_grad(&mut dpre1, &mut act1, &mut w1, &mut b1, &dpre2, &pre1, first);
    Ok(vec![
        ("dpre2", a.read(&dpre2, d.n * d.c)),
        ("dpre1", a.read(&dpre1, d.n * wide)),
        ("db2", a.part(&b2, ParamPart::Grad, 8)),
        ("dw1", a.part(&w1, ParamPart::Grad, d.c * wide)),
        ("db1", a.part(&b1, ParamPart::Grad, d.c)),
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
