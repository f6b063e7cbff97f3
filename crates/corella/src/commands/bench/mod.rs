//! `corella bench`: how fast, beside what the machine can do at most, both measured in the same run.

mod card;
mod generate;
mod infer;
mod ops;
mod prepare;
mod processor;
mod random_rows;
mod sampler;
mod train;

use std::time::Instant;

use corella_ops::cases::differences;
use corella_ops::cpu::Cpu;
use corella_ops::{Dtype, OpsTrain};
use serde::Serialize;

use self::processor::{Beside, Processor};
use crate::cli::{BenchArgs, BenchWhat, Common};
use crate::error::{Failure, Result};
use crate::inputs::{backend, processor};
use crate::machine::peak_memory;
use crate::output::deliver;

/// One measured figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Its shape.
    pub shape: String,
    /// Median of the repetitions.
    pub value: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// What bounds it, in the same unit, measured beside it.
    pub ceiling: f64,
    /// Part of that.
    pub percent_of_ceiling: f64,
    /// Whether the machine cannot be that fast.
    #[serde(skip)]
    impossible: bool,
    /// Part of what a card's datasheet states; of an update in bf16 this is its MFU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent_of_datasheet: Option<f64>,
    /// Milliseconds of a repetition, the median.
    pub ms: f64,
    /// How operations or bytes were counted.
    pub formula: &'static str,
    /// Tokens per second, where tokens are what is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
}

/// What bounds a kernel.
#[derive(Clone, Copy)]
pub enum Bound {
    /// Multiply-adds in a format; the count is of floating-point operations.
    Compute(Dtype, f64),
    /// Products with trained weights in a format, which in f32 go to tiles where there are some.
    Products(Dtype, f64),
    /// Products of 8-bit integers; the count is of operations.
    Integers(f64),
    /// Memory that is read; the count is of bytes.
    Memory(f64),
    /// Memory that is read and written; the count is of bytes.
    Traffic(f64),
}

impl Bound {
    /// Operations or bytes.
    fn count(self) -> f64 {
        match self {
            Bound::Compute(_, count) | Bound::Products(_, count) => count,
            Bound::Integers(count) | Bound::Memory(count) | Bound::Traffic(count) => count,
        }
    }

    /// What the processor's rates are stated in.
    fn unit(self) -> &'static str {
        match self {
            Bound::Compute(..) | Bound::Products(..) => "GFLOP/s",
            Bound::Integers(_) => "GOP/s",
            Bound::Memory(_) | Bound::Traffic(_) => "GB/s",
        }
    }
}

/// The last line of the output.
#[derive(Serialize)]
struct Document {
    backend: String,
    threads: usize,
    ceilings: CeilingsOut,
    results: Vec<Row>,
    /// Models that were loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<Loaded>,
    peak_memory_bytes: Option<u64>,
}

/// What loading a model took.
#[derive(Debug, Serialize)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// From its files to packed weights.
    pub load_seconds: f64,
    /// From a prompt to its first token, the first time: pages are touched that no run touched before.
    pub first_token_seconds: f64,
    /// Bytes of the weights that a step reads, as the files keep them.
    pub weight_bytes: f64,
    /// Bytes of the pages of keys and values.
    pub kv_bytes: f64,
    /// Most memory of the process until its weights were loaded.
    pub peak_memory_bytes: Option<u64>,
}

/// Ceilings; `null` where the kernel path has no such kernels.
#[derive(Serialize)]
struct CeilingsOut {
    f32_gflops: f64,
    bf16_gflops: Option<f64>,
    int8_gops: Option<f64>,
    read_gbs: f64,
    /// Of a card: bytes read and written of a copy in its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy_gbs: Option<f64>,
    /// Of a card: from the host, and to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_gbs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_gbs: Option<f64>,
    /// Of a card that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    datasheet: Option<card::Datasheet>,
}

/// What does the work, with what it can do at most.
enum Device {
    Processor(Processor),
    Card(card::OnCard),
}

