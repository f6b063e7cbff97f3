//! Where a model is trained or run: the processor, or a card.

use corella_cuda::{BESIDE, Card, Cuda, CudaError, cards};
use corella_model::memory::MemoryPlan;
use corella_model::{AdamW, BatchShape, Dtype, Network, TrainModel, Training, Zeros};
use corella_ops::cpu::Cpu;
use corella_ops::{OpsTrain, WeightFormat};
use corella_train::RunPlan;
use corella_train::estimate::{self, Machine, MemoryBytes};

use crate::cli::{Common, DeviceFlag};
use crate::commands::plan::{plan_memory, plan_recompute, this_processor};
use crate::error::{Failure, Result};
use crate::inputs::processor;
use crate::machine::available_memory;
use crate::shape::ModelShape;

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

    /// Memory of a run with `b` sequences per pass.
    pub fn memory(&self, plan: &RunPlan, config: &ModelShape, b: usize) -> Result<MemoryBytes> {
        match self {
            Device::Cpu(_) => Ok(plan_memory(plan, config, b)),
            Device::Cuda(cuda, _) => card_memory(cuda, plan, config, b),
        }
    }

    /// Name of device and kernels.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(cpu) => cpu.name(),
            Device::Cuda(cuda, _) => cuda.name(),
        }
    }

    /// The device with its peak for products in `dtype`, and the part of it that training a model with so many channels uses
    /// where the estimate does not say; `None` for a card that is not in the table, no peak where its data sheet says none for
    /// the format.
    pub fn machine(&self, dtype: Dtype, channels: u64) -> Option<(Machine, Option<f64>)> {
        match self {
            Device::Cpu(cpu) => {
                let machine = this_processor(cpu, dtype, channels);
                let share = machine.card.share;
                Some((machine, Some(share)))
            }
            Device::Cuda(cuda, _) => known_card(&cuda.name()).map(|machine| (machine, None)),
        }
    }
}

/// Memory on a card, counted by an update on paper. What is not a parameter's counts as activations: operations have memory of
/// their own, and large arrays are whole pages.
fn card_memory(cuda: &Cuda, plan: &RunPlan, config: &ModelShape, b: usize) -> Result<MemoryBytes> {
    let batch = BatchShape { b, t: plan.model.seq_len };
    let total = match config {
        ModelShape::Gpt2(config) => update_on_paper(cuda, config, plan, batch)?,
        ModelShape::Llama(config) => update_on_paper(cuda, config, plan, batch)?,
    };
    let (parameters, dtype) = (config.parameter_count() as u64, plan.train.dtype);
    // A weight has one image in bf16, where a processor keeps two (one for each direction of its products).
    let image = if dtype == Dtype::Bf16 { 2 * parameters } else { 0 };
    let MemoryPlan { grads, optimizer, .. } = MemoryPlan::new(config.parameter_count(), dtype, 0);
    let weights = 4 * parameters + image;
    let activations = total.saturating_sub(weights + grads + optimizer);
    // Samples and checkpoints are made in the memory of the processor.
    Ok(MemoryBytes { weights, gradients: grads, optimizer, activations, between_updates: 0, total })
}

/// Bytes that an update takes of a card.
fn update_on_paper<C: Network>(cuda: &Cuda, config: &C, plan: &RunPlan, batch: BatchShape) -> Result<u64> {
    let (ops, paper) = cuda.on_paper();
    let zeros = Zeros::new(config.clone(), WeightFormat::F32);
    let mut model = Training::new(ops, &zeros, batch, plan_recompute(plan), plan.train.dtype)?;
    let ids = vec![0; batch.b * batch.t];
    model.zero_grad();
    model.forward_backward(&ids, &ids, 1.0);
    model.grad_norm();
    model.adamw(AdamW { lr: 0.0, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step: 1 });
    Ok(paper.most() + BESIDE)
}

/// The card of the table whose name, or a short form of it, stands in what the driver calls it.
pub fn known_card(name: &str) -> Option<Machine> {
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
    use corella_cuda::{Cuda, Paper};
    use corella_model::Dtype;
    use corella_ops::cpu::{Cpu, CpuOptions};
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

    fn cuda() -> Cuda {
        let cpu = Cpu::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).expect("starts");
        Cuda::of_paper(&Paper::default(), cpu)
    }

    /// What is kept per sequence of 1,024 tokens of GPT-2 124M is 0.29 GB, weights and their like 2.24 GB.
    #[test]
    fn the_124m_recipe_fits_consumer_cards() {
        let cuda = cuda();
        for (free, expected) in [(12_000_000_000, 16), (24_000_000_000, 32), (5_000_000_000, 2)] {
            let (mut plan, config) = recipe(include_str!("../../../runs/gpt2-124m.toml"));
            let budget = memory_budget(None, Some(free));
            settle_micro_batch(&mut plan, budget, |plan, b| card_memory(&cuda, plan, &config, b)).expect("fits");
            assert_eq!(plan.train.micro_batch, expected, "{free} bytes");
        }
    }

    /// The larger recipes: what recomputing makes possible, and what is refused with the numbers and the way out.
    #[test]
    fn larger_recipes_fit_with_recompute_or_are_refused() {
        let cuda = cuda();
        let gpt2_355m = include_str!("../../../runs/gpt2-355m.toml");
        let gpt2_774m = include_str!("../../../runs/gpt2-774m.toml");
        let gpt2_1558m = include_str!("../../../runs/gpt2-1558m.toml");
        for (text, recompute, free, expected) in [
            (gpt2_355m, false, 12_000_000_000, Some(2)),
            (gpt2_355m, true, 12_000_000_000, Some(16)),
            (gpt2_774m, true, 12_000_000_000, None),
            (gpt2_774m, false, 24_000_000_000, Some(2)),
            (gpt2_774m, true, 24_000_000_000, Some(8)),
            (gpt2_1558m, true, 24_000_000_000, None),
            (gpt2_1558m, false, 84_000_000_000, Some(16)),
        ] {
            let (mut plan, config) = recipe(text);
            plan.train.recompute = recompute;
            let budget = memory_budget(None, Some(free));
            let settled = settle_micro_batch(&mut plan, budget, |plan, b| card_memory(&cuda, plan, &config, b));
            let what = format!("{} on {free} bytes, recompute {recompute}", plan.model.name);
            match (settled, expected) {
                (Ok(()), Some(b)) => assert_eq!(plan.train.micro_batch, b, "{what}"),
                (Err(refused), None) => {
                    let text = refused.to_string();
                    assert!(text.contains("GiB of memory") && text.contains("hint:"), "{what}: {text}");
                }
                (settled, expected) => panic!("{what}: {settled:?} instead of {expected:?}"),
            }
        }
        let (plan, config) = recipe(gpt2_1558m);
        let memory = card_memory(&cuda, &plan, &config, 1).expect("paper has room");
        assert!(check_memory(memory.total, Some(84_000_000_000)).is_ok());
        assert_eq!(memory.weights + memory.gradients + memory.optimizer, 18 * config.parameter_count() as u64);
        assert_eq!(memory.weights + memory.gradients + memory.optimizer + memory.activations, memory.total);
    }
}
