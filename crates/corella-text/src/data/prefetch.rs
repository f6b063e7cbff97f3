//! A thread that reads the next batch while the step before it runs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::DataError;
use super::order::Windows;

/// Windows `first .. first + count`, each of T + 1 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    first: u64,
    count: usize,
}

/// The reading thread, and what it was asked for.
#[derive(Debug)]
pub(super) struct Prefetcher {
    /// `None` only while it is being dropped: the thread ends when its requests do.
    requests: Option<Sender<Request>>,
    batches: Receiver<Result<Vec<u32>, DataError>>,
    thread: Option<JoinHandle<()>>,
    pending: Option<Request>,
}

impl Prefetcher {
    pub(super) fn start(mut windows: Windows, seq_len: usize) -> Prefetcher {
        let (requests, asked) = channel::<Request>();
        let (done, batches) = channel();
        let thread = std::thread::spawn(move || {
            for Request { first, count } in asked {
                let mut tokens = vec![0; count * (seq_len + 1)];
                let mut numbered = tokens.chunks_exact_mut(seq_len + 1).zip(first..);
                let read = numbered.try_for_each(|(window, number)| windows.read(number, window));
                if done.send(read.map(|()| tokens)).is_err() {
                    return;
                }
            }
        });
        Prefetcher { requests: Some(requests), batches, thread: Some(thread), pending: None }
    }

    /// The windows `first .. first + count`; those from `then` on are read while the caller works.
    pub(super) fn take(&mut self, first: u64, count: usize, then: u64) -> Result<Vec<u32>, DataError> {
        let request = Request { first, count };
        if self.pending.is_some_and(|pending| pending != request) {
            // The caller has gone elsewhere: what was read ahead is not wanted.
            let _ = self.receive();
        }
        if self.pending.is_none() {
            self.ask(request);
        }
        let batch = self.receive();
        self.ask(Request { first: then, count });
        batch
    }

    fn ask(&mut self, request: Request) {
        if let Some(requests) = &self.requests
            && requests.send(request).is_ok()
        {
            self.pending = Some(request);
        }
    }

    fn receive(&mut self) -> Result<Vec<u32>, DataError> {
        self.pending = None;
        match self.batches.recv() {
            Ok(batch) => batch,
            // The thread is gone before its requests are: it panicked, and so does the caller.
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                _ => Err(DataError::OtherData("the reading thread has ended".to_owned())),
            },
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
