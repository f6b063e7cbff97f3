//! A row of tasks in contiguous shares, one for each thread: streams of memory stay long, and whoever is done helps the others
//! from the other end.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::gemm::Workers;

/// The tasks of a share that nobody has taken: the first, and the one behind the last.
struct Share(AtomicU64);

impl Share {
    fn new(range: std::ops::Range<u32>) -> Share {
        Share(AtomicU64::new(u64::from(range.start) << 32 | u64::from(range.end)))
    }

    /// Takes the first task or the last.
    fn take(&self, first: bool) -> Option<u32> {
        let ends = |packed: u64| ((packed >> 32) as u32, packed as u32);
        let took = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (start, end) = ends(packed);
            let (start_then, end_then) = if first { (start + 1, end) } else { (start, end.wrapping_sub(1)) };
            (start < end).then_some(u64::from(start_then) << 32 | u64::from(end_then))
        });
        took.ok().map(|packed| if first { ends(packed).0 } else { ends(packed).1 - 1 })
    }
}

/// Runs `job(0) … job(tasks - 1)`, each once. A thread's tasks ascend one by one as long as it works on its own share.
pub fn run(workers: Workers<'_>, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
    let threads = workers.threads().min(tasks).max(1);
    assert!(u32::try_from(tasks).is_ok(), "{tasks} tasks");
    let cut = |t: usize| (tasks * t / threads) as u32;
    let shares: Vec<Share> = (0..threads).map(|t| Share::new(cut(t)..cut(t + 1))).collect();
    workers.run(threads, &|thread| {
        while let Some(task) = shares[thread].take(true) {
            job(task as usize);
        }
        for other in (1..threads).map(|i| &shares[(thread + i) % threads]) {
            while let Some(task) = other.take(false) {
                job(task as usize);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::super::pool::Pool;
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            for tasks in (0..40).chain([1000]) {
                let hits: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                run(Workers::Pool(&pool), tasks, &|task| {
                    hits[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|hits| hits.load(Ordering::Relaxed) == 1), "{tasks} on {threads}");
            }
        }
    }
}
