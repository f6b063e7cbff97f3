//! `corella plan`: what a run costs before it is made.

mod bills;
mod deal;
mod document;
mod recipe;

use std::path::PathBuf;

use clap::Args;
use corella_train::estimate::{
    Bill, EstimateError, Machine, MemoryBytes, Prices, Scale, Workload, bill, gpu_memory, largest_micro_batch, scale,
};
use corella_train::{RunPlan, folder};

use crate::cli::{Common, TrainArgs};
use crate::device::this_processor;
use crate::error::{Failure, Result};
use crate::inputs::{backend, is_missing};
use crate::machine::available_memory;
use crate::output::deliver;
use crate::shape::ModelShape;
use crate::training::memory::{
    self, DiskBytes, check_memory, check_micro_batch_flags, memory_budget, plan_memory, plan_recompute,
};
use crate::training::vocabulary_checks::settle_vocabulary;
use crate::training::wanted::wanted;
use crate::training::workload::workload;
use deal::{dealt, within};
use document::{Document, Note};

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

/// Where a run is to be made.
struct Place {
    machine: Machine,
    /// Bytes of memory, of each card.
    available: Option<u64>,
}

impl Place {
    fn of(args: &PlanArgs, common: &Common, work: &Workload) -> Result<Place> {
        let Some(text) = &args.gpu else {
            let machine = this_processor(&backend(common)?, work.dtype, work.channels);
            return Ok(Place { machine, available: available_memory() });
        };
        let machine = Machine::parse(text)
            .map_err(|e| Failure::usage(e).hint("--gpu takes a number of cards and a name: 8xH100"))?;
        let available = match &machine {
            Machine::Cards { card, .. } => Some((card.memory_gb * 1e9) as u64),
            Machine::Processor { .. } => available_memory(),
        };
        Ok(Place { machine, available })
    }

    /// Memory with `b` sequences per pass.
    fn memory(&self, plan: &RunPlan, config: &ModelShape, b: usize) -> MemoryBytes {
        let Machine::Cards { count, .. } = self.machine else { return plan_memory(plan, config, b) };
        let dtype = plan.train.dtype;
        let activations = config.memory(memory::shape(plan, b), plan_recompute(plan), dtype).activations;
        gpu_memory(config.parameter_count() as u64, activations, dtype, count)
    }

    fn fits(&self, memory: MemoryBytes) -> bool {
        self.available.is_none_or(|available| memory.total <= available)
    }

    fn on_cards(&self) -> bool {
        matches!(self.machine, Machine::Cards { .. })
    }

    /// What a plan has that the program does not do yet.
    fn not_yet(&self) -> Option<String> {
        let cards = self.machine.count();
        (cards > 1).then(|| format!("corella trains on one card so far; this is what {cards} would take"))
    }
}

/// Runs the command.
pub fn run(args: &PlanArgs, common: &Common) -> Result<()> {
    if args.history {
        return bills::print(common);
    }
    if args.train.source.is_none() && args.train.data.is_none() && args.train.model.is_none() {
        return Err(Failure::usage("nothing to plan")
            .hint("corella plan RUN.toml, or --model gpt2-124m --tokens N --batch-tokens 524288"));
    }
    let (train, as_published) = recipe::complete(of_run(&args.train), args.gpu.is_some());
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
    let place = Place::of(args, common, &workload(&plan, &config))?;
    let mut notes: Vec<Note> = as_published.map(Note::from).into_iter().collect();
    notes.extend(settle(&mut plan, &config, &place, args.train.memory)?);
    let document = document(args, &plan, &config, &place, data_tokens, notes)?;
    if common.json { deliver(serde_json::to_string(&document)?) } else { deliver(document.lines().join("\n")) }
}

