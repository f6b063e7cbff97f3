//! The learning rate of each update.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine wave.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// Not at all.
    Constant,
    /// Not until the last part of the run, then with the square root of the progress through it.
    Wsd,
}

impl Schedule {
    /// All of them.
    pub const ALL: [Schedule; 4] = [Schedule::Cosine, Schedule::Linear, Schedule::Constant, Schedule::Wsd];

    /// The name as a run file has it.
    pub fn name(self) -> &'static str {
        match self {
            Schedule::Cosine => "cosine",
            Schedule::Linear => "linear",
            Schedule::Constant => "constant",
            Schedule::Wsd => "wsd",
        }
    }
}

/// Learning rate of update `step` (from 0) of `steps`.
///
/// `peak` is reached after `warmup` updates; `floor` is the last one as a fraction of it; `decay` is the part of the run
/// in which [`Schedule::Wsd`] falls.
pub fn learning_rate(schedule: Schedule, step: u64, steps: u64, peak: f64, warmup: u64, floor: f64, decay: f64) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let low = peak * floor;
    let progress = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
    match schedule {
        Schedule::Cosine => low + 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) * (peak - low),
        Schedule::Linear => peak + (low - peak) * progress,
        Schedule::Constant => peak,
        Schedule::Wsd => {
            let start = (1.0 - decay) * steps as f64;
            let r = ((step as f64 - start) / (steps as f64 - start).max(1.0)).max(0.0);
            if r > 0.0 { low + (1.0 - r.sqrt()) * (peak - low) } else { peak }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_starts_at_the_published_value() {
        let first = learning_rate(Schedule::Cosine, 0, 32_000, 6e-4, 700, 0.1, 0.2);
        assert_eq!(format!("{first:.2e}"), "8.57e-7");
        assert_eq!(learning_rate(Schedule::Cosine, 699, 32_000, 6e-4, 700, 0.1, 0.2), 6e-4);
    }

    #[test]
    fn names_are_those_of_run_files() {
        for schedule in Schedule::ALL {
            assert_eq!(serde_json::to_value(schedule).expect("a name"), schedule.name());
        }
    }

    #[test]
    fn each_schedule_passes_its_half_way_point() {
        let at = |schedule, step| learning_rate(schedule, step, 1000, 1.0, 0, 0.1, 0.2);
        assert!((at(Schedule::Cosine, 500) - 0.55).abs() < 1e-12);
        assert!((at(Schedule::Linear, 500) - 0.55).abs() < 1e-12);
        assert_eq!(at(Schedule::Constant, 999), 1.0);
        assert_eq!(at(Schedule::Wsd, 799), 1.0);
        assert!((at(Schedule::Wsd, 850) - (0.1 + 0.5 * 0.9)).abs() < 1e-12, "a quarter through, half the way down");
    }

    #[test]
    fn what_falls_falls_between_the_warm_up_and_the_end() {
        // Half of the 800 updates behind the warm-up; a quarter of them for the wave.
        let at = |schedule, step| learning_rate(schedule, step, 1000, 1.0, 200, 0.1, 0.2);
        for schedule in [Schedule::Cosine, Schedule::Linear] {
            assert!((at(schedule, 600) - 0.55).abs() < 1e-12, "{schedule:?}: {}", at(schedule, 600));
            assert_eq!(at(schedule, 200), 1.0, "{schedule:?}");
            assert!((at(schedule, 1000) - 0.1).abs() < 1e-12, "{schedule:?}");
        }
        assert!((at(Schedule::Linear, 400) - 0.775).abs() < 1e-12);
        assert!((at(Schedule::Cosine, 400) - (0.1 + 0.9 * (0.5 + 0.125f64.sqrt()))).abs() < 1e-12);
    }
}
