//! The loop around the updates: validation, samples, log, checkpoints, stopping.

mod begin;
mod hooks;
mod measuring;
mod pace;
mod pages;
mod records;
mod saving;
mod telling;

pub use begin::not_begun;
pub use hooks::Hooks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use corella_model::{ModelFiles, TrainModel};
use corella_text::data::{Dataset, Loader};

use crate::TrainError;
use crate::checkpoint;
use crate::device::{Device, Usage};
use crate::folder::{self, RunFolder};
use crate::heartbeat::RunState;
use crate::plan::RunPlan;
use crate::report::{Curve, Standing};
use crate::shell_commands::ShellCommands;
use crate::spikes::{Skip, SpikeDetector};
use crate::step::step;
use measuring::{Measured, Validated};
use pace::Pace;
use pages::Pages;
use records::Records;
use saving::{Saving, UNSOUND};

/// Updates in a row without a finite loss that end a run.
const PATIENCE: u32 = 8;

/// A run that is ready to start.
pub struct Run {
    /// The resolved plan.
    pub plan: RunPlan,
    /// The run folder.
    pub dir: PathBuf,
    /// The model, its weights initialised.
    pub model: Box<dyn TrainModel>,
    /// Parameters that a token is multiplied with: N of [`RunPlan::flops_per_token`].
    pub product_parameters: usize,
    /// How the model is kept in a checkpoint.
    pub files: Box<dyn ModelFiles>,
    /// The data.
    pub data: Dataset,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// What it is computed on.
    pub device: Device,
    /// What the run is made with (program, machine), for its report.
    pub environment: BTreeMap<String, String>,
    /// The curve that its validation losses are judged by.
    pub reference: Option<Curve>,
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
    /// The checkpoint with the lowest validation loss, and that loss.
    pub best: Option<(PathBuf, f64)>,
    /// How the last validation loss stands beside the reference curve, where there is one.
    pub standing: Option<Standing>,
    /// Tokens trained on, over all sessions.
    pub tokens: u64,
    /// Seconds of training, over all sessions.
    pub seconds: f64,
    /// What it took in this time.
    pub usage: Usage,
}

/// Trains until the plan is fulfilled or `stop` is raised; either way a checkpoint is written last.
pub fn train(run: &mut Run, hooks: &mut dyn Hooks, stop: &AtomicBool) -> Result<Outcome, TrainError> {
    run.plan.check()?;
    let folder = RunFolder::open(&run.dir)?;
    let (dir, commands, resume) = (run.dir.clone(), run.plan.commands.clone(), run.resume);
    let mut session = match Session::begin(run, folder, hooks, stop) {
        Ok(session) => session,
        Err(error) => {
            // The lock went with what was begun. Whoever forgot --resume, or asked for what cannot be, has a run that is as well
            // as it was.
            let untouched = error.is_refusal() || (!resume && checkpoint::any(&folder::checkpoints(&dir)));
            if !untouched {
                not_begun(&dir, &commands, &error.to_string());
            }
            return Err(error);
        }
    };
    let outcome = session.go();
    match &outcome {
        Ok(outcome) => session.end(if outcome.finished { RunState::Finished } else { RunState::Stopped }, ""),
        Err(error) => session.end(RunState::Failed, &error.to_string()),
    }
    outcome
}

/// One process's part of a run.
struct Session<'a> {
    run: &'a mut Run,
    hooks: &'a mut dyn Hooks,
    stop: &'a AtomicBool,
    folder: RunFolder,
    commands: ShellCommands,
    loader: Loader,
    spikes: SpikeDetector,
    /// Updates in a row without a finite loss.
    not_finite: u32,
    /// Updates made.
    done: u64,
    /// The last loss that is finite.
    loss: Option<f64>,
    measured: Measured,
    saving: Saving,
    pace: Pace,
    records: Records,
    pages: Pages,
    /// What went wrong last.
    trouble: Option<String>,
    /// What was last written into the heartbeat, and when.
    beat: Option<(RunState, Instant)>,
}

