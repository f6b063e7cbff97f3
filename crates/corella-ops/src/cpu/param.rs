//! A tensor of parameters on the CPU: as rows where it is trained, packed for products where it is only read.

use super::array::Array;
use super::bf16::{Bf16, convert};
use super::gemm::{Right, Workers};
use super::pack::{Operand, Packed};
use super::path::Path;
use crate::contract::ParamPart;

/// A trained tensor: f32 values with, where trained, gradient and AdamW moments.
#[derive(Debug)]
pub struct Param {
    pub(super) value: Values,
    /// The values in bf16, row-major, where products read them so; as current as the values.
    pub(super) low: Option<Array<Bf16>>,
    pub(super) grad: Array,
    pub(super) m: Array,
    pub(super) v: Array,
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
            Weight::Rows(rows) => Right::Fresh(Operand::rows(rows, c)),
            Weight::Packed(packed) => Right::Packed(packed),
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

impl Param {
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
        if part == ParamPart::Value
            && let Values::Packed(packed) = &self.value
        {
            let (outer, k) = (packed.outer, packed.k);
            assert_eq!(values.len(), outer * k, "length of a parameter");
            self.value =
                Values::Packed(Packed::new(workers, path, Operand::rows(values, k), (outer, k), Array::default()));
            return;
        }
        let to = match part {
            ParamPart::Value => {
                if let Some(low) = &mut self.low {
                    convert(path, low, values);
                }
                let Values::Rows(rows) = &mut self.value else { unreachable!("packed values are replaced above") };
                rows
            }
            ParamPart::Grad => &mut self.grad,
            ParamPart::M => &mut self.m,
            ParamPart::V => &mut self.v,
        };
        to.copy_from_slice(values);
    }

    /// Copies a part out.
    pub(super) fn read(&self, part: ParamPart, out: &mut [f32]) {
        match (part, &self.value) {
            (ParamPart::Value, Values::Packed(packed)) => {
                assert_eq!(out.len(), packed.outer * packed.k, "length of a parameter");
                out.chunks_exact_mut(packed.k).enumerate().for_each(|(row, out)| packed.read(row, out));
            }
            (ParamPart::Value, Values::Rows(rows)) => out.copy_from_slice(rows),
            (ParamPart::Grad, _) => out.copy_from_slice(&self.grad),
            (ParamPart::M, _) => out.copy_from_slice(&self.m),
            (ParamPart::V, _) => out.copy_from_slice(&self.v),
        }
    }
}
