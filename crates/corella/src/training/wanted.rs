//! What a user asked to train: run file, flags and defaults, resolved into one plan. No data is read here.

use std::path::{Path, PathBuf};

use corella_model::AnyModel;
use corella_text::data::Order;
use corella_text::tokenizer::Tokenizer;
use corella_train::{CommandPlan, CostPlan, DataPlan, ModelPlan, OutputPlan, RunPlan, TrainPlan, checkpoint, folder};

use super::shape_checks::{self, Asked};
use crate::cli::{Common, TrainArgs};
use crate::error::{Failure, Result};
use crate::inputs::{is_prepared, open_any};
use crate::shape::{GPT2_CUSTOM, LLAMA_CUSTOM, ModelShape, small_gpt2};
use crate::tokenizers::is_gguf;

/// Sequences of an update where neither they nor the micro-batch are given.
const SEQUENCES: usize = 8;

/// A plan, where its data is, and the folder to write.
pub struct Wanted {
    /// The plan; the vocabulary may still change with the data.
    pub plan: RunPlan,
    /// The data.
    pub source: PathBuf,
    /// The run folder.
    pub dir: PathBuf,
    /// Whether the plan is that of a run file, not of defaults.
    pub from_file: bool,
    /// Shape of the model to start from, where there is one; its vocabulary may be padded, and its context longer than T.
    pub first: Option<ModelShape>,
}

impl Wanted {
    /// The shape of the model that is trained.
    pub fn shape(&self) -> Result<ModelShape> {
        self.first.clone().map_or_else(|| ModelShape::of(&self.plan.model), Ok)
    }
}

/// The plan that the flags and the run file describe.
pub fn wanted(args: &TrainArgs, common: &Common) -> Result<Wanted> {
    let file = args.source.as_ref().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let text = args.source.as_ref().filter(|_| file.is_none());
    let data = args.data.as_ref().or(text);
    let from_file = match file {
        Some(path) => Some(RunPlan::read(path)?),
        None => own_plan(args, data.is_some())?,
    };
    let is_from_file = from_file.is_some();
    let source = data.cloned().or_else(|| from_file.as_ref().map(|p| PathBuf::from(&p.data.path))).unwrap_or_default();
    let dir = args.out.clone().or_else(|| own_folder(args)).unwrap_or_else(|| {
        let stem = args.source.as_deref().unwrap_or(&source).file_stem().unwrap_or("run".as_ref());
        let dir = Path::new("out").join(stem);
        // Data may have been prepared into a folder of that name: a run beside them has its own.
        if is_prepared(&dir) { Path::new("out").join(format!("{}-run", stem.to_string_lossy())) } else { dir }
    });
    let mut plan = from_file.unwrap_or_else(|| defaults(args, common));
    plan.data.path = source.display().to_string();
    let first = override_plan(&mut plan, args, common, &dir)?;
    let unsaid = args.tokenizer.is_none() && (!is_from_file || args.init_from.is_some());
    if args.resume
        && unsaid
        && let Some(name) = recorded_tokenizer(&dir)?
    {
        plan.data.tokenizer = name;
    }
    Ok(Wanted { plan, source, dir, from_file: is_from_file, first })
}

/// The plan of the run that goes on, where its folder is named and neither run file nor text. A damaged one matters only where it
/// alone says what the data are: `data_named` tells that flags do, and then the last checkpoint has the plan too.
fn own_plan(args: &TrainArgs, data_named: bool) -> Result<Option<RunPlan>> {
    let alone = args.resume && args.source.is_none();
    let Some(dir) = args.out.as_ref().filter(|dir| alone && folder::is_run(dir)) else {
        return Ok(None);
    };
    match RunPlan::read(&dir.join(folder::PLAN)) {
        Err(_) if data_named => {
            let newest = checkpoint::latest(&folder::checkpoints(dir))?;
            if newest.is_some() {
                eprintln!(
                    "warning: {} is damaged; the plan of the last checkpoint is taken",
                    dir.join(folder::PLAN).display()
                );
            }
            Ok(newest.map(|found| found.state.plan))
        }
        read => Ok(Some(read?)),
    }
}

