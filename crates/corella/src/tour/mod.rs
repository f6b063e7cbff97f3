//! `corella tour`: the lesson, live. A random network learns the tiny internet; then each phenomenon is measured.

mod phenomena;
mod reading;

pub use phenomena::OPENING;
pub use reading::Reading;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use corella_model::gpt2::{Gpt2Checkpoint, Gpt2Exact};
use corella_model::{Dtype, TextModel};
use corella_server::Loading;
use corella_text::data::Order;
use corella_text::tiny_internet::{Grammar, World, facts, probes};
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Hooks, OutputPlan, RunPlan, Sample, Schedule, StepReport, TrainError, TrainPlan,
    folder,
};

use crate::cli::{Common, DeviceFlag, TOUR_FOLDER, TOUR_TOKENS, TourArgs};
use crate::commands::serve::Settings;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::{TINY_INTERNET, WORLD_SEED, processor, tiny_dataset, tiny_pages};
use crate::output::deliver;
use crate::shape::{SMALL_SEQ_LEN, small_gpt2};
use crate::signals::stop_flag;
use crate::site::{self, Site};
use crate::terminal::{in_shell, plot};
use crate::training::build::build;
use crate::training::hooks::Console;
use crate::training::lines::print_standing;

/// Sequences of an update.
const BATCH: usize = 8;
/// Tokens of an update.
const BATCH_TOKENS: usize = BATCH * SMALL_SEQ_LEN;

/// Runs the command.
pub fn run(args: &TourArgs, common: &Common) -> Result<()> {
    if !(args.million_tokens > 0.0 && args.million_tokens <= 1000.0) {
        return Err(Failure::usage("--million-tokens must be above 0 and at most 1000")
            .hint("3.9 is the usual; 0.5 shows the beginning"));
    }
    args.serve.map(site::check).transpose()?;
    of_its_seed(args, common)?;
    let world = World::new(WORLD_SEED);
    let corpus = tiny_pages(&world, common.seed());
    let data = tiny_dataset(&world, &corpus, "own", 2048)?;
    let mut plan = plan(args, common, data.tokenizer.vocab_size());
    plan.train.dtype = match args.dtype.or_else(|| earlier_dtype(args)) {
        Some(dtype) => dtype,
        None if processor(common)?.multiplies_bf16() => Dtype::Bf16,
        None => Dtype::F32,
    };
    if !common.json {
        println!(
            "A network of random numbers reads {} pages of an invented internet, a few at a time.",
            corpus.documents.len()
        );
        println!("Its loss is the surprise, in nats, at each next token. Low is good.\n");
    }
    let mut run = build(&mut plan, args.out.clone(), data, args.resume, Device::choose(common)?, None, common.json)?;
    let stop = stop_flag(&run.dir)?;
    let site = its_site(args, common)?;
    let mut console = Console::new(&run, common.json);
    if let Some(site) = &site {
        site.announce(common.json, &[("watch it in the browser", "run.html")]);
        console.watched = Some(site.app());
    }
    let mut live = Live { console, losses: Vec::new(), quiet: common.json, steps: plan.train.steps };
    let outcome = corella_train::train(&mut run, &mut live, &stop).map_err(|error| {
        let is_shorter = matches!(error, TrainError::Plan { field: "steps", .. });
        match begun(args).filter(|_| is_shorter) {
            Some(was) => Failure::from(error).hint(format!("go on with: {}", as_begun(&was, args, common))),
            None => error.into(),
        }
    })?;
    if !outcome.finished {
        if common.json {
            println!("{}", serde_json::json!({"state": "stopped", "step": outcome.step}));
        } else {
            println!("stopped after {} steps; go on with: {}", outcome.step, going_on(args, common));
        }
        return site.map_or(Ok(()), Site::stop).and(Err(Failure::stopped()));
    }
    if !common.json {
        print_standing(&outcome, run.reference.is_some());
    }
    if let Some(site) = &site {
        site.app().loading(Loading::Busy { what: "measuring what it can do".to_owned(), share: None });
    }
    let tokenizer = run.data.tokenizer.clone();
    let reading = Reading { tokens: outcome.tokens, corpus: run.data.train.len() };
    drop((run, live));
    let mut model = Gpt2Exact::new(processor(common)?, &Gpt2Checkpoint::open(&outcome.checkpoint)?)?;
    let list = facts(&world, &corpus);
    if !common.json {
        for line in reading.too_little().into_iter().chain(reading.note()) {
            println!("\n{line}");
        }
    }
    let measured =
        phenomena::measure(&mut model, &tokenizer, &list, &probes(&world, &list), &Grammar::new(&world), !common.json);
    let path = args.out.join("tour.json");
    let json = serde_json::json!({"val_loss": outcome.val_loss, "steps": outcome.step, "read": reading.json(),
        "phenomena": measured});
    std::fs::write(&path, format!("{json:#}\n")).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    if common.json {
        deliver(&json)?;
    } else {
        println!(
            "\nAll of this is in {}. Ask it yourself:\n  corella generate {} -p \"Once upon a time\"",
            path.display(),
            args.out.display()
        );
    }
    let Some(site) = site else { return Ok(()) };
    drop(model);
    if !common.json {
        site.announce(false, &[("or in the playground, each effect one click away", "")]);
    }
    site.serve(&Settings::of_run(&args.out, common))
}

