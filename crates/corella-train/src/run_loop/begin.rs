//! How a session begins: at the newest checkpoint, or at the start.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use corella_text::data::{Checksum, Loader, LoaderOptions, Order};

use super::measuring::Measured;
use super::pace::Pace;
use super::pages::Pages;
use super::records::Records;
use super::saving::Saving;
use super::{Hooks, Run, Session};
use crate::TrainError;
use crate::checkpoint::{self, Whole};
use crate::clock::Clock;
use crate::data_check::DataCheck;
use crate::differences::differences;
use crate::folder::{self, ENVIRONMENT, EVENTS, LOG, PLAN, RunFolder, SAMPLES};
use crate::heartbeat;
use crate::log::{self, Event, JsonLines};
use crate::shell_commands::{CommandPlan, ShellCommands};
use crate::spikes::SpikeDetector;
use crate::validate::Validation;
use crate::whole_file;

/// Records in the folder of a run that it could not be begun again: an event, the heartbeat, and the user's command for it. A
/// folder that is no run, or that another process holds, is left alone.
pub fn not_begun(dir: &Path, commands: &CommandPlan, error: &str) {
    if !folder::is_run(dir) {
        return;
    }
    let Ok(_held) = RunFolder::open(dir) else { return };
    let time = Clock::new(Duration::ZERO).wall();
    let (step, elapsed) = heartbeat::fail(dir, error, time);
    let event = Event { step, event: "failed".to_owned(), what: error.to_owned(), elapsed, time };
    // As all that is told of a run: a help, on which nothing depends.
    let _ = JsonLines::open(&dir.join(EVENTS), Some(u64::MAX)).and_then(|mut events| events.write(&event));
    ShellCommands::new(commands.clone()).failure(dir, step, error);
}

/// Where a session begins.
#[derive(Default)]
struct Start {
    /// Updates made.
    done: u64,
    /// Seconds in the run until then.
    seconds: f64,
    val_loss: Option<f64>,
    checksum: Option<Checksum>,
    spikes: Option<SpikeDetector>,
    saved: Option<(u64, PathBuf)>,
}

