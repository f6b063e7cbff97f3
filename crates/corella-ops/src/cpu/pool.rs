//! One pool of worker threads for every parallel region.
//!
//! A region hands out task numbers 0 .. n through one counter; the caller works too. Workers join a region while it is
//! open; the caller closes it when no task is left and waits for those inside only. So a worker that the system has put
//! aside delays nobody, and a busy machine slows a run down no more than its share. Idle workers spin briefly, because
//! regions follow each other within microseconds, and then sleep.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Spins before a worker goes to sleep: some tens of microseconds.
const SPINS: u32 = 4_000;

/// The job of the current region: a borrowed closure whose lifetime is erased.
type Job = *const (dyn Fn(usize) + Sync);

/// Layout of the gate: number of the region, whether workers may still join, how many are inside.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const REGION: u64 = OPEN << 1;

struct Shared {
    gate: AtomicU64,
    /// Written by the caller while the gate is closed and nobody is inside; read by workers that are inside.
    job: UnsafeCell<Option<Job>>,
    tasks: AtomicUsize,
    next: AtomicUsize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    shutdown: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` follows the protocol above: never written while a worker may read it. The closure behind it is Sync, and
// `Pool::run` keeps it alive until every worker has left the region.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

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
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            shutdown: AtomicBool::new(false),
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
        // does not return (nor unwind) before the region is closed and empty.
        let erased: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: the gate is closed and nobody is inside (the last `run` waited for that), so nobody reads.
        unsafe { *shared.job.get() = Some(erased) };
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.next.store(0, Ordering::Relaxed);
        let closed = shared.gate.load(Ordering::Relaxed);
        shared.gate.store((closed & !(REGION - 1)) + REGION + OPEN, Ordering::SeqCst);
        // A worker counts itself as a sleeper before it looks at the gate for the last time: one of the two sees the other.
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            let _asleep = lock(&shared.sleep);
            shared.wake.notify_all();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| take_tasks(shared, tasks, job)));
        let mut inside = shared.gate.fetch_and(!OPEN, Ordering::AcqRel) & INSIDE;
        let mut spins = 0u32;
        while inside != 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            inside = shared.gate.load(Ordering::Acquire) & INSIDE;
        }
        // Taken back before this call ends, however it ends: the next one begins anew.
        let worker_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(!worker_panicked, "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        {
            let _asleep = lock(&self.shared.sleep);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker that panicked has already been reported by `run`.
            let _ = worker.join();
        }
    }
}

/// A poisoned lock only says that some thread panicked; there is no data behind it that could be bad.
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

/// Whether a region that this worker has not served is open.
fn is_new(gate: u64, served: u64) -> bool {
    gate & OPEN != 0 && gate / REGION != served
}

fn work(shared: &Shared) {
    let mut served = 0;
    while !shared.shutdown.load(Ordering::Acquire) {
        let gate = wait(shared, served);
        if !is_new(gate, served) {
            continue;
        }
        if shared.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            continue;
        }
        served = gate / REGION;
        // SAFETY: this worker is inside, so the caller neither writes the job nor lets the closure go.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        let tasks = shared.tasks.load(Ordering::Relaxed);
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| take_tasks(shared, tasks, job))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.gate.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for a new region, spinning first; returns the gate.
fn wait(shared: &Shared, served: u64) -> u64 {
    for _ in 0..SPINS {
        let gate = shared.gate.load(Ordering::Acquire);
        if is_new(gate, served) {
            return gate;
        }
        std::hint::spin_loop();
    }
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    let mut asleep = lock(&shared.sleep);
    let gate = loop {
        let gate = shared.gate.load(Ordering::SeqCst);
        if is_new(gate, served) || shared.shutdown.load(Ordering::SeqCst) {
            break gate;
        }
        asleep = shared.wake.wait(asleep).unwrap_or_else(std::sync::PoisonError::into_inner);
    };
    drop(asleep);
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    gate
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

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
        let both = Barrier::new(2);
        let together = |_| {
            both.wait();
            panic!("in the caller and in the worker");
        };
        let regions: [(usize, &(dyn Fn(usize) + Sync)); 2] = [(64, &|i| assert_ne!(i, 40)), (2, &together)];
        for (tasks, job) in regions {
            assert!(catch_unwind(AssertUnwindSafe(|| pool.run(tasks, job))).is_err());
            let count = AtomicUsize::new(0);
            pool.run(8, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 8);
        }
    }
}
