//! What kernels take: arrays in one of two formats, addresses and numbers.

use corella_ops::Dtype;
use corella_ops::quant::half::{bf16_to_f32, f32_to_bf16};
use corella_ops::shapes::Length;

use crate::driver::{Address, Memory};

/// An array of activations, laid out as `struct Array` of kernels/common.cuh.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Array {
    data: Address,
    is_bf16: u32,
    unused: u32,
}

impl Array {
    /// No array: kernels see a null pointer.
    pub const NONE: Array = Array { data: 0, is_bf16: 0, unused: 0 };

    /// The numbers from an address on.
    pub fn new(data: Address, dtype: Dtype) -> Array {
        Array { data, is_bf16: u32::from(dtype == Dtype::Bf16), unused: 0 }
    }
}

/// Activations, or their gradients.
#[derive(Debug)]
pub struct Buf {
    pub(crate) memory: Memory,
    /// How many numbers it holds.
    pub(crate) len: usize,
    /// Their format.
    pub(crate) dtype: Dtype,
}

impl Length for Buf {
    fn length(&self) -> usize {
        self.len
    }
}

impl Buf {
    /// As kernels take it.
    pub(crate) fn array(&self) -> Array {
        Array::new(self.memory.at, self.dtype)
    }

    /// The address of numbers that must be f32: statistics of rows, losses, what is added to.
    #[track_caller]
    pub(crate) fn f32(&self) -> Address {
        assert!(self.dtype == Dtype::F32, "this operation takes f32 here");
        self.memory.at
    }

    /// Panics if it holds fewer numbers than an operation will touch.
    #[track_caller]
    pub(crate) fn holds(&self, len: usize) -> &Self {
        assert!(len <= self.len, "an array of {} numbers where {len} are needed", self.len);
        self
    }
}

/// Words as they lie in the card's memory.
pub(crate) fn word_bytes(words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 4 * words.len()];
    for (b, word) in bytes.chunks_exact_mut(4).zip(words) {
        b.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Numbers as bytes of a format, rounded to nearest even.
pub(crate) fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * dtype.bytes()];
    match dtype {
        Dtype::F32 => {
            for (b, x) in bytes.chunks_exact_mut(4).zip(values) {
                b.copy_from_slice(&x.to_le_bytes());
            }
        }
        Dtype::Bf16 => {
            for (b, x) in bytes.chunks_exact_mut(2).zip(values) {
                b.copy_from_slice(&f32_to_bf16(*x).to_le_bytes());
            }
        }
    }
    bytes
}

/// Bytes of a format as numbers.
pub(crate) fn from_bytes(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (x, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        Dtype::Bf16 => {
            for (x, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *x = bf16_to_f32(u16::from_le_bytes([b[0], b[1]]));
            }
        }
    }
}
