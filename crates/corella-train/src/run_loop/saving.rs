//! Checkpoints of a run: when one is worth its place, and what becomes of those before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::Session;
use crate::TrainError;
use crate::checkpoint::{self, State};
use crate::data_check::DataCheck;
use crate::folder::{self, RunFolder};
use crate::heartbeat::RunState;
use crate::validate::validation_loss;

/// Checkpoints in a row that may fail: a disk that is full for an hour must not end a run of days.
const FAILED_SAVES: u32 = 3;
/// Time between two tries to write the last checkpoint on a full disk.
const RETRY: Duration = Duration::from_secs(5);
/// What is said where a checkpoint is due and none is written.
pub(super) const UNSOUND: &str =
    "no checkpoint is written while loss or gradient norm are no numbers; the ones before stay";

/// The checkpoints of a session.
pub(super) struct Saving {
    /// The newest, and its updates.
    saved: Option<(u64, PathBuf)>,
    /// Older ones are not removed yet since it was written.
    prune: bool,
    /// How many failed since the last that was written.
    failed: u32,
    /// Whether the data are whole, without which none is written.
    pub check: DataCheck,
    /// [`corella_text::data::TokenStream::mark`] of the tokens to train on.
    data: u32,
}

impl Saving {
    /// Of a session that goes on from `saved`.
    pub fn new(saved: Option<(u64, PathBuf)>, check: DataCheck, data: u32) -> Saving {
        Saving { saved, prune: false, failed: 0, check, data }
    }

    /// The newest checkpoint, and its updates.
    pub fn last(&self) -> Option<&(u64, PathBuf)> {
        self.saved.as_ref()
    }

    /// One was written.
    fn wrote(&mut self, step: u64, path: &Path) {
        (self.saved, self.prune, self.failed) = (Some((step, path.to_path_buf())), true, 0);
    }

    /// One failed. Returns whether that were too many in a row.
    fn failed(&mut self) -> bool {
        self.failed += 1;
        self.failed >= FAILED_SAVES
    }
}

impl Session<'_> {
    pub(super) fn checkpoints(&self) -> PathBuf {
        folder::checkpoints(&self.run.dir)
    }

    /// Whether a checkpoint of the weights as they are is worth its place.
    ///
    /// The loss of an update is that of the weights before it, so an update that ruins them looks as good as any other:
    /// only a loss measured afterwards tells. That is the validation loss where there is one, else the loss of the first
    /// sequence to train on. While updates are left out because loss or norm is not finite, nothing is written.
    pub(super) fn is_sound(&mut self) -> Result<bool, TrainError> {
        if self.not_finite > 0 {
            return Ok(false);
        }
        let loss = match self.measured.rating {
            Some(loss) => Some(loss),
            // One sequence, whatever was asked to stop: it takes a fraction of what writing the checkpoint takes.
            None => validation_loss(&mut *self.run.model, &self.run.data.train, 0, &AtomicBool::new(false))?,
        };
        Ok(loss.is_none_or(f64::is_finite))
    }

    /// Lets no checkpoint depend on data that may be damaged: waits until they are read through, or for who asks to stop.
    pub(super) fn await_data(&mut self) -> Result<(), TrainError> {
        if !self.saving.check.wait(Duration::from_secs(1), self.stop)? {
            self.trouble("the first checkpoint waits until all data are read through");
            self.saving.check.wait(Duration::MAX, self.stop)?;
        }
        Ok(())
    }

    /// Writes a checkpoint, if the weights are worth one; a failure ends the run only if it is one of several in a row.
    pub(super) fn save_or_wait(&mut self) -> Result<(), TrainError> {
        let saved = match self.is_sound() {
            Ok(true) => self.save().map(|_| ()),
            Ok(false) => {
                self.trouble(UNSOUND);
                return Ok(());
            }
            Err(error) => Err(error),
        };
        match saved {
            Ok(()) => {}
            Err(error) => {
                if self.saving.failed() {
                    return Err(error);
                }
                self.trouble(&format!("{error}; training goes on, the next checkpoint tries again"));
                self.commands.failure(&self.run.dir, self.done, &error.to_string());
            }
        }
        Ok(())
    }

    /// Does what the end of a run depends on, and does it again until a full disk has room: what is lost otherwise is all since
    /// the last checkpoint. Who asks to stop, or asked before, is not kept waiting.
    pub(super) fn until_there_is_room<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let mut told = false;
        loop {
            let error = match attempt(self) {
                Err(error) if error.is_full_disk() && !self.stopped() => error,
                result => return result,
            };
            if told {
                self.beat(RunState::Waiting, false);
                let begun = Instant::now();
                while begun.elapsed() < RETRY && !self.stopped() {
                    thread::sleep(Duration::from_millis(100));
                }
            } else {
                told = true;
                self.trouble(&format!("{error}; the run is at its end and waits until there is room, or for a signal"));
                self.commands.failure(&self.run.dir, self.done, &error.to_string());
                self.beat(RunState::Waiting, true);
            }
        }
    }

    /// Makes anew what was removed of the run folder while the run was going on.
    fn restore_folder(&mut self) -> Result<(), TrainError> {
        if !self.folder.is_there() {
            self.trouble(&format!("{} vanished while the run was going on; it is made anew", self.run.dir.display()));
            self.folder = RunFolder::open(&self.run.dir)?;
            self.write_plan()?;
            self.records.begin_anew(self.done)?;
            self.open_board();
            return Ok(());
        }
        let mut vanished = self.records.begin_vanished(self.done)?;
        if self.records.board_vanished() {
            self.open_board();
            vanished.push("the file for TensorBoard");
        }
        if !vanished.is_empty() {
            self.trouble(&format!(
                "{} vanished while the run was going on; the lines from here on are there",
                vanished.join(", ")
            ));
        }
        Ok(())
    }

    pub(super) fn save(&mut self) -> Result<PathBuf, TrainError> {
        self.beat(RunState::Saving, false);
        self.restore_folder()?;
        let state = State {
            step: self.done,
            loader: self.loader.state(),
            plan: self.run.plan.clone(),
            backend: self.run.model.backend_name(),
            choices: self.run.model.choices(),
            model: self.run.files.describe(),
            spikes: Some(self.spikes.clone()),
            seconds: self.pace.elapsed(),
            val_loss: self.measured.rating,
            validation: self.measured.validation,
            data: Some(self.saving.data),
            checksum: self.saving.check.checksum(),
            files: BTreeMap::new(),
        };
        let dir = self.checkpoints();
        let (model, tokenizer) = (&*self.run.model, &self.run.data.tokenizer);
        let path = checkpoint::save(&dir, model, &*self.run.files, tokenizer, state)?;
        self.saving.wrote(self.done, &path);
        self.event("checkpoint", &path.display().to_string());
        self.hooks.on_checkpoint(&path);
        if self.commands.is_running() {
            self.beat(RunState::Waiting, true);
        }
        self.commands.checkpoint(&self.run.dir, self.done, &path);
        self.beat(RunState::Training, false);
        Ok(path)
    }

    /// Removes the checkpoints beyond those to keep, once an update from the newest had a finite loss and norm, or the
    /// run is at its end: a gradient may overflow where the loss does not, and then the ones before are needed.
    pub(super) fn remove_old(&mut self) {
        if self.saving.prune && self.not_finite == 0 {
            self.saving.prune = false;
            if let Err(error) = checkpoint::prune(&self.checkpoints(), self.run.plan.output.keep) {
                self.trouble(&error.to_string());
            }
        }
    }
}
