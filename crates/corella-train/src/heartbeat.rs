//! heartbeat.json: what a watcher needs to know about a run, replaced whole every second or so.
//!
//! A run that is alive replaces the file at least once per update; a file that has not changed for many times
//! `seconds_per_step` belongs to a run that hangs or is gone.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::device::Usage;
use crate::report::Verdict;
use crate::spread::Spread;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Making updates.
    Training,
    /// Measuring the validation loss.
    Validating,
    /// Scoring tasks.
    Evaluating,
    /// Writing samples.
    Sampling,
    /// Writing a checkpoint.
    Saving,
    /// Waiting for the command that the checkpoint before has started, or for room on the disk.
    Waiting,
    /// Ended, all updates made.
    Finished,
    /// Ended on request, to be resumed.
    Stopped,
    /// Ended by an error.
    Failed,
}

/// The content of heartbeat.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What the run is doing.
    pub state: RunState,
    /// Process.
    pub pid: u32,
    /// Updates made.
    pub step: u64,
    /// Updates planned.
    pub steps: u64,
    /// Last loss.
    pub loss: Option<f64>,
    /// Tokens since the start of training.
    #[serde(default)]
    pub tokens_seen: u64,
    /// Tokens seen by tokens of the data: below 1 the share of the data that was read.
    #[serde(default)]
    pub epochs: f64,
    /// Last validation loss.
    pub val_loss: Option<f64>,
    /// How the last validation loss stands beside the reference curve, where there is one.
    #[serde(default)]
    pub standing: Option<Verdict>,
    /// Mean seconds of an update of this session.
    pub seconds_per_step: Option<f64>,
    /// Milliseconds of this session's last hundred updates, without what lies between them.
    #[serde(default)]
    pub update_ms: Option<Spread>,
    /// Part of the device's peak that the last update took, where the peak is known.
    #[serde(default)]
    pub mfu: Option<f64>,
    /// Seconds until the last update.
    pub eta_seconds: Option<f64>,
    /// Seconds in the run, over all sessions.
    pub elapsed_seconds: f64,
    /// Card hours, energy and dollars so far, over all sessions.
    #[serde(flatten)]
    pub usage: Usage,
    /// Newest checkpoint.
    pub checkpoint: Option<String>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// Seconds since 1970 by the wall's clock.
    pub time: f64,
}

/// Name of the file in the run folder.
pub const FILE: &str = "heartbeat.json";

/// Replaces the file. A disk that takes no heartbeat must not end a run, so failures are left to the checkpoint to report.
pub fn write(dir: &Path, heartbeat: &Heartbeat) {
    let temporary = dir.join("heartbeat.json.partial");
    if let Ok(text) = serde_json::to_string(heartbeat) {
        let _ = fs::write(&temporary, text + "\n").and_then(|()| fs::rename(&temporary, dir.join(FILE)));
    }
}

/// The last heartbeat of the run in `dir`, where there is one that can be read.
fn read(dir: &Path) -> Option<Heartbeat> {
    fs::read_to_string(dir.join(FILE)).ok().and_then(|text| serde_json::from_str(&text).ok())
}

/// Says of a run that could not be begun again that it failed. The rest stays as it was when its heart last beat; its updates
/// and its seconds are returned.
pub fn fail(dir: &Path, error: &str, time: f64) -> (u64, f64) {
    let Some(before) = read(dir) else {
        // One without a heart has nothing else to tell.
        let heartbeat = Heartbeat {
            state: RunState::Failed,
            pid: std::process::id(),
            step: 0,
            steps: 0,
            loss: None,
            tokens_seen: 0,
            epochs: 0.0,
            val_loss: None,
            standing: None,
            seconds_per_step: None,
            update_ms: None,
            mfu: None,
            eta_seconds: None,
            elapsed_seconds: 0.0,
            usage: Usage::default(),
            checkpoint: None,
            trouble: Some(error.to_owned()),
            time,
        };
        write(dir, &heartbeat);
        return (0, 0.0);
    };
    let told = (before.step, before.elapsed_seconds);
    let (pid, trouble) = (std::process::id(), Some(error.to_owned()));
    write(dir, &Heartbeat { state: RunState::Failed, pid, eta_seconds: None, trouble, time, ..before });
    told
}

/// Seconds in the run in `dir` until its heart last beat: more than its last checkpoint says where it was killed since.
pub fn elapsed(dir: &Path) -> Option<f64> {
    read(dir).map(|beat| beat.elapsed_seconds).filter(|seconds| seconds.is_finite())
}

/// What the run in `dir` did when its heart last beat, in a sentence.
pub fn describe(dir: &Path) -> String {
    let Some(beat) = read(dir) else { return "the run has not begun to train".to_owned() };
    let doing = match beat.state {
        RunState::Training => "it is in a forward and backward pass, which is not interrupted",
        RunState::Validating => "it is in one batch of the validation, which is not interrupted",
        RunState::Evaluating => "it is in one item of an evaluation, which is not interrupted",
        RunState::Sampling => "it is at one token of a sample, which is not interrupted",
        RunState::Saving => "it is writing a checkpoint, and the disk is slow",
        RunState::Waiting => "it waits for the on_checkpoint command of the checkpoint before, or for room on the disk",
        RunState::Finished | RunState::Stopped | RunState::Failed => "it has ended",
    };
    let pace = beat.seconds_per_step.map(|s| format!(" (an update takes {s:.1} s)")).unwrap_or_default();
    let last =
        beat.checkpoint.map_or("there is no checkpoint yet".to_owned(), |c| format!("the last whole one is {c}"));
    format!("{doing}{pace}; {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_checkpoint_in_time_is_said_with_the_last_whole_one() {
        let dir = std::env::temp_dir().join(format!("corella-heartbeat-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        assert_eq!(describe(&dir), "the run has not begun to train");
        let mut beat = Heartbeat {
            state: RunState::Training,
            pid: 1,
            step: 7,
            steps: 9,
            loss: None,
            tokens_seen: 0,
            epochs: 0.0,
            val_loss: None,
            standing: None,
            seconds_per_step: Some(45.0),
            update_ms: None,
            mfu: None,
            eta_seconds: None,
            elapsed_seconds: 0.0,
            usage: Usage::default(),
            checkpoint: Some("out/step-6".to_owned()),
            trouble: None,
            time: 0.0,
        };
        write(&dir, &beat);
        let said = describe(&dir);
        assert!(
            said.contains("forward and backward pass") && said.contains("45.0 s") && said.contains("out/step-6"),
            "{said}"
        );
        (beat.state, beat.checkpoint) = (RunState::Saving, None);
        write(&dir, &beat);
        let said = describe(&dir);
        assert!(said.contains("the disk is slow") && said.contains("there is no checkpoint yet"), "{said}");
        beat.state = RunState::Waiting;
        write(&dir, &beat);
        assert!(describe(&dir).contains("on_checkpoint"), "{}", describe(&dir));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
