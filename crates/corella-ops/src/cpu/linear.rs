//! Linear layers: products of activations and weights, in the format of the weights.

use std::ops::Deref;

use super::Cpu;
use super::array::Element;
use super::bf16::{Bf16, Number, convert};
use super::buf::{Buf, numbers};
#[cfg(target_arch = "x86_64")]
use super::dot::{self, Finish, PackedRight, Then};
use super::elementwise;
use super::gemm::{Right, Size, Store, Workers, gemm};
use super::pack::Operand;
use super::param::{Param, Values};
use super::rows::{by_columns, by_rows};
use super::scratch::Scratch;
use super::shared::SharedMut;
use crate::contract::MatmulDims;

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

    /// Computes `len` numbers in f32, which are then rounded to the format of `out`.
    pub(super) fn through_f32(&self, out: &mut Buf, len: usize, compute: impl FnOnce(&mut [f32])) {
        match out {
            Buf::F32(out) => compute(&mut out[..len]),
            Buf::Bf16(out) => {
                let mut wide = Scratch::new(len);
                compute(&mut wide);
                self.convert_into(&mut out[..len], &wide);
            }
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
        #[cfg(target_arch = "x86_64")]
        if self.path.has_dot()
            && let (Some(a), Right::Fresh(b)) = (T::bf16_operand(a), b)
            && let Some(b) = T::bf16_operand(b)
        {
            let b = PackedRight::new(workers, b, size.n, size.k);
            let to = Finish { out: SharedMut::new(out), ldc: size.ldc, store, bias, then: Then::Nothing };
            return dot::product(workers, self.path, size, a, &b, &to);
        }
        if let Some(out) = O::f32_slice(out) {
            return gemm(workers, self.path, size, a, b, out, store, bias);
        }
        let mut sums = Scratch::new(size.m * size.n);
        gemm(workers, self.path, size, a, b, &mut sums, Store::Write, bias);
        self.convert_into(&mut out[..size.m * size.n], &sums);
    }

    /// See [`crate::OpsTrain::matmul`].
    pub(super) fn train_linear(&self, out: &mut Buf, x: &Buf, w: &Param, b: Option<&Param>, d: MatmulDims) {
        let size = Size { m: d.n, n: d.oc, k: d.c, ldc: d.oc };
        let bias = b.map(Param::rows);
        match &w.low {
            Some(low) => {
                let x = self.lend_bf16(x, d.n * d.c);
                let (a, b) = (Operand::rows(&x, d.c), Right::Fresh(Operand::rows(low, d.c)));
                numbers!([out = out] self.product(size, a, b, out, Store::Write, bias));
            }
            None => {
                let x = self.lend_f32(x, d.n * d.c);
                let (a, b) = (Operand::rows(&x, d.c), w.weight().right(d.c));
                numbers!([out = out] self.product(size, a, b, out, Store::Write, bias));
            }
        }
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
            self.bias_grad(&mut b.grad, dout, d);
        }
        match &w.low {
            Some(low) => {
                let (dout, x) = (self.lend_bf16(dout, d.n * d.oc), self.lend_bf16(x, d.n * d.c));
                self.both_grads(dx, &mut w.grad, &dout, &x, low, d);
            }
            None => {
                let (dout, x) = (self.lend_f32(dout, d.n * d.oc), self.lend_f32(x, d.n * d.c));
                let Values::Rows(rows) = &w.value else { panic!("a gradient of what is not trained") };
                self.both_grads(dx, &mut w.grad, &dout, &x, rows, d);
            }
        }
    }

    /// dx = dout·w, dw += doutᵀ·x.
    fn both_grads<T: Number>(&self, dx: &mut Buf, dw: &mut [f32], dout: &[T], x: &[T], w: &[T], d: MatmulDims) {
        let to_x = Size { m: d.n, n: d.c, k: d.oc, ldc: d.c };
        let (a, b) = (Operand::rows(dout, d.oc), Right::Fresh(Operand::columns(w, d.c)));
        numbers!([dx = dx] self.product(to_x, a, b, dx, Store::Write, None));
        let to_w = Size { m: d.oc, n: d.c, k: d.n, ldc: d.c };
        let (a, b) = (Operand::columns(dout, d.oc), Right::Fresh(Operand::columns(x, d.c)));
        self.product(to_w, a, b, dw, Store::Add, None);
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