/// Settles the warm-up. One that is written, in a flag or a run file, is longer than the run only by mistake.
fn settle_warmup(train: &mut TrainPlan) -> Result<()> {
    let (warmup, steps) = (train.warmup(), train.steps);
    if warmup > steps {
        return Err(Failure::usage(format!("warmup_steps is {warmup}, but the run has only {steps} steps"))
            .hint("give a shorter warm-up (--warmup-steps, or warmup_steps in the run file) or more steps"));
    }
    train.warmup_steps = Some(warmup);
    Ok(())
}

/// The folder of the run that goes on, where its plan is named.
fn own_folder(args: &TrainArgs) -> Option<PathBuf> {
    let plan = args.source.as_ref().filter(|path| args.resume && path.ends_with(folder::PLAN))?;
    plan.parent().filter(|dir| folder::checkpoints(dir).is_dir()).map(Path::to_path_buf)
}

/// What is trained when nothing is said: a preset's shape, or a small model that a laptop trains in minutes.
fn defaults(args: &TrainArgs, common: &Common) -> RunPlan {
    let preset = args.model.as_deref().and_then(ModelShape::preset);
    let tokenizer = if matches!(preset, Some(ModelShape::Gpt2(_))) { "gpt2" } else { "own" };
    let name = args.model.clone().unwrap_or_else(|| GPT2_CUSTOM.to_owned());
    let model = match &preset {
        Some(preset) => preset.plan(&name),
        None => ModelPlan { name, ..small_gpt2(2048) },
    };
    RunPlan {
        model,
        data: DataPlan { path: String::new(), tokenizer: tokenizer.to_owned(), order: Order::default() },
        train: TrainPlan {
            lr: if preset.is_some() { 6e-4 } else { 2e-3 },
            micro_batch: if preset.is_some() { 4 } else { 8 },
            seed: common.seed(),
            ..TrainPlan::default()
        },
        output: OutputPlan::default(),
        commands: CommandPlan::default(),
        cost: CostPlan::default(),
    }
}

/// The model that the weights of a run start from, and where it was found: where the run goes on, its own newest
/// checkpoint, which needs no other any more.
pub fn first_model(init_from: &Path, dir: &Path, resume: bool) -> Result<(AnyModel, PathBuf)> {
    let own = if resume { checkpoint::latest(&folder::checkpoints(dir))? } else { None };
    open_any(own.as_ref().map_or(init_from, |found| found.path.as_path()))
}

/// Flags win over the run file and the defaults. Returns the shape of the model to start from.
fn override_plan(plan: &mut RunPlan, args: &TrainArgs, common: &Common, dir: &Path) -> Result<Option<ModelShape>> {
    model_flags(plan, args)?;
    train_flags(&mut plan.train, args);
    set(&mut plan.train.seed, &common.seed);
    set(&mut plan.data.tokenizer, &args.tokenizer);
    set(&mut plan.data.order, &args.order);
    output_flags(plan, args)?;
    cost_flags(plan, args)?;
    let first = start_from(plan, args, dir)?;
    if plan.train.batch_tokens == 0 {
        let sequences = if plan.train.micro_batch == 0 { SEQUENCES } else { plan.train.micro_batch };
        plan.train.batch_tokens = sequences * plan.model.seq_len;
    }
    if let Some(tokens) = args.tokens {
        plan.train.steps = steps_for(tokens, plan.train.batch_tokens as u64, dir, args.resume)?;
    }
    settle_warmup(&mut plan.train)?;
    Ok(first)
}

fn set<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(value) = from {
        *to = value.clone();
    }
}

fn model_flags(plan: &mut RunPlan, args: &TrainArgs) -> Result<()> {
    if let Some(name) = &args.model {
        shape_checks::known(name)?;
        plan.model.name.clone_from(name);
        if let Some(preset) = ModelShape::preset(name) {
            let (seq_len, vocab_size) = (plan.model.seq_len, plan.model.vocab_size);
            preset.set_plan(&mut plan.model);
            (plan.model.seq_len, plan.model.vocab_size) = (seq_len, vocab_size);
        }
    }
    shape_checks::known(&plan.model.name)?;
    if args.init_from.is_none() {
        Asked::by_flags(args).of_name(&plan.model.name)?;
    }
    set(&mut plan.model.n_layer, &args.n_layer);
    set(&mut plan.model.n_head, &args.n_head);
    set(&mut plan.model.n_embd, &args.n_embd);
    plan.model.n_kv_head = args.n_kv_head.or(plan.model.n_kv_head);
    plan.model.n_ff = args.n_ff.or(plan.model.n_ff);
    set(&mut plan.model.seq_len, &args.seq_len);
    set(&mut plan.model.vocab_size, &args.vocab_size);
    Ok(())
}

