//! When report.html is written: beside the updates, and never for more than a small part of the time.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::TrainError;
use crate::report;

/// Least time between two pages.
const LEAST: Duration = Duration::from_secs(30);
/// So many times as long as a page took, the next one waits: a long log takes seconds to read.
const COST: u32 = 100;

/// The pages of a session.
#[derive(Debug, Default)]
pub(super) struct Pages {
    writing: Option<JoinHandle<(Result<PathBuf, TrainError>, Duration)>>,
    /// When the last one was begun, and how long one takes.
    last: Option<(Instant, Duration)>,
}

impl Pages {
    /// Whether it is time for another page.
    pub(super) fn due(&self) -> bool {
        let is_time = |(begun, took): &(Instant, Duration)| begun.elapsed() >= LEAST.max(took.saturating_mul(COST));
        self.writing.as_ref().is_none_or(JoinHandle::is_finished) && self.last.as_ref().is_none_or(is_time)
    }

    /// Begins a page of the run in `dir`, in a thread of its own. The error is that of the page before.
    pub(super) fn begin(&mut self, dir: &Path) -> Result<(), TrainError> {
        let before = self.wait();
        let took = self.last.map_or(Duration::ZERO, |(_, took)| took);
        self.last = Some((Instant::now(), took));
        let dir = dir.to_path_buf();
        let write = move || {
            let begun = Instant::now();
            (report::write(&dir), begun.elapsed())
        };
        // Without a thread there is a page at the end.
        self.writing = thread::Builder::new().name("report".to_owned()).spawn(write).ok();
        before
    }

    /// Waits for the page that is being written.
    pub(super) fn wait(&mut self) -> Result<(), TrainError> {
        let Some(written) = self.writing.take().map(JoinHandle::join) else { return Ok(()) };
        // A page that cannot be drawn is only missing.
        let Ok((result, took)) = written else { return Ok(()) };
        if let Some((_, before)) = &mut self.last {
            *before = took;
        }
        result.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_takes_long_is_written_less_often() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let due = |seconds: u64, took: u64| {
            let last = ago(seconds).map(|begun| (begun, Duration::from_secs(took)));
            Pages { writing: None, last }.due()
        };
        if ago(100).is_some() {
            assert!(!due(1, 0) && due(31, 0) && !due(31, 2) && !due(100, 2));
        }
        assert!(Pages::default().due());
    }
}
