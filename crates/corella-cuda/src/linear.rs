//! Matrix products: by the library of the card's maker where it takes the shape, else by a kernel of our own.

use corella_ops::{Dtype, MatmulDims, OpsTrain};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda, done};
use crate::driver::{Address, Finish, Operand, Product};
use crate::geometry;
use crate::param::Param;

/// A matrix as a kernel takes it, `struct Operand` of kernels/product.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Strided {
    at: Array,
    row: u64,
    inner: u64,
}

impl Argument for Strided {}

impl Strided {
    fn new(operand: Operand, dtype: Dtype, stride: usize) -> Strided {
        let (row, inner) = if operand.transposed { (1, stride as u64) } else { (stride as u64, 1) };
        Strided { at: Array::new(operand.at, dtype), row, inner }
    }
}

/// A matrix in the order of its indices.
fn rows(at: Address) -> Operand {
    Operand { at, transposed: false }
}

/// A matrix whose inner index is the slow one in memory.
fn columns(at: Address) -> Operand {
    Operand { at, transposed: true }
}

impl Cuda {
    /// Computes a product.
    #[track_caller]
    pub(crate) fn product(&self, p: &Product) {
        // SAFETY: the callers take the addresses from arrays whose lengths `corella_ops::shapes` has checked.
        if p.m == 0 || p.n == 0 || done(unsafe { self.driver().library_product(p) }) {
            return;
        }
        let out = Array::new(p.out, p.out_dtype);
        let like_out = |at| Array::new(at, p.out_dtype);
        // Where GELU follows, the sums stay in the array that keeps them.
        let (to, bias, addend) = match p.finish {
            Finish::Plain | Finish::GeluSlope(_) => (out, 0, Array::NONE),
            Finish::Add => (out, 0, out),
            Finish::Bias(bias) => (out, bias.f32, Array::NONE),
            Finish::BiasResidual(bias, residual) => (out, bias.f32, like_out(residual)),
            Finish::BiasGelu(bias, pre) => (like_out(pre), bias.f32, Array::NONE),
        };
        let [a, b, ld] = p.strides();
        let (a, b) = (Strided::new(p.a, p.dtype, a), Strided::new(p.b, p.dtype, b));
        let [m, n, k, ld] = [p.m, p.n, p.k, ld].map(|x| x as u64);
        let arguments: [&dyn Argument; 9] = [&to, &a, &b, &bias, &addend, &m, &n, &k, &ld];
        self.run("product", geometry::tiles(p.m, p.n), &arguments);
        let (len, all) = (m * n, geometry::elements(p.m * p.n));
        match p.finish {
            Finish::BiasGelu(_, pre) => self.run("gelu", all, &[&out, &like_out(pre), &len]),
            Finish::GeluSlope(pre) => self.run("gelu_grad", all, &[&out, &like_out(pre), &len]),
            _ => {}
        }
    }

    /// x·wᵀ into `out`.
    #[track_caller]
    fn forward(&self, out: &Buf, x: &Buf, w: &Param, finish: Finish, d: MatmulDims) {
        let x = self.cast(x, d.n * d.c, w.dtype(), "input of a product");
        self.product(&Product {
            m: d.n,
            n: d.oc,
            k: d.c,
            dtype: w.dtype(),
            out_dtype: out.dtype,
            out: out.memory.at,
            out_stride: d.oc,
            a: rows(x),
            b: rows(w.operand()),
            finish,
        });
    }

    /// out = x·wᵀ + b.
    #[track_caller]
    pub(crate) fn linear(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, d: MatmulDims) {
        let finish = b.map_or(Finish::Plain, |b| Finish::Bias(b.bias()));
        self.forward(out, x, w, finish, d);
    }

    /// pre = x·wᵀ + b, out = gelu(pre).
    #[track_caller]
    pub(crate) fn linear_gelu(&self, out: &mut Buf, pre: &mut Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        if out.dtype == pre.dtype {
            let pre = pre.memory.at;
            self.forward(out, x, w, Finish::BiasGelu(b.bias(), pre), d);
        } else {
            self.linear(pre, x, w, Some(b), d);
            self.gelu(out, pre, d.n * d.oc);
        }
    }

    /// out = residual + x·wᵀ + b.
    #[track_caller]
    pub(crate) fn linear_residual(&self, out: &mut Buf, residual: &Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        if out.dtype == residual.dtype {
            let residual = residual.memory.at;
            self.forward(out, x, w, Finish::BiasResidual(b.bias(), residual), d);
        } else {
            self.linear(out, x, w, Some(b), d);
            self.add_to(out, residual, d.n * d.oc);
        }
    }

    /// dx = dout·w, times the slope of GELU at `pre` where that is given; dw += doutᵀ·x; db += Σ_n dout.
    #[track_caller]
    pub(crate) fn linear_grad(
        &self,
        dx: &mut Buf,
        pre: Option<&Buf>,
        w: &mut Param,
        b: Option<&mut Param>,
        dout: &Buf,
        x: &Buf,
        d: MatmulDims,
    ) {
        if d.n == 0 {
            return;
        }
        let dtype = w.dtype();
        let low = self.cast(dout, d.n * d.oc, dtype, "gradient of a product");
        let x = self.cast(x, d.n * d.c, dtype, "input of a product");
        let fused = pre.filter(|pre| pre.dtype == dx.dtype).map(|pre| pre.memory.at);
        self.product(&Product {
            m: d.n,
            n: d.c,
            k: d.oc,
            dtype,
            out_dtype: dx.dtype,
            out: dx.memory.at,
            out_stride: d.c,
            a: rows(low),
            b: columns(w.operand()),
            finish: fused.map_or(Finish::Plain, Finish::GeluSlope),
        });
        if let (Some(pre), None) = (pre, fused) {
            self.gelu_grad(dx, pre, d.n * d.c);
        }
        let grad = w.grad_whole();
        self.product(&Product {
            m: d.oc,
            n: d.c,
            k: d.n,
            dtype,
            out_dtype: Dtype::F32,
            out: grad.at,
            out_stride: d.c,
            a: columns(low),
            b: columns(x),
            finish: if grad.adds { Finish::Add } else { Finish::Plain },
        });
        if let Some(b) = b {
            self.column_sums(b.grad_whole(), dout, d.n, d.oc);
        }
    }
}
