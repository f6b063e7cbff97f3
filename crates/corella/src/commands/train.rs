//! `corella train`: from text to a trained model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use corella_eval::{Item, Task};
use corella_infer::{SampleParams, continue_tokens};
use corella_model::exchange::{Exchange, KeptAs};
use corella_model::{
    AnyModel, BatchShape, Dtype, ModelFiles, Network, Recompute, Source, SpecialIds, TextModel, TrainModel, Training,
    Weights,
};
use corella_ops::OpsTrain;
use corella_server::{App, Loading};
use corella_text::data::Dataset;
use corella_text::tokenizer::Tokenizer;
use corella_train::estimate::Machine;
use corella_train::report::judge;
use corella_train::{Device, Hooks, Outcome, Run, RunPlan, Sample, StepReport, Usage, checkpoint, folder};

use crate::cli::{Common, TrainArgs};
use crate::commands::eval::{load_tasks, task_scores};
use crate::commands::plan::{
    check_memory, check_micro_batch_flags, memory_budget, plan_recompute, print_run, settle_micro_batch, warn_of_disk,
};
use crate::commands::plan_fits;
use crate::commands::run_plan::{Wanted, first_model, wanted};
use crate::commands::serve::Settings;
use crate::control::line_for_output;
use crate::device::TrainDevice;
use crate::error::{Failure, Result};
use crate::inputs::{dataset, is_prepared, kept_tokenizer};
use crate::machine::environment;
use crate::model::own_tokenizer;
use crate::output::deliver;
use crate::shape::ModelShape;
use crate::signals::{end_at_once, on_stop, stop_flag};
use crate::site::{self, Site};

/// Runs the command.
pub fn run(args: &TrainArgs, common: &Common) -> Result<()> {
    one_process(|name| std::env::var(name).ok())?;
    // Until there are updates, there is nothing to keep.
    on_stop(|| end_at_once())?;
    // First of all: whether device and address are there is known at once, and the data may take a while.
    let device = TrainDevice::choose(common)?;
    args.serve.map(site::check).transpose()?;
    let wanted = wanted(args, common)?;
    let (dir, commands) = (wanted.dir.clone(), wanted.plan.commands.clone());
    let begun = resolve(args, wanted)
        .and_then(|(mut plan, dir, data)| build(&mut plan, dir, data, args.resume, device, args.memory, common.json));
    if let Err(failure) = &begun
        && args.resume
        && failure.is_failure()
    {
        // Who watches a run that goes on looks into its folder, whatever keeps it from beginning.
        corella_train::not_begun(&dir, &commands, failure.message());
    }
    let mut run = begun?;
    let stop = stop_flag(&run.dir)?;
    let site = args.serve.map(|address| Site::of_run(Some(address), &run.dir)).transpose()?;
    let mut hooks = Console::new(&run, common.json);
    hooks.tasks = tasks(&run.plan)?;
    if let Some(site) = &site {
        site.announce(common.json, &[("live", "run.html")]);
        hooks.watched = Some(site.app());
    }
    let outcome = corella_train::train(&mut run, &mut hooks, &stop)?;
    finish(&run, &outcome, common)?;
    let dir = run.dir.clone();
    // The arenas of training go before the model is loaded for the playground.
    drop((run, hooks));
    match site {
        Some(site) if outcome.finished => {
            if !common.json {
                // For programs it is where it was, and the last line is the result.
                site.announce(false, &[("playground", "")]);
            }
            site.serve(&Settings::of_run(&dir, common))
        }
        Some(site) => site.stop().and(Err(Failure::stopped())),
        None if outcome.finished => Ok(()),
        None => Err(Failure::stopped()),
    }
}

