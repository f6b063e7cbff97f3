//! A card's context with one stream in it, and the page-locked memory through which the stream copies.

use std::ptr;

use cudarc::driver::sys::{self, CUcontext, CUevent, CUstream};

use crate::card::check;
use crate::driver::Address;
use crate::error::CudaError;
use crate::staging::{Lane, PIECE, PIECES};

/// The card's context, made that of this thread, and a stream in it.
pub(crate) struct Context {
    device: i32,
    context: CUcontext,
    /// The stream that everything goes to.
    pub stream: CUstream,
}

impl Context {
    pub fn new(device: i32) -> Result<Context, CudaError> {
        let mut made = Context { device, context: ptr::null_mut(), stream: ptr::null_mut() };
        // SAFETY: the place is valid, the device exists.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&mut made.context, device) })?;
        made.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the place is valid.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut made.stream, flags) })?;
        Ok(made)
    }

    /// Makes the context that of the calling thread.
    pub fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as this.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    /// Waits for everything that the stream was given.
    pub fn wait(&self) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as this.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: stream and context are given back once, what used them has ended. Where that fails, the card is lost.
        unsafe {
            if self.bind().is_ok() && !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            if !self.context.is_null() {
                let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
            }
        }
    }
}

/// Page-locked memory, and events on a stream that tell when copies have ended.
pub(crate) struct Pinned {
    stream: CUstream,
    memory: *mut u8,
    events: [CUevent; PIECES],
}

impl Pinned {
    /// The card's context must be current, now and at the end, when the stream has been waited for.
    pub fn new(stream: CUstream) -> Result<Pinned, CudaError> {
        let mut made = Pinned { stream, memory: ptr::null_mut(), events: [ptr::null_mut(); PIECES] };
        let mut memory = ptr::null_mut();
        // SAFETY: the place is valid.
        check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&mut memory, PIECES * PIECE, 0) })?;
        made.memory = memory.cast();
        for event in &mut made.events {
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            // SAFETY: the place is valid.
            check("cuEventCreate", unsafe { sys::cuEventCreate(event, flags) })?;
        }
        Ok(made)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once, after the stream's copies. Where that fails, the card is lost.
        unsafe {
            for event in self.events.into_iter().filter(|event| !event.is_null()) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            if !self.memory.is_null() {
                let _ = sys::cuMemFreeHost(self.memory.cast());
            }
        }
    }
}

impl Lane for Pinned {
    fn memory(&self) -> *mut u8 {
        self.memory
    }

    unsafe fn start_in(&self, to: Address, from: *const u8, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, self.stream) })
    }

    unsafe fn start_out(&self, to: *mut u8, from: Address, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the caller's promise.
        check("cuMemcpyDtoHAsync", unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.stream) })
    }

    fn mark(&self, piece: usize) -> Result<(), CudaError> {
        // SAFETY: event and stream live as long as this.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.events[piece], self.stream) })
    }

    fn wait(&self, piece: usize) -> Result<(), CudaError> {
        // SAFETY: the event lives as long as this; one that was never recorded counts as past.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.events[piece]) })
    }
}
