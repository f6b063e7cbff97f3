//! Where a model is trained or run: the processor, or a card.

use corella_cuda::{Card, Cuda, CudaError, ScratchShape, cards, scratch_bytes};
use corella_model::Dtype;
use corella_ops::OpsTrain;
use corella_ops::cpu::Cpu;
use corella_train::RunPlan;
use corella_train::estimate::{self, Machine, MemoryBytes};

use crate::cli::{Common, Device};
use crate::commands::plan::{plan_memory, this_processor};
use crate::error::{Failure, Result};
use crate::inputs::processor;
use crate::machine::available_memory;
use crate::shape::ModelShape;

/// A device to compute on.
pub enum TrainDevice {
    /// The processor.
    Cpu(Cpu),
    /// A card, and the bytes of its memory that are free.
    Cuda(Box<Cuda>, u64),
}

impl TrainDevice {
    /// What `--device` asks for; `auto` takes the first card where everything that it needs was found.
    pub fn choose(common: &Common) -> Result<TrainDevice> {
        match common.device {
            Device::Cpu => Ok(TrainDevice::Cpu(processor(common)?)),
            Device::Cuda(index) => open(index, common),
            Device::Auto => match cards() {
                Err(_) => Ok(TrainDevice::Cpu(processor(common)?)),
                Ok(found) if found.is_empty() => Ok(TrainDevice::Cpu(processor(common)?)),
                Ok(found) => open(0, common).or_else(|failure| {
                    eprintln!("warning: {} is not used: {failure}", found[0].name);
                    Ok(TrainDevice::Cpu(processor(common)?))
                }),
            },
        }
    }

    /// Bytes that a run may take, where that is known.
    pub fn available(&self) -> Option<u64> {
        match self {
            TrainDevice::Cpu(_) => available_memory(),
            TrainDevice::Cuda(_, free) => Some(*free),
        }
    }

    /// Memory of a run with `b` sequences per pass.
    pub fn memory(&self, plan: &RunPlan, config: &ModelShape, b: usize) -> MemoryBytes {
        match self {
            TrainDevice::Cpu(_) => plan_memory(plan, config, b),
            TrainDevice::Cuda(..) => card_memory(plan, config, b),
        }
    }

    /// Name of device and kernels.
    pub fn name(&self) -> String {
        match self {
            TrainDevice::Cpu(cpu) => cpu.name(),
            TrainDevice::Cuda(cuda, _) => cuda.name(),
        }
    }

    /// The device with its peak for products in `dtype`, and the part of it that training uses where the estimate does not
    /// say; `None` for a card that is not in the table.
    pub fn machine(&self, dtype: Dtype) -> Option<(Machine, Option<f64>)> {
        match self {
            TrainDevice::Cpu(cpu) => {
                let machine = this_processor(cpu, dtype);
                let share = machine.card.share;
                Some((machine, Some(share)))
            }
            TrainDevice::Cuda(cuda, _) => known_card(&cuda.name()).map(|machine| (machine, None)),
        }
    }
}

/// Memory on a card: what its operations take for themselves counts as activations, and a weight has one image in bf16,
/// where a processor keeps two (one for each direction of its products).
fn card_memory(plan: &RunPlan, config: &ModelShape, b: usize) -> MemoryBytes {
    let mut memory = plan_memory(plan, config, b);
    let (_, heads, width) = config.sizes();
    let widest = match config {
        ModelShape::Gpt2(_) => 4 * width,
        ModelShape::Llama(c) => (2 * c.n_ff).max(c.qkv_width()),
    };
    let (rows, vocab, dtype) = (b * plan.model.seq_len, config.vocab_size(), plan.train.dtype);
    let scratch = scratch_bytes(ScratchShape { rows, width, widest, heads, vocab, dtype });
    let image = if dtype == Dtype::Bf16 { 2 * config.parameter_count() as u64 } else { 0 };
    memory.activations += scratch;
    memory.weights -= image;
    memory.total = memory.total + scratch - image;
    // Samples and checkpoints are made in the memory of the processor.
    memory.with_between_updates(0)
}

/// The card of the table whose name, or a short form of it, stands in what the driver calls it.
fn known_card(name: &str) -> Option<Machine> {
    let name = name.to_lowercase();
    let found = estimate::cards().ok()?.into_iter().filter_map(|card| {
        let longest = std::iter::once(&card.name)
            .chain(&card.aliases)
            .filter(|known| name.contains(&known.to_lowercase()))
            .map(String::len)
            .max()?;
        Some((longest, card))
    });
    let card = found.max_by_key(|(length, _)| *length)?.1;
    Some(Machine { card, cards: 1 })
}

fn open(index: u32, common: &Common) -> Result<TrainDevice> {
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
    Ok(TrainDevice::Cuda(Box::new(Cuda::new(card, processor(common)?)), free))
}

#[cfg(test)]
mod tests {
    use corella_model::Dtype;
    use corella_train::RunPlan;

    use super::{card_memory, known_card};
    use crate::commands::plan::{check_memory, memory_budget, settle_micro_batch};
    use crate::shape::ModelShape;

    #[test]
    fn cards_are_known_by_the_drivers_name() {
        let name = |driver: &str| known_card(driver).map(|machine| machine.card.name);
        assert!(name("cuda NVIDIA H100 80GB HBM3 sm_90").is_some_and(|n| n.starts_with("H100")));
        assert!(name("cuda NVIDIA GeForce RTX 4090 sm_89").is_some_and(|n| n.contains("4090")));
        assert_eq!(name("cuda NVIDIA T400 sm_75"), None);
    }

    fn recipe(text: &str) -> (RunPlan, ModelShape) {
        let mut plan = RunPlan::from_toml(text).expect("a run file of the project");
        (plan.train.dtype, plan.train.micro_batch) = (Dtype::Bf16, 0);
        let config = ModelShape::of(&plan.model).expect("a shape");
        (plan, config)
    }

    /// What is kept per sequence of 1,024 tokens of GPT-2 124M is 0.29 GB, weights and their like 2.24 GB.
    #[test]
    fn the_124m_recipe_fits_consumer_cards() {
        for (free, expected) in [(12_000_000_000, 16), (24_000_000_000, 32), (5_000_000_000, 4)] {
            let (mut plan, config) = recipe(include_str!("../../../runs/gpt2-124m.toml"));
            let budget = memory_budget(None, Some(free));
            settle_micro_batch(&mut plan, budget, |plan, b| card_memory(plan, &config, b).total).expect("fits");
            assert_eq!(plan.train.micro_batch, expected, "{free} bytes");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let (mut plan, config) = recipe(include_str!("../../../runs/gpt2-1558m.toml"));
        let bytes = |plan: &RunPlan, b| card_memory(plan, &config, b).total;
        let refused = settle_micro_batch(&mut plan, memory_budget(None, Some(24_000_000_000)), bytes);
        let refused = refused.expect_err("18 bytes per parameter");
        assert!(refused.to_string().contains("GiB of memory") && refused.to_string().contains("hint:"), "{refused}");
        assert!(check_memory(bytes(&plan, 1), Some(80_000_000_000)).is_ok());
    }
}
