//! The loop around the updates: validation, samples, log, checkpoints, stopping.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use corella_model::{ModelFiles, TextModel, TrainModel};
use corella_text::data::{Dataset, Loader, TokenStream};

use crate::TrainError;
use crate::checkpoint::{self, State};
use crate::log::{JsonLines, Sample};
use crate::plan::RunPlan;
use crate::step::{StepReport, step};

/// Updates in a row without a finite loss that end a run.
const PATIENCE: u32 = 8;

/// What the loop asks its caller to do. The caller prints and samples; the loop decides when.
pub trait Hooks {
    /// An update is done.
    fn on_step(&mut self, report: &StepReport);
    /// Writes samples with the weights after `step` updates.
    fn sample(&mut self, step: u64, model: &mut dyn TextModel) -> Vec<Sample>;
    /// A checkpoint was written.
    fn on_checkpoint(&mut self, path: &Path);
}

/// A run that is ready to start.
pub struct Run {
    /// The resolved plan.
    pub plan: RunPlan,
    /// The run folder.
    pub dir: PathBuf,
    /// The model, its weights initialised.
    pub model: Box<dyn TrainModel>,
    /// How the model is kept in a checkpoint.
    pub files: Box<dyn ModelFiles>,
    /// The data.
    pub data: Dataset,
    /// Go on from the newest checkpoint.
    pub resume: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Updates made since the start of training.
    pub step: u64,
    /// Whether all planned updates are made.
    pub finished: bool,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The last validation loss.
    pub val_loss: Option<f64>,
}

/// Trains until the plan is fulfilled or `stop` is raised; either way a checkpoint is written last.
pub fn train(run: &mut Run, hooks: &mut dyn Hooks, stop: &AtomicBool) -> Result<Outcome, TrainError> {
    run.plan.check()?;
    let accumulation = run.plan.accumulation()?;
    let (plan, out) = (run.plan.train.clone(), run.plan.output.clone());
    fs::create_dir_all(&run.dir).map_err(TrainError::io(&run.dir))?;
    let _lock = lock(&run.dir)?;
    let checkpoints = run.dir.join("checkpoints");
    checkpoint::clean(&checkpoints)?;
    let mut loader =
        Loader::new(TokenStream::clone(&run.data.train), run.plan.model.seq_len, plan.seed, run.plan.data.shuffle)?;
    let mut done = start(run, &mut loader, &checkpoints)?;
    let mut log = JsonLines::open(&run.dir.join("log.jsonl"), done)?;
    let mut samples = JsonLines::open(&run.dir.join("samples.jsonl"), done)?;
    let due = |every: u64, step: u64| every > 0 && (step.is_multiple_of(every) || step == plan.steps);
    if done == 0 && out.sample_every > 0 {
        write_samples(run, hooks, &mut samples, 0)?;
    }
    let mut val_loss = None;
    if done == 0 && out.val_every > 0 {
        val_loss = validate(&mut *run.model, &run.data.val, out.val_tokens);
        if let Some(loss) = val_loss {
            log.write(&serde_json::json!({"step": 0, "val_loss": loss}))?;
        }
    }
    let mut not_finite = 0;
    let mut saved = None;
    while done < plan.steps && !stop.load(Ordering::SeqCst) {
        let mut report = step(&mut *run.model, &mut loader, &plan, accumulation, done);
        done += 1;
        if due(out.val_every, done) {
            report.val_loss = validate(&mut *run.model, &run.data.val, out.val_tokens);
            val_loss = report.val_loss.or(val_loss);
        }
        log.write(&report)?;
        hooks.on_step(&report);
        not_finite = if report.skipped { not_finite + 1 } else { 0 };
        if not_finite == PATIENCE {
            return Err(TrainError::Diverged(PATIENCE));
        }
        if due(out.sample_every, done) {
            write_samples(run, hooks, &mut samples, done)?;
        }
        if due(out.checkpoint_every, done) {
            saved = Some((done, save(run, hooks, &checkpoints, &loader, done)?));
        }
    }
    let checkpoint = match saved {
        Some((at, path)) if at == done => path,
        _ => save(run, hooks, &checkpoints, &loader, done)?,
    };
    Ok(Outcome { step: done, finished: done >= plan.steps, checkpoint, val_loss })
}

/// One process per run folder; the lock goes with the process, however it ends.
fn lock(dir: &Path) -> Result<File, TrainError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(TrainError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked { path: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(TrainError::Io { path, source }),
    }
}

/// Writes run.toml and returns the updates already made: those of the checkpoint to go on from, or none.
fn start(run: &mut Run, loader: &mut Loader, checkpoints: &Path) -> Result<u64, TrainError> {
    let newest = checkpoint::latest(checkpoints)?;
    if !run.resume
        && let Some(path) = newest
    {
        let what = "holds a finished checkpoint already; go on with --resume, or choose another folder".to_owned();
        return Err(TrainError::Checkpoint { path, what });
    }
    let mut done = 0;
    if let Some(path) = newest {
        let state = checkpoint::restore(&path, &mut *run.model, &*run.files)?;
        loader.restore(&state.loader)?;
        if state.backend != run.model.backend_name() {
            eprintln!(
                "warning: the run began on {} and goes on on {}: the order of additions differs, so losses will not be equal to the bit",
                state.backend,
                run.model.backend_name()
            );
        }
        if (state.plan.train.batch_tokens, state.plan.train.micro_batch)
            != (run.plan.train.batch_tokens, run.plan.train.micro_batch)
        {
            eprintln!("warning: the batch differs from the checkpoint's plan: losses will not be equal to the bit");
        }
        done = state.step;
    }
    let path = run.dir.join("run.toml");
    fs::write(&path, run.plan.to_toml()?).map_err(TrainError::io(&path))?;
    let path = run.dir.join("tokenizer.json");
    fs::write(&path, run.data.tokenizer.to_json()).map_err(TrainError::io(&path))?;
    Ok(done)
}

fn write_samples(run: &mut Run, hooks: &mut dyn Hooks, to: &mut JsonLines, done: u64) -> Result<(), TrainError> {
    let mut model = run.model.text_model()?;
    hooks.sample(done, &mut *model).iter().try_for_each(|sample| to.write(sample))
}

fn save(run: &Run, hooks: &mut dyn Hooks, dir: &Path, loader: &Loader, done: u64) -> Result<PathBuf, TrainError> {
    let state = State {
        step: done,
        loader: loader.state(),
        plan: run.plan.clone(),
        backend: run.model.backend_name(),
        model: run.files.describe(),
        files: BTreeMap::new(),
    };
    let path = checkpoint::save(dir, &*run.model, &*run.files, &run.data.tokenizer, state, run.plan.output.keep)?;
    hooks.on_checkpoint(&path);
    Ok(path)
}

/// Mean loss over the first `tokens` tokens, in whole sequences: the number does not depend on the micro-batch.
/// `None` where the validation data does not fill one sequence.
fn validate(model: &mut dyn TrainModel, val: &TokenStream, tokens: usize) -> Option<f64> {
    let shape = model.batch_shape();
    let windows = (val.len().saturating_sub(1) / shape.t).min((tokens / shape.t).max(1));
    let mut sum = 0.0;
    for first in (0..windows).step_by(shape.b) {
        let n = shape.b.min(windows - first) * shape.t;
        let start = first * shape.t;
        sum += model.loss_sum(&val[start..start + n], &val[start + 1..start + n + 1]);
    }
    (windows > 0).then(|| sum / (windows * shape.t) as f64)
}
