//! The CPU backend in f32: the contract, operation by operation, on one pool of threads.

mod array;
mod attention;
mod batch;
mod classifier;
mod elementwise;
mod encoder;
mod gemm;
mod infer;
mod kernel;
mod math;
mod norm;
mod optimizer;
mod pack;
mod paged;
mod param;
mod path;
mod pool;
pub mod probe;
mod rmsnorm;
mod rope;
mod rows;
mod scratch;
mod shared;
mod swiglu;
mod vectorized;
mod weight;

pub use array::Array;
pub use attention::Kv;
pub use batch::Batch;
pub use paged::KvPages;
pub use param::Param;
pub use path::{PATH_VARIABLE, Path};
pub use weight::Weight;

use crate::contract::{
    AdamW, AttentionDims, ClassifierDims, EmbeddingDims, EncoderDims, GluDims, MatmulDims, NormDims, OpsError,
    OpsTrain, ParamPart,
};
use gemm::{Right, Size, Store, Workers, gemm};
use pack::{Operand, Packed};
use param::{Values, Weight as ParamWeight};
use pool::Pool;
use rows::{by_columns, by_rows};
use shared::SharedMut;

/// How to set up the backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads; as many as the process may use if `None`.
    pub threads: Option<usize>,
    /// Kernel path; the one forced by [`PATH_VARIABLE`] or else the fastest if `None`.
    pub path: Option<Path>,
}

/// The CPU backend.
pub struct Cpu {
    pool: Pool,
    path: Path,
}

impl Cpu {
    /// Starts the threads and picks the kernels.
    pub fn new(options: CpuOptions) -> Result<Cpu, OpsError> {
        let path = match options.path {
            Some(path) => path,
            None => Path::detect()?,
        };
        let threads =
            options.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        Ok(Cpu { pool: Pool::new(threads), path })
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn product(&self, size: Size, a: Operand<'_>, b: Right<'_>, c: &mut [f32], store: Store, bias: Option<&[f32]>) {
        gemm(Workers::Pool(&self.pool), self.path, size, a, b, c, store, bias);
    }
}

/// `len` zeros, or an error instead of an abort where memory is short.
fn zeros(len: usize, what: &str) -> Result<Array, OpsError> {
    Array::zeros(len).map_err(|_| OpsError::OutOfMemory { device: "cpu", bytes: len as u64 * 4, what: what.to_owned() })
}

impl OpsTrain for Cpu {
    type Buf = Array;
    type Ids = Vec<u32>;
    type Param = Param;

    fn name(&self) -> String {
        format!("cpu {} f32", self.path.name())
    }

    fn buf(&self, len: usize, what: &str) -> Result<Array, OpsError> {
        zeros(len, what)
    }

    fn ids(&self, len: usize) -> Result<Vec<u32>, OpsError> {
        Ok(vec![0; len])
    }

    fn param(&self, rows: usize, cols: usize, trained: bool, what: &str) -> Result<Param, OpsError> {
        let extra = if trained { rows * cols } else { 0 };
        let value = if trained || rows == 1 {
            Values::Rows(zeros(rows * cols, what)?)
        } else {
            let space = zeros(rows.next_multiple_of(self.path.panel().0) * cols, what)?;
            Values::Packed(Packed::zeros(self.path, (rows, cols), space))
        };
        Ok(Param { value, grad: zeros(extra, what)?, m: zeros(extra, what)?, v: zeros(extra, what)? })
    }

    fn write(&self, buf: &mut Array, values: &[f32]) {
        buf[..values.len()].copy_from_slice(values);
    }

    fn read(&self, buf: &Array, out: &mut [f32]) {
        out.copy_from_slice(&buf[..out.len()]);
    }

    fn sum(&self, buf: &Array, len: usize) -> f64 {
        buf[..len].iter().map(|x| f64::from(*x)).sum()
    }

    fn write_ids(&self, ids: &mut Vec<u32>, values: &[u32]) {
        ids[..values.len()].copy_from_slice(values);
    }

    fn param_write(&self, p: &mut Param, part: ParamPart, values: &[f32]) {
        p.write(Workers::Pool(&self.pool), self.path, part, values);
    }

    fn param_read(&self, p: &Param, part: ParamPart, out: &mut [f32]) {
        p.read(part, out);
    }

    fn zero_grad(&self, p: &mut Param) {
        p.grad.fill(0.0);
    }

    fn encoder(&self, out: &mut Array, ids: &Vec<u32>, wte: &Param, wpe: &Param, d: EncoderDims) {
        encoder::forward(&self.pool, &mut out[..d.b * d.t * d.c], ids, wte.weight(), wpe.weight(), d);
    }

    fn encoder_grad(&self, wte: &mut Param, wpe: &mut Param, dout: &Array, ids: &Vec<u32>, d: EncoderDims) {
        encoder::backward(&self.pool, &mut wte.grad, &mut wpe.grad, dout, ids, d);
    }

    fn embedding(&self, out: &mut Array, ids: &Vec<u32>, wte: &Param, d: EmbeddingDims) {
        encoder::tokens(&self.pool, &mut out[..d.n * d.c], ids, wte.weight(), d);
    }

    fn embedding_grad(&self, wte: &mut Param, dout: &Array, ids: &Vec<u32>, d: EmbeddingDims) {
        encoder::tokens_grad(&self.pool, &mut wte.grad, dout, ids, d);
    }

    fn layernorm(
        &self,
        out: &mut Array,
        mean: &mut Array,
        rstd: &mut Array,
        x: &Array,
        w: &Param,
        b: &Param,
        d: NormDims,
    ) {
        norm::forward(&self.pool, self.path, out, mean, rstd, x, w.rows(), b.rows(), d);
    }

