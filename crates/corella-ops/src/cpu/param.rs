//! A tensor of parameters on the CPU: as rows where it is trained, packed for products where it is only read.

use super::array::{Array, NoMemory};
use super::bf16::{Bf16, convert};
#[cfg(target_arch = "x86_64")]
use super::dot::Images;
use super::gemm::{Source, Store, Workers};
use super::pack::{Operand, Packed};
use super::path::Path;
use super::right::Right;
use crate::contract::ParamPart;
use crate::shapes::Length;

/// A trained tensor: f32 values with, where trained, gradient and AdamW moments.
#[derive(Debug)]
pub struct Param {
    pub(super) value: Values,
    /// The values in bf16, where products read them so; as current as the values.
    pub(super) low: Option<Low>,
    grad: Array,
    /// Whether the gradient is zero, whatever its memory holds: what is written first then need not be cleared before.
    grad_is_zero: bool,
    pub(super) m: Array,
    pub(super) v: Array,
}

/// A trained matrix in bf16.
#[derive(Debug)]
pub(super) enum Low {
    /// Row-major, for paths that convert as they pack.
    Rows(Array<Bf16>),
    /// In the panels that products of both directions read.
    #[cfg(target_arch = "x86_64")]
    Panels(Images),
}

impl Low {
    /// Of zeros.
    pub fn zeros(path: Path, rows: usize, cols: usize) -> Result<Low, NoMemory> {
        #[cfg(target_arch = "x86_64")]
        if path.has_dot() {
            return Ok(Low::Panels(Images::zeros(rows, cols)?));
        }
        let _ = path;
        Ok(Low::Rows(Array::zeros(rows * cols)?))
    }

    /// Bytes of a matrix.
    pub fn bytes(path: Path, rows: usize, cols: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if path.has_dot() {
            return Images::bytes(rows, cols);
        }
        let _ = path;
        rows * cols * size_of::<Bf16>()
    }

    /// Replaces all values, rounding them.
    fn write(&mut self, workers: Workers<'_>, path: Path, values: &[f32]) {
        match self {
            Low::Rows(rows) => convert(path, rows, values),
            #[cfg(target_arch = "x86_64")]
            Low::Panels(images) => {
                let blocks = images.blocks();
                workers.run(blocks.count(), &|block| {
                    let (first, n) = blocks.elements(block);
                    // SAFETY: each block is one task's; images exist on paths with dot products only.
                    unsafe { blocks.write(path, block, &values[first..first + n]) };
                });
            }
        }
    }
}

/// The values of a trained tensor.
#[derive(Clone, Copy)]
pub(super) struct TrainedValues<'a> {
    /// In f32, row-major.
    pub rows: &'a [f32],
    /// In bf16, where products read them so.
    pub low: Option<&'a Low>,
}

/// A gradient that something is about to be added to.
pub(super) struct GradMut<'a> {
    grad: &'a mut [f32],
    is_zero: &'a mut bool,
}

impl<'a> GradMut<'a> {
    /// Its memory, cleared if it was zero.
    pub fn add(self) -> &'a mut [f32] {
        if std::mem::take(self.is_zero) {
            self.grad.fill(0.0);
        }
        self.grad
    }

    /// Its memory for a result that covers all of it, and whether that replaces or is added.
    pub fn whole(&mut self) -> (&mut [f32], Store) {
        self.front(self.grad.len())
    }

    /// Its memory for a result that covers the first `len` elements, and whether that replaces or is added.
    pub fn front(&mut self, len: usize) -> (&mut [f32], Store) {
        if std::mem::take(self.is_zero) {
            self.grad[len..].fill(0.0);
            return (self.grad, Store::Write);
        }
        (self.grad, Store::Add)
    }
}

/// The values.
#[derive(Debug)]
pub(super) enum Values {
    /// Row-major.
    Rows(Array),
    /// A matrix that is only read, in the panels that the micro-kernel streams.
    Packed(Packed),
}

/// A matrix as the B operand of a product.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// Row-major.
    Rows(&'a [f32]),
    /// In panels.
    Packed(&'a Packed),
}

impl<'a> Weight<'a> {
    /// Rows of width `c` as the outer index.
    pub fn right(self, c: usize) -> Right<'a> {
        match self {
            Weight::Rows(rows) => Right::fresh(Operand::rows(rows, c)),
            Weight::Packed(packed) => Right::Source(Source::Packed(packed)),
        }
    }

    /// Copies row `row` of width `out.len()`.
    pub fn row(self, row: usize, out: &mut [f32]) {
        match self {
            Weight::Rows(rows) => out.copy_from_slice(&rows[row * out.len()..][..out.len()]),
            Weight::Packed(packed) => packed.read(row, out),
        }
    }
}

