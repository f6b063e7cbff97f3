//! Norm, linear layer, GELU and classifier as their formulas.

use super::Param;
use crate::contract::{ClassifierDims, MatmulDims, NormDims};

/// See [`crate::OpsTrain::layernorm`].
pub fn layernorm(out: &mut [f64], mean: &mut [f64], rstd: &mut [f64], x: &[f64], w: &Param, b: &Param, d: NormDims) {
    for row in 0..d.n {
        let x = &x[row * d.c..][..d.c];
        let m = x.iter().sum::<f64>() / d.c as f64;
        let variance = x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / d.c as f64;
        let r = 1.0 / (variance + f64::from(d.eps)).sqrt();
        for i in 0..d.c {
            out[row * d.c + i] = (x[i] - m) * r * w.value[i] + b.value[i];
        }
        (mean[row], rstd[row]) = (m, r);
    }
}

/// See [`crate::OpsTrain::layernorm_grad`]. With n = (x − mean)·rstd and g = dout·w:
/// dx += rstd·(g − mean(g) − n·mean(g·n)),  dw += dout·n,  db += dout.
pub fn layernorm_grad(
    dx: &mut [f64],
    w: &mut Param,
    b: &mut Param,
    dout: &[f64],
    x: &[f64],
    mean: &[f64],
    rstd: &[f64],
    d: NormDims,
) {
    for row in 0..d.n {
        let at = row * d.c;
        let n: Vec<f64> = (0..d.c).map(|i| (x[at + i] - mean[row]) * rstd[row]).collect();
        let g: Vec<f64> = (0..d.c).map(|i| dout[at + i] * w.value[i]).collect();
        let mean_g = g.iter().sum::<f64>() / d.c as f64;
        let mean_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / d.c as f64;
        for i in 0..d.c {
            dx[at + i] += rstd[row] * (g[i] - mean_g - n[i] * mean_gn);
            w.grad[i] += dout[at + i] * n[i];
            b.grad[i] += dout[at + i];
        }
    }
}

/// See [`crate::OpsTrain::matmul_grad`].
pub fn matmul_grad(dx: &mut [f64], w: &mut Param, b: Option<&mut Param>, dout: &[f64], x: &[f64], d: MatmulDims) {
    for row in 0..d.n {
        for i in 0..d.c {
            dx[row * d.c + i] = (0..d.oc).map(|o| dout[row * d.oc + o] * w.value[o * d.c + i]).sum();
        }
    }
    for o in 0..d.oc {
        for i in 0..d.c {
            w.grad[o * d.c + i] += (0..d.n).map(|row| dout[row * d.oc + o] * x[row * d.c + i]).sum::<f64>();
        }
    }
    if let Some(b) = b {
        for o in 0..d.oc {
            b.grad[o] += (0..d.n).map(|row| dout[row * d.oc + o]).sum::<f64>();
        }
    }
}

/// √(2/π)(x + 0.044715x³).
pub fn gelu_inner(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// Derivative of ½x(1 + tanh u) with u = [`gelu_inner`].
pub fn gelu_slope(x: f64) -> f64 {
    let t = gelu_inner(x).tanh();
    let du = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du
}

/// Logits of one row, and the log of the sum of their exponentials.
pub fn logits(x: &[f64], wte: &Param, d: ClassifierDims) -> (Vec<f64>, f64) {
    let logits: Vec<f64> =
        (0..d.v).map(|v| x.iter().enumerate().map(|(i, x)| x * wte.value[v * d.c + i]).sum()).collect();
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
    (logits, lse)
}

/// See [`crate::OpsTrain::classifier_grad`].
pub fn classifier_grad(
    losses: &mut [f64],
    dx: &mut [f64],
    x: &[f64],
    wte: &mut Param,
    targets: &[u32],
    scale: f64,
    d: ClassifierDims,
) {
    for row in 0..d.n {
        let (logits, lse) = logits(&x[row * d.c..][..d.c], wte, d);
        let target = targets[row] as usize;
        losses[row] = lse - logits[target];
        dx[row * d.c..][..d.c].fill(0.0);
        for (v, logit) in logits.iter().enumerate() {
            let dlogit = scale * ((logit - lse).exp() - f64::from(u8::from(v == target)));
            for i in 0..d.c {
                dx[row * d.c + i] += dlogit * wte.value[v * d.c + i];
                wte.grad[v * d.c + i] += dlogit * x[row * d.c + i];
            }
        }
    }
}
