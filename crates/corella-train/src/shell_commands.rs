//! Commands of the user's that the trainer starts: after a checkpoint (to copy it away), and on a failure (to tell somebody).

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::console::warn;

/// Shell commands. They find the run in the environment: CORELLA_RUN (folder), CORELLA_STEP, CORELLA_CHECKPOINT (folder,
/// where there is one) and CORELLA_ERROR (on a failure).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommandPlan {
    /// Started after each checkpoint; training goes on meanwhile. The next checkpoint's waits until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_checkpoint: Option<String>,
    /// Run when a checkpoint cannot be written, and when the run ends by an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
}

/// Starts the commands of a plan, one at a time.
#[derive(Debug)]
pub struct ShellCommands {
    plan: CommandPlan,
    running: Option<Child>,
}

impl ShellCommands {
    /// None is running yet.
    pub fn new(plan: CommandPlan) -> Self {
        ShellCommands { plan, running: None }
    }

    /// Whether one is still running.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts the command for a checkpoint, after the one before has ended.
    pub fn checkpoint(&mut self, run: &Path, step: u64, checkpoint: &Path) {
        self.wait();
        if let Some(command) = &self.plan.on_checkpoint {
            let started = shell(command, run, step).env("CORELLA_CHECKPOINT", checkpoint).spawn();
            match started {
                Ok(child) => self.running = Some(child),
                Err(error) => warn(&format!("on_checkpoint could not be started: {error}")),
            }
        }
    }

    /// Runs the command for a failure to its end.
    pub fn failure(&mut self, run: &Path, step: u64, error: &str) {
        self.wait();
        if let Some(command) = &self.plan.on_failure {
            match shell(command, run, step).env("CORELLA_ERROR", error).status() {
                Ok(status) if status.success() => {}
                Ok(status) => warn(&format!("on_failure ended with {status}")),
                Err(error) => warn(&format!("on_failure could not be started: {error}")),
            }
        }
    }

    /// Waits for the command that runs, and says if it failed.
    pub fn wait(&mut self) {
        if let Some(mut child) = self.running.take() {
            match child.wait() {
                Ok(status) if status.success() => {}
                Ok(status) => warn(&format!("on_checkpoint ended with {status}")),
                Err(error) => warn(&format!("on_checkpoint: {error}")),
            }
        }
    }
}

/// The user's shell, its output on stderr: stdout may carry JSON.
fn shell(command: &str, run: &Path, step: u64) -> Command {
    let (program, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut shell = Command::new(program);
    shell.args([flag, command]).env("CORELLA_RUN", run).env("CORELLA_STEP", step.to_string());
    shell.stdin(Stdio::null()).stdout(std::io::stderr());
    // A group of its own: Ctrl-C in the terminal stops the run, and must not cut a copy short.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell
}
