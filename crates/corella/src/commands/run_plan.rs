//! What a user asked to train: run file, flags and defaults, resolved into one plan. No data is read here.

use std::fs;
use std::path::{Path, PathBuf};

use corella_model::AnyModel;
use corella_text::data::Order;
use corella_text::tokenizer::Tokenizer;
use corella_train::{CommandPlan, CostPlan, DataPlan, ModelPlan, OutputPlan, RunPlan, Schedule, TrainPlan};

use super::shape_flags;
use crate::cli::{Common, TrainArgs};
use crate::error::{Failure, Result};
use crate::shape::{GPT2_CUSTOM, LLAMA_CUSTOM, ModelShape};

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
}

/// The plan that the flags and the run file describe.
pub fn wanted(args: &TrainArgs, common: &Common) -> Result<Wanted> {
    let from_file = match args.source.as_ref().or(own_plan(args).as_ref()) {
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
        .unwrap_or_default();
    let dir = args.out.clone().or_else(|| own_folder(args)).unwrap_or_else(|| {
        let stem = args.source.as_deref().unwrap_or(&source).file_stem().unwrap_or("run".as_ref());
        Path::new("out").join(stem)
    });
    let mut plan = from_file.unwrap_or_else(|| defaults(args, common));
    plan.data.path = source.display().to_string();
    override_plan(&mut plan, args, common)?;
    Ok(Wanted { plan, source, dir })
}

/// The plan of the run that goes on, where nothing but its folder is named.
fn own_plan(args: &TrainArgs) -> Option<PathBuf> {
    let out = args.out.as_ref().filter(|_| args.resume && args.source.is_none() && args.data.is_none())?;
    Some(out.join("run.toml")).filter(|plan| plan.is_file())
}

/// The folder of the run that goes on, where its plan is named.
fn own_folder(args: &TrainArgs) -> Option<PathBuf> {
    let plan = args.source.as_ref().filter(|path| args.resume && path.ends_with("run.toml"))?;
    plan.parent().filter(|dir| dir.join("checkpoints").is_dir()).map(Path::to_path_buf)
}

/// What is trained when nothing is said: a preset's shape, or a small model that a laptop trains in minutes.
fn defaults(args: &TrainArgs, common: &Common) -> RunPlan {
    let preset = args.model.as_deref().and_then(ModelShape::preset);
    let tokenizer = if matches!(preset, Some(ModelShape::Gpt2(_))) { "gpt2" } else { "own" };
    let name = args.model.clone().unwrap_or_else(|| GPT2_CUSTOM.to_owned());
    let mut model = ModelPlan {
        name,
        n_layer: 4,
        n_head: 4,
        n_embd: 256,
        n_kv_head: None,
        n_ff: None,
        seq_len: 256,
        vocab_size: 2048,
    };
    if let Some(preset) = &preset {
        preset.set_plan(&mut model);
    }
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

/// Flags win over the run file and the defaults.
fn override_plan(plan: &mut RunPlan, args: &TrainArgs, common: &Common) -> Result<()> {
    fn set<T: Clone>(to: &mut T, from: &Option<T>) {
        if let Some(value) = from {
            *to = value.clone();
        }
    }
    if let Some(name) = &args.model
        && name != GPT2_CUSTOM
        && name != LLAMA_CUSTOM
        && ModelShape::preset(name).is_none()
    {
        return Err(Failure::usage(format!("no model is called {name}"))
            .hint("gpt2-124m, gpt2-355m, gpt2-774m, gpt2-1558m, llama-3.2-1b, llama-3.1-8b …, or gpt2-custom and llama-custom with --n-layer, --n-head, --n-embd"));
    }
    if let Some(name) = &args.model {
        plan.model.name.clone_from(name);
        if let Some(preset) = ModelShape::preset(name) {
            let (seq_len, vocab_size) = (plan.model.seq_len, plan.model.vocab_size);
            preset.set_plan(&mut plan.model);
            (plan.model.seq_len, plan.model.vocab_size) = (seq_len, vocab_size);
        }
    }
    if args.init_from.is_none() {
        shape_flags::fit_name(args, &plan.model.name)?;
    }
    set(&mut plan.model.n_layer, &args.n_layer);
    set(&mut plan.model.n_head, &args.n_head);
    set(&mut plan.model.n_embd, &args.n_embd);
    plan.model.n_kv_head = args.n_kv_head.or(plan.model.n_kv_head);
    plan.model.n_ff = args.n_ff.or(plan.model.n_ff);
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
    set(&mut plan.output.eval_every, &args.eval_every);
    set(&mut plan.output.eval_limit, &args.eval_limit);
    if !args.eval.is_empty() {
        plan.output.eval_tasks.clone_from(&args.eval);
    }
    let commands = &mut plan.commands;
    for (to, from) in [(&mut commands.on_checkpoint, &args.on_checkpoint), (&mut commands.on_failure, &args.on_failure)]
    {
        *to = from.clone().or_else(|| to.take());
    }
    let cost = &mut plan.cost;
    (cost.price_per_hour, cost.watts) = (args.price.or(cost.price_per_hour), args.watts.or(cost.watts));
    set(&mut plan.train.recompute, &args.recompute);
    set(&mut plan.train.seed, &common.seed);
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
        let (weights, _) = crate::inputs::open_any(model)?;
        let (name, shape) = match &weights {
            AnyModel::Gpt2(weights) => (GPT2_CUSTOM, ModelShape::Gpt2(weights.config.clone())),
            AnyModel::Llama(checkpoint) => (LLAMA_CUSTOM, ModelShape::Llama(checkpoint.config.clone())),
        };
        plan.model.name = name.to_owned();
        shape.set_plan(&mut plan.model);
        shape_flags::fit_model(args, &plan.model)?;
        set(&mut plan.model.seq_len, &args.seq_len);
        if args.tokenizer.is_none() {
            if model.join("tokenizer.json").is_file() {
                plan.data.tokenizer = model.display().to_string();
            } else if weights.vocab_size() == Tokenizer::gpt2().vocab_size() {
                plan.data.tokenizer = "gpt2".to_owned();
            }
        }
    }
    if plan.train.batch_tokens == 0 {
        let sequences = if plan.train.micro_batch == 0 { SEQUENCES } else { plan.train.micro_batch };
        plan.train.batch_tokens = sequences * plan.model.seq_len;
    }
    if let Some(tokens) = args.tokens {
        plan.train.steps = tokens.div_ceil(plan.train.batch_tokens as u64);
    }
    plan.train.warmup_steps = plan.train.warmup_steps.min(plan.train.steps);
    Ok(())
}
