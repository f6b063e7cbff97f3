//! How fast a session goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::spread::Spread;
use crate::step::Update;

/// Updates whose times are kept.
const RECENT: usize = 100;

/// Times of a session's updates, and what follows from them.
pub(super) struct Pace {
    clock: Clock,
    /// When this session began to make updates, and how many there were.
    began: Instant,
    first: u64,
    flops_per_token: f64,
    /// Milliseconds of the last updates.
    recent: VecDeque<f64>,
    /// Part of the device's peak that the last update took.
    pub mfu: Option<f64>,
}

impl Pace {
    /// Of a session that begins now, after `done` updates and `seconds` of the run.
    pub fn new(done: u64, seconds: f64, flops_per_token: f64) -> Pace {
        let clock = Clock::new(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        Pace { clock, began: Instant::now(), first: done, flops_per_token, recent: VecDeque::new(), mfu: None }
    }

    /// Updates begin now.
    pub fn begin(&mut self) {
        self.began = Instant::now();
    }

    /// Takes an update in, on a device with this peak, where it is known.
    pub fn take(&mut self, update: &Update, peak_flops: Option<f64>) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(update.ms);
        self.mfu = peak_flops.map(|peak| self.flops_per_token * update.tokens_per_second / peak);
    }

    /// Milliseconds of the last updates.
    pub fn update_ms(&self) -> Option<Spread> {
        Spread::of(self.recent.iter().copied())
    }

    /// Seconds of an update in this session, with what lies between updates.
    pub fn seconds_per_step(&self, done: u64) -> Option<f64> {
        let made = done - self.first;
        (made > 0).then(|| self.began.elapsed().as_secs_f64() / made as f64)
    }

    /// Seconds until the last of `steps` updates.
    pub fn eta(&self, done: u64, steps: u64) -> Option<f64> {
        let left = steps.saturating_sub(done);
        if left == 0 { Some(0.0) } else { self.seconds_per_step(done).map(|seconds| seconds * left as f64) }
    }

    /// Seconds in the run, over all sessions.
    pub fn elapsed(&self) -> f64 {
        self.clock.elapsed()
    }

    /// Seconds since 1970 by the wall's clock.
    pub fn wall(&self) -> f64 {
        self.clock.wall()
    }
}