/// The plan of the tour that goes on.
fn begun(args: &TourArgs) -> Option<RunPlan> {
    if args.resume { folder::plan(&args.out) } else { None }
}

/// Refuses another corpus than the one that the tour that goes on has read so far.
fn of_its_seed(args: &TourArgs, common: &Common) -> Result<()> {
    let Some(was) = begun(args).filter(|was| was.train.seed != common.seed()) else { return Ok(()) };
    let (out, seed) = (args.out.display(), was.train.seed);
    Err(Failure::usage(format!("the tour in {out} was begun with seed {seed}, not {}", common.seed()))
        .hint(format!("go on with: {}", as_begun(&was, args, common))))
}

/// The command that goes on with a tour of this plan.
fn as_begun(was: &RunPlan, args: &TourArgs, common: &Common) -> String {
    // Half an update more, so that the number of updates is the same when it is read.
    let updates = |million_tokens: f64| steps(&TourArgs { million_tokens, ..args.clone() });
    let exact = (was.train.steps * BATCH_TOKENS as u64) as f64 / 1e6;
    let more = exact + (BATCH_TOKENS / 2) as f64 / 1e6;
    let fits = [TOUR_TOKENS, exact].into_iter().find(|million| updates(*million) == was.train.steps);
    let args = TourArgs { million_tokens: fits.unwrap_or(more), ..args.clone() };
    let seed = Some(was.train.seed).filter(|seed| *seed != Common::DEFAULT_SEED);
    going_on(&args, &Common { seed, ..common.clone() })
}

/// The command that goes on with this tour: another folder, corpus or length would be another run.
fn going_on(args: &TourArgs, common: &Common) -> String {
    let mut command = "corella tour".to_owned();
    let mut add = |flag: &str, value: String| command.push_str(&format!(" {flag} {value}"));
    if args.out != Path::new(TOUR_FOLDER) {
        add("--out", in_shell(&args.out.to_string_lossy()));
    }
    if args.million_tokens != TOUR_TOKENS {
        add("--million-tokens", args.million_tokens.to_string());
    }
    if let Some(seed) = common.seed {
        add("--seed", seed.to_string());
    }
    match common.device {
        DeviceFlag::Cpu => {}
        DeviceFlag::Auto => add("--device", "auto".to_owned()),
        DeviceFlag::Cuda(number) => add("--device", format!("cuda:{number}")),
    }
    command + " --resume"
}

/// The number format of the tour that goes on: another one would give other losses.
fn earlier_dtype(args: &TourArgs) -> Option<Dtype> {
    Some(begun(args)?.train.dtype)
}

