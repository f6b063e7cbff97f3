//! What a run takes of memory and disk, and what to do where it does not fit.

use std::path::Path;

use corella_hub::free_disk;
use corella_model::memory::Recompute;
use corella_model::{BatchShape, Dtype};
use corella_text::data::Order;
use corella_train::estimate::{MemoryBytes, largest_micro_batch};
use corella_train::{RunPlan, folder};

use super::card_memory::card_memory;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::shape::ModelShape;
use crate::units::{gib, size};

/// Part of the free memory that a micro-batch chosen by the program may fill.
const MEMORY_SHARE: f64 = 0.8;
/// The ways out of a plan that does not fit, where none of them was tried.
pub const SMALLER: &str =
    "a smaller --micro-batch (or auto), --recompute, --dtype bf16, a shorter --seq-len, or a smaller model";

pub fn shape(plan: &RunPlan, b: usize) -> BatchShape {
    BatchShape { b, t: plan.model.seq_len }
}

/// What a plan keeps for the backward pass.
pub fn plan_recompute(plan: &RunPlan) -> Recompute {
    if plan.train.recompute { Recompute::Block } else { Recompute::None }
}

/// Memory on the processor with `b` sequences per pass.
pub fn plan_memory(plan: &RunPlan, config: &ModelShape, b: usize) -> MemoryBytes {
    let memory: MemoryBytes = config.memory(shape(plan, b), plan_recompute(plan), plan.train.dtype).into();
    memory.with_between_updates(between_updates(plan, config))
}

/// Memory of a run on a device with `b` sequences per pass.
pub fn memory_on(device: &Device, plan: &RunPlan, config: &ModelShape, b: usize) -> Result<MemoryBytes> {
    match device {
        Device::Cpu(_) => Ok(plan_memory(plan, config, b)),
        Device::Cuda(cuda, _) => card_memory(cuda, plan, config, b),
    }
}

/// What stands beside a run between updates, in f32: the weights while text is sampled or tasks are scored, and one tensor as
/// it is copied, for that or for a checkpoint.
fn between_updates(plan: &RunPlan, config: &ModelShape) -> u64 {
    let samples = plan.output.sample_every > 0 || plan.output.eval_every > 0;
    let copy = if samples { config.parameter_count() } else { 0 };
    ((copy + config.largest_tensor()) * Dtype::F32.bytes()) as u64
}

/// Bytes that an automatic micro-batch may fill: what was asked for, else most of what is available.
pub fn memory_budget(asked: Option<usize>, available: Option<u64>) -> Option<u64> {
    let usual = || available.map(|bytes| (bytes as f64 * MEMORY_SHARE) as u64);
    asked.map(|bytes| bytes as u64).or_else(usual)
}

/// Refuses `--memory` beside a micro-batch that is given: nothing would be fitted into it; and an automatic one where the order of
/// the data depends on it, so that a run would read other windows on another machine.
pub fn check_micro_batch_flags(memory: Option<usize>, plan: &RunPlan) -> Result<()> {
    if plan.train.micro_batch == 0 && plan.data.order == Order::LlmC {
        return Err(Failure::usage(
            "in the order llm.c the micro-batch decides which windows come when, so it cannot be auto",
        )
        .hint("--micro-batch N, as llm.c's -b says it"));
    }
    match (memory, plan.train.micro_batch) {
        (Some(_), given @ 1..) => Err(Failure::usage(format!(
            "--memory says what an automatic micro-batch may fill, and the micro-batch is {given}"
        ))
        .hint("add --micro-batch auto, or leave --memory out")),
        _ => Ok(()),
    }
}

/// Replaces a micro-batch of 0 (`auto`) by the largest that fits into the budget.
///
/// `memory` is that of a plan with a number of sequences per pass.
pub fn settle_micro_batch(
    plan: &mut RunPlan,
    budget: Option<u64>,
    memory: impl Fn(&RunPlan, usize) -> Result<MemoryBytes>,
) -> Result<()> {
    if plan.train.micro_batch > 0 {
        return Ok(());
    }
    let sequences = plan.train.batch_tokens / plan.model.seq_len;
    // What cannot be counted does not fit; asked for one sequence, it says why.
    let bytes = |b| memory(plan, b).map_or(u64::MAX, |memory| memory.total);
    let fits = largest_micro_batch(sequences, budget.unwrap_or(u64::MAX), bytes);
    plan.train.micro_batch = match fits {
        Some(b) => b,
        None => {
            check_memory(memory(plan, 1)?.total, budget)?;
            1
        }
    };
    Ok(())
}

