//! Work on a stream by many threads, with results in the order of the stream and bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::super::document::Flow;

/// What the threads share.
struct Shared<T, R> {
    state: Mutex<State<T, R>>,
    /// Something can be worked on, or there will be no more.
    work: Condvar,
    /// Something was given back, or all is to stop.
    room: Condvar,
    /// A result is there, or there will be no more.
    ready: Condvar,
}

struct State<T, R> {
    queue: VecDeque<(u64, T)>,
    results: BTreeMap<u64, R>,
    /// Costs of what was put in and not taken out yet, in order.
    costs: VecDeque<usize>,
    in_flight: usize,
    /// Items put in so far.
    put: u64,
    ended: bool,
    stopped: bool,
}

impl<T, R> Shared<T, R> {
    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.ended = true;
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
        self.ready.notify_all();
    }
}

/// Stops everything when a thread leaves by a panic, so that the others do not wait for ever.
struct StopOnPanic<'s, T, R>(&'s Shared<T, R>);

impl<T, R> Drop for StopOnPanic<'_, T, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Where the producer puts items.
pub(super) struct Feed<'s, T, R> {
    shared: &'s Shared<T, R>,
    budget: usize,
}

impl<T, R> Feed<'_, T, R> {
    /// Puts an item in; waits while those in flight cost more than the budget. An item that alone costs more waits until
    /// it is alone.
    pub(super) fn put(&self, item: T, cost: usize) -> Flow {
        let mut state = self.shared.lock();
        while !state.stopped && state.in_flight > 0 && state.in_flight.saturating_add(cost) > self.budget {
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return ControlFlow::Break(());
        }
        let number = state.put;
        state.put += 1;
        state.in_flight += cost;
        state.costs.push_back(cost);
        state.queue.push_back((number, item));
        drop(state);
        self.shared.work.notify_one();
        Flow::Continue(())
    }
}

/// Runs `produce` in a thread of its own, `work` on its items in `threads` threads, and `consume` on the results, in the
/// items' order, in this thread. Ends when all is consumed or `consume` breaks.
pub(super) fn ordered<T: Send, R: Send>(
    threads: usize,
    budget: usize,
    produce: impl FnOnce(&Feed<'_, T, R>) + Send,
    work: impl Fn(T) -> R + Sync,
    mut consume: impl FnMut(R) -> Flow,
) {
    let state = State {
        queue: VecDeque::new(),
        results: BTreeMap::new(),
        costs: VecDeque::new(),
        in_flight: 0,
        put: 0,
        ended: false,
        stopped: false,
    };
    let shared = Shared { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), ready: Condvar::new() };
    let shared = &shared;
    std::thread::scope(|scope| {
        let _guard = StopOnPanic(shared);
        scope.spawn(move || {
            let _guard = StopOnPanic(shared);
            produce(&Feed { shared, budget });
            shared.lock().ended = true;
            shared.work.notify_all();
            shared.ready.notify_all();
        });
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let _guard = StopOnPanic(shared);
                while let Some((number, item)) = next_item(shared) {
                    let result = work(item);
                    shared.lock().results.insert(number, result);
                    shared.ready.notify_one();
                }
            });
        }
        for number in 0.. {
            let Some(result) = next_result(shared, number) else { break };
            if consume(result).is_break() {
                shared.stop();
                break;
            }
            // The cost is given back once the result is gone.
            let mut state = shared.lock();
            let cost = state.costs.pop_front().unwrap_or(0);
            state.in_flight -= cost;
            drop(state);
            shared.room.notify_one();
        }
    });
}

fn next_item<T, R>(shared: &Shared<T, R>) -> Option<(u64, T)> {
    let mut state = shared.lock();
    loop {
        if state.stopped {
            return None;
        }
        if let Some(item) = state.queue.pop_front() {
            return Some(item);
        }
        if state.ended {
            return None;
        }
        state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn next_result<T, R>(shared: &Shared<T, R>, number: u64) -> Option<R> {
    let mut state = shared.lock();
    loop {
        if let Some(result) = state.results.remove(&number) {
            return Some(result);
        }
        if state.stopped || (state.ended && number >= state.put) {
            return None;
        }
        state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::ordered;

    #[test]
    fn results_come_in_order_and_the_budget_holds() {
        for threads in [1, 2, 7] {
            let (in_flight, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut seen = Vec::new();
            ordered(
                threads,
                100,
                |feed| {
                    for i in 0..500usize {
                        // Every 50th item is larger than the whole budget.
                        let cost = if i % 50 == 7 { 150 } else { i % 13 + 1 };
                        if feed.put((i, cost), cost).is_break() {
                            return;
                        }
                        let now = in_flight.fetch_add(cost, Ordering::SeqCst) + cost;
                        most.fetch_max(now, Ordering::SeqCst);
                    }
                },
                |(i, cost)| {
                    if i % 5 == 0 {
                        std::thread::yield_now();
                    }
                    (i, cost)
                },
                |(i, cost)| {
                    in_flight.fetch_sub(cost.min(in_flight.load(Ordering::SeqCst)), Ordering::SeqCst);
                    seen.push(i);
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(seen, (0..500).collect::<Vec<_>>());
            assert!(most.load(Ordering::SeqCst) <= 300, "{most:?}");
        }
    }

    #[test]
    fn a_consumer_that_stops_ends_everything() {
        let mut seen = 0;
        ordered(
            3,
            10,
            |feed| while feed.put((), 1).is_continue() {},
            |()| (),
            |()| {
                seen += 1;
                if seen == 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(seen, 100);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_of_a_worker_is_passed_on_and_nothing_hangs() {
        ordered(
            2,
            10,
            |feed| while feed.put((), 1).is_continue() {},
            |()| panic!("worker"),
            |()| ControlFlow::Continue(()),
        );
    }
}
