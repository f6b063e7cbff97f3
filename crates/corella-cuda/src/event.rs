//! Places in a stream at which the card notes the time.

use std::ptr;

use cudarc::driver::sys::{self, CUevent, CUstream};

use crate::card::check;
use crate::error::CudaError;

/// What reading the time needs of the driver: since CUDA 12.8.
pub(crate) const NEEDED: [&str; 1] = ["cuEventElapsedTime_v2"];

/// An event with a time. The card's context must be current in every call, and at the end.
pub(crate) struct Event(CUevent);

impl Event {
    /// Not recorded yet.
    pub fn new() -> Result<Event, CudaError> {
        let mut event = ptr::null_mut();
        // SAFETY: the place is valid.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, 0) })?;
        Ok(Event(event))
    }

    /// Puts it behind everything that the stream was given.
    pub fn record(&self, stream: CUstream) -> Result<(), CudaError> {
        // SAFETY: event and stream are valid.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream) })
    }

    /// Milliseconds from an earlier event on the same stream to this one, which is waited for; both were recorded.
    pub fn since(&self, earlier: &Event) -> Result<f32, CudaError> {
        let mut ms = 0.0;
        // SAFETY: both events are valid, and the place is.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.0) })?;
        // SAFETY: as above.
        check("cuEventElapsedTime_v2", unsafe { sys::cuEventElapsedTime_v2(&mut ms, earlier.0, self.0) })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once. Where that fails, the card is lost.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}
