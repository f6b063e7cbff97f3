//! Cases of what Llama has and GPT-2 has not.

use super::{Arrays, Case, On, Outputs};
use crate::contract::{
    AttentionDims, Dtype, EmbeddingDims, GluDims, NormDims, OpsError, OpsTrain, ParamPart, rope_table,
};

pub fn cases<B: OpsTrain>() -> Vec<Case<B>> {
    let mut cases = Vec::new();
    for (n, c, v) in [(0, 3, 2), (1, 1, 1), (5, 17, 9), (130, 65, 7), (40, 200, 60)] {
        let d = EmbeddingDims { n, c };
        cases.push(Case::new(format!("embedding {n}×{c} of {v}"), move |ops: &On<B>| embedding(ops, d, v)));
    }
    for (n, c) in
        [(0, 8), (1, 1), (1, 8), (7, 63), (3, 1023), (3, 17), (5, 64), (33, 385), (130, 48), (3, 1600), (2, 8209)]
    {
        let d = NormDims { n, c, eps: 1e-5 };
        cases.push(Case::new(format!("rmsnorm {n}×{c}"), move |ops: &On<B>| rmsnorm(ops, d)));
        cases.push(Case::new(format!("residual_rmsnorm {n}×{c}"), move |ops: &On<B>| residual_rmsnorm(ops, d)));
    }
    for (b, t, nh, nkv, hs) in [(0, 3, 1, 1, 2), (1, 1, 1, 1, 2), (2, 7, 4, 2, 6), (1, 65, 3, 1, 34), (3, 17, 2, 2, 64)]
    {
        let d = AttentionDims { b, t, nh, nkv, hs };
        cases.push(Case::new(format!("rope {b}×{t}, {nh} to {nkv} heads of {hs}"), move |ops: &On<B>| rope(ops, d)));
    }
    for (n, f) in [(0, 4), (1, 1), (1, 15), (7, 63), (3, 1023), (65, 17)] {
        let d = GluDims { n, f };
        cases.push(Case::new(format!("swiglu {n}×{f}"), move |ops: &On<B>| swiglu(ops, d)));
    }
    cases
}

fn embedding<B: OpsTrain>(ops: &On<B>, d: EmbeddingDims, v: usize) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.n);
    let (mut wte, ids) = (a.param(v, d.c)?, a.ids(d.n, v)?);
    let (mut out, dout) = (a.unset(d.n * d.c)?, a.numbers(d.n * d.c)?);
    ops.embedding(&mut out, &ids, &wte, d);
    ops.embedding_grad(&mut wte, &dout, &ids, d);
    Ok(vec![("out", a.read(&out, d.n * d.c)), ("dwte", a.part(&wte, ParamPart::Grad, v * d.c))])
}

fn rmsnorm<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let len = d.n * d.c;
    let (mut w, x, dout, mut dx) = (a.param(1, d.c)?, a.numbers(len)?, a.numbers(len)?, a.numbers_f32(len)?);
    let (mut out, mut rstd) = (a.unset(len)?, a.unset_f32(d.n)?);
    ops.rmsnorm(&mut out, &mut rstd, &x, &w, d);
    ops.rmsnorm_grad(&mut dx, &mut w, &dout, &x, &rstd, d);
    Ok(vec![
        ("out", a.read(&out, len)),
        ("rstd", a.read(&rstd, d.n)),
        ("dx", a.read(&dx, len)),
        ("dw", a.part(&w, ParamPart::Grad, d.c)),
    ])
}

fn residual_rmsnorm<B: OpsTrain>(ops: &On<B>, d: NormDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.c);
    let len = d.n * d.c;
    let (w, x, y) = (a.param(1, d.c)?, a.numbers(len)?, a.numbers(len)?);
    let (mut sum, mut out, mut rstd) = (a.unset(len)?, a.unset(len)?, a.unset_f32(d.n)?);
    ops.residual_rmsnorm(&mut sum, &mut out, &mut rstd, &x, &y, &w, d);
    Ok(vec![("sum", a.read(&sum, len)), ("out", a.read(&out, len)), ("rstd", a.read(&rstd, d.n))])
}

/// Forward from one array, backward from another.
fn rope<B: OpsTrain>(ops: &On<B>, d: AttentionDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.t);
    let len = d.b * d.t * d.qkv();
    let frequencies: Vec<f32> = (0..d.hs / 2).map(|i| 0.7f32.powi(i as i32)).collect();
    let table = a.filled_as(Dtype::F32, rope_table(&frequencies, d.t))?;
    let (mut qkv, mut dqkv) = (a.numbers(len)?, a.numbers(len)?);
    ops.rope(&mut qkv, &table, d);
    ops.rope_grad(&mut dqkv, &table, d);
    Ok(vec![("qkv", a.read(&qkv, len)), ("dqkv", a.read(&dqkv, len))])
}

fn swiglu<B: OpsTrain>(ops: &On<B>, d: GluDims) -> Result<Outputs, OpsError> {
    let mut a = Arrays::new(ops, d.f);
    let len = d.n * d.f;
    let mut values: Vec<f32> = a.random.normals(2 * len).iter().map(|x| 3.0 * x).collect();
    // Far out the gate is shut or open, and nothing may overflow on the way.
    for (value, extreme) in values.iter_mut().take(len).zip([0.0, -40.0, 40.0, -1e4, 1e2]) {
        *value = extreme;
    }
    let (gate_up, dout) = (a.filled(values)?, a.numbers(len)?);
    let (mut out, mut dgate_up) = (a.unset(len)?, a.unset(2 * len)?);
    ops.swiglu(&mut out, &gate_up, d);
    ops.swiglu_grad(&mut dgate_up, &dout, &gate_up, d);
    Ok(vec![("out", a.read(&out, len)), ("dgate_up", a.read(&dgate_up, 2 * len))])
}
