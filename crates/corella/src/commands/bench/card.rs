//! A card's ceilings, measured on it, and what generation and training there are checked with.

use corella_cuda::Cuda;
use corella_cuda::probe::{self, Ceilings};
use corella_model::Dtype;
use corella_ops::cases::{Expected, inference_differences};
use serde::Serialize;

use super::{Bound, CeilingsOut};
use crate::cli::{BenchWhat, Common};
use crate::device::{Device, known_card};
use crate::error::{Failure, Result};

/// What the maker says of a card.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Datasheet {
    card: String,
    /// Dense products in bf16.
    bf16_gflops: f64,
    /// Memory bandwidth.
    memory_gbs: f64,
}

/// A card that does the work.
#[derive(Debug)]
pub struct OnCard {
    /// Device, kernels and number formats.
    pub backend: String,
    ceilings: Ceilings,
    /// None for a card that the table of cards does not have.
    datasheet: Option<Datasheet>,
}

impl OnCard {
    /// Of the card that `--device` stands for, once every operation that is to be timed agrees with the reference there; none for
    /// the processor.
    pub fn of(what: BenchWhat, common: &Common) -> Result<Option<OnCard>> {
        let device = Device::choose(common)?;
        let Device::Cuda(cuda, _) = &device else { return Ok(None) };
        for dtype in Dtype::ALL {
            let differences = match what {
                BenchWhat::Train => Expected::new(dtype)?.training_differences(&**cuda)?,
                _ => inference_differences(&**cuda, dtype, |_| true)?,
            };
            if let Some(wrong) = differences.first() {
                return Err(Failure::new(format!("not timed, because it is wrong in {}: {wrong}", dtype.name())));
            }
        }
        let datasheet = known_card(&device.name()).map(|card| Datasheet {
            bf16_gflops: 1e3 * card.tflops,
            memory_gbs: 1e3 * card.bandwidth_tb_s,
            card: card.name,
        });
        Ok(Some(OnCard { backend: device.name(), ceilings: probe::ceilings(cuda)?, datasheet }))
    }

    /// Measures the ceilings once more, and keeps the best of both: the card may have changed its mind since.
    pub fn again(self, common: &Common) -> Result<OnCard> {
        let Device::Cuda(cuda, _) = Device::choose(common)? else {
            return Err(Failure::new("the card that was there is gone"));
        };
        Ok(OnCard { ceilings: probe::ceilings(&cuda)?.best(&self.ceilings), ..self })
    }

    /// What bounds a figure: its unit, the measured ceiling, and that of the datasheet, all in 10⁹ a second. Generation computes in
    /// bf16 whatever the format of the weights.
    pub fn ceiling(&self, bound: Bound) -> (&'static str, f64, Option<f64>) {
        let datasheet = self.datasheet.as_ref();
        match bound {
            Bound::Products(Dtype::F32, _) => ("GFLOP/s", self.ceilings.f32_gflops, None),
            Bound::Compute(..) | Bound::Products(Dtype::Bf16, _) | Bound::Integers(_) => {
                ("GFLOP/s", self.ceilings.bf16_gflops, datasheet.map(|card| card.bf16_gflops))
            }
            Bound::Memory(bytes) | Bound::Traffic(bytes) => {
                ("GB/s", self.ceilings.read_gbs(bytes as usize), datasheet.map(|card| card.memory_gbs))
            }
        }
    }

    /// As people read them.
    pub fn sentence(&self) -> String {
        let c = &self.ceilings;
        let datasheet = self.datasheet.as_ref().map_or(String::new(), |card| {
            format!(" ({} by its datasheet: {:.0} and {:.0})", card.card, card.bf16_gflops, card.memory_gbs)
        });
        format!(
            "{}; measured at the start: {:.0} GFLOP/s in bf16, {:.0} in f32, {:.0} GB/s read, {:.0} copied{datasheet}; {:.1} GB/s up, {:.1} down",
            self.backend,
            c.bf16_gflops,
            c.f32_gflops,
            c.read_gbs(usize::MAX),
            c.copy_gbs,
            c.upload_gbs,
            c.download_gbs
        )
    }

    /// As the document states them.
    pub fn ceilings(&self) -> CeilingsOut {
        CeilingsOut {
            f32_gflops: self.ceilings.f32_gflops,
            bf16_gflops: Some(self.ceilings.bf16_gflops),
            int8_gops: None,
            read_gbs: self.ceilings.read_gbs(usize::MAX),
            copy_gbs: Some(self.ceilings.copy_gbs),
            upload_gbs: Some(self.ceilings.upload_gbs),
            download_gbs: Some(self.ceilings.download_gbs),
            datasheet: self.datasheet.clone(),
        }
    }
}

/// The card's backend, anew: what was measured before has given its memory back.
pub fn cuda(common: &Common) -> Result<Option<Cuda>> {
    match Device::choose(common)? {
        Device::Cuda(cuda, _) => Ok(Some(*cuda)),
        Device::Cpu(_) => Ok(None),
    }
}