impl<'a> Session<'a> {
    /// Goes to the newest checkpoint, or to the start; writes run.toml and tokenizer.json.
    pub(super) fn begin(
        run: &'a mut Run,
        folder: RunFolder,
        hooks: &'a mut dyn Hooks,
        stop: &'a AtomicBool,
    ) -> Result<Self, TrainError> {
        let plan = &run.plan;
        let checkpoints = folder::checkpoints(&run.dir);
        checkpoint::clean(&checkpoints)?;
        let options = LoaderOptions {
            order: plan.data.order,
            end_of_text: run.data.tokenizer.end_of_text(),
            llm_c_batch: plan.train.micro_batch,
            ..LoaderOptions::new(plan.model.seq_len, plan.train.seed)
        };
        let mut loader = Loader::new(run.data.train.clone(), options)?;
        let data = run.data.train.mark()?;
        let validation = Validation::of(&run.data.val, plan.output.val_tokens, plan.model.seq_len)?;
        let newest = checkpoint::latest(&checkpoints)?;
        if !run.resume
            && let Some(found) = newest
        {
            return Err(TrainError::NotEmpty { path: found.path });
        }
        let start = match newest {
            Some(found) => take_up(run, hooks, stop, found, &mut loader, (data, validation))?,
            None => from_the_start(run, hooks)?,
        };
        if plan_validates(run) && validation.is_none() {
            let (there, t) = (run.data.val.len(), run.plan.model.seq_len);
            hooks.on_trouble(&format!(
                "no validation loss is measured: the data have {there} tokens for validation, and a window of T = {t} takes {}",
                t + 1
            ));
        }
        let done = start.done;
        let check = DataCheck::begin(&run.data, start.checksum)?;
        let records = Records::open(&run.dir, done)?;
        let loss = records.log.last_of(done).and_then(|line| line["loss"].as_f64());
        let mut session = Session {
            commands: ShellCommands::new(run.plan.commands.clone()),
            loader,
            spikes: start.spikes.unwrap_or_else(|| SpikeDetector::new(run.plan.train.spike_window)),
            not_finite: 0,
            done,
            loss,
            measured: Measured::new(validation, start.val_loss),
            saving: Saving::new(start.saved, check, data),
            pace: Pace::new(done, start.seconds, run.plan.flops_per_token(run.product_parameters)),
            records,
            pages: Pages::default(),
            trouble: None,
            beat: None,
            run,
            hooks,
            stop,
            folder,
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

    pub(super) fn write_plan(&self) -> Result<(), TrainError> {
        let put = |name: &str, text: &str| whole_file::replace(&self.run.dir.join(name), text);
        put(PLAN, &self.run.plan.to_toml()?)?;
        let mut environment = self.run.environment.clone();
        environment.insert("computed on".to_owned(), self.run.model.backend_name());
        put(ENVIRONMENT, &format!("{:#}\n", serde_json::json!(environment)))?;
        self.run.data.tokenizer.files().iter().try_for_each(|(name, text)| put(name, text))
    }
}

fn plan_validates(run: &Run) -> bool {
    run.plan.output.val_every > 0
}

/// The start of a run without a checkpoint. Lines that it would write again are another session's, and stay under another name.
fn from_the_start(run: &Run, hooks: &mut dyn Hooks) -> Result<Start, TrainError> {
    let mut start = Start::default();
    if run.resume {
        let checkpoints = folder::checkpoints(&run.dir);
        hooks.on_trouble(&format!("no checkpoint in {} yet: beginning at update 1", checkpoints.display()));
        start.seconds = heartbeat::elapsed(&run.dir).unwrap_or_default();
    }
    for name in [LOG, SAMPLES] {
        if let Some(kept) = log::set_aside(&run.dir.join(name))? {
            let kept = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
            hooks.on_trouble(&format!("{name} of the session before is kept as {kept}"));
        }
    }
    Ok(start)
}

/// Puts weights, moments and the place in the data back, and says what is not as it was. `here` marks the tokens to train on and
/// those to validate on.
fn take_up(
    run: &mut Run,
    hooks: &mut dyn Hooks,
    stop: &AtomicBool,
    found: Whole,
    loader: &mut Loader,
    here: (u32, Option<Validation>),
) -> Result<Start, TrainError> {
    let ((data, validation), was) = (here, &found.state);
    let (of_order, is) = (was.loader.batch.unwrap_or(was.plan.train.micro_batch), run.plan.train.micro_batch);
    if was.loader.order == Order::LlmC && run.plan.data.order == Order::LlmC && of_order != is {
        return Err(TrainError::OtherBatch { was: of_order, is });
    }
    run.model.take_choices(&found.state.choices);
    checkpoint::restore(&found, &mut *run.model, &*run.files)?;
    loader.restore(&found.state.loader)?;
    checkpoint::check_tokenizer(&found, &run.data.tokenizer)?;
    if found.state.data.is_some_and(|saved| saved != data) {
        // Where a shard was damaged since, that is what there is to say.
        run.data.train.read_through(stop)?;
        return Err(TrainError::other_tokens());
    }
    for difference in differences(&found.state, &run.plan, &run.model.backend_name()) {
        hooks.on_trouble(&difference);
    }
    let (mut state, window) = (found.state, run.plan.train.spike_window);
    if state.step > run.plan.train.steps {
        let what = format!("{} are planned, but the run has made {} already", run.plan.train.steps, state.step);
        return Err(TrainError::Plan { field: "steps", what });
    }
    if plan_validates(run) && !state.is_validated_as(validation, run.plan.output.val_tokens) {
        hooks.on_trouble(
            "the validation loss goes on on other tokens than before: those of earlier checkpoints are not compared with it",
        );
        state.val_loss = None;
    }
    Ok(Start {
        done: state.step,
        // Time that a kill took back is paid all the same.
        seconds: heartbeat::elapsed(&run.dir).unwrap_or_default().max(state.seconds),
        val_loss: state.val_loss,
        checksum: state.checksum,
        spikes: state.spikes.filter(|s| s.is_of_size(window)),
        saved: Some((state.step, found.path)),
    })
}
