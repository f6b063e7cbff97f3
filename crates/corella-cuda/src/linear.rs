//! Matrix products: by the library of the card's maker where it takes the shape, else by a kernel of our own.

use corella_ops::{Dtype, MatmulDims, Normed};

use crate::array::{Array, Buf};
use crate::backend::{Argument, Cuda, done};
use crate::beside::Beside;
use crate::driver::{Address, Finish, Launch, Operand, Product};
use crate::geometry;
use crate::layers::LOW_GRADIENT;
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
        self.left().forget();
        // SAFETY: the callers take the addresses from arrays whose lengths `corella_ops::shapes` has checked.
        if p.m == 0 || p.n == 0 || done(unsafe { self.driver().library_product(p) }) {
            return;
        }
        let out = Array::new(p.out, p.out_dtype);
        let (bias, addend) = match p.finish {
            Finish::Plain => (0, Array::NONE),
            Finish::Add => (0, out),
            Finish::Bias(bias) => (bias.f32, Array::NONE),
        };
        let [a, b, ld] = p.strides();
        let (a, b) = (Strided::new(p.a, p.dtype, a), Strided::new(p.b, p.dtype, b));
        let [m, n, k, ld] = [p.m, p.n, p.k, ld].map(|x| x as u64);
        let arguments: [&dyn Argument; 9] = [&out, &a, &b, &bias, &addend, &m, &n, &k, &ld];
        self.run("product", geometry::tiles(p.m, p.n), &arguments);
    }

    /// x·wᵀ to an address in a format.
    #[track_caller]
    fn forward(&self, to: (Address, Dtype), x: &Buf, w: &Param, finish: Finish, d: MatmulDims) {
        let (out, out_dtype) = to;
        let x = self.cast(x, d.n * d.c, w.dtype(), "input of a product");
        self.product(&Product {
            m: d.n,
            n: d.oc,
            k: d.c,
            dtype: w.dtype(),
            out_dtype,
            out,
            out_stride: d.oc,
            a: rows(x),
            b: rows(w.operand()),
            finish,
            measured: true,
        });
    }

    /// out = x·wᵀ + b.
    #[track_caller]
    pub(crate) fn linear(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, d: MatmulDims) {
        let finish = b.map_or(Finish::Plain, |b| Finish::Bias(b.bias()));
        self.forward((out.memory.at, out.dtype), x, w, finish, d);
    }

    /// pre = x·wᵀ + b, out = gelu(pre). Bias and GELU follow in a kernel of our own, which costs less than the library takes for
    /// both in its own.
    #[track_caller]
    pub(crate) fn linear_gelu(&self, out: &mut Buf, pre: &mut Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        self.forward((pre.memory.at, pre.dtype), x, w, Finish::Plain, d);
        let len = d.n * d.oc;
        let arguments: [&dyn Argument; 5] = [&out.array(), &pre.array(), &b.value(), &(d.oc as u64), &(len as u64)];
        self.run("bias_gelu", geometry::elements(len), &arguments);
    }

    /// out = residual + x·wᵀ + b.
    #[track_caller]
    pub(crate) fn linear_residual(&self, out: &mut Buf, residual: &Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        let (y, dtype) = self.projected(out, x, w, d);
        let len = d.n * d.oc;
        let (y, bias, c) = (Array::new(y, dtype), b.value(), d.oc as u64);
        let arguments: [&dyn Argument; 6] = [&out.array(), &residual.array(), &y, &bias, &c, &(len as u64)];
        self.run("bias_residual", geometry::elements(len), &arguments);
    }

    /// sum = residual + x·wᵀ + b, out = layernorm(sum): bias, addition and norm in one pass, for rows that `norm_packets` takes.
    #[track_caller]
    pub(crate) fn linear_residual_norm(
        &self,
        shape: Launch,
        sum: &mut Buf,
        out: Normed<'_, Buf>,
        residual: &Buf,
        x: &Buf,
        linear: (&Param, &Param),
        norm: (&Param, &Param),
        d: MatmulDims,
        eps: f32,
    ) {
        let (y, dtype) = self.projected(sum, x, linear.0, d);
        let y = Array::new(y, dtype);
        let (n, c) = (d.n as u64, d.oc as u64);
        let (to, mean, rstd, sum, residual) =
            (out.out.array(), out.mean.f32(), out.rstd.f32(), sum.array(), residual.array());
        let (b, w, bias) = (linear.1.value(), norm.0.value(), norm.1.value());
        let arguments: [&dyn Argument; 12] = [&to, &mean, &rstd, &sum, &residual, &y, &b, &w, &bias, &n, &c, &eps];
        self.run("norm_packets", shape, &arguments);
    }

    /// x·wᵀ in the format of the weights, as PyTorch's autocast has it: in `out` where that has it too.
    #[track_caller]
    fn projected(&self, out: &mut Buf, x: &Buf, w: &Param, d: MatmulDims) -> (Address, Dtype) {
        let (len, dtype) = (d.n * d.oc, w.dtype());
        let in_place = out.dtype == dtype;
        let y = if in_place { out.memory.at } else { self.scratch("result of a product", len * dtype.bytes()) };
        self.forward((y, dtype), x, w, Finish::Plain, d);
        (y, dtype)
    }

    /// dx = dout·w; dw += doutᵀ·x; db += Σ_n dout.
    #[track_caller]
    pub(crate) fn linear_grad(
        &self,
        dx: &mut Buf,
        w: &mut Param,
        b: Option<&mut Param>,
        dout: &Buf,
        x: &Buf,
        d: MatmulDims,
    ) {
        if d.n > 0 {
            let left = self.left().of(dout, d.n, d.oc);
            let low = self.input_grad(dx, w, dout, left, d);
            self.weight_grad(w, low, x, d);
            if let Some(b) = b {
                self.column_sums(b.grad_whole(), left.and_then(|left| left.sums), dout, d.n, d.oc);
            }
        }
    }

    /// The same behind act = gelu(pre), which is computed again on the way: dpre = dout·w·gelu'(pre).
    #[track_caller]
    pub(crate) fn linear_gelu_grad(
        &self,
        dpre: &mut Buf,
        act: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        pre: &Buf,
        d: MatmulDims,
    ) {
        if d.n > 0 {
            let left = self.left().of(dout, d.n, d.oc);
            let low = self.input_grad(dpre, w, dout, left, d);
            // First the bias: what was left of `dout` may be a GELU's sums, too, and those of `dpre` take their place.
            self.column_sums(b.grad_whole(), left.and_then(|left| left.sums), dout, d.n, d.oc);
            let beside = self.gelu_back(dpre, act, pre, d.n, d.c);
            self.weight_grad(w, low, act, d);
            self.left().leave(beside);
        }
    }

    /// dx = dout·w; returns dout in the format of the weights.
    #[track_caller]
    fn input_grad(&self, dx: &mut Buf, w: &Param, dout: &Buf, left: Option<Beside>, d: MatmulDims) -> Address {
        let image = left.and_then(|left| left.image).filter(|image| image.0 == w.dtype());
        let low = image.map_or_else(|| self.cast(dout, d.n * d.oc, w.dtype(), LOW_GRADIENT), |image| image.1);
        self.product(&Product {
            m: d.n,
            n: d.c,
            k: d.oc,
            dtype: w.dtype(),
            out_dtype: dx.dtype,
            out: dx.memory.at,
            out_stride: d.c,
            a: rows(low),
            b: columns(w.operand()),
            finish: Finish::Plain,
            measured: true,
        });
        low
    }

    /// dw += doutᵀ·x, from dout in the format of the weights.
    #[track_caller]
    fn weight_grad(&self, w: &mut Param, low: Address, x: &Buf, d: MatmulDims) {
        let dtype = w.dtype();
        let x = self.cast(x, d.n * d.c, dtype, "input of a product");
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
            measured: true,
        });
    }
}
