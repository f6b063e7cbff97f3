//! `corella plan`: what a run costs before it is made.

use std::path::PathBuf;

use clap::Args;
use corella_model::memory::Recompute;
use corella_model::{BatchShape, Dtype};
use corella_ops::OpsTrain;
use corella_ops::cpu::{Cpu, probe};
use corella_text::data::{Dataset, Order};
use corella_train::estimate::{
    Bill, Card, Formula, Machine, MemoryBytes, Prices, ProcessorPeaks, Scale, Workload, bill, gpu_memory, history,
    largest_micro_batch, scale,
};
use corella_train::{RunPlan, folder};
use serde::Serialize;

use crate::cli::{Common, TrainArgs};
use crate::commands::deal::{dealt, within};
use crate::commands::plan_fits::settle_vocabulary;
use crate::commands::run_plan::wanted;
use crate::device::TrainDevice;
use crate::error::{Failure, Result};
use crate::inputs::{backend, is_missing};
use crate::machine::available_memory;
use crate::output::deliver;
use crate::shape::ModelShape;

/// Flags of `plan`: those of `train`, and the machine.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The run.
    #[command(flatten)]
    pub train: TrainArgs,
    /// Cards that it is to run on, e.g. 8xH100 [default: this machine's processor]
    #[arg(long)]
    pub gpu: Option<String>,
    /// Part of the cards' peak that is used, from 0 to 1 [default: predicted from card and model]
    #[arg(long)]
    pub mfu: Option<f64>,
    /// A table of prices instead of the built-in one (same format as crates/corella-train/data/prices.toml)
    #[arg(long)]
    pub prices: Option<PathBuf>,
    /// What the bill for GPT-2's quality was since 2019, divided into data, hardware and software
    #[arg(long)]
    pub history: bool,
}

/// Measurements of the processor's peak, each a fraction of a millisecond to a few.
const PROBES: usize = 10;
/// Part of the free memory that a micro-batch chosen by the program may fill.
const MEMORY_SHARE: f64 = 0.8;

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    model: String,
    parameters: u64,
    formula: &'static str,
    flops_per_token: u64,
    flops: f64,
    tokens: u64,
    /// Tokens of the prepared data that are to train on.
    data_tokens: Option<u64>,
    /// How often they are seen.
    epochs: Option<f64>,
    tokens_per_step: u64,
    sequences_per_step: u64,
    steps: u64,
    micro_batch: usize,
    machine: String,
    cards: u32,
    /// Cards that have a sequence of each update.
    cards_with_work: u64,
    /// What in the arrangement costs time or was changed.
    notes: Vec<String>,
    /// Number format of the products that the peak is of.
    dtype: &'static str,
    peak_tflops: f64,
    peak_from: &'static str,
    mfu_from: &'static str,
    #[serde(flatten)]
    bill: Bill,
    price_per_hour: Option<f64>,
    price_from: Option<String>,
    memory_bytes: MemoryBytes,
    memory_available: Option<u64>,
    fits: bool,
    scale: Vec<Scale>,
}

