//! Reads the files of the data through beside the run: damaged tokens, and tokens that are not those the run began with, end it
//! before a checkpoint depends on them. A start waits for none of it: many gigabytes take as long as the disk does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corella_text::data::{Checksum, DataError, Dataset};

use crate::TrainError;

/// How long a stop may wait while the run waits for the reading thread.
const LOOK: Duration = Duration::from_millis(50);

/// What the thread found: the checksum of all tokens to train on, where it got to their end.
type Found = Result<Option<Checksum>, DataError>;

/// The check of one session.
pub(crate) struct DataCheck {
    /// Of the tokens to train on, as far as it is known.
    checksum: Option<Checksum>,
    /// What the thread will send; `None` when it has.
    found: Option<Receiver<Found>>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DataCheck {
    /// Begins to read. `saved` is the checksum in the checkpoint that the run goes on from: data that are known to be others are
    /// refused at once.
    pub fn begin(data: &Dataset, saved: Option<Checksum>) -> Result<DataCheck, TrainError> {
        let mut check = DataCheck { checksum: saved, found: None, leave: Arc::default(), thread: None };
        check.know(data.train.checksum())?;
        let (send, found) = channel();
        let (train, val, leave) = (data.train.clone(), data.val.clone(), Arc::clone(&check.leave));
        check.found = Some(found);
        check.thread = Some(std::thread::spawn(move || {
            let all = train.read_through(&leave).and_then(|checksum| val.read_through(&leave).map(|_| checksum));
            // Nobody listens any more where the run has ended.
            let _ = send.send(all);
        }));
        Ok(check)
    }

    /// The checksum of the tokens to train on, where it is known by now.
    pub fn checksum(&self) -> Option<Checksum> {
        self.checksum
    }

    /// An error if one was found by now.
    pub fn look(&mut self) -> Result<(), TrainError> {
        match self.found.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => Ok(()),
            Some(Ok(found)) => self.settle(found),
            Some(Err(TryRecvError::Disconnected)) => self.panicked(),
        }
    }

    /// Waits until everything was read, or until `stop` is raised; `false` where that takes longer than `at_most`.
    pub fn wait(&mut self, at_most: Duration, stop: &AtomicBool) -> Result<bool, TrainError> {
        let begin = Instant::now();
        while let Some(found) = &self.found {
            match found.recv_timeout(LOOK) {
                Ok(found) => self.settle(found)?,
                Err(RecvTimeoutError::Timeout) if stop.load(Ordering::SeqCst) => return Ok(true),
                Err(RecvTimeoutError::Timeout) if begin.elapsed() >= at_most => return Ok(false),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.panicked()?,
            }
        }
        Ok(true)
    }

    fn settle(&mut self, found: Found) -> Result<(), TrainError> {
        self.found = None;
        self.know(found?)
    }

    /// Takes note of the checksum of what is there.
    fn know(&mut self, here: Option<Checksum>) -> Result<(), TrainError> {
        if let (Some(saved), Some(here)) = (self.checksum, here)
            && here.contradicts(saved)
        {
            return Err(TrainError::other_tokens());
        }
        self.checksum = here.or(self.checksum);
        Ok(())
    }

    /// The thread is gone without a word: it panicked, and so does the run.
    fn panicked(&mut self) -> Result<(), TrainError> {
        self.found = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => Ok(()),
        }
    }
}

impl Drop for DataCheck {
    fn drop(&mut self) {
        self.leave.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
