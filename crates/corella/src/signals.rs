//! Ctrl-C and SIGTERM ask a long job to stop at the next safe point; a second Ctrl-C ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Failure, Result};

/// A flag that the first signal raises.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step: writing a checkpoint (again: stop at once)");
    })
    .map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
    Ok(stop)
}