impl Session<'_> {
    /// All updates, and the last checkpoint.
    fn go(&mut self) -> Result<Outcome, TrainError> {
        self.event(if self.done > 0 { "resumed" } else { "started" }, &self.run.model.backend_name());
        self.beat(RunState::Training, true);
        self.open_board();
        let (steps, out) = (self.run.plan.train.steps, self.run.plan.output.clone());
        let due = |every: u64, step: u64| every > 0 && (step.is_multiple_of(every) || step == steps);
        let validated = |step: u64| out.val_every > 0 && (due(out.val_every, step) || due(out.checkpoint_every, step));
        if due(out.sample_every, self.done) && self.records.samples.last_of(self.done).is_none() {
            self.write_samples()?;
        }
        if validated(self.done) || (self.done == 0 && out.val_every > 0) {
            self.catch_up_validation();
        }
        self.pace.begin();
        while self.done < steps && !self.stopped() {
            let (model, loader, spikes) = (&mut *self.run.model, &mut self.loader, &mut self.spikes);
            let Some(update) = step(model, loader, spikes, &self.run.plan, self.done, self.stop)? else { break };
            self.saving.check.look()?;
            self.done += 1;
            self.measured.weights_changed();
            self.loss = Some(update.loss).filter(|loss| loss.is_finite());
            let skipped = update.skipped;
            let validation = if validated(self.done) { self.validate_update() } else { Validated::default() };
            let mut report = self.report_of(update, validation);
            if due(out.eval_every, self.done) {
                report.scores = self.evaluate()?;
            }
            self.tell(&report);
            self.beat(RunState::Training, false);
            self.count_skip(skipped)?;
            self.remove_old();
            if due(out.sample_every, self.done) {
                self.write_samples()?;
            }
            if due(out.checkpoint_every, self.done) && self.done < steps {
                self.await_data()?;
                self.save_or_wait()?;
            }
        }
        self.close()
    }

    /// The last checkpoint, and how the run stands.
    fn close(&mut self) -> Result<Outcome, TrainError> {
        let steps = self.run.plan.train.steps;
        let (stopped, last) = (self.done < steps, self.saving.last().cloned());
        if last.as_ref().is_none_or(|(at, _)| *at != self.done) {
            self.await_data()?;
        }
        let checkpoint = match last {
            Some((at, path)) if at == self.done => path,
            _ if self.is_sound()? => self.until_there_is_room(Session::save)?,
            // The run is resumed where its weights were still good.
            Some((_, path)) if stopped => {
                self.trouble(UNSOUND);
                path
            }
            last => return Err(self.diverged(last.map(|(_, path)| path))),
        };
        self.remove_old();
        self.until_there_is_room(|session| session.records.flush())?;
        let best = checkpoint::best(&self.checkpoints())?;
        let (seconds, finished) = (self.pace.elapsed(), self.done >= steps);
        let (val_loss, standing) = (self.measured.val_loss, self.measured.standing.clone());
        let usage = self.run.device.usage(&self.run.plan.cost, seconds);
        Ok(Outcome {
            step: self.done,
            finished,
            checkpoint,
            val_loss,
            best,
            standing,
            tokens: self.loader.tokens(),
            seconds,
            usage,
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Ends the run after too many updates in a row without numbers; those had no effect on the weights.
    fn count_skip(&mut self, skipped: Option<Skip>) -> Result<(), TrainError> {
        if let Some(skip) = skipped {
            self.event("skipped", skip.name());
        }
        self.not_finite = if skipped.is_some_and(Skip::is_not_finite) { self.not_finite + 1 } else { 0 };
        if self.not_finite < PATIENCE {
            return Ok(());
        }
        Err(self.diverged(self.saving.last().map(|(_, path)| path.clone())))
    }

    fn diverged(&self, last: Option<PathBuf>) -> TrainError {
        TrainError::Diverged { updates: self.not_finite, last }
    }
}
