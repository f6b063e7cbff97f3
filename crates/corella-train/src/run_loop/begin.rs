//! How a session begins: at the newest checkpoint, or at the start.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use corella_text::data::{Loader, LoaderOptions};

use super::pages::Pages;
use super::{Hooks, Run, Session};
use crate::TrainError;
use crate::checkpoint;
use crate::clock::Clock;
use crate::commands::{CommandPlan, Commands};
use crate::data_check::DataCheck;
use crate::differences::differences;
use crate::folder::{self, ENVIRONMENT, EVENTS, LOG, PLAN, RunFolder, SAMPLES};
use crate::heartbeat;
use crate::log::{Event, JsonLines};
use crate::spikes::SpikeDetector;
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
    Commands::new(commands.clone()).failure(dir, step, error);
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
        let mut spikes = SpikeDetector::new(plan.train.spike_window);
        let newest = checkpoint::latest(&checkpoints)?;
        if !run.resume
            && let Some(found) = newest
        {
            return Err(TrainError::NotEmpty { path: found.path });
        }
        let (mut done, mut seconds, mut val_loss, mut saved, mut checksum) = (0, 0.0, None, None, None);
        if let Some(found) = newest {
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
            let state = found.state;
            if state.step > run.plan.train.steps {
                let what = format!("{} are planned, but the run has made {} already", run.plan.train.steps, state.step);
                return Err(TrainError::Plan { field: "steps", what });
            }
            (done, seconds, val_loss, checksum) = (state.step, state.seconds, state.val_loss, state.checksum);
            spikes = state.spikes.filter(|s| s.is_of_size(run.plan.train.spike_window)).unwrap_or(spikes);
            saved = Some((done, found.path));
        }
        let check = DataCheck::begin(&run.data, checksum)?;
        let lines = |name: &str| JsonLines::open(&run.dir.join(name), (done > 0).then_some(done));
        let (log, samples) = (lines(LOG)?, lines(SAMPLES)?);
        let loss = log.last_of(done).and_then(|line| line["loss"].as_f64());
        // What happened stays on record, whatever is done again.
        let events = JsonLines::open(&run.dir.join(EVENTS), Some(u64::MAX))?;
        let mut session = Session {
            commands: Commands::new(run.plan.commands.clone()),
            clock: Clock::new(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            began: Instant::now(),
            first: done,
            flops_per_token: run.plan.flops_per_token(run.product_parameters),
            recent: VecDeque::new(),
            mfu: None,
            rating: val_loss,
            bytes_per_token: None,
            standing: None,
            run,
            hooks,
            stop,
            folder,
            loader,
            data,
            check,
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
            pages: Pages::default(),
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
