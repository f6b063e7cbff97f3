//! The executable specification: every operation in f64, as plainly as it can be written.
//!
//! Slow on purpose. Nothing is blocked, fused or reordered: a reader compares each body with its formula in
//! [`crate::contract`], and every other backend is tested against it with the same [`crate::cases`]. Finite differences
//! test the reference itself.

mod attention;
mod infer;
mod layers;
mod llama;

use std::sync::Arc;

use crate::contract::{
    AdamW, AttentionDims, ClassifierDims, Dtype, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims, OpsError,
    OpsTrain, ParamPart,
};

/// The f64 backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// A trained tensor in f64.
#[derive(Clone, Debug, Default)]
pub struct Param {
    /// Values.
    pub value: Vec<f64>,
    /// Gradient.
    pub grad: Vec<f64>,
    /// AdamW's first moment.
    pub m: Vec<f64>,
    /// AdamW's second moment.
    pub v: Vec<f64>,
}

impl Param {
    fn part(&self, part: ParamPart) -> &Vec<f64> {
        match part {
            ParamPart::Value => &self.value,
            ParamPart::Grad => &self.grad,
            ParamPart::M => &self.m,
            ParamPart::V => &self.v,
        }
    }

    fn part_mut(&mut self, part: ParamPart) -> &mut Vec<f64> {
        match part {
            ParamPart::Value => &mut self.value,
            ParamPart::Grad => &mut self.grad,
            ParamPart::M => &mut self.m,
            ParamPart::V => &mut self.v,
        }
    }
}

fn put(to: &mut [f64], values: &[f32]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to = f64::from(*value);
    }
}

fn get(from: &[f64], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(from) {
        *out = *value as f32;
    }
}

impl OpsTrain for Reference {
    type Buf = Vec<f64>;
    type Ids = Vec<u32>;
    type Param = Param;
    type Sampler = Reference;

    fn sampler(self: &Arc<Self>) -> Arc<Reference> {
        self.clone()
    }

    fn name(&self) -> String {
        "reference f64".to_owned()
    }

    fn buf(&self, len: usize, _dtype: Dtype, _what: &str) -> Result<Vec<f64>, OpsError> {
        Ok(vec![0.0; len])
    }

    fn ids(&self, len: usize) -> Result<Vec<u32>, OpsError> {
        Ok(vec![0; len])
    }

    fn param(&self, rows: usize, cols: usize, trained: bool, _dtype: Dtype, _what: &str) -> Result<Param, OpsError> {
        let (all, extra) = (vec![0.0; rows * cols], vec![0.0; if trained { rows * cols } else { 0 }]);
        Ok(Param { value: all, grad: extra.clone(), m: extra.clone(), v: extra })
    }

    fn write(&self, buf: &mut Vec<f64>, values: &[f32]) {
        put(&mut buf[..values.len()], values);
    }

    fn read(&self, buf: &Vec<f64>, out: &mut [f32]) {
        get(&buf[..out.len()], out);
    }

    fn sum(&self, buf: &Vec<f64>, len: usize) -> f64 {
        buf[..len].iter().sum()
    }

    fn write_ids(&self, ids: &mut Vec<u32>, values: &[u32]) {
        ids[..values.len()].copy_from_slice(values);
    }

    fn param_write(&self, p: &mut Param, part: ParamPart, values: &[f32]) {
        let to = p.part_mut(part);
        assert_eq!(to.len(), values.len(), "length of a parameter");
        put(to, values);
    }

    fn param_read(&self, p: &Param, part: ParamPart, out: &mut [f32]) {
        let from = p.part(part);
        assert_eq!(from.len(), out.len(), "length of a parameter");
        get(from, out);
    }

    fn zero_grad(&self, p: &mut Param) {
        p.grad.fill(0.0);
    }

    fn encoder(&self, out: &mut Vec<f64>, ids: &Vec<u32>, wte: &Param, wpe: &Param, d: EncoderDims) {
        for row in 0..d.b * d.t {
            for i in 0..d.c {
                out[row * d.c + i] = wte.value[ids[row] as usize * d.c + i] + wpe.value[(d.pos0 + row % d.t) * d.c + i];
            }
        }
    }

    fn encoder_grad(&self, wte: &mut Param, wpe: &mut Param, dout: &Vec<f64>, ids: &Vec<u32>, d: EncoderDims) {
        for row in 0..d.b * d.t {
            for i in 0..d.c {
                wte.grad[ids[row] as usize * d.c + i] += dout[row * d.c + i];
                wpe.grad[(d.pos0 + row % d.t) * d.c + i] += dout[row * d.c + i];
            }
        }
    }

    fn embedding(&self, out: &mut Vec<f64>, ids: &Vec<u32>, wte: &Param, d: EmbeddingDims) {
        for row in 0..d.n {
            out[row * d.c..][..d.c].copy_from_slice(&wte.value[ids[row] as usize * d.c..][..d.c]);
        }
    }

    fn embedding_grad(&self, wte: &mut Param, dout: &Vec<f64>, ids: &Vec<u32>, d: EmbeddingDims) {
        for row in 0..d.n {
            for i in 0..d.c {
                wte.grad[ids[row] as usize * d.c + i] += dout[row * d.c + i];
            }
        }
    }

    fn layernorm(
        &self,
        out: &mut Vec<f64>,
        mean: &mut Vec<f64>,
        rstd: &mut Vec<f64>,
        x: &Vec<f64>,
        w: &Param,
        b: &Param,
        d: NormDims,
    ) {
        layers::layernorm(out, mean, rstd, x, w, b, d);
    }

