//! Where a model is trained or run: the processor, or a card.

use corella_cuda::{Card, Cuda, CudaError, cards};
use corella_model::Dtype;
use corella_ops::OpsTrain;
use corella_ops::cpu::{Cpu, probe};
use corella_train::estimate::{self, Machine, ProcessorPeaks};

use crate::cli::{Common, DeviceFlag};
use crate::error::{Failure, Result};
use crate::inputs::processor;
use crate::machine::available_memory;

/// Measurements of the processor's peak, each a fraction of a millisecond to a few.
const PROBES: usize = 10;

/// The device that computes: chosen once, from then on the flag is not asked again.
pub enum Device {
    /// The processor.
    Cpu(Cpu),
    /// A card, and the bytes of its memory that are free.
    Cuda(Box<Cuda>, u64),
}

impl Device {
    /// What `--device` asks for; `auto` takes the first card where everything that it needs was found.
    pub fn choose(common: &Common) -> Result<Device> {
        match common.device {
            DeviceFlag::Cpu => Ok(Device::Cpu(processor(common)?)),
            DeviceFlag::Cuda(index) => open(index, common),
            DeviceFlag::Auto => match cards() {
                Err(_) => Ok(Device::Cpu(processor(common)?)),
                Ok(found) if found.is_empty() => Ok(Device::Cpu(processor(common)?)),
                Ok(found) => open(0, common).or_else(|failure| {
                    eprintln!("warning: {} is not used: {failure}", found[0].name);
                    Ok(Device::Cpu(processor(common)?))
                }),
            },
        }
    }

    /// Bytes that a run may take, where that is known.
    pub fn available(&self) -> Option<u64> {
        match self {
            Device::Cpu(_) => available_memory(),
            Device::Cuda(_, free) => Some(*free),
        }
    }

    /// Bytes of the machine's memory that are free, where the processor computes and the system says. What a card holds is counted
    /// when a model is loaded.
    pub fn free_memory(&self) -> Option<u64> {
        match self {
            Device::Cpu(_) => available_memory(),
            Device::Cuda(..) => None,
        }
    }

    /// Name of device and kernels.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.name(),
            Device::Cuda(cuda, _) => cuda.name(),
        }
    }

    /// What the estimate knows of the device, with its peak for products in `dtype` of a model with so many channels; `None` for a
    /// card that is not in the table, no peak where its data sheet says none for the format.
    pub fn machine(&self, dtype: Dtype, channels: u64) -> Option<Machine> {
        match self {
            Device::Cpu(cpu) => Some(this_processor(cpu, dtype, channels)),
            Device::Cuda(cuda, _) => Some(Machine::Cards { card: known_card(&cuda.name())?, count: 1 }),
        }
    }
}

/// This machine's processor, for updates of a model with so many channels; its peak, that of products in `dtype`, is measured now.
pub fn this_processor(cpu: &Cpu, dtype: Dtype, channels: u64) -> Machine {
    // The best of several: a busy machine only ever shows less than it can.
    let best = |now: fn(&Cpu) -> f64| (0..PROBES).map(|_| now(cpu)).fold(0.0, f64::max);
    let peaks = ProcessorPeaks { f32_gflops: best(probe::f32_now), bf16_gflops: best(probe::bf16_now) };
    let (gflops, share) = peaks.of(dtype, channels);
    Machine::Processor { name: cpu.name(), dtype, tflops: gflops / 1e3, share }
}

/// The card of the table whose name, or a short form of it, stands in what the driver calls it.
pub fn known_card(name: &str) -> Option<estimate::Card> {
    let name = name.to_lowercase();
    let found = estimate::cards().ok()?.into_iter().filter_map(|card| {
        let longest = std::iter::once(&card.name)
            .chain(&card.aliases)
            .filter(|known| name.contains(&known.to_lowercase()))
            .map(String::len)
            .max()?;
        Some((longest, card))
    });
    found.max_by_key(|(length, _)| *length).map(|(_, card)| card)
}

fn open(index: u32, common: &Common) -> Result<Device> {
    let card = Card::open(index).map_err(|error| {
        let hint = match &error {
            CudaError::Missing { .. } | CudaError::Symbol { .. } => {
                "`corella doctor` shows what was found and what brings the rest"
            }
            CudaError::NoCard { .. } => "`corella doctor` lists the cards; cards are numbered from 0",
            CudaError::TooOld { .. } => "compute on the processor with --device cpu",
            _ => "`nvidia-smi` shows whether driver and card work; --device cpu computes on the processor",
        };
        Failure::new(format!("cuda:{index} cannot be used: {error}")).hint(hint)
    })?;
    let (free, _) = card.memory()?;
    Ok(Device::Cuda(Box::new(Cuda::new(card, processor(common)?)), free))
}

#[cfg(test)]
mod tests {
    use super::known_card;

    #[test]
    fn cards_are_known_by_the_drivers_name() {
        let name = |driver: &str| known_card(driver).map(|card| card.name);
        assert!(name("cuda NVIDIA H100 80GB HBM3 sm_90").is_some_and(|n| n.starts_with("H100")));
        assert!(name("cuda NVIDIA GeForce RTX 4090 sm_89").is_some_and(|n| n.contains("4090")));
        assert_eq!(name("cuda NVIDIA T400 sm_75"), None);
    }
}
