//! From a plan to a run that can begin: the model with its first weights, its room in memory, what is printed of it.

use std::path::{Path, PathBuf};

use corella_model::exchange::{Exchange, KeptAs};
use corella_model::{
    AnyModel, BatchShape, Dtype, ModelFiles, Network, Recompute, Source, SpecialIds, TrainModel, Training, Weights,
};
use corella_ops::OpsTrain;
use corella_text::data::Dataset;
use corella_train::estimate::Machine;
use corella_train::report::judge;
use corella_train::{Run, RunPlan, checkpoint, folder};

use super::lines::print_run;
use super::memory::{
    check_memory, check_micro_batch_flags, memory_budget, memory_on, plan_recompute, settle_micro_batch, warn_of_disk,
};
use super::wanted::first_model;
use crate::device::Device;
use crate::error::{Failure, Result};
use crate::inputs::is_prepared;
use crate::machine::environment;
use crate::model::own_tokenizer;
use crate::shape::ModelShape;

/// Builds model and run from a plan, and prints what will be done. A plan that does not fit into memory is refused;
/// `memory` is what an automatic micro-batch may fill.
pub fn build(
    plan: &mut RunPlan,
    dir: PathBuf,
    data: Dataset,
    resume: bool,
    device: Device,
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
            .filter(|b| memory_on(&device, plan, &config, *b).is_ok_and(|m| budget.is_none_or(|most| m.total <= most)))
            .unwrap_or(0);
    }
    settle_micro_batch(plan, budget, |plan, b| memory_on(&device, plan, &config, b))?;
    plan.check()?;
    let memory = memory_on(&device, plan, &config, plan.train.micro_batch)?;
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
    let facts = corella_train::Device {
        cards: u32::from(matches!(device, Device::Cuda(..))),
        peak_flops: machine
            .as_ref()
            .and_then(|machine| machine.peak_flops(plan.train.dtype))
            .filter(|peak| *peak > 0.0),
        watts: machine.as_ref().and_then(Machine::watts),
    };
    let product_parameters = config.product_parameters();
    let (model, files) = match device {
        Device::Cpu(cpu) => build_model(plan, config, cpu, &data, first)?,
        Device::Cuda(cuda, _) => build_model(plan, config, *cuda, &data, first)?,
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
