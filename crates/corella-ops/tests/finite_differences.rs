//! The reference's gradients against central differences of its own forward pass, in f64.

use corella_ops::cases::Random;
use corella_ops::reference::{Param, Reference};
use corella_ops::{
    AttentionDims, ClassifierDims, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims, OpsTrain, rope_table,
};

const H: f64 = 1e-5;

fn numbers(random: &mut Random, len: usize) -> Vec<f64> {
    (0..len).map(|_| f64::from(random.normal())).collect()
}

fn param(value: &[f64]) -> Param {
    let zeros = vec![0.0; value.len()];
    Param { value: value.to_vec(), grad: zeros.clone(), m: zeros.clone(), v: zeros }
}

/// Compares `grad` with the slope of `loss` along every element of `at`.
fn check(what: &str, loss: impl Fn(&[f64]) -> f64, at: &[f64], grad: &[f64]) {
    let mut x = at.to_vec();
    for i in 0..x.len() {
        x[i] = at[i] + H;
        let high = loss(&x);
        x[i] = at[i] - H;
        let slope = (high - loss(&x)) / (2.0 * H);
        x[i] = at[i];
        assert!((slope - grad[i]).abs() < 1e-7 * (1.0 + slope.abs()), "{what}[{i}]: {} but slope {slope}", grad[i]);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn encoder() {
    let r = &mut Random::new(1);
    let d = EncoderDims { b: 2, t: 3, c: 4, v: 5, pos0: 0 };
    let (wte, wpe, dout) = (numbers(r, 20), numbers(r, 12), numbers(r, 24));
    let ids = vec![0, 4, 4, 2, 0, 4];
    let loss = |wte: &[f64], wpe: &[f64]| {
        let mut out = vec![0.0; 24];
        Reference.encoder(&mut out, &ids, &param(wte), &param(wpe), d);
        dot(&out, &dout)
    };
    let (mut a, mut b) = (param(&wte), param(&wpe));
    Reference.encoder_grad(&mut a, &mut b, &dout, &ids, d);
    check("dwte", |x| loss(x, &wpe), &wte, &a.grad);
    check("dwpe", |x| loss(&wte, x), &wpe, &b.grad);
}

#[test]
fn layernorm() {
    let r = &mut Random::new(2);
    let d = NormDims { n: 3, c: 6, eps: 1e-5 };
    let (x, w, b, dout) = (numbers(r, 18), numbers(r, 6), numbers(r, 6), numbers(r, 18));
    let run = |x: &[f64], w: &[f64], b: &[f64]| {
        let (mut out, mut mean, mut rstd) = (vec![0.0; 18], vec![0.0; 3], vec![0.0; 3]);
        Reference.layernorm(&mut out, &mut mean, &mut rstd, &x.to_vec(), &param(w), &param(b), d);
        (dot(&out, &dout), mean, rstd)
    };
    let (_, mean, rstd) = run(&x, &w, &b);
    let (mut dx, mut pw, mut pb) = (vec![0.0; 18], param(&w), param(&b));
    Reference.layernorm_grad(&mut dx, &mut pw, &mut pb, &dout, &x, &mean, &rstd, d);
    check("dx", |x| run(x, &w, &b).0, &x, &dx);
    check("dw", |w| run(&x, w, &b).0, &w, &pw.grad);
    check("db", |b| run(&x, &w, b).0, &b, &pb.grad);
}

#[test]
fn matmul() {
    let r = &mut Random::new(3);
    let d = MatmulDims { n: 3, c: 4, oc: 5 };
    let (x, w, b, dout) = (numbers(r, 12), numbers(r, 20), numbers(r, 5), numbers(r, 15));
    let loss = |x: &[f64], w: &[f64], b: &[f64]| {
        let mut out = vec![0.0; 15];
        Reference.matmul(&mut out, &x.to_vec(), &param(w), Some(&param(b)), d);
        dot(&out, &dout)
    };
    let (mut dx, mut pw, mut pb) = (vec![0.0; 12], param(&w), param(&b));
    Reference.matmul_grad(&mut dx, &mut pw, Some(&mut pb), &dout, &x, d);
    check("dx", |x| loss(x, &w, &b), &x, &dx);
    check("dw", |w| loss(&x, w, &b), &w, &pw.grad);
    check("db", |b| loss(&x, &w, b), &b, &pb.grad);
}

#[test]
fn attention() {
    let r = &mut Random::new(4);
    for (nh, nkv) in [(2, 2), (4, 2)] {
        let d = AttentionDims { b: 2, t: 4, nh, nkv, hs: 3 };
        let (qkv, dout) = (numbers(r, 8 * d.qkv()), numbers(r, 8 * d.c()));
        let run = |qkv: &[f64]| {
            let (mut out, mut lse) = (vec![0.0; 8 * d.c()], vec![0.0; 8 * nh]);
            Reference.attention(&mut out, &mut lse, &qkv.to_vec(), d);
            (out, lse)
        };
        let (out, lse) = run(&qkv);
        let mut dqkv = vec![0.0; qkv.len()];
        Reference.attention_grad(&mut dqkv, &dout, &out, &qkv, &lse, d);
        check("dqkv", |qkv| dot(&run(qkv).0, &dout), &qkv, &dqkv);
    }
}

#[test]
fn embedding() {
    let r = &mut Random::new(7);
    let d = EmbeddingDims { n: 6, c: 4 };
    let (wte, dout, ids) = (numbers(r, 20), numbers(r, 24), vec![0, 4, 4, 2, 0, 4]);
    let loss = |wte: &[f64]| {
        let mut out = vec![0.0; 24];
        Reference.embedding(&mut out, &ids, &param(wte), d);
        dot(&out, &dout)
    };
    let mut a = param(&wte);
    Reference.embedding_grad(&mut a, &dout, &ids, d);
    check("dwte", loss, &wte, &a.grad);
}

#[test]
fn rmsnorm() {
    let r = &mut Random::new(8);
    let d = NormDims { n: 3, c: 6, eps: 1e-5 };
    let (x, w, dout) = (numbers(r, 18), numbers(r, 6), numbers(r, 18));
    let run = |x: &[f64], w: &[f64]| {
        let (mut out, mut rstd) = (vec![0.0; 18], vec![0.0; 3]);
        Reference.rmsnorm(&mut out, &mut rstd, &x.to_vec(), &param(w), d);
        (dot(&out, &dout), rstd)
    };
    let (_, rstd) = run(&x, &w);
    let (mut dx, mut pw) = (vec![0.0; 18], param(&w));
    Reference.rmsnorm_grad(&mut dx, &mut pw, &dout, &x, &rstd, d);
    check("dx", |x| run(x, &w).0, &x, &dx);
    check("dw", |w| run(&x, w).0, &w, &pw.grad);
}

#[test]
fn rope() {
    let r = &mut Random::new(9);
    let d = AttentionDims { b: 2, t: 3, nh: 2, nkv: 1, hs: 4 };
    let table: Vec<f64> = rope_table(&[1.0, 0.3], d.t).iter().map(|x| f64::from(*x)).collect();
    let (qkv, dout) = (numbers(r, 6 * d.qkv()), numbers(r, 6 * d.qkv()));
    let loss = |qkv: &[f64]| {
        let mut turned = qkv.to_vec();
        Reference.rope(&mut turned, &table, d);
        dot(&turned, &dout)
    };
    let mut dqkv = dout.clone();
    Reference.rope_grad(&mut dqkv, &table, d);
    check("dqkv", loss, &qkv, &dqkv);
}

#[test]
fn swiglu() {
    let r = &mut Random::new(10);
    let d = GluDims { n: 3, f: 5 };
    let (gate_up, dout) = (numbers(r, 30), numbers(r, 15));
    let loss = |gate_up: &[f64]| {
        let mut out = vec![0.0; 15];
        Reference.swiglu(&mut out, &gate_up.to_vec(), d);
        dot(&out, &dout)
    };
    let mut grad = vec![0.0; 30];
    Reference.swiglu_grad(&mut grad, &dout, &gate_up, d);
    check("dgate_up", loss, &gate_up, &grad);
}

#[test]
fn gelu() {
    let r = &mut Random::new(5);
    let (x, dout) = (numbers(r, 40), numbers(r, 40));
    let loss = |x: &[f64]| {
        let mut out = vec![0.0; 40];
        Reference.gelu(&mut out, &x.to_vec(), 40);
        dot(&out, &dout)
    };
    let mut dx = dout.clone();
    Reference.gelu_grad(&mut dx, &x, 40);
    check("dx", loss, &x, &dx);
}

#[test]
fn classifier() {
    let r = &mut Random::new(6);
    let d = ClassifierDims { n: 4, c: 3, v: 7 };
    let (x, wte) = (numbers(r, 12), numbers(r, 21));
    let targets = vec![0, 6, 3, 3];
    let loss = |x: &[f64], wte: &[f64]| {
        let mut losses = vec![0.0; 4];
        Reference.classifier(&mut losses, &x.to_vec(), &param(wte), &targets, d);
        0.5 * losses.iter().sum::<f64>()
    };
    let (mut losses, mut dx, mut pw) = (vec![0.0; 4], vec![0.0; 12], param(&wte));
    Reference.classifier_grad(&mut losses, &mut dx, &x, &mut pw, &targets, 0.5, d);
    check("dx", |x| loss(x, &wte), &x, &dx);
    check("dwte", |w| loss(&x, w), &wte, &pw.grad);
}
