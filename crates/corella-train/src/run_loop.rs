//! The loop around the updates: validation, samples, log, checkpoints, stopping.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corella_model::{ModelFiles, TextModel, TrainModel};
use corella_text::data::{DataError, Dataset, Loader, LoaderOptions};

use crate::TrainError;
use crate::checkpoint::{self, State};
use crate::clock::Clock;
use crate::commands::Commands;
use crate::console::warn;
use crate::device::{Device, Usage};
use crate::differences::differences;
use crate::folder::RunFolder;
use crate::heartbeat::{self, Heartbeat, RunState};
use crate::log::{Event, JsonLines, Sample};
use crate::plan::RunPlan;
use crate::report::{self, Curve, Standing, tensorboard::EventFile};
use crate::spikes::{Skip, SpikeDetector};
use crate::spread::Spread;
use crate::step::{StepReport, step};
use crate::validate::validation_loss;
use crate::whole_file;

/// Updates in a row without a finite loss that end a run.
const PATIENCE: u32 = 8;
/// Checkpoints in a row that may fail: a disk that is full for an hour must not end a run of days.
const FAILED_SAVES: u32 = 3;
/// What is said where a checkpoint is due and none is written.
const UNSOUND: &str = "no checkpoint is written while loss or gradient norm are no numbers; the ones before stay";
/// Least time between two reports, so that they do not hold up short updates.
const REPORT: Duration = Duration::from_secs(30);
/// Updates whose times the heartbeat tells.
const RECENT: usize = 100;
/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What the loop asks its caller to do. The caller prints and samples; the loop decides when.
pub trait Hooks {
    /// An update is done.
    fn on_step(&mut self, report: &StepReport);
    /// Writes samples with the weights after `step` updates; none where `stop` is raised before all are written.
    fn sample(&mut self, step: u64, model: &mut dyn TextModel, stop: &AtomicBool) -> Vec<Sample>;
    /// A checkpoint was written.
    fn on_checkpoint(&mut self, path: &Path);
    /// Evaluates the weights after `step` updates: scores by name; none where `stop` is raised before all are known.
    fn evaluate(&mut self, _step: u64, _model: &mut dyn TextModel, _stop: &AtomicBool) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
    /// Something went wrong that does not end the run.
    fn on_trouble(&mut self, what: &str) {
        warn(what);
    }
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
    let mut session = Session::begin(run, folder, hooks, stop)?;
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
    commands: Commands,
    clock: Clock,
    /// When this session began to make updates.
    began: Instant,
    first: u64,
    flops_per_token: f64,
    /// Milliseconds of the last updates.
    recent: VecDeque<f64>,
    mfu: Option<f64>,
    loader: Loader,
    /// Checksum of the tokens to train on.
    data: u32,
    spikes: SpikeDetector,
    not_finite: u32,
    log: JsonLines,
    samples: JsonLines,
    events: JsonLines,
    board: Option<EventFile>,
    done: u64,
    loss: Option<f64>,
    val_loss: Option<f64>,
    /// Validation loss of the weights as they are.
    rating: Option<f64>,
    standing: Option<Standing>,
    saved: Option<(u64, PathBuf)>,
    /// A checkpoint was written and older ones are not removed yet.
    prune: bool,
    failed_saves: u32,
    trouble: Option<String>,
    /// What was last written into the heartbeat, and when.
    beat: Option<(RunState, Instant)>,
    reported: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Goes to the newest checkpoint, or to the start; writes run.toml and tokenizer.json.
    fn begin(
        run: &'a mut Run,
        folder: RunFolder,
        hooks: &'a mut dyn Hooks,
        stop: &'a AtomicBool,
    ) -> Result<Self, TrainError> {
        let plan = &run.plan;
        let checkpoints = run.dir.join("checkpoints");
        checkpoint::clean(&checkpoints)?;
        let options = LoaderOptions {
            order: plan.data.order,
            end_of_text: run.data.tokenizer.end_of_text(),
            llm_c_batch: plan.train.micro_batch,
            ..LoaderOptions::new(plan.model.seq_len, plan.train.seed)
        };
        let mut loader = Loader::new(run.data.train.clone(), options)?;
        let data = run.data.train.mark()?;
        let mut spikes = SpikeDetector::new(plan.train.spike_window);
        let newest = checkpoint::latest(&checkpoints)?;
        if !run.resume
            && let Some(found) = newest
        {
            return Err(TrainError::NotEmpty { path: found.path });
        }
        let (mut done, mut seconds, mut val_loss, mut saved) = (0, 0.0, None, None);
        if let Some(found) = newest {
            run.model.take_choices(&found.state.choices);
            checkpoint::restore(&found, &mut *run.model, &*run.files)?;
            loader.restore(&found.state.loader)?;
            checkpoint::check_tokenizer(&found, &run.data.tokenizer)?;
            if found.state.data.is_some_and(|saved| saved != data) {
                let what = "there are as many tokens, but not the same".to_owned();
                return Err(DataError::OtherData(what).into());
            }
            for difference in differences(&found.state, &run.plan, &run.model.backend_name()) {
                hooks.on_trouble(&difference);
            }
            let state = found.state;
            (done, seconds, val_loss) = (state.step, state.seconds, state.val_loss);
            spikes = state.spikes.filter(|s| s.is_of_size(run.plan.train.spike_window)).unwrap_or(spikes);
            saved = Some((done, found.path));
        }
        let lines = |name: &str| JsonLines::open(&run.dir.join(name), (done > 0).then_some(done));
        let (log, samples) = (lines("log.jsonl")?, lines("samples.jsonl")?);
        let loss = log.last_of(done).and_then(|line| line["loss"].as_f64());
        let parameters = run.model.params().iter().map(|p| p.shape.iter().product::<usize>()).sum();
        // What happened stays on record, whatever is done again.
        let events = JsonLines::open(&run.dir.join("events.jsonl"), Some(u64::MAX))?;
        let mut session = Session {
            commands: Commands::new(run.plan.commands.clone()),
            clock: Clock::new(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            began: Instant::now(),
            first: done,
            flops_per_token: run.plan.flops_per_token(parameters),
            recent: VecDeque::new(),
            mfu: None,
            rating: val_loss,
            standing: None,
            run,
            hooks,
            stop,
            folder,
            loader,
            data,
            spikes,
            not_finite: 0,
            log,
            samples,
            events,
            board: None,
            done,
            loss,
            val_loss,
            saved,
            prune: false,
            failed_saves: 0,
            trouble: None,
            beat: None,
            reported: None,
        };
        if let Err(error) = session.write_plan() {
            // A run that goes on has all of it in its checkpoint.
            if session.done == 0 {
                return Err(error);
            }
            session.trouble(&error.to_string());
        }
        Ok(session)
    }

    fn write_plan(&self) -> Result<(), TrainError> {
        let put = |name: &str, text: &str| whole_file::replace(&self.run.dir.join(name), text);
        put("run.toml", &self.run.plan.to_toml()?)?;
        let mut environment = self.run.environment.clone();
        environment.insert("computed on".to_owned(), self.run.model.backend_name());
        put(report::ENVIRONMENT, &format!("{:#}\n", serde_json::json!(environment)))?;
        put("tokenizer.json", &self.run.data.tokenizer.to_json())?;
        put("tokenizer_config.json", &self.run.data.tokenizer.to_config_json())
    }

    /// All updates, and the last checkpoint.
    fn go(&mut self) -> Result<Outcome, TrainError> {
        self.event(if self.done > 0 { "resumed" } else { "started" }, &self.run.model.backend_name());
        self.beat(RunState::Training, true);
        match EventFile::create(&self.run.dir.join("tensorboard"), self.done, self.clock.wall()) {
            Ok(board) => self.board = Some(board),
            Err(error) => self.trouble(&error.to_string()),
        }
        let (steps, out) = (self.run.plan.train.steps, self.run.plan.output.clone());
        let due = |every: u64, step: u64| every > 0 && (step.is_multiple_of(every) || step == steps);
        let validated = |step: u64| out.val_every > 0 && (due(out.val_every, step) || due(out.checkpoint_every, step));
        if due(out.sample_every, self.done) && self.samples.last_of(self.done).is_none() {
            self.write_samples()?;
        }
        if validated(self.done) || (self.done == 0 && out.val_every > 0) {
            self.catch_up_validation();
        }
        self.began = Instant::now();
        while self.done < steps && !self.stopped() {
            let (model, loader, spikes) = (&mut *self.run.model, &mut self.loader, &mut self.spikes);
            let Some(mut report) = step(model, loader, spikes, &self.run.plan, self.done, self.stop)? else { break };
            self.done += 1;
            self.rating = None;
            self.loss = Some(report.loss).filter(|loss| loss.is_finite());
            if validated(self.done) {
                report.val_loss = self.validate();
                report.standing = report.val_loss.and_then(|loss| self.judge(loss));
            }
            self.keep_time(&mut report);
            if due(out.eval_every, self.done) {
                self.beat(RunState::Evaluating, false);
                let mut model = self.run.model.text_model()?;
                report.scores = self.hooks.evaluate(self.done, &mut *model, self.stop);
                drop(model);
                self.beat(RunState::Training, false);
            }
            let written = self.log.write(&report);
            self.tolerate(written);
            let drawn = self.board.as_mut().map_or(Ok(()), |board| board.write(&report));
            self.tolerate(drawn);
            self.hooks.on_step(&report);
            self.report(false);
            self.beat(RunState::Training, false);
            self.count_skip(report.skipped)?;
            self.remove_old();
            if due(out.sample_every, self.done) {
                self.write_samples()?;
            }
            if due(out.checkpoint_every, self.done) && self.done < steps {
                self.save_or_wait()?;
            }
        }
        let (stopped, last) = (self.done < steps, self.saved.clone());
        let checkpoint = match last {
            Some((at, path)) if at == self.done => path,
            _ if self.is_sound()? => self.save()?,
            // The run is resumed where its weights were still good.
            Some((_, path)) if stopped => {
                self.trouble(UNSOUND);
                path
            }
            last => return Err(self.diverged(last.map(|(_, path)| path))),
        };
        self.remove_old();
        self.log.flush()?;
        self.samples.flush()?;
        let best = checkpoint::best(&self.checkpoints())?;
        let (seconds, finished) = (self.clock.elapsed(), self.done >= steps);
        let (val_loss, standing) = (self.val_loss, self.standing.clone());
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

    /// Completes what an update reports by what the session knows: times, utilisation, the share of the data.
    fn keep_time(&mut self, report: &mut StepReport) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(report.ms);
        self.mfu = self.run.device.peak_flops.map(|peak| self.flops_per_token * report.tokens_per_second / peak);
        (report.mfu, report.epochs) = (self.mfu, self.epochs());
        (report.elapsed, report.time) = (self.clock.elapsed(), self.clock.wall());
        report.eta = self.eta().unwrap_or_default();
    }

    /// Tokens seen by tokens of the data.
    fn epochs(&self) -> f64 {
        self.loader.tokens() as f64 / self.run.data.train.len().max(1) as f64
    }

    /// Seconds of an update in this session, with what lies between updates.
    fn pace(&self) -> Option<f64> {
        let made = self.done - self.first;
        (made > 0).then(|| self.began.elapsed().as_secs_f64() / made as f64)
    }

    /// Seconds until the last update.
    fn eta(&self) -> Option<f64> {
        let left = self.run.plan.train.steps.saturating_sub(self.done);
        if left == 0 { Some(0.0) } else { self.pace().map(|seconds| seconds * left as f64) }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn checkpoints(&self) -> PathBuf {
        self.run.dir.join("checkpoints")
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
        Err(self.diverged(self.saved.as_ref().map(|(_, path)| path.clone())))
    }

    fn diverged(&self, last: Option<PathBuf>) -> TrainError {
        TrainError::Diverged { updates: self.not_finite, last }
    }

    /// Whether a checkpoint of the weights as they are is worth its place.
    ///
    /// The loss of an update is that of the weights before it, so an update that ruins them looks as good as any other:
    /// only a loss measured afterwards tells. That is the validation loss where there is one, else the loss of the first
    /// sequence to train on. While updates are left out because loss or norm is not finite, nothing is written.
    fn is_sound(&mut self) -> Result<bool, TrainError> {
        if self.not_finite > 0 {
            return Ok(false);
        }
        let loss = match self.rating {
            Some(loss) => Some(loss),
            // One sequence, whatever was asked to stop: it takes a fraction of what writing the checkpoint takes.
            None => validation_loss(&mut *self.run.model, &self.run.data.train, 0, &AtomicBool::new(false))?,
        };
        Ok(loss.is_none_or(f64::is_finite))
    }

    /// Removes the checkpoints beyond those to keep, once an update from the newest had a finite loss and norm, or the
    /// run is at its end: a gradient may overflow where the loss does not, and then the ones before are needed.
    fn remove_old(&mut self) {
        if self.prune && self.not_finite == 0 {
            self.prune = false;
            if let Err(error) = checkpoint::prune(&self.checkpoints(), self.run.plan.output.keep) {
                self.trouble(&error.to_string());
            }
        }
    }

    fn validate(&mut self) -> Option<f64> {
        self.beat(RunState::Validating, false);
        let (model, val) = (&mut *self.run.model, &self.run.data.val);
        self.rating = match validation_loss(model, val, self.run.plan.output.val_tokens, self.stop) {
            Ok(loss) => loss,
            Err(error) => {
                self.trouble(&format!("{error}; training goes on without this validation loss"));
                None
            }
        };
        self.beat(RunState::Training, false);
        self.val_loss = self.rating.or(self.val_loss);
        self.rating
    }

    /// How a validation loss of the weights as they are stands beside the reference curve; a new verdict is an event.
    fn judge(&mut self, loss: f64) -> Option<Standing> {
        let standing = self.run.reference.as_ref()?.standing(self.loader.tokens() as f64, loss);
        if let Some(now) = &standing
            && self.standing.as_ref().is_none_or(|before| before.verdict != now.verdict)
        {
            self.event("track", &now.to_string());
        }
        self.standing = standing.clone().or(self.standing.take());
        standing
    }

    /// Measures the validation loss that is due at a beginning, or that a signal cut short before it was in the log.
    fn catch_up_validation(&mut self) {
        if let Some(loss) = self.rating {
            self.judge(loss);
        }
        if self.log.last_of(self.done).is_some_and(|line| !line["val_loss"].is_null()) {
            return;
        }
        let Some(loss) = self.rating.or_else(|| self.validate()) else { return };
        self.judge(loss);
        let mut line = self.log.last_of(self.done).cloned();
        let written = match &mut line {
            None => self.log.write(&serde_json::json!({"step": self.done, "val_loss": loss})),
            Some(line) => {
                line["val_loss"] = loss.into();
                self.log.replace_last(line.take())
            }
        };
        self.tolerate(written);
    }

    fn write_samples(&mut self) -> Result<(), TrainError> {
        self.beat(RunState::Sampling, false);
        let mut model = self.run.model.text_model()?;
        let samples = self.hooks.sample(self.done, &mut *model, self.stop);
        drop(model);
        self.beat(RunState::Training, false);
        for sample in samples {
            let written = self.samples.write(&sample);
            self.tolerate(written);
        }
        Ok(())
    }

    /// Writes a checkpoint, if the weights are worth one; a failure ends the run only if it is one of several in a row.
    fn save_or_wait(&mut self) -> Result<(), TrainError> {
        let saved = match self.is_sound() {
            Ok(true) => self.save().map(|_| ()),
            Ok(false) => {
                self.trouble(UNSOUND);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        match saved {
            Ok(()) => self.failed_saves = 0,
            Err(error) => {
                self.failed_saves += 1;
                if self.failed_saves == FAILED_SAVES {
                    return Err(error);
                }
                self.trouble(&format!("{error}; training goes on, the next checkpoint tries again"));
                self.commands.failure(&self.run.dir, self.done, &error.to_string());
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        self.beat(RunState::Saving, false);
        if !self.folder.is_there() {
            self.trouble(&format!("{} vanished while the run was going on; it is made anew", self.run.dir.display()));
            self.folder = RunFolder::open(&self.run.dir)?;
            self.write_plan()?;
            let lines = |name: &str| JsonLines::open(&self.run.dir.join(name), Some(self.done));
            (self.log, self.samples, self.events) =
                (lines("log.jsonl")?, lines("samples.jsonl")?, lines("events.jsonl")?);
        }
        let state = State {
            step: self.done,
            loader: self.loader.state(),
            plan: self.run.plan.clone(),
            backend: self.run.model.backend_name(),
            choices: self.run.model.choices(),
            model: self.run.files.describe(),
            spikes: Some(self.spikes.clone()),
            seconds: self.clock.elapsed(),
            val_loss: self.rating,
            data: Some(self.data),
            files: BTreeMap::new(),
        };
        let dir = self.checkpoints();
        let (model, tokenizer) = (&*self.run.model, &self.run.data.tokenizer);
        let path = checkpoint::save(&dir, model, &*self.run.files, tokenizer, state)?;
        self.prune = true;
        self.saved = Some((self.done, path.clone()));
        self.event("checkpoint", &path.display().to_string());
        self.hooks.on_checkpoint(&path);
        self.commands.checkpoint(&self.run.dir, self.done, &path);
        self.beat(RunState::Training, false);
        Ok(path)
    }

    /// Says what went wrong without ending the run.
    fn trouble(&mut self, what: &str) {
        if self.trouble.as_deref() != Some(what) {
            self.hooks.on_trouble(what);
            self.trouble = Some(what.to_owned());
            self.event("trouble", what);
        }
    }

    /// A log that cannot be written now is written later, at the latest with the end of the run.
    fn tolerate(&mut self, written: Result<(), TrainError>) {
        if let Err(error) = written {
            self.trouble(&format!("{error}; its lines wait in memory"));
        }
    }

    /// Writes report.html and what TensorBoard reads. A page that cannot be written must not end a run.
    fn report(&mut self, now: bool) {
        if !now && self.reported.is_some_and(|last| last.elapsed() < REPORT) {
            return;
        }
        self.reported = Some(Instant::now());
        let flushed = self.board.as_mut().map_or(Ok(()), EventFile::flush);
        if let Err(error) = flushed.and_then(|()| report::write(&self.run.dir)) {
            self.trouble(&error.to_string());
        }
    }

    fn event(&mut self, event: &str, what: &str) {
        let (elapsed, time) = (self.clock.elapsed(), self.clock.wall());
        let event = Event { step: self.done, event: event.to_owned(), what: what.to_owned(), elapsed, time };
        // The record of events is a help; the run does not depend on it.
        let _ = self.events.write(&event);
    }

    /// Writes the heartbeat: whenever the run begins to do something else, which may take minutes, and once a second.
    fn beat(&mut self, state: RunState, now: bool) {
        if !now && self.beat.is_some_and(|(last, at)| last == state && at.elapsed() < HEARTBEAT) {
            return;
        }
        self.beat = Some((state, Instant::now()));
        let elapsed_seconds = self.clock.elapsed();
        let heartbeat = Heartbeat {
            state,
            pid: std::process::id(),
            step: self.done,
            steps: self.run.plan.train.steps,
            loss: self.loss,
            tokens_seen: self.loader.tokens(),
            epochs: self.epochs(),
            val_loss: self.val_loss,
            standing: self.standing.as_ref().map(|standing| standing.verdict),
            seconds_per_step: self.pace(),
            update_ms: Spread::of(self.recent.iter().copied()),
            mfu: self.mfu,
            eta_seconds: self.eta(),
            elapsed_seconds,
            usage: self.run.device.usage(&self.run.plan.cost, elapsed_seconds),
            checkpoint: self.saved.as_ref().map(|(_, path)| path.display().to_string()),
            trouble: self.trouble.clone(),
            time: self.clock.wall(),
        };
        heartbeat::write(&self.run.dir, &heartbeat);
    }

    /// Records how it ended, and waits for the user's commands.
    fn end(&mut self, state: RunState, error: &str) {
        let word = match state {
            RunState::Finished => "finished",
            RunState::Failed => "failed",
            _ => "stopped",
        };
        self.event(word, error);
        if state == RunState::Failed {
            self.trouble = Some(error.to_owned());
            self.commands.failure(&self.run.dir, self.done, error);
        }
        self.beat(state, true);
        self.report(true);
        self.commands.wait();
    }
}