/// Refuses to be one of several processes: each would train the whole run, into the same folder. `variable` gives what a
/// launcher has said.
fn one_process(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    // Slurm's number of tasks of a job is there in a script that starts one process too; that of a step is not.
    for name in ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        if let Some(processes) = variable(name).and_then(|value| value.trim().parse::<u64>().ok()).filter(|n| *n > 1) {
            return Err(Failure::usage(format!(
                "{name} is {processes}: this is one of {processes} processes, and a run has one only, on one card"
            ))
            .hint("start `corella train` once, without torchrun, mpirun or srun; runs over several cards are not built yet"));
        }
    }
    Ok(())
}

/// The tasks to evaluate during training.
fn tasks(plan: &RunPlan) -> Result<Vec<(Task, Vec<Item>)>> {
    let out = &plan.output;
    if out.eval_every == 0 {
        return Ok(Vec::new());
    }
    if out.eval_tasks.is_empty() {
        return Err(Failure::usage("--eval-every has nothing to evaluate").hint("name task files with --eval FILE"));
    }
    load_tasks(&out.eval_tasks, out.eval_limit)
}

fn finish(run: &Run, outcome: &Outcome, common: &Common) -> Result<()> {
    let (plan, dir) = (&run.plan, &run.dir);
    let Usage { gpu_hours, energy_kwh, dollars } = outcome.usage;
    let word = if outcome.finished { "finished" } else { "stopped" };
    if common.json {
        deliver(
            serde_json::json!({"state": word, "step": outcome.step, "tokens": outcome.tokens, "val_loss": outcome.val_loss,
                "checkpoint": outcome.checkpoint.display().to_string(),
                "best": outcome.best.as_ref().map(|(path, val_loss)| serde_json::json!({"checkpoint": path.display().to_string(), "val_loss": val_loss})),
                "standing": outcome.standing, "seconds": outcome.seconds, "gpu_hours": gpu_hours, "dollars": dollars, "energy_kwh": energy_kwh}),
        )?;
    } else {
        println!("{word} after {} steps; {}", outcome.step, outcome.checkpoint.display());
        if let Some((path, loss)) = outcome.best.as_ref().filter(|(path, _)| *path != outcome.checkpoint) {
            println!("lowest validation loss {loss:.4}: {}", path.display());
        }
        print_standing(outcome, run.reference.is_some());
        // Without a measured power the device's limit is counted.
        let most = if plan.cost.watts.is_some() { "" } else { "at most " };
        println!(
            "bill: {} for {} tokens{}{}{}",
            corella_train::console::duration(outcome.seconds),
            outcome.tokens,
            gpu_hours.map(|hours| format!(", {hours:.3} GPU-hours")).unwrap_or_default(),
            energy_kwh.map(|kwh| format!(", {most}{}", corella_train::console::energy(kwh))).unwrap_or_default(),
            dollars.map(|dollars| format!(", ${dollars:.4}")).unwrap_or_default()
        );
        if outcome.finished {
            println!("continue a text with: corella generate {} -p TEXT", dir.display());
        } else {
            println!("go on with: the same command and --resume");
        }
    }
    Ok(())
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

/// The plan, the run folder, and the data.
fn resolve(args: &TrainArgs, wanted: Wanted) -> Result<(RunPlan, PathBuf, Dataset)> {
    let (source, dir) = (wanted.source.clone(), wanted.dir.clone());
    if source.as_os_str().is_empty() {
        return Err(Failure::usage("nothing to train on").hint("corella train FILE.txt, or --data tiny-internet"));
    }
    if is_prepared(&dir) && !args.resume {
        let message = format!("{} holds prepared data: a run needs a folder of its own", dir.display());
        return Err(Failure::usage(message).hint("name another one with --out"));
    }
    folder::check(&dir)?;
    if folder::is_run(&source) && !is_prepared(&source) {
        return Err(Failure::usage(format!("{} is a run, not text to train on", source.display())).hint(format!(
            "go on with it: --out {0} --resume; start from its weights: --init-from {0}",
            source.display()
        )));
    }
    let same =
        |a: &Path, b: &Path| std::fs::canonicalize(a).is_ok_and(|a| std::fs::canonicalize(b).is_ok_and(|b| a == b));
    if source.is_dir() && same(&source, &dir) {
        return Err(Failure::usage(format!("{} holds the texts: a run needs a folder of its own", dir.display()))
            .hint("name another one with --out; one below the texts is not read as one of them"));
    }
    let kept = if args.resume { kept_tokenizer(&dir)? } else { None };
    match &kept {
        _ if is_prepared(&source) => {}
        Some((_, tokenizer)) => plan_fits::kept(args, tokenizer)?,
        None => plan_fits::named_tokenizer(args, &wanted)?,
    }
    let plan = &wanted.plan;
    let tokenizer = kept.map_or_else(|| plan.data.tokenizer.clone(), |(path, _)| path.display().to_string());
    let data = dataset(&source, &tokenizer, plan.model.vocab_size, plan.train.seed, &dir)?;
    plan_fits::data(args, &wanted, &data)?;
    let nobodys = !wanted.from_file && args.tokenizer.is_none();
    let mut plan = wanted.plan;
    if is_prepared(&source) && nobodys {
        // The folder has its own: a default must not be recorded as the run's.
        plan.data.tokenizer = "own".to_owned();
    }
    plan.model.vocab_size = data.tokenizer.vocab_size();
    Ok((plan, dir, data))
}

/// Builds model and run from a plan, and prints what will be done. A plan that does not fit into memory is refused;
/// `memory` is what an automatic micro-batch may fill.
pub fn build(
    plan: &mut RunPlan,
    dir: PathBuf,
    data: Dataset,
    resume: bool,
    device: TrainDevice,
    memory: Option<usize>,
    quiet: bool,
) -> Result<Run> {
    check_micro_batch_flags(memory, plan)?;
    let init_from = plan.train.init_from.as_ref();
    let first = init_from.map(|model| first_model(Path::new(model), &dir, resume)).transpose()?;
    // One to start from may have more positions than the sequences are long, and more rows than the vocabulary.
    let config = match &first {
        Some((model, _)) => ModelShape::of_model(model),
        None => ModelShape::of(&plan.model)?,
    };
    let budget = memory_budget(memory, device.available());
    if resume && plan.train.micro_batch == 0 {
        plan.train.micro_batch = settled_before(plan, &dir)?
            .filter(|b| device.memory(plan, &config, *b).is_ok_and(|m| budget.is_none_or(|most| m.total <= most)))
            .unwrap_or(0);
    }
    settle_micro_batch(plan, budget, |plan, b| device.memory(plan, &config, b))?;
    plan.check()?;
    let memory = device.memory(plan, &config, plan.train.micro_batch)?;
    check_memory(memory.total, device.available())?;
    warn_of_disk(plan, &config, &dir);
    let reference = judge(plan)?;
    let machine = device.machine(plan.train.dtype, config.sizes().2 as u64);
    if !quiet {
        print_run(plan, &config, memory, &data, &device, machine.as_ref());
        if let Some(curve) = &reference {
            println!(
                "reference curve: {}; validation losses are compared from {} tokens on",
                curve.name,
                curve.begins()
            );
        }
    }
    let known = machine.as_ref().map(|(machine, _)| machine);
    let facts = Device {
        cards: u32::from(matches!(device, TrainDevice::Cuda(..))),
        peak_flops: known.and_then(|machine| machine.peak_flops(plan.train.dtype)).filter(|peak| *peak > 0.0),
        watts: known.and_then(Machine::watts),
    };
    let product_parameters = config.product_parameters();
    let (model, files) = match device {
        TrainDevice::Cpu(cpu) => build_model(plan, config, cpu, &data, first)?,
        TrainDevice::Cuda(cuda, _) => build_model(plan, config, *cuda, &data, first)?,
    };
    let (plan, environment) = (plan.clone(), environment());
    Ok(Run { plan, dir, model, product_parameters, files, data, resume, device: facts, environment, reference })
}

/// The micro-batch that a run of this shape was settled on when its checkpoint was written: another one adds up in another order.
fn settled_before(plan: &RunPlan, dir: &Path) -> Result<Option<usize>> {
    let of = |plan: &RunPlan| (plan.train.batch_tokens, plan.model.seq_len);
    let newest = checkpoint::latest(&folder::checkpoints(dir))?;
    Ok(newest.filter(|found| of(&found.state.plan) == of(plan)).map(|found| found.state.plan.train.micro_batch))
}

/// The model with its first weights, and how it is kept in checkpoints.
fn build_model<B: OpsTrain>(
    plan: &RunPlan,
    config: ModelShape,
    ops: B,
    data: &Dataset,
    first: Option<(AnyModel, PathBuf)>,
) -> Result<(Box<dyn TrainModel>, Box<dyn ModelFiles>)> {
    let (recompute, dtype) = (plan_recompute(plan), plan.train.dtype);
    let batch = BatchShape { b: plan.train.micro_batch, t: plan.model.seq_len };
    if let Some((model, _)) = &first
        && data.tokenizer.vocab_size() > model.vocab_size()
    {
        return Err(Failure::new(format!(
            "the tokenizer has {} tokens but the model only {}",
            data.tokenizer.vocab_size(),
            model.vocab_size()
        ))
        .hint("name the model's own tokenizer with --tokenizer"));
    }
    if let Some((model, at)) = &first {
        check_tokenizer(model, at, Path::new(&plan.data.path), data)?;
    }
    let special = SpecialIds { bos: Some(data.tokenizer.start_of_text()), eos: data.tokenizer.stop_ids().to_vec() };
    match (config, first.map(|(model, _)| model)) {
        (ModelShape::Gpt2(config), None) => {
            model_of(ops, &Weights::random(&config, plan.train.seed), batch, recompute, dtype, special)
        }
        (ModelShape::Llama(config), None) => {
            model_of(ops, &Weights::random(&config, plan.train.seed), batch, recompute, dtype, special)
        }
        (ModelShape::Gpt2(_), Some(AnyModel::Gpt2(c))) => model_of(ops, &*c, batch, recompute, dtype, special),
        (ModelShape::Llama(_), Some(AnyModel::Llama(c))) => model_of(ops, &*c, batch, recompute, dtype, special),
        (_, Some(_)) => Err(other_family(plan)),
    }
}

/// Refuses prepared data whose ids mean something else to the model to start from. Text is tokenised for the model, or as
/// the user says; a model without a tokenizer cannot be asked.
fn check_tokenizer(model: &AnyModel, at: &Path, source: &Path, data: &Dataset) -> Result<()> {
    if !is_prepared(source) {
        return Ok(());
    }
    let own = match own_tokenizer(model, at) {
        Ok(own) => own,
        Err(error) if at.join("tokenizer.json").is_file() => return Err(error),
        Err(_) => return Ok(()),
    };
    if own.fingerprint() == data.tokenizer.fingerprint() {
        return Ok(());
    }
    let what = format!("{} was prepared with another tokenizer than that of the model to start from", source.display());
    Err(Failure::new(what).hint(format!("prepare the text with --tokenizer {}", at.display())))
}

fn model_of<B: OpsTrain, C: Network + Exchange>(
    ops: B,
    source: &dyn Source<C>,
    batch: BatchShape,
    recompute: Recompute,
    dtype: Dtype,
    special: SpecialIds,
) -> Result<(Box<dyn TrainModel>, Box<dyn ModelFiles>)> {
    let model = Training::new(ops, source, batch, recompute, dtype)?;
    Ok((Box::new(model), Box::new(KeptAs { config: source.config().clone(), special })))
}

fn other_family(plan: &RunPlan) -> Failure {
    Failure::new(format!("the model to start from is no {}", plan.model.name))
        .hint("leave --model out: its shape is that of the model to start from")
}

/// Prints the run and writes its samples.
pub struct Console {
    plan: RunPlan,
    tokenizer: Tokenizer,
    flops_per_token: f64,
    quiet: bool,
    /// Tasks of `--eval-every`.
    tasks: Vec<(Task, Vec<Item>)>,
    /// Whether items that cannot be judged were named: they are the same each time.
    warned: bool,
    /// The site that shows the run.
    pub watched: Option<Arc<App>>,
}

impl Console {
    /// For a run that is about to start.
    pub fn new(run: &Run, quiet: bool) -> Self {
        Console {
            plan: run.plan.clone(),
            tokenizer: run.data.tokenizer.clone(),
            flops_per_token: run.plan.flops_per_token(run.product_parameters),
            quiet,
            tasks: Vec::new(),
            warned: false,
            watched: None,
        }
    }

    /// Tells the site of an update, without printing it.
    pub fn count(&mut self, report: &StepReport) {
        if let Some(app) = &self.watched {
            let steps = self.plan.train.steps;
            let what = format!("training, update {} of {steps}", report.update.step);
            app.loading(Loading::Busy { what, share: Some(report.update.step as f32 / steps.max(1) as f32) });
        }
    }
}

impl Hooks for Console {
    fn on_step(&mut self, report: &StepReport) {
        self.count(report);
        if self.quiet {
            // A stream of JSON lines; the last line of the program is its result.
            println!("{}", serde_json::json!(report));
        } else {
            let (steps, price) = (self.plan.train.steps, self.plan.cost.price_per_hour);
            println!("{}", corella_train::console::line(report, steps, self.flops_per_token, price));
        }
    }

    fn sample(&mut self, step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> Vec<Sample> {
        let out = &self.plan.output;
        let mut samples = Vec::new();
        for prompt in &out.sample_prompts {
            let seed = self.plan.train.seed;
            let params = SampleParams { temperature: 0.8, seed, ..SampleParams::default() };
            let text = continue_text(model, &self.tokenizer, prompt, out.sample_tokens, params, 0, stop);
            if stop.load(Ordering::SeqCst) {
                return Vec::new();
            }
            if !self.quiet {
                let (prompt, text) = (line_for_output(prompt), line_for_output(&text));
                println!("--- sample after {step} steps: {prompt}▸{text}");
            }
            samples.push(Sample { step, prompt: prompt.clone(), text, seed });
        }
        samples
    }

    fn evaluate(&mut self, _step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> BTreeMap<String, f64> {
        let warn = !std::mem::replace(&mut self.warned, true);
        task_scores(model, &self.tokenizer, &self.tasks, stop, warn).unwrap_or_default()
    }

    fn on_validation(&mut self, step: u64, loss: f64) {
        // A stream of JSON lines is one of updates.
        if !self.quiet {
            let when = if step == 0 { "before the first update".to_owned() } else { format!("after {step} updates") };
            println!("validation loss {when}: {loss:.6}");
        }
    }

    fn on_checkpoint(&mut self, path: &Path) {
        if !self.quiet {
            println!("checkpoint {}", path.display());
        }
    }
}

/// The text that a model adds to `prompt`, up to an end-of-text token or until `stop` is raised. A prompt that does not fit
/// gives no text.
pub fn continue_text(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    params: SampleParams,
    sample_index: u64,
    stop: &AtomicBool,
) -> String {
    let mut ids = vec![tokenizer.start_of_text()];
    ids.extend(tokenizer.encode(prompt));
    match continue_tokens(model, &ids, max_tokens, tokenizer.stop_ids(), params, sample_index, stop) {
        Ok(tokens) => tokenizer.decode_continuation(&tokens),
        Err(error) => {
            eprintln!("warning: no sample: {error}");
            String::new()
        }
    }
}
