//! `corella train`: from text to a trained model.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use corella_infer::{GenerateOptions, SampleParams, generate};
use corella_model::gpt2::{Gpt2Config, Gpt2Files, Gpt2Train, Gpt2Weights, Recompute, memory_plan, random_weights};
use corella_model::{BatchShape, TextModel};
use corella_text::data::Dataset;
use corella_text::tokenizer::Tokenizer;
use corella_train::{
    CommandPlan, CostPlan, DataPlan, Hooks, ModelPlan, Outcome, OutputPlan, Run, RunPlan, Sample, Schedule, StepReport,
    TrainPlan,
};

use crate::cli::{Common, TrainArgs};
use crate::error::{Failure, Result};
use crate::inputs::{backend, dataset};
use crate::signals::stop_flag;

/// Runs the command.
pub fn run(args: &TrainArgs, common: &Common) -> Result<()> {
    let (mut plan, dir, data) = resolve(args, common)?;
    let mut run = build(&mut plan, dir, data, args.resume, common)?;
    let stop = stop_flag(&run.dir)?;
    let mut hooks = Console::new(&run, common.json);
    let outcome = corella_train::train(&mut run, &mut hooks, &stop)?;
    finish(&run.dir, &outcome, common)
}

fn finish(dir: &Path, outcome: &Outcome, common: &Common) -> Result<()> {
    let word = if outcome.finished { "finished" } else { "stopped" };
    if common.json {
        println!(
            "{}",
            serde_json::json!({"state": word, "step": outcome.step, "val_loss": outcome.val_loss,
                "checkpoint": outcome.checkpoint,
                "best": outcome.best.as_ref().map(|(path, val_loss)| serde_json::json!({"checkpoint": path, "val_loss": val_loss})),
                "seconds": outcome.seconds})
        );
    } else {
        println!("{word} after {} steps; {}", outcome.step, outcome.checkpoint.display());
        if let Some((path, loss)) = outcome.best.as_ref().filter(|(path, _)| *path != outcome.checkpoint) {
            println!("lowest validation loss {loss:.4}: {}", path.display());
        }
        if outcome.finished {
            println!("continue a text with: corella generate {} -p TEXT", dir.display());
        } else {
            println!("go on with: the same command and --resume");
        }
    }
    Ok(())
}

