//! What a run tells while it goes on: times, troubles, events, heartbeat, report.

use std::time::{Duration, Instant};

use super::Session;
use crate::TrainError;
use crate::heartbeat::{self, Heartbeat, RunState};
use crate::log::Event;
use crate::report::{self, tensorboard::EventFile};
use crate::spread::Spread;
use crate::step::StepReport;

/// Updates whose times the heartbeat tells.
const RECENT: usize = 100;
/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Completes what an update reports by what the session knows: times, utilisation, the share of the data.
    pub(super) fn keep_time(&mut self, report: &mut StepReport) {
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
    pub(super) fn epochs(&self) -> f64 {
        self.loader.tokens() as f64 / self.run.data.train.len().max(1) as f64
    }

    /// Seconds of an update in this session, with what lies between updates.
    pub(super) fn pace(&self) -> Option<f64> {
        let made = self.done - self.first;
        (made > 0).then(|| self.began.elapsed().as_secs_f64() / made as f64)
    }

    /// Seconds until the last update.
    pub(super) fn eta(&self) -> Option<f64> {
        let left = self.run.plan.train.steps.saturating_sub(self.done);
        if left == 0 { Some(0.0) } else { self.pace().map(|seconds| seconds * left as f64) }
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
        if let Err(error) = written {
            self.trouble(&format!("{error}; its lines wait in memory"));
        }
    }

    /// Begins a file for TensorBoard.
    pub(super) fn open_board(&mut self) {
        match EventFile::create(&self.run.dir.join("tensorboard"), self.done, self.clock.wall()) {
            Ok(board) => self.board = Some(board),
            Err(error) => self.trouble(&error.to_string()),
        }
    }

    /// Lets report.html be written where it is time, and what TensorBoard reads. A page that cannot be written must not end a
    /// run.
    pub(super) fn report(&mut self) {
        if self.pages.due() {
            let flushed = self.board.as_mut().map_or(Ok(()), EventFile::flush);
            let before = self.pages.begin(&self.run.dir);
            if let Err(error) = flushed.and(before) {
                self.trouble(&error.to_string());
            }
        }
    }

    /// The last page, of all that there is.
    fn last_report(&mut self) {
        let flushed = self.board.as_mut().map_or(Ok(()), EventFile::flush);
        // Whatever became of the one before, this one takes its place.
        let _ = self.pages.wait();
        if let Err(error) = flushed.and_then(|()| report::write(&self.run.dir)) {
            self.trouble(&error.to_string());
        }
    }

    pub(super) fn event(&mut self, event: &str, what: &str) {
        let (elapsed, time) = (self.clock.elapsed(), self.clock.wall());
        let event = Event { step: self.done, event: event.to_owned(), what: what.to_owned(), elapsed, time };
        // The record of events is a help; the run does not depend on it.
        let _ = self.events.write(&event);
    }

    /// Writes the heartbeat: whenever the run begins to do something else, which may take minutes, and once a second.
    pub(super) fn beat(&mut self, state: RunState, now: bool) {
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
