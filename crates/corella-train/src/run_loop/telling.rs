//! What a run tells while it goes on: times, troubles, events, heartbeat, report.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Session;
use super::measuring::Validated;
use crate::TrainError;
use crate::heartbeat::{self, Heartbeat, RunState};
use crate::log::Event;
use crate::report;
use crate::step::Update;
use crate::step_report::StepReport;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// What is told of an update: what it did, and what the session knows of time, utilisation and the share of the data.
    pub(super) fn report_of(&mut self, update: Update, validated: Validated) -> StepReport {
        self.pace.take(&update, self.run.device.peak_flops);
        StepReport {
            update,
            mfu: self.pace.mfu,
            epochs: self.epochs(),
            val_loss: validated.loss,
            val_bits_per_byte: validated.bits_per_byte,
            standing: validated.standing,
            scores: BTreeMap::new(),
            elapsed: self.pace.elapsed(),
            eta: self.eta().unwrap_or_default(),
            time: self.pace.wall(),
        }
    }

    /// Tells of an update wherever it is told: log, TensorBoard, the caller, and now and then the page.
    pub(super) fn tell(&mut self, report: &StepReport) {
        let written = self.records.log.write(report);
        self.tolerate(written);
        let drawn = self.records.board().map_or(Ok(()), |board| board.write(report));
        self.tolerate(drawn);
        self.hooks.on_step(report);
        self.report();
    }

    /// Tokens seen by tokens of the data.
    pub(super) fn epochs(&self) -> f64 {
        self.loader.tokens() as f64 / self.run.data.train.len().max(1) as f64
    }

    /// Seconds until the last update.
    fn eta(&self) -> Option<f64> {
        self.pace.eta(self.done, self.run.plan.train.steps)
    }

    /// Says what went wrong without ending the run.
    pub(super) fn trouble(&mut self, what: &str) {
        if self.trouble.as_deref() != Some(what) {
            self.hooks.on_trouble(what);
            self.trouble = Some(what.to_owned());
            self.event("trouble", what);
        }
    }

    /// A log that cannot be written now is written later, at the latest with the end of the run.
    pub(super) fn tolerate(&mut self, written: Result<(), TrainError>) {
        match written {
            Ok(()) => {}
            Err(error @ TrainError::LinesLost { .. }) => self.trouble(&error.to_string()),
            Err(error) => self.trouble(&format!("{error}; its lines wait in memory")),
        }
    }

    /// Begins a file for TensorBoard.
    pub(super) fn open_board(&mut self) {
        if let Err(error) = self.records.open_board(self.done, self.pace.wall()) {
            self.trouble(&error.to_string());
        }
    }

    /// Lets report.html be written where it is time, and what TensorBoard reads. A page that cannot be written must not end a
    /// run.
    pub(super) fn report(&mut self) {
        if self.pages.due() {
            let flushed = self.records.flush_board();
            let before = self.pages.begin(&self.run.dir);
            if let Err(error) = flushed.and(before) {
                self.trouble(&error.to_string());
            }
        }
    }

    /// The last page, of all that there is.
    fn last_report(&mut self) {
        let flushed = self.records.flush_board();
        // Whatever became of the one before, this one takes its place.
        let _ = self.pages.wait();
        if let Err(error) = flushed.and_then(|()| report::write(&self.run.dir)) {
            self.trouble(&error.to_string());
        }
    }

    pub(super) fn event(&mut self, event: &str, what: &str) {
        let (elapsed, time) = (self.pace.elapsed(), self.pace.wall());
        let event = Event { step: self.done, event: event.to_owned(), what: what.to_owned(), elapsed, time };
        self.records.event(&event);
    }

    /// Writes the heartbeat: whenever the run begins to do something else, which may take minutes, and once a second.
    pub(super) fn beat(&mut self, state: RunState, now: bool) {
        if !now && self.beat.is_some_and(|(last, at)| last == state && at.elapsed() < HEARTBEAT) {
            return;
        }
        self.beat = Some((state, Instant::now()));
        let elapsed_seconds = self.pace.elapsed();
        let heartbeat = Heartbeat {
            state,
            pid: std::process::id(),
            step: self.done,
            steps: self.run.plan.train.steps,
            loss: self.loss,
            tokens_seen: self.loader.tokens(),
            epochs: self.epochs(),
            val_loss: self.measured.val_loss,
            standing: self.measured.standing.as_ref().map(|standing| standing.verdict),
            seconds_per_step: self.pace.seconds_per_step(self.done),
            update_ms: self.pace.update_ms(),
            mfu: self.pace.mfu,
            eta_seconds: self.eta(),
            elapsed_seconds,
            usage: self.run.device.usage(&self.run.plan.cost, elapsed_seconds),
            checkpoint: self.saving.last().map(|(_, path)| path.display().to_string()),
            trouble: self.trouble.clone(),
            time: self.pace.wall(),
        };
        heartbeat::write(&self.run.dir, &heartbeat);
    }

    /// Records how it ended, and waits for the user's commands.
    pub(super) fn end(&mut self, state: RunState, error: &str) {
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
        self.last_report();
        self.commands.wait();
    }
}
