//! The CPU backend: the contract, operation by operation, on one pool of threads.

mod array;
mod attention;
mod bf16;
mod blocks;
mod buf;
mod classifier;
mod cross_entropy;
#[cfg(target_arch = "x86_64")]
mod dot;
pub mod draw;
mod elementwise;
mod encoder;
mod flash;
mod gemm;
mod infer;
mod kernel;
mod linear;
#[cfg(target_os = "linux")]
mod mapped;
mod math;
mod norm;
mod optimizer;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack512;
mod param;
mod path;
mod pool;
pub mod probe;
mod right;
mod rmsnorm;
mod rope;
mod rows;
mod scratch;
mod shared;
mod simd;
#[cfg(target_arch = "x86_64")]
mod stream512;
mod swiglu;
mod threads;
mod vectorized;
mod vendor;

pub use array::{Array, return_large_blocks};
pub use attention::Kv;
pub use bf16::Bf16;
pub use buf::Buf;
pub use infer::{Batch, KvPages, Weight};
pub use param::Param;
pub use path::{PATH_VARIABLE, Path};

use std::sync::Arc;

use crate::contract::{
    AdamW, AttentionDims, ClassifierDims, Dtype, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims, OpsError,
    OpsTrain, ParamPart,
};
use crate::shapes::{self, Length};
use array::{Element, NoMemory};
use buf::numbers;
use gemm::Workers;
use pack::Packed;
use param::{Low, Values};
use pool::Pool;
use rows::by_rows;

/// How to set up the backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads; one for each physical core that the process may use if `None`.
    pub threads: Option<usize>,
    /// Kernel path; the one forced by [`PATH_VARIABLE`] or else the fastest if `None`.
    pub path: Option<Path>,
    /// What products with weights in BF16 make of activations, on paths with instructions for BF16.
    pub rounding: Rounding,
}

/// What products with weights in BF16 make of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// They keep at least 16 of their 24 bits: results differ from those in f32 by a few roundings of f32.
    #[default]
    Exact,
    /// They are rounded to BF16, eight bits, as llama.cpp and `transformers` in BF16 do: half the work for prompts.
    Bf16,
}

/// The CPU backend.
pub struct Cpu {
    pool: Pool,
    path: Path,
    rounding: Rounding,
}

impl Cpu {
    /// Starts the threads and picks the kernels.
    pub fn new(options: CpuOptions) -> Result<Cpu, OpsError> {
        let path = match options.path {
            Some(path) => Path::found(path.name())?,
            None => Path::detect()?,
        };
        let rounding = if path.has_dot() { options.rounding } else { Rounding::Exact };
        Ok(Cpu { pool: Pool::new(options.threads.unwrap_or_else(threads::default)), path, rounding })
    }