/// Runs the command.
pub fn run(args: &PlanArgs, common: &Common) -> Result<()> {
    if args.history {
        return print_history(common);
    }
    if args.train.source.is_none() && args.train.data.is_none() && args.train.model.is_none() {
        return Err(Failure::usage("nothing to plan").hint("corella plan RUN.toml, or --model gpt2-124m --tokens N"));
    }
    let train = of_run(&args.train);
    if let Some(named) = train.source.iter().chain(&train.data).find(|named| is_missing(named)) {
        return Err(Failure::new(format!("{} does not exist", named.display()))
            .hint("give a run file, a run folder, a text or prepared data; a published shape is named with --model"));
    }
    let mut wanted = wanted(&train, common)?;
    let data_tokens = settle_vocabulary(&train, &mut wanted)?;
    let config = wanted.shape()?;
    let mut plan = wanted.plan;
    if plan.train.steps == 0 {
        return Err(Failure::usage("a run of no steps costs nothing").hint("--steps 1 or more, or --tokens N"));
    }
    let work = workload(&plan, &config);
    let (machine, memory_available) = match &args.gpu {
        Some(text) => {
            let machine = Machine::parse(text)
                .map_err(|e| Failure::usage(e).hint("--gpu takes a number of cards and a name: 8xH100"))?;
            let bytes = (machine.card.memory_gb * 1e9) as u64;
            (machine, Some(bytes))
        }
        None => (this_processor(&backend(common)?, plan.train.dtype, work.channels), available_memory()),
    };
    let on_gpu = args.gpu.is_some();
    let bytes = |plan: &RunPlan, b: usize| match on_gpu {
        true => {
            let activations = config.memory(shape(plan, b), plan_recompute(plan), Dtype::Bf16).activations;
            gpu_memory(config.parameter_count() as u64, activations, machine.cards)
        }
        false => plan_memory(plan, &config, b),
    };
    let (per_card, mut notes) = (work.sequences_per_card(machine.cards) as usize, dealt(&work, machine.cards));
    check_micro_batch_flags(args.train.memory, &plan)?;
    if plan.train.micro_batch == 0 {
        let budget = memory_budget(args.train.memory, memory_available);
        let fits = largest_micro_batch(per_card, budget.unwrap_or(u64::MAX), |b| bytes(&plan, b).total);
        if fits.is_none() && args.train.memory.is_some() {
            check_memory(bytes(&plan, 1).total, budget)?;
        }
        let fits = fits.unwrap_or(1);
        plan.train.micro_batch = within(fits, per_card, work.sequences_per_step as usize);
    }
    plan.check()?;
    let planned = plan.train.micro_batch;
    plan.train.micro_batch = within(planned, per_card, work.sequences_per_step as usize);
    if on_gpu && plan.train.micro_batch < planned {
        notes.push(format!(
            "the micro-batch is {} instead of {planned} (sequences of an update for each card: {per_card})",
            plan.train.micro_batch
        ));
    }
    let memory_bytes = bytes(&plan, plan.train.micro_batch);
    let mfu = args.mfu.or((!on_gpu).then_some(machine.card.share));
    let (price_per_hour, price_from) = price(args, &plan, &machine)?;
    let mut bill = bill(&work, &machine, mfu, price_per_hour).map_err(|e| {
        Failure::usage(e).hint("--mfu is a part of the cards' peak: 0.4 to 0.5 is good, 1 is the limit")
    })?;
    if let Some(watts) = plan.cost.watts {
        bill.energy_kwh = Some(watts * bill.hours / 1000.0);
    }
    let document = Document {
        model: plan.model.name.clone(),
        parameters: work.params,
        formula: work.formula.name(),
        flops_per_token: work.flops_per_token(),
        flops: work.flops() as f64,
        tokens: work.tokens,
        data_tokens,
        epochs: data_tokens.map(|there| work.tokens as f64 / there.max(1) as f64),
        tokens_per_step: work.tokens_per_step,
        sequences_per_step: work.sequences_per_step,
        steps: plan.train.steps,
        micro_batch: plan.train.micro_batch,
        machine: machine.name(),
        cards: machine.cards,
        cards_with_work: work.sequences_per_step.min(u64::from(machine.cards)),
        notes,
        dtype: if on_gpu { Dtype::Bf16 } else { plan.train.dtype }.name(),
        peak_tflops: machine.card.tflops * f64::from(machine.cards),
        peak_from: if on_gpu { "data sheet" } else { "measured now" },
        mfu_from: match (args.mfu, on_gpu) {
            (Some(_), _) => "given",
            (None, true) => "predicted from card and model",
            (None, false) => "usual on processors in this format",
        },
        bill,
        price_per_hour,
        price_from,
        memory_bytes,
        memory_available,
        fits: memory_available.is_none_or(|available| memory_bytes.total <= available),
        scale: if on_gpu { scale(&work, &machine, args.mfu)? } else { Vec::new() },
    };
    if common.json { deliver(serde_json::to_string(&document)?) } else { deliver(lines(&document).join("\n")) }
}

/// The flags, with the run file of a run folder in its place.
fn of_run(train: &TrainArgs) -> TrainArgs {
    let file = train.source.as_ref().map(|source| source.join(folder::PLAN)).filter(|file| file.is_file());
    TrainArgs { source: file.or_else(|| train.source.clone()), ..train.clone() }
}