/// Refuses what does not fit, with the numbers and the way out.
pub fn check_memory(needed: u64, available: Option<u64>) -> Result<()> {
    match available {
        Some(available) if needed > available => Err(Failure::new(format!(
            "the run needs {:.2} GiB of memory, and {:.2} GiB are available",
            gib(needed),
            gib(available)
        ))
        .hint(SMALLER)),
        _ => Ok(()),
    }
}

/// What the checkpoints of a run take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DiskBytes {
    /// One of them: weights and moments in f32.
    pub checkpoint: u64,
    /// The most that lie there at once: those that are kept, the best, and the one that is being written.
    pub checkpoints: u64,
    /// All of these.
    pub total: u64,
}

impl DiskBytes {
    /// Those of a plan.
    pub fn of(plan: &RunPlan, config: &ModelShape) -> DiskBytes {
        let checkpoint = 3 * (config.parameter_count() * Dtype::F32.bytes()) as u64;
        let checkpoints = plan.checkpoints_at_once();
        DiskBytes { checkpoint, checkpoints, total: checkpoint.saturating_mul(checkpoints) }
    }
}

/// Warns before a run whose checkpoints will not fit: at its end, days later, it would wait for somebody who makes room.
pub fn warn_of_disk(plan: &RunPlan, config: &ModelShape, dir: &Path) {
    let needed = DiskBytes::of(plan, config);
    // What a run that goes on has written is part of what it takes.
    let there = bytes_below(&folder::checkpoints(dir));
    if let Some((_, free)) = free_disk(dir).filter(|(_, free)| free.saturating_add(there) < needed.total) {
        eprintln!(
            "warning: at most {} checkpoints of {} will lie in {}, {} together, and {} are free there",
            needed.checkpoints,
            size(needed.checkpoint),
            dir.display(),
            size(needed.total),
            size(free)
        );
        eprintln!("hint: make room, name a folder on another disk with --out, or keep fewer with --keep");
    }
}

/// Bytes of all files below a folder; what cannot be read counts nothing.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).fold(0, u64::saturating_add)
}

/// What to do about a plan that does not fit: flags that make it fit, the least change first. `fits` tells of a plan.
pub fn way_out(plan: &RunPlan, sequences: usize, fits: impl Fn(&RunPlan) -> bool) -> String {
    let formats = if plan.train.dtype == Dtype::Bf16 { &[Dtype::Bf16][..] } else { &[plan.train.dtype, Dtype::Bf16] };
    for dtype in formats {
        for recompute in [false, true] {
            let mut smaller = plan.clone();
            smaller.train.dtype = *dtype;
            smaller.train.recompute |= recompute;
            let divisors = (1..=plan.train.micro_batch).rev().filter(|b| sequences.is_multiple_of(*b));
            for b in divisors {
                smaller.train.micro_batch = b;
                if fits(&smaller) {
                    return flags(plan, &smaller);
                }
            }
        }
    }
    "not even one sequence with --recompute in bf16 fits: a card or machine with more memory, a shorter --seq-len, or a smaller model"
        .to_owned()
}

/// The flags that make one plan of another.
fn flags(plan: &RunPlan, smaller: &RunPlan) -> String {
    let (was, is) = (&plan.train, &smaller.train);
    let mut flags = Vec::new();
    if was.dtype != is.dtype {
        flags.push(format!("--dtype {}", is.dtype.name()));
    }
    if was.recompute != is.recompute {
        flags.push("--recompute".to_owned());
    }
    if was.micro_batch != is.micro_batch {
        flags.push(format!("--micro-batch {}", is.micro_batch));
    }
    format!("it fits with {}", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_the_least_that_fits() {
        let text = include_str!("../../../../runs/gpt2-124m.toml");
        let mut plan = RunPlan::from_toml(text).expect("a run file of the project");
        plan.train.dtype = Dtype::F32;
        let out = |fits: &dyn Fn(&RunPlan) -> bool| way_out(&plan, 512, fits);
        assert_eq!(out(&|p| p.train.micro_batch <= 8), "it fits with --micro-batch 8");
        assert_eq!(
            out(&|p| p.train.recompute && p.train.micro_batch <= 40),
            "it fits with --recompute --micro-batch 32"
        );
        let bf16 = |p: &RunPlan| p.train.dtype == Dtype::Bf16;
        assert_eq!(out(&bf16), "it fits with --dtype bf16");
        assert!(out(&|_| false).contains("not even one sequence"));
    }
}
