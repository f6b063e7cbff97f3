//! Jobs of the host that many threads share.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does a job for each of a list on as many threads as there are processors; results in the order of the list.
pub fn in_parallel<J: Sync, T: Send>(jobs: &[J], work: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let next = AtomicUsize::new(0);
    let take = || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < jobs.len()));
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let worker = || take().map(|i| (i, work(&jobs[i]))).collect::<Vec<_>>();
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|why| resume_unwind(why))).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::in_parallel;

    #[test]
    fn every_job_is_done_and_results_are_in_order() {
        let jobs: Vec<usize> = (0..1000).collect();
        assert_eq!(in_parallel(&jobs, |i| 3 * i), (0..1000).map(|i| 3 * i).collect::<Vec<_>>());
        assert_eq!(in_parallel(&[] as &[u8], |_| 1), Vec::<i32>::new());
    }
}