/// Dollars per hour of the whole machine, and where that is from.
fn price(args: &PlanArgs, plan: &RunPlan, machine: &Machine) -> Result<(Option<f64>, Option<String>)> {
    if let Some(price) = plan.cost.price_per_hour {
        return Ok((Some(price), Some("given".to_owned())));
    }
    let table = match &args.prices {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            Prices::parse(&text, &path.display().to_string())?
        }
        None => Prices::built_in()?,
    };
    Ok(match table.of(machine) {
        Some((price, row)) => {
            let spread = table.range(&row.card).map(|(low, high)| format!("; seen: {low:.2} to {high:.2}"));
            (Some(price), Some(format!("{} per card, {}{}", row.what, row.date, spread.unwrap_or_default())))
        }
        None => (None, None),
    })
}

/// The plan as a workload.
pub fn workload(plan: &RunPlan, config: &ModelShape) -> Workload {
    let (layers, _, channels) = config.sizes();
    let layers = layers as u64;
    Workload {
        params: config.parameter_count() as u64,
        matmul_params: config.product_parameters() as u64,
        layers,
        channels: channels as u64,
        span: layers * plan.model.seq_len as u64,
        vocab_size: config.vocab_size() as u64,
        tokens: plan.train.steps * plan.train.batch_tokens as u64,
        tokens_per_step: plan.train.batch_tokens as u64,
        sequences_per_step: (plan.train.batch_tokens / plan.model.seq_len.max(1)) as u64,
        fp8: false,
        formula: Formula::Causal,
    }
}

/// This machine's processor as a card for products in `dtype` of a model with so many channels; its peak is measured now.
pub fn this_processor(cpu: &Cpu, dtype: Dtype, channels: u64) -> Machine {
    // The best of several: a busy machine only ever shows less than it can.
    let best = |now: fn(&Cpu) -> f64| (0..PROBES).map(|_| now(cpu)).fold(0.0, f64::max);
    let peaks = ProcessorPeaks { f32_gflops: best(probe::f32_now), bf16_gflops: best(probe::bf16_now) };
    let (gflops, share) = peaks.of(dtype, channels);
    let card = Card {
        name: cpu.name(),
        aliases: Vec::new(),
        tflops: gflops / 1e3,
        memory_gb: available_memory().unwrap_or(0) as f64 / 1e9,
        bandwidth_tb_s: f64::NAN,
        link_gb_s: f64::NAN,
        watts: None,
        share,
        share_of: None,
        unverified: Vec::new(),
    };
    Machine { card, cards: 1 }
}

fn shape(plan: &RunPlan, b: usize) -> BatchShape {
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
        .hint("a smaller --micro-batch (or auto), --recompute, --dtype bf16, a shorter --seq-len, or a smaller model")),
        _ => Ok(()),
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Prints what `train` is about to do; `machine` is what `device` is known as.
pub fn print_run(
    plan: &RunPlan,
    config: &ModelShape,
    memory: MemoryBytes,
    data: &Dataset,
    device: &TrainDevice,
    machine: Option<&(Machine, Option<f64>)>,
) {
    let work = workload(plan, config);
    let (layers, heads, width) = config.sizes();
    let (context, t) = (config.context_len(), plan.model.seq_len);
    println!(
        "{}: {} parameters, {} layers × {} heads, width {}, context {}{}, vocabulary {}",
        plan.model.name,
        work.params,
        layers,
        heads,
        width,
        context,
        if context == t { String::new() } else { format!(" (trained with {t})") },
        config.vocab_size()
    );
    let (corpus, val) = (data.train.len(), data.val.len());
    println!("data: {corpus} tokens to train on, {val} to validate on");
    if let Ok(equation) = plan.equation() {
        println!("update: {equation}");
    }
    println!(
        "run: {} steps, {} tokens, {:.2} epochs of {corpus} tokens, {:.3e} FLOPs ({} = {:.4e} per token)",
        plan.train.steps,
        work.tokens,
        work.tokens as f64 / corpus.max(1) as f64,
        work.flops() as f64,
        work.formula.name(),
        work.flops_per_token() as f64
    );
    println!("{}", memory_line(memory));
    println!("device: {}", device.name());
    if let Some((machine, mfu)) = machine
        && let Ok(bill) = bill(&work, machine, *mfu, plan.cost.price_per_hour)
    {
        println!(
            "time: about {} at {:.1} % of this device's {:.0} GFLOP/s in {}{}",
            corella_train::console::duration(bill.hours * 3600.0),
            100.0 * bill.mfu,
            1e3 * machine.card.tflops,
            plan.train.dtype.name(),
            bill.dollars.map(|d| format!(", ${d:.2}")).unwrap_or_default()
        );
    }
}

