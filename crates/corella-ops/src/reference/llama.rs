//! What Llama has and GPT-2 has not: root-mean-square norm, rotary positions, SwiGLU.

use super::Param;
use crate::contract::{AttentionDims, GluDims, NormDims};

/// See [`crate::OpsTrain::rmsnorm`].
pub fn rmsnorm(out: &mut [f64], rstd: &mut [f64], x: &[f64], w: &Param, d: NormDims) {
    for row in 0..d.n {
        let x = &x[row * d.c..][..d.c];
        let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / d.c as f64 + f64::from(d.eps)).sqrt();
        for i in 0..d.c {
            out[row * d.c + i] = x[i] * r * w.value[i];
        }
        rstd[row] = r;
    }
}

/// See [`crate::OpsTrain::rmsnorm_grad`]. With n = x·rstd and g = dout·w:  dx += rstd·(g − n·mean(g·n)),  dw += dout·n.
pub fn rmsnorm_grad(dx: &mut [f64], w: &mut Param, dout: &[f64], x: &[f64], rstd: &[f64], d: NormDims) {
    for (row, rstd) in rstd.iter().enumerate().take(d.n) {
        let at = row * d.c;
        let n: Vec<f64> = (0..d.c).map(|i| x[at + i] * rstd).collect();
        let g: Vec<f64> = (0..d.c).map(|i| dout[at + i] * w.value[i]).collect();
        let mean_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / d.c as f64;
        for i in 0..d.c {
            dx[at + i] += rstd * (g[i] - n[i] * mean_gn);
            w.grad[i] += dout[at + i] * n[i];
        }
    }
}

/// See [`crate::OpsTrain::rope`]; `sign` −1 turns back.
pub fn rope(qkv: &mut [f64], table: &[f64], d: AttentionDims, sign: f64) {
    let half = d.hs / 2;
    for row in 0..d.b * d.t {
        let angles = &table[row % d.t * d.hs..][..d.hs];
        for head in 0..d.nh + d.nkv {
            let at = row * d.qkv() + head * d.hs;
            for i in 0..half {
                let (cos, sin) = (angles[i], sign * angles[half + i]);
                let (x, y) = (qkv[at + i], qkv[at + half + i]);
                qkv[at + i] = x * cos - y * sin;
                qkv[at + half + i] = y * cos + x * sin;
            }
        }
    }
}

/// See [`crate::OpsTrain::swiglu`].
pub fn swiglu(out: &mut [f64], gate_up: &[f64], d: GluDims) {
    for row in 0..d.n {
        for i in 0..d.f {
            let (gate, up) = (gate_up[row * 2 * d.f + i], gate_up[row * 2 * d.f + d.f + i]);
            out[row * d.f + i] = gate * sigmoid(gate) * up;
        }
    }
}

/// See [`crate::OpsTrain::swiglu_grad`]. silu' = σ·(1 + x·(1 − σ)).
pub fn swiglu_grad(dgate_up: &mut [f64], dout: &[f64], gate_up: &[f64], d: GluDims) {
    for row in 0..d.n {
        for i in 0..d.f {
            let at = row * 2 * d.f + i;
            let (gate, up, dout) = (gate_up[at], gate_up[at + d.f], dout[row * d.f + i]);
            let s = sigmoid(gate);
            dgate_up[at] = dout * up * s * (1.0 + gate * (1.0 - s));
            dgate_up[at + d.f] = dout * gate * s;
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