/// Settles the micro-batch by memory and by what falls to a card; what is to be said of it.
fn settle(plan: &mut RunPlan, config: &ModelShape, place: &Place, memory: Option<usize>) -> Result<Vec<Note>> {
    let work = workload(plan, config);
    let cards = place.machine.count();
    let (per_card, sequences) = (work.sequences_per_card(cards) as usize, work.sequences_per_step as usize);
    let mut notes: Vec<Note> = dealt(&work, &place.machine, plan.model.seq_len)
        .map(|(what, hint)| Note { what, hint: Some(hint) })
        .into_iter()
        .collect();
    check_micro_batch_flags(memory, plan)?;
    if plan.train.micro_batch == 0 {
        let budget = memory_budget(memory, place.available);
        let bytes = |b| place.memory(plan, config, b).total;
        let fits = largest_micro_batch(per_card, budget.unwrap_or(u64::MAX), bytes);
        if fits.is_none() && memory.is_some() {
            check_memory(bytes(1), budget)?;
        }
        plan.train.micro_batch = within(fits.unwrap_or(1), per_card, sequences);
    }
    plan.check()?;
    let planned = plan.train.micro_batch;
    plan.train.micro_batch = within(planned, per_card, sequences);
    if place.on_cards() && plan.train.micro_batch < planned {
        notes.push(Note::from(format!(
            "the micro-batch is {} instead of {planned} (sequences of an update for each card: {per_card})",
            plan.train.micro_batch
        )));
    }
    Ok(notes)
}

/// All that is to be told.
fn document(
    args: &PlanArgs,
    plan: &RunPlan,
    config: &ModelShape,
    place: &Place,
    data_tokens: Option<u64>,
    notes: Vec<Note>,
) -> Result<Document> {
    let (work, machine) = (workload(plan, config), &place.machine);
    let memory_bytes = place.memory(plan, config, plan.train.micro_batch);
    let fits = place.fits(memory_bytes);
    let smaller_fits = |smaller: &RunPlan| place.fits(place.memory(smaller, config, smaller.train.micro_batch));
    let (price_per_hour, price_from) = price(args, plan, machine)?;
    let (bill, scale, no_bill) = costs(plan, &work, place, args.mfu, price_per_hour.filter(|_| fits))?;
    Ok(Document {
        model: plan.model.name.clone(),
        parameters: work.params,
        formula: work.formula.name(),
        flops_per_token: work.flops_per_token(),
        flops_again_per_token: work.flops_again(),
        flops: work.flops() as f64,
        tokens: work.tokens,
        data_tokens,
        epochs: data_tokens.map(|there| work.tokens as f64 / there.max(1) as f64),
        tokens_per_step: work.tokens_per_step,
        sequences_per_step: work.sequences_per_step,
        update: plan.equation_on(machine.count())?,
        steps: plan.train.steps,
        micro_batch: plan.train.micro_batch,
        machine: machine.name(),
        cards: machine.count(),
        cards_with_work: work.sequences_per_step.min(u64::from(machine.count())),
        not_yet: place.not_yet(),
        notes,
        dtype: work.dtype.name(),
        peak_tflops: machine.peak_flops(work.dtype).map(|peak| peak / 1e12),
        peak_from: if place.on_cards() { "data sheet" } else { "measured now" },
        mfu_from: match (args.mfu, place.on_cards()) {
            (Some(_), _) => "given",
            (None, true) => "predicted from card and model",
            (None, false) => "usual on processors in this format",
        },
        bill,
        no_bill,
        price_per_hour,
        price_from,
        memory_bytes,
        memory_available: place.available,
        fits,
        way_out: (!fits).then(|| memory::way_out(plan, work.sequences_per_step as usize, smaller_fits)),
        disk_bytes: DiskBytes::of(plan, config),
        scale,
    })
}

/// The bill, and the hours on other numbers of cards; a sentence where the card's peak in the format is not known.
fn costs(
    plan: &RunPlan,
    work: &Workload,
    place: &Place,
    mfu: Option<f64>,
    price_per_hour: Option<f64>,
) -> Result<(Option<Bill>, Vec<Scale>, Option<String>)> {
    let mut bill = match bill(work, &place.machine, mfu, price_per_hour) {
        Ok(bill) => bill,
        Err(unknown @ EstimateError::NoPeak { .. }) => return Ok((None, Vec::new(), Some(unknown.to_string()))),
        Err(wrong) => {
            return Err(Failure::usage(wrong).hint(
                "--mfu is a part of the cards' peak: 0.4 to 0.5 is good, 1 is the limit, with what --recompute computes again",
            ));
        }
    };
    if let Some(watts) = plan.cost.watts {
        bill.energy_kwh = Some(watts * bill.hours / 1000.0);
    }
    Ok((Some(bill), scale(work, &place.machine, mfu)?, None))
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