/// The site of the tour: where it is asked for, and for somebody who sits at a terminal.
fn its_site(args: &TourArgs, common: &Common) -> Result<Option<Site>> {
    let somebody = std::io::stdout().is_terminal() && !common.json && !args.no_serve;
    match args.serve {
        None if !somebody => Ok(None),
        address => Site::of_run(address, &args.out).map(Some),
    }
}

/// The updates of a tour.
fn steps(args: &TourArgs) -> u64 {
    ((args.million_tokens * 1e6) as u64 / BATCH_TOKENS as u64).max(1)
}

/// Recipe B: 3.7 million parameters, 8 × 256 tokens per update, decay over the last 40 %.
fn plan(args: &TourArgs, common: &Common, vocab_size: usize) -> RunPlan {
    let (model, steps) = (small_gpt2(vocab_size), steps(args));
    RunPlan {
        model,
        data: DataPlan { path: TINY_INTERNET.to_owned(), tokenizer: "own".to_owned(), order: Order::default() },
        train: TrainPlan {
            steps,
            batch_tokens: BATCH_TOKENS,
            micro_batch: BATCH,
            lr: 2e-3,
            schedule: Schedule::Wsd,
            final_lr_fraction: 0.03,
            decay_fraction: 0.4,
            seed: common.seed(),
            ..TrainPlan::default()
        },
        output: OutputPlan {
            checkpoint_every: 400,
            sample_every: (steps / 8).max(1),
            sample_prompts: vec![phenomena::OPENING.to_owned()],
            sample_tokens: 48,
            val_every: (steps / 8).max(1),
            ..OutputPlan::default()
        },
        commands: CommandPlan::default(),
        cost: CostPlan::default(),
    }
}

/// Prints some of the updates, and the curve so far with every sample.
struct Live {
    console: Console,
    losses: Vec<f64>,
    quiet: bool,
    steps: u64,
}

impl Hooks for Live {
    fn on_step(&mut self, report: &StepReport) {
        self.losses.push(report.update.loss);
        if report.update.step % 50 == 1 || report.val_loss.is_some() {
            self.console.on_step(report);
        } else {
            self.console.count(report);
        }
    }

    fn sample(&mut self, step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> Vec<Sample> {
        if !self.quiet && !self.losses.is_empty() {
            println!("\n{}", plot(&self.losses, self.steps as usize, "steps"));
        }
        self.console.sample(step, model, stop)
    }

    fn on_checkpoint(&mut self, _path: &Path) {}
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_way_on_names_the_run_that_was_stopped() {
        let way_on = |flags: &[&str]| {
            let cli = Cli::parse_from([&["corella", "tour"], flags].concat());
            let Command::Tour(args) = &cli.command else { panic!("another command") };
            going_on(args, &cli.common)
        };
        assert_eq!(way_on(&["--no-serve"]), "corella tour --resume");
        assert_eq!(
            way_on(&["--out", "out/other", "--million-tokens", "0.05"]),
            "corella tour --out out/other --million-tokens 0.05 --resume"
        );
        let cli = Cli::parse_from(["corella", "tour", "--resume", "--million-tokens", "1", "--seed", "7"]);
        let Command::Tour(args) = &cli.command else { panic!("another command") };
        for (million_tokens, seed, words) in [
            (0.05, 42, "--million-tokens 0.049152"),
            (TOUR_TOKENS, 3, "--seed 3"),
            (0.004, 42, "--million-tokens 0.002048"),
        ] {
            let mut was = plan(&TourArgs { million_tokens, ..args.clone() }, &cli.common, 2048);
            was.train.seed = seed;
            let command = as_begun(&was, args, &cli.common);
            assert_eq!(command, format!("corella tour {words} --resume"));
        }
        assert_eq!(
            way_on(&["--out", "my run", "--seed", "7", "--resume", "--device", "auto"]),
            "corella tour --out 'my run' --seed 7 --device auto --resume"
        );
    }
}