impl Device {
    /// Chooses it and measures it, once nothing is wrong there: nothing is timed that was not first checked.
    fn checked(cpu: &Cpu, what: BenchWhat, common: &Common) -> Result<Device> {
        if matches!(what, BenchWhat::Train | BenchWhat::Generate)
            && let Some(card) = card::OnCard::of(what, common)?
        {
            return Ok(Device::Card(card));
        }
        for dtype in Dtype::ALL {
            if let Some(wrong) = differences(cpu, dtype)?.first() {
                return Err(Failure::new(format!("not timed, because it is wrong in {}: {wrong}", dtype.name())));
            }
        }
        Ok(Device::Processor(Processor::of(cpu)))
    }

    /// As people read it.
    fn sentence(&self, cpu: &Cpu) -> String {
        match self {
            Device::Card(card) => card.sentence(),
            Device::Processor(processor) => processor.sentence(cpu),
        }
    }

    /// The ceilings once more, and the best of both: the machine may have changed its mind since.
    fn again(self, cpu: &Cpu, common: &Common) -> Result<(String, CeilingsOut)> {
        Ok(match self {
            Device::Card(card) => {
                let card = card.again(common)?;
                (card.backend.clone(), card.ceilings())
            }
            Device::Processor(processor) => (cpu.name(), processor.again(cpu)),
        })
    }

    /// The processor's rates of this moment, as [`Processor::now`]; none where a card does the work, whose rate is measured
    /// before and after all of it.
    fn now(&mut self, cpu: &Cpu, bound: Bound) -> Vec<f64> {
        match self {
            Device::Processor(processor) => processor.now(cpu, bound),
            Device::Card(_) => Vec::new(),
        }
    }
}

/// Measures and prints.
pub struct Bench {
    cpu: Cpu,
    device: Device,
    repeat: usize,
    quiet: bool,
    /// Only rows whose name has this in it.
    only: Option<String>,
    rows: Vec<Row>,
    models: Vec<Loaded>,
}

/// Refuses flags of other benches, which would do nothing, and names that no operation has.
fn check_flags(args: &BenchArgs) -> Result<()> {
    use BenchWhat::{Generate, Ops, Prepare, Train};
    let given: [(bool, &str, &[BenchWhat]); 8] = [
        (args.path.is_some(), "a MODEL", &[Generate]),
        (args.weights.is_some(), "--weights", &[Generate]),
        (args.prompt.is_some(), "--prompt", &[Generate]),
        (args.model.is_some(), "--model", &[Train, Generate]),
        (args.dtype.is_some(), "--dtype", &[Ops, Train]),
        (args.only.is_some(), "--only", &[Ops]),
        (args.text.is_some(), "--text", &[Prepare]),
        (args.micro_batch.is_some(), "--micro-batch", &[Train]),
    ];
    for (given, flag, of) in given {
        if given && !of.contains(&args.what) {
            let of: Vec<String> = of.iter().map(|what| format!("`bench {}`", what.name())).collect();
            let message = format!("{flag} does nothing here: it is for {}", of.join(" and "));
            return Err(Failure::usage(message).hint("leave it out"));
        }
    }
    let mut known: Vec<String> = [ops::names(), infer::names(), sampler::names()].concat();
    known.sort();
    known.dedup();
    match args.only.as_deref().filter(|only| !known.iter().any(|name| name.contains(only))) {
        Some(only) => {
            let message = format!("no operation has {only:?} in its name");
            Err(Failure::usage(message).hint(format!("there are {}", known.join("; "))))
        }
        None => Ok(()),
    }
}