/// What an update touches: values, the same in bf16, gradient, both moments.
pub(super) type Update<'a> = (&'a mut [f32], Option<&'a mut Low>, &'a [f32], &'a mut [f32], &'a mut [f32]);

impl Length for Param {
    fn length(&self) -> usize {
        match &self.value {
            Values::Rows(rows) => rows.len(),
            Values::Packed(packed) => packed.outer * packed.k,
        }
    }
}

impl Param {
    /// A tensor whose gradient and moments, if any, are zero.
    pub(super) fn new(value: Values, low: Option<Low>, [grad, m, v]: [Array; 3]) -> Param {
        Param { value, low, grad, grad_is_zero: true, m, v }
    }

    /// Forgets the gradient.
    pub(super) fn zero_grad(&mut self) {
        self.grad_is_zero = true;
    }

    /// The gradient, to add to.
    pub(super) fn grad(&mut self) -> &mut [f32] {
        self.parts().1.add()
    }

    /// The gradient, if it is not zero.
    pub(super) fn grad_read(&self) -> Option<&[f32]> {
        (!self.grad_is_zero).then_some(&*self.grad)
    }

    /// Values and gradient at once.
    pub(super) fn parts(&mut self) -> (TrainedValues<'_>, GradMut<'_>) {
        let Values::Rows(rows) = &self.value else { panic!("a gradient of what is not trained") };
        let values = TrainedValues { rows, low: self.low.as_ref() };
        (values, GradMut { grad: &mut self.grad, is_zero: &mut self.grad_is_zero })
    }

    /// Everything that an update reads and writes: values, the same in bf16, gradient, moments.
    pub(super) fn for_update(&mut self) -> Update<'_> {
        self.grad();
        let Values::Rows(rows) = &mut self.value else { panic!("an update of what is not trained") };
        (rows, self.low.as_mut(), &self.grad, &mut self.m, &mut self.v)
    }

    /// For products and lookups.
    pub(super) fn weight(&self) -> Weight<'_> {
        match &self.value {
            Values::Rows(rows) => Weight::Rows(rows),
            Values::Packed(packed) => Weight::Packed(packed),
        }
    }

    /// The values of a vector or of a trained tensor.
    pub(super) fn rows(&self) -> &[f32] {
        let Values::Rows(rows) = &self.value else { panic!("a matrix that is only read is used by products alone") };
        rows
    }

    /// Replaces a part.
    pub(super) fn write(&mut self, workers: Workers<'_>, path: Path, part: ParamPart, values: &[f32]) {
        let to = match (part, &mut self.value) {
            (ParamPart::Value, Values::Packed(packed)) => {
                let (outer, k) = (packed.outer, packed.k);
                *packed = Packed::new(workers, path, Operand::rows(values, k), (outer, k), Array::default());
                return;
            }
            (ParamPart::Value, Values::Rows(rows)) => {
                if let Some(low) = &mut self.low {
                    low.write(workers, path, values);
                }
                rows
            }
            (ParamPart::Grad, _) => {
                self.grad_is_zero = false;
                &mut self.grad
            }
            (ParamPart::M, _) => &mut self.m,
            (ParamPart::V, _) => &mut self.v,
        };
        to.copy_from_slice(values);
    }

    /// Copies a part out.
    pub(super) fn read(&self, part: ParamPart, out: &mut [f32]) {
        match (part, &self.value) {
            (ParamPart::Value, Values::Packed(packed)) => {
                out.chunks_exact_mut(packed.k).enumerate().for_each(|(row, out)| packed.read(row, out));
            }
            (ParamPart::Value, Values::Rows(rows)) => out.copy_from_slice(rows),
            (ParamPart::Grad, _) if self.grad_is_zero => out.fill(0.0),
            (ParamPart::Grad, _) => out.copy_from_slice(&self.grad),
            (ParamPart::M, _) => out.copy_from_slice(&self.m),
            (ParamPart::V, _) => out.copy_from_slice(&self.v),
        }
    }
}
