//! A trained tensor on the card.

use std::sync::Arc;

use corella_ops::shapes::Length;
use corella_ops::{Dtype, ParamPart};

use crate::array::{from_bytes, to_bytes};
use crate::driver::{Address, Bias, Driver, Memory};
use crate::error::CudaError;

/// Matrices get rows of zeros up to a multiple of this: a vocabulary of 50,257 would else be the width of results whose rows
/// begin where tensor cores cannot write.
const ROWS: usize = 64;

/// Rows with padding; a vector has none.
pub(crate) fn padded(rows: usize) -> usize {
    if rows > 1 { rows.next_multiple_of(ROWS) } else { rows }
}

/// f32 values with, where products read them so, their image in bf16, and with gradient and moments where trained.
#[derive(Debug)]
pub struct Param {
    /// Elements, without rows of padding.
    pub(crate) len: usize,
    /// Rows with padding.
    pub(crate) padded_rows: usize,
    value: Memory,
    image: Option<Memory>,
    trained: Option<Trained>,
}

/// What training adds.
#[derive(Debug)]
struct Trained {
    grad: Memory,
    /// Whether the gradient is zero, whatever its memory holds: what is written first then need not be cleared before.
    grad_is_zero: bool,
    m: Memory,
    v: Memory,
}

/// How something is added to a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GradPlace {
    /// Where it is.
    pub at: Address,
    /// Whether there is something to add to; else the result replaces all of it.
    pub adds: bool,
}

/// Addresses that an update takes.
pub(crate) struct Update {
    pub value: Address,
    /// 0 where there is none.
    pub image: Address,
    /// 0 where the gradient is zero.
    pub grad: Address,
    pub m: Address,
    pub v: Address,
}

impl Length for Param {
    fn length(&self) -> usize {
        self.len
    }
}

impl Param {
    pub(crate) fn new(
        driver: &Arc<dyn Driver>,
        rows: usize,
        cols: usize,
        trained: bool,
        dtype: Dtype,
    ) -> Result<Param, CudaError> {
        let padded_rows = padded(rows);
        let zeros = |bytes: usize| Memory::zeros(driver, padded_rows * cols * bytes);
        Ok(Param {
            len: rows * cols,
            padded_rows,
            value: zeros(4)?,
            image: if dtype == Dtype::Bf16 { Some(zeros(2)?) } else { None },
            trained: if trained {
                Some(Trained { grad: zeros(4)?, grad_is_zero: true, m: zeros(4)?, v: zeros(4)? })
            } else {
                None
            },
        })
    }

    /// Bytes that a parameter takes, padding included.
    pub(crate) fn bytes(rows: usize, cols: usize, trained: bool, dtype: Dtype) -> u64 {
        let padded_rows = padded(rows);
        let each = 4 + if dtype == Dtype::Bf16 { 2 } else { 0 } + if trained { 12 } else { 0 };
        padded_rows as u64 * cols as u64 * each
    }

    /// Format in which products read it.
    pub(crate) fn dtype(&self) -> Dtype {
        if self.image.is_some() { Dtype::Bf16 } else { Dtype::F32 }
    }

    /// The f32 values.
    pub(crate) fn value(&self) -> Address {
        self.value.at
    }

    /// The values in the format that products read.
    pub(crate) fn operand(&self) -> Address {
        self.image.as_ref().unwrap_or(&self.value).at
    }

    /// As the bias of a product.
    pub(crate) fn bias(&self) -> Bias {
        Bias { f32: self.value.at, bf16: self.image.as_ref().map(|image| image.at) }
    }

    /// The gradient, for a result that covers all of it.
    #[track_caller]
    pub(crate) fn grad_whole(&mut self) -> GradPlace {
        let trained = self.trained.as_mut().expect("a gradient of what is not trained");
        GradPlace { at: trained.grad.at, adds: !std::mem::take(&mut trained.grad_is_zero) }
    }

    /// The gradient, to add to some of it; cleared if it was zero.
    #[track_caller]
    pub(crate) fn grad_part(&mut self, driver: &dyn Driver) -> Result<Address, CudaError> {
        let place = self.grad_whole();
        if !place.adds {
            let bytes = self.trained.as_ref().map_or(0, |trained| trained.grad.bytes);
            driver.clear(place.at, bytes)?;
        }
        Ok(place.at)
    }

    /// The gradient, where it is not zero.
    pub(crate) fn grad_read(&self) -> Option<Address> {
        self.trained.as_ref().filter(|trained| !trained.grad_is_zero).map(|trained| trained.grad.at)
    }

    /// Forgets the gradient.
    pub(crate) fn zero_grad(&mut self) {
        if let Some(trained) = &mut self.trained {
            trained.grad_is_zero = true;
        }
    }

    #[track_caller]
    pub(crate) fn update(&mut self) -> Update {
        let grad = self.grad_read().unwrap_or(0);
        let trained = self.trained.as_ref().expect("an update of what is not trained");
        let image = self.image.as_ref().map_or(0, |image| image.at);
        Update { value: self.value.at, image, grad, m: trained.m.at, v: trained.v.at }
    }

    #[track_caller]
    fn part(&self, part: ParamPart) -> &Memory {
        let trained = || self.trained.as_ref().expect("a part of what is not trained");
        match part {
            ParamPart::Value => &self.value,
            ParamPart::Grad => &trained().grad,
            ParamPart::M => &trained().m,
            ParamPart::V => &trained().v,
        }
    }

    #[track_caller]
    pub(crate) fn write(&mut self, driver: &dyn Driver, part: ParamPart, values: &[f32]) -> Result<(), CudaError> {
        driver.upload(self.part(part).at, &to_bytes(values, Dtype::F32))?;
        if part == ParamPart::Value
            && let Some(image) = &self.image
        {
            driver.upload(image.at, &to_bytes(values, Dtype::Bf16))?;
        }
        if part == ParamPart::Grad
            && let Some(trained) = &mut self.trained
        {
            // Rows of padding may hold what was there before the gradient became zero.
            let written = self.len * 4;
            driver.clear(trained.grad.at + written as u64, trained.grad.bytes - written)?;
            trained.grad_is_zero = false;
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn read(&self, driver: &dyn Driver, part: ParamPart, out: &mut [f32]) -> Result<(), CudaError> {
        if part == ParamPart::Grad && self.grad_read().is_none() {
            out.fill(0.0);
            return Ok(());
        }
        let mut bytes = vec![0; out.len() * 4];
        driver.download(self.part(part).at, &mut bytes)?;
        from_bytes(&bytes, Dtype::F32, out);
        Ok(())
    }
}
