//! Linear layers: products of activations and weights, in the format of the weights.

use std::ops::Deref;

use super::Cpu;
use super::array::Element;
use super::bf16::{Bf16, Number, convert};
use super::buf::{Buf, numbers};
#[cfg(target_arch = "x86_64")]
use super::dot::{self, Finish, PackedRight, Panels, Then, triple};
use super::elementwise;
use super::gemm::{Size, Source, Store, Workers, gemm};
use super::pack::Operand;
use super::param::{GradMut, Low, Param};
use super::right::Right;
use super::rows::{by_columns, by_rows};
use super::scratch::Scratch;
use super::shared::SharedMut;
use crate::contract::{MatmulDims, OpsTrain};

/// Numbers in the format that is wanted: where they are, or converted.
pub(super) enum Lent<'a, T: Element> {
    Kept(&'a [T]),
    Converted(Scratch<T>),
}

impl<T: Element> Deref for Lent<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Lent::Kept(slice) => slice,
            Lent::Converted(scratch) => scratch,
        }
    }
}

impl Cpu {
    fn converted<T: Number, F: Number>(&self, from: &[F]) -> Scratch<T> {
        let mut to = Scratch::new(from.len());
        self.convert_into(&mut to, from);
        to
    }

    /// to = from, in parallel.
    fn convert_into<T: Number, F: Number>(&self, to: &mut [T], from: &[F]) {
        by_rows(&self.pool, to, from.len(), 1, |first, n, to| convert(self.path, to, &from[first..first + n]));
    }