/// The plan that the flags and the run file describe, the run folder, and the data.
fn resolve(args: &TrainArgs, common: &Common) -> Result<(RunPlan, PathBuf, Dataset)> {
    let from_file = match &args.source {
        Some(path) if path.extension().is_some_and(|e| e == "toml") => {
            let text = fs::read_to_string(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            Some(RunPlan::from_toml(&text)?)
        }
        _ => None,
    };
    let text = args.source.as_ref().filter(|_| from_file.is_none());
    let source = args
        .data
        .clone()
        .or_else(|| text.cloned())
        .or_else(|| from_file.as_ref().map(|p| PathBuf::from(&p.data.path)))
        .ok_or_else(|| Failure::usage("nothing to train on").hint("corella train FILE.txt, or --data tiny-internet"))?;
    let dir = args.out.clone().unwrap_or_else(|| {
        let stem = args.source.as_deref().unwrap_or(&source).file_stem().unwrap_or("run".as_ref());
        Path::new("out").join(stem)
    });
    let mut plan = from_file.unwrap_or_else(|| defaults(args, common));
    plan.data.path = source.display().to_string();
    override_plan(&mut plan, args, common)?;
    let own = plan.model.vocab_size;
    let kept = dir.join("tokenizer.json");
    // A resumed run keeps the vocabulary that it began with.
    let tokenizer =
        if args.resume && kept.is_file() { kept.display().to_string() } else { plan.data.tokenizer.clone() };
    let data = dataset(&source, &tokenizer, own, common.seed)?;
    plan.model.vocab_size = data.tokenizer.vocab_size();
    if let Some(tokens) = args.tokens {
        plan.train.steps = tokens.div_ceil(plan.train.batch_tokens as u64);
        plan.train.warmup_steps = plan.train.warmup_steps.min(plan.train.steps);
    }
    Ok((plan, dir, data))
}

/// What is trained when nothing is said: a preset's shape, or a small model that a laptop trains in minutes.
fn defaults(args: &TrainArgs, common: &Common) -> RunPlan {
    let preset = args.model.as_deref().and_then(Gpt2Config::preset);
    let (n_layer, n_head, n_embd, seq_len, tokenizer) = match &preset {
        Some(p) => (p.n_layer(), p.n_head(), p.n_embd(), p.seq_len(), "gpt2"),
        None => (4, 4, 256, 256, "own"),
    };
    let name = if preset.is_some() { args.model.clone().unwrap_or_default() } else { "gpt2-custom".to_owned() };
    RunPlan {
        model: ModelPlan { name, n_layer, n_head, n_embd, seq_len, vocab_size: 2048 },
        data: DataPlan { path: String::new(), tokenizer: tokenizer.to_owned(), shuffle: true },
        train: TrainPlan {
            lr: if preset.is_some() { 6e-4 } else { 2e-3 },
            micro_batch: if preset.is_some() { 4 } else { 8 },
            seed: common.seed,
            ..TrainPlan::default()
        },
        output: OutputPlan::default(),
        commands: CommandPlan::default(),
        cost: CostPlan::default(),
    }
}

/// Flags win over the run file and the defaults.
fn override_plan(plan: &mut RunPlan, args: &TrainArgs, common: &Common) -> Result<()> {
    fn set<T: Clone>(to: &mut T, from: &Option<T>) {
        if let Some(value) = from {
            *to = value.clone();
        }
    }
    if let Some(name) = &args.model
        && name != "gpt2-custom"
        && Gpt2Config::preset(name).is_none()
    {
        return Err(Failure::usage(format!("no model is called {name}"))
            .hint("gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m, or gpt2-custom with --n-layer, --n-head, --n-embd"));
    }
    set(&mut plan.model.n_layer, &args.n_layer);
    set(&mut plan.model.n_head, &args.n_head);
    set(&mut plan.model.n_embd, &args.n_embd);
    set(&mut plan.model.seq_len, &args.seq_len);
    set(&mut plan.model.vocab_size, &args.vocab_size);
    set(&mut plan.data.tokenizer, &args.tokenizer);
    set(&mut plan.train.steps, &args.steps);
    set(&mut plan.train.batch_tokens, &args.batch_tokens);
    set(&mut plan.train.micro_batch, &args.micro_batch);
    set(&mut plan.train.dtype, &args.dtype);
    set(&mut plan.train.lr, &args.lr);
    set(&mut plan.train.warmup_steps, &args.warmup_steps);
    set(&mut plan.train.spike_z_loss, &args.spike_z_loss);
    set(&mut plan.train.spike_z_norm, &args.spike_z_norm);
    set(&mut plan.train.spike_window, &args.spike_window);
    set(&mut plan.output.checkpoint_every, &args.checkpoint_every);
    set(&mut plan.output.keep, &args.keep);
    set(&mut plan.output.sample_every, &args.sample_every);
    set(&mut plan.output.val_every, &args.val_every);
    set(&mut plan.output.val_tokens, &args.val_tokens);
    let commands = &mut plan.commands;
    for (to, from) in [(&mut commands.on_checkpoint, &args.on_checkpoint), (&mut commands.on_failure, &args.on_failure)]
    {
        *to = from.clone().or_else(|| to.take());
    }
    plan.train.recompute |= args.recompute;
    if common.seed != 42 {
        plan.train.seed = common.seed;
    }
    if !args.sample_prompt.is_empty() {
        plan.output.sample_prompts.clone_from(&args.sample_prompt);
    }
    if let Some(schedule) = &args.schedule {
        plan.train.schedule = match schedule.as_str() {
            "cosine" => Schedule::Cosine,
            "linear" => Schedule::Linear,
            "constant" => Schedule::Constant,
            "wsd" => Schedule::Wsd,
            other => {
                return Err(
                    Failure::usage(format!("no schedule is called {other}")).hint("cosine, linear, constant or wsd")
                );
            }
        };
    }
    if let Some(model) = &args.init_from {
        plan.train.init_from = Some(model.display().to_string());
        // The shape is that of the model to start from.
        let (weights, _) = crate::inputs::open_weights(model)?;
        plan.model.n_layer = weights.config.n_layer();
        plan.model.n_head = weights.config.n_head();
        plan.model.n_embd = weights.config.n_embd();
        plan.model.seq_len = args.seq_len.unwrap_or(weights.config.seq_len());
        if args.tokenizer.is_none() {
            if model.join("tokenizer.json").is_file() {
                plan.data.tokenizer = model.display().to_string();
            } else if weights.config.vocab_size() == Tokenizer::gpt2().vocab_size() {
                plan.data.tokenizer = "gpt2".to_owned();
            }
        }
    }
    if plan.train.batch_tokens == 0 {
        plan.train.batch_tokens = plan.train.micro_batch * plan.model.seq_len;
    }
    plan.train.warmup_steps = plan.train.warmup_steps.min(plan.train.steps);
    Ok(())
}

/// Builds model and run from a plan, and prints what will be done.
pub fn build(plan: &mut RunPlan, dir: PathBuf, data: Dataset, resume: bool, common: &Common) -> Result<Run> {
    plan.check()?;
    let weights = initial_weights(plan)?;
    let config = weights.config.clone();
    if data.tokenizer.vocab_size() > config.vocab_size() {
        return Err(Failure::new(format!(
            "the tokenizer has {} tokens but the model only {}",
            data.tokenizer.vocab_size(),
            config.vocab_size()
        ))
        .hint("name the model's own tokenizer with --tokenizer"));
    }
    plan.model.vocab_size = config.vocab_size();
    let recompute = if plan.train.recompute { Recompute::Block } else { Recompute::None };
    let batch = BatchShape { b: plan.train.micro_batch, t: plan.model.seq_len };
    let memory = memory_plan(&config, batch, recompute, plan.train.dtype);
    let model = Gpt2Train::new(backend(common)?, &weights, batch, recompute, plan.train.dtype)?;
    if !common.json {
        let tokens = plan.train.steps * plan.train.batch_tokens as u64;
        println!(
            "{}: {} parameters, {} layers × {} heads, width {}, context {}, vocabulary {}",
            plan.model.name,
            config.parameter_count(),
            config.n_layer(),
            config.n_head(),
            config.n_embd(),
            config.seq_len(),
            config.vocab_size()
        );
        println!("update: {}", plan.equation()?);
        println!(
            "run: {} steps, {tokens} tokens, {:.2} epochs of {} tokens, {:.3e} FLOPs",
            plan.train.steps,
            tokens as f64 / data.train.len().max(1) as f64,
            data.train.len(),
            plan.flops_per_token(config.parameter_count()) * tokens as f64
        );
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        println!(
            "memory: {:.0} MiB = weights {:.0} + gradients {:.0} + optimizer {:.0} + activations {:.0}",
            mib(memory.total()),
            mib(memory.params),
            mib(memory.grads),
            mib(memory.optimizer),
            mib(memory.activations)
        );
    }
    Ok(Run { plan: plan.clone(), dir, model: Box::new(model), files: Box::new(Gpt2Files { config }), data, resume })
}

/// Random weights, or those of the model to start from.
fn initial_weights(plan: &RunPlan) -> Result<Gpt2Weights> {
    let m = &plan.model;
    match &plan.train.init_from {
        Some(model) => Ok(crate::inputs::open_weights(Path::new(model)).map(|(weights, _)| weights)?),
        None => {
            let config = Gpt2Config::new(m.vocab_size, m.n_layer, m.n_head, m.n_embd, m.seq_len)?;
            Ok(random_weights(&config, plan.train.seed))
        }
    }
}

/// Prints the run and writes its samples.
pub struct Console {
    plan: RunPlan,
    tokenizer: Tokenizer,
    flops_per_token: f64,
    seconds: f64,
    steps: u64,
    quiet: bool,
}

impl Console {
    /// For a run that is about to start.
    pub fn new(run: &Run, quiet: bool) -> Self {
        let parameters: usize = run.model.params().iter().map(|p| p.shape.iter().product::<usize>()).sum();
        Console {
            plan: run.plan.clone(),
            tokenizer: run.data.tokenizer.clone(),
            flops_per_token: run.plan.flops_per_token(parameters),
            seconds: 0.0,
            steps: 0,
            quiet,
        }
    }

    /// Counts an update for the remaining time without printing it.
    pub fn count(&mut self, report: &StepReport) {
        self.seconds += report.ms / 1e3;
        self.steps += 1;
    }
}

impl Hooks for Console {
    fn on_step(&mut self, report: &StepReport) {
        self.count(report);
        if self.quiet {
            // A stream of JSON lines; the last line of the program is its result.
            println!("{}", serde_json::json!(report));
        } else {
            let mean = self.seconds / self.steps as f64;
            println!("{}", corella_train::console::line(report, self.plan.train.steps, self.flops_per_token, mean));
        }
    }

    fn sample(&mut self, step: u64, model: &mut dyn TextModel) -> Vec<Sample> {
        let out = &self.plan.output;
        let mut samples = Vec::new();
        for prompt in &out.sample_prompts {
            let seed = self.plan.train.seed;
            let text = continue_text(model, &self.tokenizer, prompt, out.sample_tokens, 0.8, seed, 0);
            if !self.quiet {
                println!("--- sample after {step} steps: {prompt}▸{}", text.replace('\n', " ⏎ "));
            }
            samples.push(Sample { step, prompt: prompt.clone(), text, seed });
        }
        samples
    }

    fn on_checkpoint(&mut self, path: &Path) {
        if !self.quiet {
            println!("checkpoint {}", path.display());
        }
    }
}

/// The text that a model adds to `prompt`, up to an end-of-text token. A prompt that does not fit gives no text.
pub fn continue_text(
    model: &mut dyn TextModel,
    tokenizer: &Tokenizer,
    prompt: &str,
    max_tokens: usize,
    temperature: f32,
    seed: u64,
    sample_index: u64,
) -> String {
    let mut ids = vec![tokenizer.start_of_text()];
    ids.extend(tokenizer.encode(prompt));
    let options = GenerateOptions {
        max_tokens,
        sample: SampleParams { temperature, seed, ..SampleParams::default() },
        stop_ids: tokenizer.stop_ids().to_vec(),
        sample_index,
        log_probs: 0,
    };
    match generate(model, &ids, &options, &mut |_| ControlFlow::Continue(())) {
        Ok(generation) => tokenizer.decode_continuation(&generation.tokens.iter().map(|t| t.id).collect::<Vec<_>>()),
        Err(error) => {
            eprintln!("warning: no sample: {error}");
            String::new()
        }
    }
}