fn train_flags(train: &mut TrainPlan, args: &TrainArgs) {
    set(&mut train.steps, &args.steps);
    set(&mut train.batch_tokens, &args.batch_tokens);
    set(&mut train.micro_batch, &args.micro_batch);
    set(&mut train.dtype, &args.dtype);
    set(&mut train.lr, &args.lr);
    set(&mut train.schedule, &args.schedule);
    set(&mut train.final_lr_fraction, &args.final_lr_fraction);
    set(&mut train.weight_decay, &args.weight_decay);
    set(&mut train.clip, &args.clip);
    train.warmup_steps = args.warmup_steps.or(train.warmup_steps);
    set(&mut train.spike_z_loss, &args.spike_z_loss);
    set(&mut train.spike_z_norm, &args.spike_z_norm);
    set(&mut train.spike_window, &args.spike_window);
    set(&mut train.recompute, &args.recompute);
}

fn output_flags(plan: &mut RunPlan, args: &TrainArgs) -> Result<()> {
    let output = &mut plan.output;
    set(&mut output.checkpoint_every, &args.checkpoint_every);
    set(&mut output.keep, &args.keep);
    set(&mut output.sample_every, &args.sample_every);
    set(&mut output.sample_tokens, &args.sample_tokens);
    set(&mut output.val_every, &args.val_every);
    set(&mut output.val_tokens, &args.val_tokens);
    set(&mut output.eval_every, &args.eval_every);
    set(&mut output.eval_limit, &args.eval_limit);
    if !args.sample_prompt.is_empty() {
        output.sample_prompts.clone_from(&args.sample_prompt);
    }
    if !args.eval.is_empty() {
        output.eval_tasks.clone_from(&args.eval);
        if output.eval_every == 0 {
            return Err(Failure::usage("--eval names tasks, but nothing says when to evaluate")
                .hint("every N updates with --eval-every N"));
        }
    }
    let commands = &mut plan.commands;
    for (to, from) in [(&mut commands.on_checkpoint, &args.on_checkpoint), (&mut commands.on_failure, &args.on_failure)]
    {
        *to = from.clone().or_else(|| to.take());
    }
    Ok(())
}

fn cost_flags(plan: &mut RunPlan, args: &TrainArgs) -> Result<()> {
    let cost = &mut plan.cost;
    (cost.price_per_hour, cost.watts) = (args.price.or(cost.price_per_hour), args.watts.or(cost.watts));
    for (what, value) in [("price (dollars an hour)", cost.price_per_hour), ("power (watts)", cost.watts)] {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
            return Err(Failure::usage(format!("{value} is no {what}")).hint("0 or more, for example --price 2.5"));
        }
    }
    Ok(())
}

/// The model to start from, where there is one: the plan gets its shape, or must have it, and the run its tokenizer.
fn start_from(plan: &mut RunPlan, args: &TrainArgs, dir: &Path) -> Result<Option<ModelShape>> {
    let Some(model) = &args.init_from else {
        let mut shape = None;
        if let Some(model) = &plan.train.init_from {
            let first = first_model(Path::new(model), dir, args.resume);
            let (weights, _) = first.map_err(|e| e.within("init_from"))?;
            let first = plan_of(&weights, &plan.model);
            Asked::by_file(&plan.model).of_model(&first)?;
            // Without a word about the head it is the model's, which its memory depends on.
            plan.model.tied = first.tied;
            shape = Some(ModelShape::of_model(&weights));
        }
        shape_checks::name(&plan.model)?;
        return Ok(shape);
    };
    plan.train.init_from = Some(model.display().to_string());
    // The shape is that of the model to start from.
    let (weights, at) = first_model(model, dir, args.resume).map_err(|e| e.within("--init-from"))?;
    plan.model = plan_of(&weights, &plan.model);
    Asked::by_flags(args).of_model(&plan.model)?;
    set(&mut plan.model.seq_len, &args.seq_len);
    // A run that goes on keeps its tokenizer.
    if args.tokenizer.is_none() && !args.resume {
        let holds = [model.as_path(), at.as_path()].into_iter().find(|place| place.join("tokenizer.json").is_file());
        if let Some(place) = holds.or_else(|| is_gguf(&at).then_some(at.as_path())) {
            plan.data.tokenizer = place.display().to_string();
        } else if weights.vocab_size() == Tokenizer::gpt2().vocab_size() {
            plan.data.tokenizer = "gpt2".to_owned();
        }
    }
    Ok(Some(ModelShape::of_model(&weights)))
}