    /// What products with weights in BF16 make of activations: what was asked for, if the processor has instructions for it.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// Whether products in bf16 have instructions of their own here that are faster than those in f32. Tiles are; dot products
    /// have twice the rate of multiply-adds on some processors and half of it on others, so they are measured: in turns, as a shared
    /// host's rates change from second to second, and by the best of each, which nobody disturbed.
    pub fn multiplies_bf16(&self) -> bool {
        /// Turns of a few milliseconds.
        const TURNS: usize = 9;
        match self.path {
            Path::Amx => true,
            Path::Avx512Bf16 => {
                let best = (0..TURNS).map(|_| [probe::bf16_now(self), probe::f32_now(self)]);
                let [bf16, f32] = best.fold([0.0f64; 2], |best, now| [best[0].max(now[0]), best[1].max(now[1])]);
                bf16 > f32
            }
            _ => false,
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

/// The error of an allocation.
fn no_memory(bytes: usize, what: &str) -> impl Fn(NoMemory) -> OpsError {
    move |_| OpsError::OutOfMemory { device: "cpu", bytes: bytes as u64, what: what.to_owned() }
}

/// `len` zeros, or an error instead of an abort where memory is short.
fn zeros<T: Element>(len: usize, what: &str) -> Result<Array<T>, OpsError> {
    Array::zeros(len).map_err(no_memory(len * size_of::<T>(), what))
}

impl OpsTrain for Cpu {
    type Buf = Buf;
    type Ids = Vec<u32>;
    type Param = Param;
    type Sampler = Cpu;

    fn sampler(self: &Arc<Self>) -> Arc<Cpu> {
        self.clone()
    }

    fn name(&self) -> String {
        let rounding = if self.rounding == Rounding::Bf16 { " with bf16 activations" } else { "" };
        format!("cpu {}{rounding}", self.path.name())
    }

    fn buf(&self, len: usize, dtype: Dtype, what: &str) -> Result<Buf, OpsError> {
        Buf::zeros(len, dtype).map_err(no_memory(len * dtype.bytes(), what))
    }

    fn ids(&self, len: usize) -> Result<Vec<u32>, OpsError> {
        Ok(vec![0; len])
    }

    fn param(&self, rows: usize, cols: usize, trained: bool, dtype: Dtype, what: &str) -> Result<Param, OpsError> {
        let extra = if trained { rows * cols } else { 0 };
        let value = if trained || rows == 1 {
            Values::Rows(zeros(rows * cols, what)?)
        } else {
            let space = zeros(rows.next_multiple_of(self.path.panel()) * cols, what)?;
            Values::Packed(Packed::zeros(self.path, (rows, cols), space))
        };
        let low = if dtype == Dtype::Bf16 && trained && rows > 1 && cols > 0 {
            let bytes = Low::bytes(self.path, rows, cols);
            Some(Low::zeros(self.path, rows, cols).map_err(no_memory(bytes, what))?)
        } else {
            None
        };
        Ok(Param::new(value, low, [zeros(extra, what)?, zeros(extra, what)?, zeros(extra, what)?]))
    }

    fn write(&self, buf: &mut Buf, values: &[f32]) {
        shapes::elements("write", &[buf], values.len());
        buf.write(self.path, values);
    }

    fn read(&self, buf: &Buf, out: &mut [f32]) {
        shapes::elements("read", &[buf], out.len());
        buf.read(self.path, out);
    }

    fn sum(&self, buf: &Buf, len: usize) -> f64 {
        buf.sum(len)
    }

    fn write_ids(&self, ids: &mut Vec<u32>, values: &[u32]) {
        ids[..values.len()].copy_from_slice(values);
    }

    fn param_write(&self, p: &mut Param, part: ParamPart, values: &[f32]) {
        shapes::param(p, values.len());
        p.write(Workers::Pool(&self.pool), self.path, part, values);
    }

    fn param_read(&self, p: &Param, part: ParamPart, out: &mut [f32]) {
        shapes::param(p, out.len());
        p.read(part, out);
    }

    fn zero_grad(&self, p: &mut Param) {
        p.zero_grad();
    }

    fn encoder(&self, out: &mut Buf, ids: &Vec<u32>, wte: &Param, wpe: &Param, d: EncoderDims) {
        shapes::encoder(out, ids, wte, wpe, d);
        let n = d.b * d.t * d.c;
        numbers!([out = out] encoder::forward(&self.pool, &mut out[..n], ids, wte.weight(), wpe.weight(), d));
    }

    fn encoder_grad(&self, wte: &mut Param, wpe: &mut Param, dout: &Buf, ids: &Vec<u32>, d: EncoderDims) {
        shapes::encoder(dout, ids, wte, wpe, d);
        numbers!([dout = dout] encoder::backward(&self.pool, wte.grad(), wpe.grad(), dout, ids, d));
    }

    fn embedding(&self, out: &mut Buf, ids: &Vec<u32>, wte: &Param, d: EmbeddingDims) {
        shapes::embedding(out, ids, d);
        numbers!([out = out] encoder::tokens(&self.pool, &mut out[..d.n * d.c], ids, wte.weight(), d));
    }

    fn embedding_grad(&self, wte: &mut Param, dout: &Buf, ids: &Vec<u32>, d: EmbeddingDims) {
        shapes::embedding(dout, ids, d);
        numbers!([dout = dout] encoder::tokens_grad(&self.pool, wte.grad(), dout, ids, d));
    }

    fn layernorm(&self, out: &mut Buf, mean: &mut Buf, rstd: &mut Buf, x: &Buf, w: &Param, b: &Param, d: NormDims) {
        shapes::norm("layernorm", &[out, x], &[mean, rstd], &[w, b], d);
        let (mean, rstd) = (mean.f32_mut(), rstd.f32_mut());
        numbers!([out = out, x = x] norm::forward(&self.pool, self.path, out, mean, rstd, x, w.rows(), b.rows(), d));
    }

    fn layernorm_grad(
        &self,
        dx: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        x: &Buf,
        mean: &Buf,
        rstd: &Buf,
        d: NormDims,
    ) {
        shapes::norm("layernorm", &[dx, dout, x], &[mean, rstd], &[w, b], d);
        let (values, dw) = w.parts();
        let (scale, dw, db) = (values.rows, dw.add(), b.grad());
        let (dx, mean, rstd) = (dx.f32_mut(), mean.f32(), rstd.f32());
        numbers!([dout = dout, x = x] {
            norm::backward(&self.pool, self.path, dx, dw, db, dout, x, scale, mean, rstd, d);
        });
    }

    fn rmsnorm(&self, out: &mut Buf, rstd: &mut Buf, x: &Buf, w: &Param, d: NormDims) {
        shapes::norm("rmsnorm", &[out, x], &[rstd], &[w], d);
        let rstd = rstd.f32_mut();
        numbers!([out = out, x = x] rmsnorm::forward(&self.pool, self.path, out, rstd, x, w.rows(), d));
    }

    fn rmsnorm_grad(&self, dx: &mut Buf, w: &mut Param, dout: &Buf, x: &Buf, rstd: &Buf, d: NormDims) {
        shapes::norm("rmsnorm", &[dx, dout, x], &[rstd], &[w], d);
        let (values, dw) = w.parts();
        let (scale, dw, dx, rstd) = (values.rows, dw.add(), dx.f32_mut(), rstd.f32());
        numbers!([dout = dout, x = x] rmsnorm::backward(&self.pool, self.path, dx, dw, dout, x, scale, rstd, d));
    }

    fn rope(&self, qkv: &mut Buf, table: &Buf, d: AttentionDims) {
        shapes::rope(qkv, table, d);
        let table = table.f32();
        numbers!([qkv = qkv] rope::rope(&self.pool, self.path, qkv, table, d, rope::Turn::Forward));
    }

    fn rope_grad(&self, dqkv: &mut Buf, table: &Buf, d: AttentionDims) {
        shapes::rope(dqkv, table, d);
        let table = table.f32();
        numbers!([dqkv = dqkv] rope::rope(&self.pool, self.path, dqkv, table, d, rope::Turn::Back));
    }

    fn matmul(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, d: MatmulDims) {
        shapes::matmul(&[x], &[out], w, b.map(|b| b as &dyn Length), d);
        self.train_linear(out, x, w, b, d);
    }

    fn matmul_grad(&self, dx: &mut Buf, w: &mut Param, b: Option<&mut Param>, dout: &Buf, x: &Buf, d: MatmulDims) {
        shapes::matmul(&[dx, x], &[dout], w, b.as_deref().map(|b| b as &dyn Length), d);
        self.train_linear_grad(dx, w, b, dout, x, d);
    }

    fn matmul_gelu(&self, out: &mut Buf, pre: &mut Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        shapes::matmul(&[x], &[out, pre], w, Some(b), d);
        self.linear_gelu(out, pre, x, w, b, d);
    }

    fn gelu_matmul_grad(
        &self,
        dpre: &mut Buf,
        act: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        pre: &Buf,
        d: MatmulDims,
    ) {
        shapes::matmul(&[dpre, act, pre], &[dout], w, Some(b), d);
        self.gelu_linear_grad(dpre, act, w, b, dout, pre, d);
    }

    fn matmul_residual(&self, out: &mut Buf, residual: &Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        shapes::matmul(&[x], &[out, residual], w, Some(b), d);
        self.linear_residual(out, residual, x, w, b, d);
    }

    fn accumulate(&self, out: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("accumulate", &[out, x], len);
        numbers!([out = out, x = x] by_rows(&self.pool, &mut out[..len], len, 1, |first, n, out| {
            elementwise::accumulate(self.path, out, &x[first..first + n]);
        }));
    }

    fn attention(&self, out: &mut Buf, lse: &mut Buf, qkv: &Buf, d: AttentionDims) {
        shapes::attention(&[qkv], &[out], lse, d);
        flash::forward(&self.pool, self.path, out, lse.f32_mut(), qkv, d);
    }

    fn attention_grad(&self, dqkv: &mut Buf, dout: &Buf, out: &Buf, qkv: &Buf, lse: &Buf, d: AttentionDims) {
        shapes::attention(&[dqkv, qkv], &[dout, out], lse, d);
        flash::backward(&self.pool, self.path, dqkv, dout, out, qkv, lse.f32(), d);
    }

    fn gelu(&self, out: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("gelu", &[out, x], len);
        numbers!([out = out, x = x] by_rows(&self.pool, &mut out[..len], len, 1, |first, n, out| {
            elementwise::gelu(self.path, out, &x[first..first + n]);
        }));
    }

    fn gelu_grad(&self, dx: &mut Buf, x: &Buf, len: usize) {
        shapes::elements("gelu", &[dx, x], len);
        numbers!([dx = dx, x = x] by_rows(&self.pool, &mut dx[..len], len, 1, |first, n, dx| {
            elementwise::gelu_grad(self.path, dx, &x[first..first + n]);
        }));
    }

    fn swiglu(&self, out: &mut Buf, gate_up: &Buf, d: GluDims) {
        shapes::swiglu(&[gate_up], out, d);
        numbers!([out = out, gate_up = gate_up] swiglu::forward(&self.pool, self.path, out, gate_up, d));
    }

    fn swiglu_grad(&self, dgate_up: &mut Buf, dout: &Buf, gate_up: &Buf, d: GluDims) {
        shapes::swiglu(&[dgate_up, gate_up], dout, d);
        numbers!([dgate_up = dgate_up, dout = dout, gate_up = gate_up] {
            swiglu::backward(&self.pool, self.path, dgate_up, dout, gate_up, d);
        });
    }

    fn residual(&self, out: &mut Buf, a: &Buf, b: &Buf, len: usize) {
        shapes::elements("residual", &[out, a, b], len);
        numbers!([out = out, a = a, b = b] by_rows(&self.pool, &mut out[..len], len, 1, |first, n, out| {
            elementwise::add(self.path, out, &a[first..first + n], &b[first..first + n]);
        }));
    }

    fn classifier(&self, losses: &mut Buf, x: &Buf, wte: &Param, targets: &Vec<u32>, d: ClassifierDims) {
        shapes::classifier(losses, &[x], wte, targets, d);
        self.losses(losses.f32_mut(), x, wte, targets, d);
    }

    fn classifier_grad(
        &self,
        losses: &mut Buf,
        dx: &mut Buf,
        x: &Buf,
        wte: &mut Param,
        targets: &Vec<u32>,
        scale: f32,
        d: ClassifierDims,
    ) {
        shapes::classifier(losses, &[x, dx], wte, targets, d);
        self.losses_grad(losses.f32_mut(), dx, x, wte, targets, scale, d);
    }

    fn grad_square_sum(&self, p: &Param) -> f64 {
        p.grad_read().map_or(0.0, |grad| optimizer::square_sum(&self.pool, self.path, grad))
    }

    fn adamw(&self, p: &mut Param, hyper: AdamW) {
        let (value, low, grad, m, v) = p.for_update();
        optimizer::adamw(&self.pool, self.path, value, low, grad, m, v, hyper);
    }
}