    fn layernorm_grad(
        &self,
        dx: &mut Array,
        w: &mut Param,
        b: &mut Param,
        dout: &Array,
        x: &Array,
        mean: &Array,
        rstd: &Array,
        d: NormDims,
    ) {
        let Values::Rows(scale) = &w.value else { unreachable!("a vector") };
        norm::backward(&self.pool, self.path, dx, &mut w.grad, &mut b.grad, dout, x, scale, mean, rstd, d);
    }

    fn rmsnorm(&self, out: &mut Array, rstd: &mut Array, x: &Array, w: &Param, d: NormDims) {
        rmsnorm::forward(&self.pool, self.path, out, rstd, x, w.rows(), d);
    }

    fn rmsnorm_grad(&self, dx: &mut Array, w: &mut Param, dout: &Array, x: &Array, rstd: &Array, d: NormDims) {
        let Values::Rows(scale) = &w.value else { unreachable!("a vector") };
        rmsnorm::backward(&self.pool, self.path, dx, &mut w.grad, dout, x, scale, rstd, d);
    }

    fn rope(&self, qkv: &mut Array, table: &Array, d: AttentionDims) {
        rope::rope(&self.pool, self.path, qkv, table, d, rope::Turn::Forward);
    }

    fn rope_grad(&self, dqkv: &mut Array, table: &Array, d: AttentionDims) {
        rope::rope(&self.pool, self.path, dqkv, table, d, rope::Turn::Back);
    }

    fn matmul(&self, out: &mut Array, x: &Array, w: &Param, b: Option<&Param>, d: MatmulDims) {
        let size = Size { m: d.n, n: d.oc, k: d.c, ldc: d.oc };
        self.product(size, Operand::rows(x, d.c), w.weight().right(d.c), out, Store::Write, b.map(Param::rows));
    }

    fn matmul_grad(
        &self,
        dx: &mut Array,
        w: &mut Param,
        b: Option<&mut Param>,
        dout: &Array,
        x: &Array,
        d: MatmulDims,
    ) {
        let to_x = Size { m: d.n, n: d.c, k: d.oc, ldc: d.c };
        self.product(
            to_x,
            Operand::rows(dout, d.oc),
            Right::Fresh(Operand::columns(w.rows(), d.c)),
            dx,
            Store::Write,
            None,
        );
        let to_w = Size { m: d.oc, n: d.c, k: d.n, ldc: d.c };
        self.product(
            to_w,
            Operand::columns(dout, d.oc),
            Right::Fresh(Operand::columns(x, d.c)),
            &mut w.grad,
            Store::Add,
            None,
        );
        if let Some(b) = b {
            let db = SharedMut::new(&mut b.grad);
            by_columns(&self.pool, d.oc, |first, columns| {
                // SAFETY: the columns of this block, which no other block touches.
                let db = unsafe { db.part(first, columns) };
                elementwise::add_rows(self.path, db, &dout[..d.n * d.oc], d.oc, first);
            });
        }
    }

    fn attention(&self, out: &mut Array, lse: &mut Array, qkv: &Array, d: AttentionDims) {
        attention::forward(&self.pool, self.path, out, lse, qkv, d);
    }

    fn attention_grad(&self, dqkv: &mut Array, dout: &Array, out: &Array, qkv: &Array, lse: &Array, d: AttentionDims) {
        attention::backward(&self.pool, self.path, dqkv, dout, out, qkv, lse, d);
    }

    fn gelu(&self, out: &mut Array, x: &Array, len: usize) {
        by_rows(&self.pool, &mut out[..len], len, 1, |first, n, out| {
            elementwise::gelu(self.path, out, &x[first..first + n]);
        });
    }

    fn gelu_grad(&self, dx: &mut Array, x: &Array, len: usize) {
        by_rows(&self.pool, &mut dx[..len], len, 1, |first, n, dx| {
            elementwise::gelu_grad(self.path, dx, &x[first..first + n]);
        });
    }

    fn swiglu(&self, out: &mut Array, gate_up: &Array, d: GluDims) {
        swiglu::forward(&self.pool, self.path, out, gate_up, d);
    }

    fn swiglu_grad(&self, dgate_up: &mut Array, dout: &Array, gate_up: &Array, d: GluDims) {
        swiglu::backward(&self.pool, self.path, dgate_up, dout, gate_up, d);
    }

    fn residual(&self, out: &mut Array, a: &Array, b: &Array, len: usize) {
        by_rows(&self.pool, &mut out[..len], len, 1, |first, n, out| {
            elementwise::add(self.path, out, &a[first..first + n], &b[first..first + n]);
        });
    }

    fn classifier(&self, losses: &mut Array, x: &Array, wte: &Param, targets: &Vec<u32>, d: ClassifierDims) {
        classifier::classifier(&self.pool, self.path, losses, x, wte.weight(), targets, None, d);
    }

    fn classifier_grad(
        &self,
        losses: &mut Array,
        dx: &mut Array,
        x: &Array,
        wte: &mut Param,
        targets: &Vec<u32>,
        scale: f32,
        d: ClassifierDims,
    ) {
        let Param { value: Values::Rows(rows), grad, .. } = wte else { panic!("a gradient of what is not trained") };
        let grads = classifier::Grads { dx, dwte: grad, scale };
        classifier::classifier(&self.pool, self.path, losses, x, ParamWeight::Rows(rows), targets, Some(grads), d);
    }

    fn grad_square_sum(&self, p: &Param) -> f64 {
        optimizer::square_sum(&self.pool, self.path, &p.grad)
    }

    fn adamw(&self, p: &mut Param, hyper: AdamW) {
        let Param { value: Values::Rows(value), grad, m, v } = p else { panic!("an update of what is not trained") };
        optimizer::adamw(&self.pool, self.path, value, grad, m, v, hyper);
    }
}