/// The updates that make `tokens` of the run, those before a resume included, whose batch may have been another.
fn steps_for(tokens: u64, batch: u64, dir: &Path, resume: bool) -> Result<u64> {
    let newest = if resume { checkpoint::latest(&folder::checkpoints(dir))? } else { None };
    let (done, seen) = newest.map_or((0, 0), |found| {
        let loader = &found.state.loader;
        (found.state.step, loader.next.saturating_mul(loader.seq_len as u64))
    });
    Ok(done + tokens.saturating_sub(seen).div_ceil(batch.max(1)))
}

/// The tokenizer as the run in `dir` was begun with, for its record: what is loaded is the run's own file.
fn recorded_tokenizer(dir: &Path) -> Result<Option<String>> {
    let plan = match folder::plan(dir) {
        Some(plan) => Some(plan),
        None => checkpoint::latest(&folder::checkpoints(dir))?.map(|found| found.state.plan),
    };
    Ok(plan.map(|plan| plan.data.tokenizer))
}

/// What a plan says of a model: `plan` with its name and its shape.
fn plan_of(model: &AnyModel, plan: &ModelPlan) -> ModelPlan {
    let shape = ModelShape::of_model(model);
    let name = if matches!(shape, ModelShape::Gpt2(_)) { GPT2_CUSTOM } else { LLAMA_CUSTOM };
    let mut plan = ModelPlan { name: name.to_owned(), ..plan.clone() };
    shape.set_plan(&mut plan);
    plan
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::{Cli, Command};

    /// Every key of the plan that these flags give.
    fn resolved(flags: &[&str]) -> toml::Table {
        let cli = Cli::parse_from([&["corella", "train", "my.txt"], flags].concat());
        let Command::Train(args) = &cli.command else { panic!("another command") };
        let plan = wanted(args, &cli.common).expect("a plan").plan;
        let tables: toml::Table = plan.to_toml().expect("a run file").parse().expect("TOML");
        let mut keys: toml::Table =
            tables.into_iter().filter_map(|(_, keys)| keys.as_table().cloned()).flatten().collect();
        keys.insert("model".to_owned(), plan.model.name.into());
        keys
    }

    fn says(text: &str, value: &toml::Value) -> bool {
        match value {
            toml::Value::String(word) => text == word,
            toml::Value::Float(number) => text.parse() == Ok(*number),
            other => text == other.to_string(),
        }
    }

    #[test]
    fn the_help_names_the_defaults_of_the_plan() {
        let (own, published) = (resolved(&[]), resolved(&["--model", "gpt2-124m"]));
        // Their defaults depend on what else is there.
        let worded = ["n_kv_head", "n_ff", "batch_tokens", "memory", "out"];
        let command = Cli::command();
        let train = command.find_subcommand("train").expect("a command");
        let (mut defaults, mut others) = (0, 0);
        for arg in train.get_arguments().filter(|arg| !worded.contains(&arg.get_id().as_str())) {
            let (name, help) = (arg.get_id().as_str(), arg.get_help().map(ToString::to_string).unwrap_or_default());
            let Some((_, default)) = help.split_once("[default: ") else { continue };
            let default = default.trim_end_matches(']');
            let (first, rest) = default.split_once([',', ';']).unwrap_or((default, ""));
            assert!(says(first, &own[name]), "--{name} is {}, the help says {first}", own[name]);
            defaults += 1;
            if let Some((other, _)) = rest.split_once(" with ") {
                let other = other.trim().trim_start_matches("or ");
                assert!(says(other, &published[name]), "--{name} is {}, the help says {other}", published[name]);
                others += 1;
            }
        }
        assert!(defaults >= 20 && others >= 3, "{defaults} defaults, {others} of published models");
    }
}
