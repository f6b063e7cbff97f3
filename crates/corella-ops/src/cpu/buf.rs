//! An array of activations in one of two formats.

use super::array::{Array, NoMemory};
use super::bf16::{Bf16, Number, convert};
use super::path::Path;
use crate::contract::Dtype;
use crate::shapes::Length;

/// Activations, or their gradients.
#[derive(Debug)]
pub enum Buf {
    /// In f32.
    F32(Array),
    /// In bfloat16.
    Bf16(Array<Bf16>),
}

/// Runs a body once for every mix of formats: `numbers!([a = buf, b = other] body)` makes `a` and `b` slices of f32 or
/// [`Bf16`].
macro_rules! numbers {
    ([] $body:expr) => { $body };
    ([$name:ident = $buf:expr $(, $names:ident = $bufs:expr)*] $body:expr) => {
        match $buf {
            $crate::cpu::buf::Buf::F32($name) => $crate::cpu::buf::numbers!([$($names = $bufs),*] $body),
            $crate::cpu::buf::Buf::Bf16($name) => $crate::cpu::buf::numbers!([$($names = $bufs),*] $body),
        }
    };
}
pub(super) use numbers;

impl Length for Buf {
    fn length(&self) -> usize {
        numbers!([x = self] x.len())
    }
}

impl Buf {
    /// `len` zeros.
    pub fn zeros(len: usize, dtype: Dtype) -> Result<Buf, NoMemory> {
        Ok(match dtype {
            Dtype::F32 => Buf::F32(Array::zeros(len)?),
            Dtype::Bf16 => Buf::Bf16(Array::zeros(len)?),
        })
    }

    /// The numbers of an array that an operation wants in f32: statistics of rows, losses, sums that are added to.
    #[track_caller]
    pub fn f32(&self) -> &[f32] {
        match self {
            Buf::F32(array) => array,
            Buf::Bf16(_) => panic!("this operation takes f32 here"),
        }
    }

    /// As [`Buf::f32`], to change them.
    #[track_caller]
    pub fn f32_mut(&mut self) -> &mut [f32] {
        match self {
            Buf::F32(array) => array,
            Buf::Bf16(_) => panic!("this operation takes f32 here"),
        }
    }

    /// Copies host values to the front.
    pub fn write(&mut self, path: Path, values: &[f32]) {
        numbers!([to = self] convert(path, &mut to[..values.len()], values));
    }

    /// Copies the front to the host.
    pub fn read(&self, path: Path, out: &mut [f32]) {
        numbers!([from = self] convert(path, out, &from[..out.len()]));
    }

    /// Σ of the first `len` elements, in f64 and in their order.
    pub fn sum(&self, len: usize) -> f64 {
        numbers!([x = self] x[..len].iter().map(|x| f64::from(x.get())).sum())
    }
}