/// Runs the command.
pub fn run(args: &BenchArgs, common: &Common) -> Result<()> {
    check_flags(args)?;
    if args.what == BenchWhat::Prepare {
        return prepare::run(args, common);
    }
    // Found and known before the machine is measured, which takes a while.
    let subjects = if args.what == BenchWhat::Generate { generate::subjects(args)? } else { Vec::new() };
    let shapes = if args.what == BenchWhat::Train { train::shapes(args.model.as_deref(), &[])? } else { Vec::new() };
    let cpu = if args.what == BenchWhat::Ops { backend(common)? } else { processor(common)? };
    let device = Device::checked(&cpu, args.what, common)?;
    if !common.json {
        println!("{}", device.sentence(&cpu));
    }
    let (repeat, quiet, only) = (args.repeat, common.json, args.only.clone());
    let mut bench = Bench { cpu, device, repeat, quiet, only, rows: Vec::new(), models: Vec::new() };
    match args.what {
        BenchWhat::Prepare => {}
        BenchWhat::Ops => {
            ops::run(&mut bench, args)?;
            infer::run(&mut bench)?;
            sampler::run(&mut bench)?;
        }
        BenchWhat::Train => train::run(&mut bench, shapes, args, common)?,
        BenchWhat::Generate => generate::run(&mut bench, subjects, args, common)?,
    }
    let (backend, ceilings) = bench.device.again(&bench.cpu, common)?;
    let document = Document {
        backend,
        threads: bench.cpu.threads(),
        ceilings,
        results: bench.rows,
        models: bench.models,
        peak_memory_bytes: peak_memory(),
    };
    deliver(serde_json::to_string(&document)?)?;
    if let Some(row) = document.results.iter().find(|row| row.impossible) {
        return Err(Failure::new(format!(
            "{} {} is at {:.0} % of the ceiling: the probe is too weak, or the machine was busy while it ran",
            row.name, row.shape, row.percent_of_ceiling
        ))
        .hint("run it again on a quiet machine"));
    }
    Ok(())
}

/// Runs a body for each format, or for the one that was asked for.
fn formats(args: &BenchArgs, body: impl FnMut(Dtype) -> Result<()>) -> Result<()> {
    Dtype::ALL.into_iter().filter(|dtype| args.dtype.is_none_or(|only| only == *dtype)).try_for_each(body)
}

/// The value in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Bench {
    /// Times `body` `repeat` times after a warm-up, and adds a row with the medians, of the rates that the machine has before
    /// and after each repetition too.
    pub fn time(&mut self, name: &str, shape: String, bound: Bound, formula: &'static str, mut body: impl FnMut(&Cpu)) {
        if !self.wants(name) {
            return;
        }
        body(&self.cpu);
        let mut beside = Beside::default();
        self.look(&mut beside, bound);
        let mut runs: Vec<f64> = (0..self.repeat)
            .map(|_| {
                let start = Instant::now();
                body(&self.cpu);
                let seconds = start.elapsed().as_secs_f64();
                self.look(&mut beside, bound);
                seconds
            })
            .collect();
        self.row(name, shape, bound, formula, median(&mut runs), &beside);
    }

    /// Whether rows of this name were asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Measures what bounds, at this moment.
    pub fn look(&mut self, beside: &mut Beside, bound: Bound) {
        beside.add(self.device.now(&self.cpu, bound));
    }

    /// Adds a row for a measured time; `beside` is what the processor did at most meanwhile.
    pub fn row(
        &mut self,
        name: &str,
        shape: String,
        bound: Bound,
        formula: &'static str,
        seconds: f64,
        beside: &Beside,
    ) {
        let value = bound.count() / seconds / 1e9;
        let (unit, ceiling, datasheet) = match &self.device {
            Device::Card(card) => card.ceiling(bound),
            Device::Processor(processor) => {
                (bound.unit(), beside.usual().unwrap_or_else(|| processor.ceiling(bound)), None)
            }
        };
        let percent_of_ceiling = 100.0 * value / ceiling;
        // More than was ever measured beside it: not noise.
        let impossible = value > beside.most().unwrap_or(ceiling);
        let percent_of_datasheet = datasheet.map(|datasheet| 100.0 * value / datasheet);
        if !self.quiet {
            let datasheet =
                percent_of_datasheet.map_or(String::new(), |percent| format!(" ({percent:.1} % of the datasheet)"));
            println!(
                "{name:18} {shape:28} {value:8.1} {unit:8} {percent_of_ceiling:5.1} % of {ceiling:.1}{datasheet}  {:9.3} ms",
                seconds * 1e3
            );
        }
        self.rows.push(Row {
            name: name.to_owned(),
            shape,
            value,
            unit,
            ceiling,
            percent_of_ceiling,
            impossible,
            percent_of_datasheet,
            ms: seconds * 1e3,
            formula,
            tokens_per_second: None,
        });
    }

    /// States the last row in tokens per second too.
    pub fn tokens(&mut self, rate: f64) {
        if let Some(row) = self.rows.last_mut() {
            row.tokens_per_second = Some(rate);
        }
        if !self.quiet {
            println!("{:18} {rate:.1} tokens/s", "");
        }
    }
}
