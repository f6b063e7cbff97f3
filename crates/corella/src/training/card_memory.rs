//! Memory of a run on a card, counted on paper.

use corella_cuda::{BESIDE, Cuda};
use corella_model::memory::MemoryPlan;
use corella_model::{AdamW, BatchShape, Dtype, Network, TrainModel, Training, Zeros};
use corella_ops::WeightFormat;
use corella_train::RunPlan;
use corella_train::estimate::MemoryBytes;

use super::memory::plan_recompute;
use crate::error::Result;
use crate::shape::ModelShape;

/// Memory on a card, counted by an update on paper. What is not a parameter's counts as activations: operations have memory of
/// their own, and large arrays are whole pages.
pub fn card_memory(cuda: &Cuda, plan: &RunPlan, config: &ModelShape, b: usize) -> Result<MemoryBytes> {
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

#[cfg(test)]
mod tests {
    use corella_cuda::Paper;
    use corella_ops::cpu::{Cpu, CpuOptions};

    use super::*;
    use crate::training::memory::{check_memory, memory_budget, settle_micro_batch};

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
            let (mut plan, config) = recipe(include_str!("../../../../runs/gpt2-124m.toml"));
            let budget = memory_budget(None, Some(free));
            settle_micro_batch(&mut plan, budget, |plan, b| card_memory(&cuda, plan, &config, b)).expect("fits");
            assert_eq!(plan.train.micro_batch, expected, "{free} bytes");
        }
    }

    /// The larger recipes: what recomputing makes possible, and what is refused with the numbers and the way out.
    #[test]
    fn larger_recipes_fit_with_recompute_or_are_refused() {
        let cuda = cuda();
        let gpt2_355m = include_str!("../../../../runs/gpt2-355m.toml");
        let gpt2_774m = include_str!("../../../../runs/gpt2-774m.toml");
        let gpt2_1558m = include_str!("../../../../runs/gpt2-1558m.toml");
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
