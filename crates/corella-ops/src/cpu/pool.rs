//! One pool of worker threads for every parallel region.
//!
//! A region hands out task numbers 0 .. n through one counter; the caller works too. Idle workers spin briefly, because
//! regions follow each other within microseconds, and then sleep.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Spins before a worker goes to sleep: some tens of microseconds.
const SPINS: u32 = 4_000;

/// The job of the current region: a borrowed closure whose lifetime is erased.
type Job = *const (dyn Fn(usize) + Sync);

struct Region {
    job: Option<JobPointer>,
    tasks: usize,
    shutdown: bool,
}

#[derive(Clone, Copy)]
struct JobPointer(Job);
// SAFETY: the closure behind the pointer is Sync, and `Pool::run` keeps it alive until every worker has left it.
unsafe impl Send for JobPointer {}

struct Shared {
    region: Mutex<Region>,
    wake: Condvar,
    /// Number of the current region; workers compare it with the last one they served.
    epoch: AtomicU64,
    next: AtomicUsize,
    /// Workers that have not yet finished the current region.
    running: AtomicUsize,
    panicked: AtomicBool,
}

/// Worker threads that live as long as the pool.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One region at a time, whoever calls.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads in all, the caller's included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            region: Mutex::new(Region { job: None, tasks: 0, shutdown: false }),
            wake: Condvar::new(),
            epoch: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads.max(1))
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("corella-{i}")).spawn(move || work(&shared)).ok()
            })
            .collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that take part in a region.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(0) … job(tasks - 1)`, each once, on any thread, and returns when all are done.
    pub fn run(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(job);
            return;
        }
        let _turn = lock(&self.turn);
        let shared = &*self.shared;
        // SAFETY: only the lifetime is erased. The pointer is used by workers inside the region alone, and this function
        // does not return (nor unwind) before `running` is back at zero.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        {
            let mut region = lock(&shared.region);
            region.job = Some(JobPointer(erased));
            region.tasks = tasks;
            shared.next.store(0, Ordering::Relaxed);
            shared.running.store(self.workers.len(), Ordering::Relaxed);
            shared.epoch.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        let outcome = catch_unwind(AssertUnwindSafe(|| take_tasks(shared, tasks, job)));
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        lock(&shared.region).job = None;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.region).shutdown = true;
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has already been reported by `run`.
            let _ = worker.join();
        }
    }
}

/// A poisoned lock only says that some thread panicked; the plain data behind it is still good.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take_tasks(shared: &Shared, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
    loop {
        let task = shared.next.fetch_add(1, Ordering::Relaxed);
        if task >= tasks {
            return;
        }
        job(task);
    }
}

fn work(shared: &Shared) {
    let mut served = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == served && spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        }
        let (job, tasks) = {
            let mut region = lock(&shared.region);
            while shared.epoch.load(Ordering::Acquire) == served {
                region = shared.wake.wait(region).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            if region.shutdown {
                return;
            }
            served = shared.epoch.load(Ordering::Acquire);
            (region.job, region.tasks)
        };
        if let Some(JobPointer(job)) = job {
            // SAFETY: `run` waits until this worker has counted itself out below, so the closure is alive.
            let job = unsafe { &*job };
            if catch_unwind(AssertUnwindSafe(|| take_tasks(shared, tasks, job))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_in_thousands_of_regions() {
        let pool = Pool::new(3);
        for n in 0..3000 {
            let hits: Vec<AtomicUsize> = (0..n % 17).map(|_| AtomicUsize::new(0)).collect();
            pool.run(hits.len(), &|i| {
                hits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let panicked = catch_unwind(AssertUnwindSafe(|| pool.run(64, &|i| assert_ne!(i, 40))));
        assert!(panicked.is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 8);
    }
}
