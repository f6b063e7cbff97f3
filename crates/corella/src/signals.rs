//! Ctrl-C and SIGTERM ask a long job to stop at the next safe point; a second one ends it at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corella_train::heartbeat;

use crate::error::{Failure, Result};

/// Exit code of a program that a signal ended before it was done: that of Ctrl-C in shells, for every signal.
pub const STOPPED: u8 = 130;
/// How long a machine that is about to be taken away usually waits.
const NOTICE: Duration = Duration::from_secs(30);

/// What the signals do now.
type Action = Box<dyn FnMut() + Send>;
static ACTION: Mutex<Option<Action>> = Mutex::new(None);

/// From now on Ctrl-C, SIGTERM and SIGHUP call `action`, instead of what they did before.
pub fn on_stop(action: impl FnMut() + Send + 'static) -> Result<()> {
    let now = || ACTION.lock().unwrap_or_else(PoisonError::into_inner);
    let first = now().replace(Box::new(action)).is_none();
    if first {
        ctrlc::set_handler(move || {
            if let Some(action) = &mut *now() {
                action();
            }
        })
        .map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    }
    Ok(())
}

/// Ends the program here and now.
pub fn end_at_once() -> ! {
    std::process::exit(STOPPED.into())
}

/// A flag that the first signal raises for the training run in `run`. If the run does not stop in time, the reason is
/// printed.
pub fn stop_flag(run: &Path) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let run = run.to_path_buf();
    on_stop(move || {
        if raised.swap(true, Ordering::SeqCst) {
            end_at_once();
        }
        eprintln!(
            "stopping after this micro-batch with a checkpoint (again: at once, without the updates since the last one)"
        );
        let run = run.clone();
        std::thread::spawn(move || {
            std::thread::sleep(NOTICE);
            eprintln!("not stopped within {} seconds: {}", NOTICE.as_secs(), heartbeat::describe(&run));
        });
    })?;
    Ok(stop)
}