    /// The first `len` numbers of `buf` in f32.
    pub(super) fn lend_f32<'a>(&self, buf: &'a Buf, len: usize) -> Lent<'a, f32> {
        match buf {
            Buf::F32(array) => Lent::Kept(&array[..len]),
            Buf::Bf16(array) => Lent::Converted(self.converted(&array[..len])),
        }
    }

    /// The first `len` numbers of `buf` in bf16.
    pub(super) fn lend_bf16<'a>(&self, buf: &'a Buf, len: usize) -> Lent<'a, Bf16> {
        match buf {
            Buf::F32(array) => Lent::Converted(self.converted(&array[..len])),
            Buf::Bf16(array) => Lent::Kept(&array[..len]),
        }
    }

    /// out (=, += where `store` says so) a·bᵀ + bias, rounded to the format of `out`.
    pub(super) fn product<T: Number, O: Number>(
        &self,
        size: Size,
        a: Operand<'_, T>,
        b: Right<'_, T>,
        out: &mut [O],
        store: Store,
        bias: Option<&[f32]>,
    ) {
        let workers = Workers::Pool(&self.pool);
        let b = match b {
            #[cfg(target_arch = "x86_64")]
            Right::Panels(b, as_bf16) => {
                let to = Finish { store, bias, ..Finish::new(out, size.ldc) };
                return self.dot(size, as_bf16(a), b, &to);
            }
            Right::Source(b) => b,
        };
        #[cfg(target_arch = "x86_64")]
        if self.path.has_dot()
            && let Source::Fresh(b) = b
            && let (Some(a), Some(b)) = (T::bf16_operand(a), T::bf16_operand(b))
        {
            let to = Finish { store, bias, ..Finish::new(out, size.ldc) };
            let b = PackedRight::new(workers, b, size.n, size.k);
            return self.dot(size, a, b.panels(), &to);
        }
        if let Some(out) = O::f32_slice(out) {
            #[cfg(target_arch = "x86_64")]
            if let Source::Fresh(b) = b
                && self.path.has_triple_product()
                && size.k > 0
                && let (Some(a), Some(b)) = (T::f32_operand(a), T::f32_operand(b))
            {
                return triple::product(workers, size, a, b, out, store, bias);
            }
            return gemm(workers, self.path, size, a, b, out, store, bias);
        }
        let mut sums = Scratch::new(size.m * size.n);
        gemm(workers, self.path, size, a, b, &mut sums, Store::Write, bias);
        self.convert_into(&mut out[..size.m * size.n], &sums);
    }

    /// A product on a path with instructions for bf16.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn dot<O: Number>(&self, size: Size, a: Operand<'_, Bf16>, b: Panels<'_>, to: &Finish<'_, O>) {
        dot::product(Workers::Pool(&self.pool), self.path, size, a, b, to);
    }

    /// See [`crate::OpsTrain::matmul`].
    pub(super) fn train_linear(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, d: MatmulDims) {
        let size = forward(d);
        let bias = b.map(Param::rows);
        match &w.low {
            #[cfg(target_arch = "x86_64")]
            Some(Low::Panels(images)) => {
                let x = self.lend_bf16(x, d.n * d.c);
                let (a, b) = (Operand::rows(&x, d.c), Right::panels(images.forward()));
                numbers!([out = out] self.product(size, a, b, out, Store::Write, bias));
            }
            Some(Low::Rows(low)) => {
                let x = self.lend_bf16(x, d.n * d.c);
                let (a, b) = (Operand::rows(&x, d.c), Right::fresh(Operand::rows(low, d.c)));
                numbers!([out = out] self.product(size, a, b, out, Store::Write, bias));
            }
            None => {
                let x = self.lend_f32(x, d.n * d.c);
                let (a, b) = (Operand::rows(&x, d.c), w.weight().right(d.c));
                numbers!([out = out] self.product(size, a, b, out, Store::Write, bias));
            }
        }
    }

    /// See [`crate::OpsTrain::matmul_gelu`].
    pub(super) fn linear_gelu(&self, out: &mut Buf, pre: &mut Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        #[cfg(target_arch = "x86_64")]
        if let (Some(Low::Panels(images)), Buf::Bf16(out), Buf::Bf16(pre)) = (&w.low, &mut *out, &mut *pre) {
            let x = self.lend_bf16(x, d.n * d.c);
            let then = Then::Gelu { pre: SharedMut::new(pre) };
            let to = Finish { bias: Some(b.rows()), then, ..Finish::new(out, d.oc) };
            return self.dot(forward(d), Operand::rows(&x, d.c), images.forward(), &to);
        }
        self.matmul(pre, x, w, Some(b), d);
        self.gelu(out, pre, d.n * d.oc);
    }

    /// See [`crate::OpsTrain::matmul_residual`].
    pub(super) fn linear_residual(&self, out: &mut Buf, residual: &Buf, x: &Buf, w: &Param, b: &Param, d: MatmulDims) {
        #[cfg(target_arch = "x86_64")]
        if let (Some(Low::Panels(images)), Buf::F32(out), Buf::F32(residual)) = (&w.low, &mut *out, residual) {
            let x = self.lend_bf16(x, d.n * d.c);
            let to = Finish { bias: Some(b.rows()), then: Then::Residual(residual), ..Finish::new(out, d.oc) };
            return self.dot(forward(d), Operand::rows(&x, d.c), images.forward(), &to);
        }
        self.matmul(out, x, w, Some(b), d);
        self.accumulate(out, residual, d.n * d.oc);
    }

    /// See [`crate::OpsTrain::matmul_grad`].
    pub(super) fn train_linear_grad(
        &self,
        dx: &mut Buf,
        w: &mut Param,
        b: Option<&mut Param>,
        dout: &Buf,
        x: &Buf,
        d: MatmulDims,
    ) {
        if let Some(b) = b {
            self.bias_grad(b.grad(), dout, d);
        }
        let (values, dw) = w.parts();
        match values.low {
            #[cfg(target_arch = "x86_64")]
            Some(Low::Panels(images)) => {
                let (dout, x) = (self.lend_bf16(dout, d.n * d.oc), self.lend_bf16(x, d.n * d.c));
                let (a, b) = (Operand::rows(&dout, d.oc), Right::panels(images.backward()));
                numbers!([dx = dx] self.product(backward(d), a, b, dx, Store::Write, None));
                self.weight_grad(dw, &dout, &x, d);
            }
            Some(Low::Rows(low)) => {
                let (dout, x) = (self.lend_bf16(dout, d.n * d.oc), self.lend_bf16(x, d.n * d.c));
                self.input_grad(dx, &dout, low, d);
                self.weight_grad(dw, &dout, &x, d);
            }
            None => {
                let (dout, x) = (self.lend_f32(dout, d.n * d.oc), self.lend_f32(x, d.n * d.c));
                self.input_grad(dx, &dout, values.rows, d);
                self.weight_grad(dw, &dout, &x, d);
            }
        }
    }

    /// See [`crate::OpsTrain::gelu_matmul_grad`].
    pub(super) fn gelu_linear_grad(
        &self,
        dpre: &mut Buf,
        act: &mut Buf,
        w: &mut Param,
        b: &mut Param,
        dout: &Buf,
        pre: &Buf,
        d: MatmulDims,
    ) {
        #[cfg(target_arch = "x86_64")]
        if matches!(w.low, Some(Low::Panels(_)))
            && let (Buf::Bf16(dpre), Buf::Bf16(act), Buf::Bf16(pre)) = (&mut *dpre, &mut *act, pre)
        {
            self.bias_grad(b.grad(), dout, d);
            let (values, dw) = w.parts();
            let dout = self.lend_bf16(dout, d.n * d.oc);
            if let Some(Low::Panels(images)) = values.low {
                let then = Then::GeluGrad { pre, act: SharedMut::new(act) };
                let to = Finish { then, ..Finish::new(dpre, d.c) };
                self.dot(backward(d), Operand::rows(&dout, d.oc), images.backward(), &to);
            }
            return self.weight_grad(dw, &dout, &act[..d.n * d.c], d);
        }
        self.gelu(act, pre, d.n * d.c);
        self.matmul_grad(dpre, w, Some(b), dout, act, d);
        self.gelu_grad(dpre, pre, d.n * d.c);
    }

    /// dx = dout·w.
    fn input_grad<T: Number>(&self, dx: &mut Buf, dout: &[T], w: &[T], d: MatmulDims) {
        let (a, b) = (Operand::rows(dout, d.oc), Right::fresh(Operand::columns(w, d.c)));
        numbers!([dx = dx] self.product(backward(d), a, b, dx, Store::Write, None));
    }

    /// dw += doutᵀ·x.
    fn weight_grad<T: Number>(&self, mut dw: GradMut<'_>, dout: &[T], x: &[T], d: MatmulDims) {
        let size = Size { m: d.oc, n: d.c, k: d.n, ldc: d.c };
        let (a, b) = (Operand::columns(dout, d.oc), Right::fresh(Operand::columns(x, d.c)));
        let (dw, store) = dw.whole();
        self.product(size, a, b, dw, store, None);
    }

    /// db += Σ over rows of dout.
    fn bias_grad(&self, db: &mut [f32], dout: &Buf, d: MatmulDims) {
        let db = SharedMut::new(db);
        numbers!([dout = dout] by_columns(&self.pool, d.oc, |first, columns| {
            // SAFETY: the columns of this block, which no other block touches.
            let db = unsafe { db.part(first, columns) };
            elementwise::add_rows(self.path, db, &dout[..d.n * d.oc], d.oc, first);
        }));
    }
}

/// Sizes of out = x·wᵀ.
fn forward(d: MatmulDims) -> Size {
    Size { m: d.n, n: d.oc, k: d.c, ldc: d.oc }
}

/// Sizes of dx = dout·w.
fn backward(d: MatmulDims) -> Size {
    Size { m: d.n, n: d.c, k: d.oc, ldc: d.c }
}
