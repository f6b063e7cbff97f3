//! Work of the processor that takes long: on a thread that nobody waits for, and little of it at once, so that everybody
//! else is answered meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Large pieces of work at once; more wait.
const AT_ONCE: usize = 2;
/// Up to so many bytes, or what takes as long, work is done where it comes up: a millisecond or a few.
const SMALL: usize = 16 << 10;

/// The places for large work.
#[derive(Debug)]
pub struct Aside(Semaphore);

impl Default for Aside {
    fn default() -> Aside {
        Aside(Semaphore::new(AT_ONCE))
    }
}

impl Aside {
    /// Does `work`, which is as large as reading `bytes` of text. Where that is much it waits for a place, and leaves the
    /// thread's other tasks to another thread.
    pub async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> Result<T, ApiError> {
        if bytes <= SMALL {
            return Ok(work());
        }
        let _place = self.0.acquire().await.map_err(|_| ApiError::internal("the server has ended"))?;
        // A runtime of one thread, as tests have it, has no other to leave anything to.
        Ok(match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            _ => work(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    /// Each large piece of work ends when a small one has come through; with one place for all of them none would end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn large_work_holds_up_neither_small_work_nor_other_tasks() {
        let aside = Arc::new(Aside::default());
        let mut large = Vec::new();
        for _ in 0..AT_ONCE {
            let (release, wait) = channel::<()>();
            let (begun, began) = tokio::sync::oneshot::channel();
            let aside = aside.clone();
            let task = tokio::spawn(async move {
                let work = move || {
                    // Whoever waits for the beginning is there.
                    let _ = begun.send(());
                    wait.recv()
                };
                aside.run(1 << 30, work).await
            });
            began.await.expect("it begins");
            large.push((release, task));
        }
        // Both places are taken, and the only worker is at neither.
        let waits = tokio::spawn({
            let aside = aside.clone();
            async move { aside.run(SMALL + 1, || 7).await }
        });
        let small = tokio::spawn({
            let aside = aside.clone();
            async move { aside.run(SMALL, || 5).await }
        });
        assert_eq!(small.await.expect("a task"), Ok(5));
        assert!(!waits.is_finished(), "there is no place for it yet");
        for (release, task) in large {
            release.send(()).expect("it waits");
            assert_eq!(task.await.expect("a task"), Ok(Ok(())));
        }
        assert_eq!(waits.await.expect("a task"), Ok(7));
    }
}
