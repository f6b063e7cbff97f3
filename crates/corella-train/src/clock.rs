//! Two clocks: one that only runs forward, for durations, and the wall's, which people set and only labels what happened.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time spent in a run, over all its sessions, and the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    before: Duration,
    wall: fn() -> SystemTime,
}

impl Clock {
    /// A clock that starts now, `before` after the beginning of the run (earlier sessions).
    pub fn new(before: Duration) -> Self {
        Clock::with_wall(before, SystemTime::now)
    }

    /// The same with another time of day.
    pub fn with_wall(before: Duration, wall: fn() -> SystemTime) -> Self {
        Clock { start: Instant::now(), before, wall }
    }

    /// Seconds in the run, over all sessions. Never falls, whatever is done to the time of day.
    pub fn elapsed(&self) -> f64 {
        (self.before + self.start.elapsed()).as_secs_f64()
    }

    /// Seconds since 1970 by the wall's clock; 0 for a clock set before then.
    pub fn wall(&self) -> f64 {
        (self.wall)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_clock_back_does_not_touch_durations() {
        let clock = Clock::with_wall(Duration::from_secs(100), || UNIX_EPOCH - Duration::from_secs(1));
        let (first, second) = (clock.elapsed(), clock.elapsed());
        assert!(first >= 100.0 && second >= first);
        assert_eq!(clock.wall(), 0.0);
    }
}
