//! What a session writes of its run line by line: log, samples, events, and the file for TensorBoard.

use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::folder::{EVENTS, LOG, SAMPLES};
use crate::log::{Event, JsonLines};
use crate::report::tensorboard::EventFile;

/// The files of a session that grow.
pub(super) struct Records {
    dir: PathBuf,
    pub log: JsonLines,
    pub samples: JsonLines,
    events: JsonLines,
    board: Option<EventFile>,
}

impl Records {
    /// Opens those of the run in `dir`, without the lines that a run that goes on after `done` updates writes again.
    pub fn open(dir: &Path, done: u64) -> Result<Records, TrainError> {
        let lines = |name: &str| JsonLines::open(&dir.join(name), (done > 0).then_some(done));
        // What happened stays on record, whatever is done again.
        let events = JsonLines::open(&dir.join(EVENTS), Some(u64::MAX))?;
        Ok(Records { dir: dir.to_path_buf(), log: lines(LOG)?, samples: lines(SAMPLES)?, events, board: None })
    }

    /// Begins all anew, in a folder that was made anew after `done` updates.
    pub fn begin_anew(&mut self, done: u64) -> Result<(), TrainError> {
        let lines = |name: &str| JsonLines::open(&self.dir.join(name), Some(done));
        (self.log, self.samples, self.events) = (lines(LOG)?, lines(SAMPLES)?, lines(EVENTS)?);
        Ok(())
    }

    /// Begins those lines anew whose file was removed. Returns their names.
    pub fn begin_vanished(&mut self, done: u64) -> Result<Vec<&'static str>, TrainError> {
        let mut vanished = Vec::new();
        for (name, file) in [(LOG, &mut self.log), (SAMPLES, &mut self.samples), (EVENTS, &mut self.events)] {
            if !file.is_there() {
                *file = JsonLines::open(&self.dir.join(name), Some(done))?;
                vanished.push(name);
            }
        }
        Ok(vanished)
    }

    /// Begins a file for TensorBoard after `done` updates.
    pub fn open_board(&mut self, done: u64, time: f64) -> Result<(), TrainError> {
        self.board = Some(EventFile::create(&self.dir.join("tensorboard"), done, time)?);
        Ok(())
    }

    /// The file for TensorBoard, where one could be begun.
    pub fn board(&mut self) -> Option<&mut EventFile> {
        self.board.as_mut()
    }

    /// Whether the file for TensorBoard was removed.
    pub fn board_vanished(&self) -> bool {
        self.board.as_ref().is_some_and(|board| !board.is_there())
    }

    /// Hands the file for TensorBoard to the system.
    pub fn flush_board(&mut self) -> Result<(), TrainError> {
        self.board.as_mut().map_or(Ok(()), EventFile::flush)
    }

    /// Adds an event. Their record is a help; the run does not depend on it.
    pub fn event(&mut self, event: &Event) {
        let _ = self.events.write(event);
    }

    /// Writes the lines that wait.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        self.log.flush().and_then(|()| self.samples.flush())
    }
}
