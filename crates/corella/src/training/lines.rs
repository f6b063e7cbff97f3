//! What is printed of a run before it begins, and how it stands at its end.

use corella_text::data::Dataset;
use corella_train::console::{duration, grouped, money};
use corella_train::estimate::{Machine, MemoryBytes, bill};
use corella_train::{Outcome, RunPlan};

use super::workload::workload;
use crate::device::Device;
use crate::shape::ModelShape;

/// Prints what `train` is about to do; `machine` is what `device` is known as.
pub fn print_run(
    plan: &RunPlan,
    config: &ModelShape,
    memory: MemoryBytes,
    data: &Dataset,
    device: &Device,
    machine: Option<&Machine>,
) {
    let work = workload(plan, config);
    let (layers, heads, width) = config.sizes();
    let (context, t) = (config.context_len(), plan.model.seq_len);
    println!(
        "{}: {} parameters, {} layers × {} heads, width {}, context {}{}, vocabulary {}",
        plan.model.name,
        grouped(work.params),
        layers,
        heads,
        width,
        grouped(context as u64),
        if context == t { String::new() } else { format!(" (trained with {})", grouped(t as u64)) },
        grouped(config.vocab_size() as u64)
    );
    let (corpus, val) = (data.train.len(), data.val.len());
    println!("data: {} tokens to train on, {} to validate on", grouped(corpus), grouped(val));
    if let Ok(equation) = plan.equation() {
        println!("update: {equation}");
    }
    println!(
        "run: {} steps, {} tokens, {:.2} epochs of {} tokens, {:.3e} FLOPs ({} = {:.4e} per token)",
        grouped(plan.train.steps),
        grouped(work.tokens),
        work.tokens as f64 / corpus.max(1) as f64,
        grouped(corpus),
        work.flops() as f64,
        work.formula.name(),
        work.flops_per_token() as f64
    );
    println!("{}", memory_line(memory));
    println!("device: {}", device.name());
    if let Some(machine) = machine
        && let Some(peak) = machine.peak_tflops(work.dtype)
        && let Ok(bill) = bill(&work, machine, None, plan.cost.price_per_hour)
    {
        println!(
            "time: about {} at {:.1} % of this device's {} GFLOP/s in {}{}",
            duration(bill.hours * 3600.0),
            100.0 * bill.mfu,
            grouped((1e3 * peak).round() as u64),
            plan.train.dtype.name(),
            bill.dollars.map(|d| format!(", {}", money(d))).unwrap_or_default()
        );
    }
}

/// Memory by part.
pub fn memory_line(memory: MemoryBytes) -> String {
    let mib = |bytes: u64| grouped((bytes as f64 / 1048576.0).round() as u64);
    format!(
        "memory: {} MiB = weights {} + gradients {} + optimizer {} + activations {} + between updates {}",
        mib(memory.total),
        mib(memory.weights),
        mib(memory.gradients),
        mib(memory.optimizer),
        mib(memory.activations),
        mib(memory.between_updates)
    )
}

/// How a run stands at its end; `judged` where there is a reference curve.
pub fn print_standing(outcome: &Outcome, judged: bool) {
    match (&outcome.standing, outcome.val_loss) {
        (Some(standing), _) => println!("{standing}"),
        (None, Some(_)) if !judged => {
            println!("no reference curve for this model on these data; `corella report A B` compares runs");
        }
        (None, _) => {}
    }
}
