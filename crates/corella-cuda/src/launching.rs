//! How kernels are started: each after everything before it, or, from Hopper on, those that the table calls `early` while the kernel
//! before them still runs (programmatic dependent launch). kernels/common.cuh says why that is safe.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{
    self, CUfunction, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
};

use crate::card::check;
use crate::driver::Launch;
use crate::error::CudaError;
use crate::library::DRIVER;

/// The variable that has every kernel started after everything before it: for measuring what early starts bring, and as a way round.
pub(crate) const VARIABLE: &str = "CORELLA_PLAIN_LAUNCHES";
/// The oldest architecture that starts kernels early.
const FIRST: (i32, i32) = (9, 0);
/// What it needs of the driver: since CUDA 11.8.
const NEEDED: [&str; 2] = ["cuLaunchKernelEx", "cuDriverGetVersion"];
/// The version of CUDA, as the driver counts, from which on early starts are also recorded.
const RECORDED: i32 = 12_030;

/// A kernel that is loaded.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub function: CUfunction,
    /// As in the table.
    pub early: bool,
}

/// Starts the kernels of a stream.
pub(crate) struct Launches {
    stream: CUstream,
    /// Whether kernels are started early.
    early: AtomicBool,
}

/// Whether a card and its driver can start kernels early, and nobody asks for the contrary.
fn possible(capability: (i32, i32)) -> bool {
    let plain = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty() && value != "0");
    if plain || capability < FIRST || !DRIVER.has(&NEEDED) {
        return false;
    }
    let mut version = 0;
    // SAFETY: the library is loaded and has the function; the place is valid.
    let known = unsafe { sys::cuDriverGetVersion(&mut version) };
    check("cuDriverGetVersion", known).is_ok() && version >= RECORDED
}

impl Launches {
    /// On a stream of a card of this compute capability; `timed` where events stand between the kernels.
    pub fn new(stream: CUstream, capability: (i32, i32), timed: bool) -> Launches {
        Launches { stream, early: AtomicBool::new(!timed && possible(capability)) }
    }

    /// From now on starts every kernel after everything before it: a recording failed, and the next one may do without.
    pub fn become_plain(&self) {
        self.early.store(false, Ordering::Relaxed);
    }

    /// Starts a kernel.
    ///
    /// # Safety
    /// The kernel is loaded in the context of this thread, which is the stream's; the pointers are those of its arguments, which live until
    /// this returns.
    pub unsafe fn start(&self, kernel: Kernel, shape: Launch, arguments: &mut [*mut c_void]) -> Result<(), CudaError> {
        let [x, y, z] = shape.grid;
        let (arguments, none) = (arguments.as_mut_ptr(), ptr::null_mut());
        if !(kernel.early && self.early.load(Ordering::Relaxed)) {
            // SAFETY: the caller's promise; the driver copies the arguments before it returns.
            let launched = unsafe {
                let (block, shared) = (shape.block, shape.shared);
                sys::cuLaunchKernel(kernel.function, x, y, z, block, 1, 1, shared, self.stream, arguments, none)
            };
            return check("cuLaunchKernel", launched);
        }
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        let mut attribute = CUlaunchAttribute { id, pad: [0; 4], value };
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: shape.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared,
            hStream: self.stream,
            attrs: &mut attribute,
            numAttrs: 1,
        };
        // SAFETY: as above; `possible` has found the function, and the configuration, with its attribute, lives until it returns. The
        // kernel waits by itself for those before it, which the tests on the emulated card check in every launch.
        let launched = unsafe { sys::cuLaunchKernelEx(&config, kernel.function, arguments, none) };
        check("cuLaunchKernelEx", launched)
    }
}