fn memory_line(memory: MemoryBytes) -> String {
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    format!(
        "memory: {:.0} MiB = weights {:.0} + gradients {:.0} + optimizer {:.0} + activations {:.0} + between updates {:.0}",
        mib(memory.total),
        mib(memory.weights),
        mib(memory.gradients),
        mib(memory.optimizer),
        mib(memory.activations),
        mib(memory.between_updates)
    )
}

/// What is printed.
fn lines(d: &Document) -> Vec<String> {
    let mut lines = vec![format!("{}: {} parameters", d.model, d.parameters)];
    lines.push(format!(
        "run: {} steps × {} tokens = {} tokens, {:.4e} FLOPs ({} = {} per token)",
        d.steps, d.tokens_per_step, d.tokens, d.flops, d.formula, d.flops_per_token
    ));
    if let (Some(there), Some(epochs)) = (d.data_tokens, d.epochs) {
        lines.push(format!("data: {there} tokens to train on, seen {epochs:.2} times"));
    }
    lines.push(format!("micro-batch {}; {}", d.micro_batch, memory_line(d.memory_bytes)));
    match d.memory_available {
        Some(available) if !d.fits => lines.push(format!("DOES NOT FIT: {:.1} GiB are available", gib(available))),
        Some(available) => lines.push(format!("fits into {:.1} GiB", gib(available))),
        None => {}
    }
    lines.push(format!(
        "time: {} ({:.2} hours) on {} ({} peak in {}, {}, at {:.1} % utilisation{}, {}){}",
        corella_train::console::duration(d.bill.hours * 3600.0),
        d.bill.hours,
        d.machine,
        if d.peak_tflops < 10.0 {
            format!("{:.0} GFLOP/s", 1e3 * d.peak_tflops)
        } else {
            format!("{:.1} TFLOP/s", d.peak_tflops)
        },
        d.dtype,
        d.peak_from,
        100.0 * d.bill.mfu,
        if d.cards_with_work < u64::from(d.cards) { " of those that have work" } else { "" },
        d.mfu_from,
        d.notes.iter().map(|note| format!("; {note}")).collect::<String>()
    ));
    if let (Some(dollars), Some(price), Some(from)) = (d.bill.dollars, d.price_per_hour, &d.price_from) {
        lines.push(format!("price: ${dollars:.2} = {:.2} hours × ${price:.2} an hour ({from})", d.bill.hours));
    }
    if let Some(energy) = d.bill.energy_kwh {
        lines.push(format!("energy: at most {energy:.1} kWh"));
    }
    if d.bill.dollars.is_none() || d.bill.energy_kwh.is_none() {
        lines.push("dollars and energy of this machine: say --price (dollars an hour) and --watts".to_owned());
    }
    for scale in &d.scale {
        let some = format!(", with work for {} of them", d.sequences_per_step);
        let some = if scale.sequences_per_card < 1.0 { some } else { String::new() };
        let time = corella_train::console::duration(scale.hours * 3600.0);
        lines.push(format!("on {:>7} of these cards: {time} at best{some}", scale.cards));
    }
    lines
}

fn print_history(common: &Common) -> Result<()> {
    let steps = history()?;
    if common.json {
        return deliver(serde_json::to_string(&steps)?);
    }
    let mut lines = vec!["The bill for GPT-2's quality, and by what factor each made it smaller:\n".to_owned()];
    lines.push(format!(
        "{:18} {:18} {:>9} {:>9} {:>7} {:>9} {:>9}",
        "from", "to", "dollars", "to", "data", "hardware", "software"
    ));
    for s in &steps {
        lines.push(format!(
            "{:18} {:18} {:9.1} {:9.1} {:6.1}x {:8.1}x {:8.1}x",
            s.from, s.to, s.dollars_from, s.dollars_to, s.data, s.hardware, s.software
        ));
        lines.push(format!("    {}", s.note));
    }
    deliver(lines.join("\n"))
}