    fn layernorm_grad(
        &self,
        dx: &mut Vec<f64>,
        w: &mut Param,
        b: &mut Param,
        dout: &Vec<f64>,
        x: &Vec<f64>,
        mean: &Vec<f64>,
        rstd: &Vec<f64>,
        d: NormDims,
    ) {
        layers::layernorm_grad(dx, w, b, dout, x, mean, rstd, d);
    }

    fn rmsnorm(&self, out: &mut Vec<f64>, rstd: &mut Vec<f64>, x: &Vec<f64>, w: &Param, d: NormDims) {
        llama::rmsnorm(out, rstd, x, w, d);
    }

    fn rmsnorm_grad(
        &self,
        dx: &mut Vec<f64>,
        w: &mut Param,
        dout: &Vec<f64>,
        x: &Vec<f64>,
        rstd: &Vec<f64>,
        d: NormDims,
    ) {
        llama::rmsnorm_grad(dx, w, dout, x, rstd, d);
    }

    fn rope(&self, qkv: &mut Vec<f64>, table: &Vec<f64>, d: AttentionDims) {
        llama::rope(qkv, table, d, 1.0);
    }

    fn rope_grad(&self, dqkv: &mut Vec<f64>, table: &Vec<f64>, d: AttentionDims) {
        llama::rope(dqkv, table, d, -1.0);
    }

    fn matmul(&self, out: &mut Vec<f64>, x: &Vec<f64>, w: &Param, b: Option<&Param>, d: MatmulDims) {
        for row in 0..d.n {
            for o in 0..d.oc {
                let product: f64 = (0..d.c).map(|i| x[row * d.c + i] * w.value[o * d.c + i]).sum();
                out[row * d.oc + o] = product + b.map_or(0.0, |b| b.value[o]);
            }
        }
    }

    fn matmul_grad(
        &self,
        dx: &mut Vec<f64>,
        w: &mut Param,
        b: Option<&mut Param>,
        dout: &Vec<f64>,
        x: &Vec<f64>,
        d: MatmulDims,
    ) {
        layers::matmul_grad(dx, w, b, dout, x, d);
    }

    fn attention(&self, out: &mut Vec<f64>, lse: &mut Vec<f64>, qkv: &Vec<f64>, d: AttentionDims) {
        attention::forward(out, lse, qkv, d);
    }

    fn attention_grad(
        &self,
        dqkv: &mut Vec<f64>,
        dout: &Vec<f64>,
        _out: &Vec<f64>,
        qkv: &Vec<f64>,
        lse: &Vec<f64>,
        d: AttentionDims,
    ) {
        attention::backward(dqkv, dout, qkv, lse, d);
    }

    fn gelu(&self, out: &mut Vec<f64>, x: &Vec<f64>, len: usize) {
        for i in 0..len {
            out[i] = 0.5 * x[i] * (1.0 + layers::gelu_inner(x[i]).tanh());
        }
    }

    fn gelu_grad(&self, dx: &mut Vec<f64>, x: &Vec<f64>, len: usize) {
        for i in 0..len {
            dx[i] *= layers::gelu_slope(x[i]);
        }
    }

    fn swiglu(&self, out: &mut Vec<f64>, gate_up: &Vec<f64>, d: GluDims) {
        llama::swiglu(out, gate_up, d);
    }

    fn swiglu_grad(&self, dgate_up: &mut Vec<f64>, dout: &Vec<f64>, gate_up: &Vec<f64>, d: GluDims) {
        llama::swiglu_grad(dgate_up, dout, gate_up, d);
    }

    fn accumulate(&self, out: &mut Vec<f64>, x: &Vec<f64>, len: usize) {
        for i in 0..len {
            out[i] += x[i];
        }
    }

    fn residual(&self, out: &mut Vec<f64>, a: &Vec<f64>, b: &Vec<f64>, len: usize) {
        for i in 0..len {
            out[i] = a[i] + b[i];
        }
    }

    fn classifier(&self, losses: &mut Vec<f64>, x: &Vec<f64>, wte: &Param, targets: &Vec<u32>, d: ClassifierDims) {
        for row in 0..d.n {
            let (logits, lse) = layers::logits(&x[row * d.c..][..d.c], wte, d);
            losses[row] = lse - logits[targets[row] as usize];
        }
    }

    fn classifier_grad(
        &self,
        losses: &mut Vec<f64>,
        dx: &mut Vec<f64>,
        x: &Vec<f64>,
        wte: &mut Param,
        targets: &Vec<u32>,
        scale: f32,
        d: ClassifierDims,
    ) {
        layers::classifier_grad(losses, dx, x, wte, targets, f64::from(scale), d);
    }

    fn grad_square_sum(&self, p: &Param) -> f64 {
        p.grad.iter().map(|g| g * g).sum()
    }

    fn adamw(&self, p: &mut Param, h: AdamW) {
        let [lr, beta1, beta2, eps, decay, scale] =
            [h.lr, h.beta1, h.beta2, h.eps, h.weight_decay, h.grad_scale].map(f64::from);
        let steps = i32::try_from(h.step).unwrap_or(i32::MAX);
        for i in 0..p.value.len() {
            let g = scale * p.grad[i];
            p.m[i] = beta1 * p.m[i] + (1.0 - beta1) * g;
            p.v[i] = beta2 * p.v[i] + (1.0 - beta2) * g * g;
            let (m, v) = (p.m[i] / (1.0 - beta1.powi(steps)), p.v[i] / (1.0 - beta2.powi(steps)));
            p.value[i] -= lr * (m / (v.sqrt() + eps) + decay * p.value[i]);
        }
    }
}
