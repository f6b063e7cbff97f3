//! Counters of an engine, read by anyone at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and gauges, updated by the engine as it works.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(pub(crate) $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct MetricsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Metrics {
            /// The counters now. Each is exact; together they may be a step apart.
            pub fn snapshot(&self) -> MetricsSnapshot {
                MetricsSnapshot { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Requests taken.
    requests,
    /// Requests answered to the end.
    completed,
    /// Requests whose caller left or gave up.
    cancelled,
    /// Requests that failed.
    failed,
    /// Requests that wait for their first token to be computed; those that were handed in together count as one.
    queued,
    /// Continuations that wait for a place or for pages.
    waiting,
    /// Continuations that are being computed.
    running,
    /// Places of continuations that requests hold which have begun.
    occupied,
    /// Steps of the model.
    steps,
    /// Microseconds in steps of the model.
    step_micros,
    /// Microseconds from logits to tokens and text.
    sample_micros,
    /// Tokens fed to the model.
    fed_tokens,
    /// Tokens of prompts that came in.
    prompt_tokens,
    /// Tokens of prompts that were not computed because their pages were known.
    cached_tokens,
    /// Tokens drawn.
    drawn_tokens,
    /// Tokens proposed by prompt lookup.
    drafted_tokens,
    /// Proposed tokens that were drawn.
    accepted_tokens,
    /// Continuations that gave their pages up for an older one and were computed again.
    preemptions,
    /// KV pages in all.
    pages,
    /// KV pages that continuations hold.
    pages_held,
    /// KV pages that nobody holds but whose content is known.
    pages_idle,
}

/// A place in the queue, shared by all requests that were handed in together: it is free again when each of them has begun
/// or ended.
#[derive(Debug)]
pub(crate) struct Place(Arc<Metrics>);

impl Place {
    /// A place, unless `limit` are taken beyond those of which the free ones of `at_once` continuations take care.
    pub fn take(metrics: &Arc<Metrics>, limit: u64, at_once: u64) -> Option<Arc<Place>> {
        // Who begins is counted there before it leaves here, so that nobody is missed in between.
        let most = || limit.saturating_add(at_once.saturating_sub(metrics.occupied.get()));
        metrics.queued.add_below(most).then(|| Arc::new(Place(metrics.clone())))
    }

    /// A place where there is no limit.
    pub fn alone(metrics: &Arc<Metrics>) -> Arc<Place> {
        metrics.queued.add(1);
        Arc::new(Place(metrics.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.sub(1);
    }
}

/// One number that only the engine changes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Release);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, unless there are as many as `limit` says already.
    pub fn add_below(&self, limit: impl Fn() -> u64) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit()).then_some(n + 1)).is_ok()
    }
}
